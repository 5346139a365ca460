def options_stage():
    """Options of scripts/stage.py: what this config takes from elsewhere, each once; not what the workflow makes."""
    models = [
        *GRID.policies.values(),
        *GRID.reward_models.values(),
        *GRID.translators.values(),
        *GRID.config.get("judges", []),
    ]
    options, seen = [], set()
    for row in models:
        if "path" in row and not paths_model(row):
            options += ["--model", row["name"], GRID.path(row["path"]), row.get("revision", "-")]
            seen.add(row["path"])
    for path in dict.fromkeys(row["tokenizer"] for row in GRID.config["prompts"] if "tokenizer" in row):
        options += ["--tokenizer", GRID.path(path), "-"] if path not in seen else []
    tasks = [{"split": "test", **task, "dataset": task["source"]} for task in EVALUATION["tasks"] if "source" in task]
    for row in [*GRID.config["prompts"], *tasks]:
        if "dataset" not in row:
            continue
        subset, codes = row.get("subset", "-"), [GRID.config["source_language"]]
        if "{language}" in subset and "use" in row:
            codes = dict.fromkeys([*codes, *filter(functools.partial(GRID.has_prompts, row["use"]), GRID.languages)])
        for code in codes:
            what = [GRID.path(subset, language=code), row.get("revision", "-"), row.get("split", "train")]
            options += ["--dataset", row.get("name", row.get("use")), GRID.path(row["dataset"]), *what]
    suite = list(dict.fromkeys(name for names in GRID.suites.values() for name in names))
    return options + (["--suite", *suite] if suite else [])
