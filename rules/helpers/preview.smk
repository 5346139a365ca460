def paths_previews(wildcards):
    """One page per tuned policy and setting that pairs responses of single languages by their raw rewards."""
    pages = [
        place(f"preview/{run.model}/{run.part}.html")
        for run in GRID.runs.values()
        if "rejected" in run.row and not run.row["standardise"]
        if run.pool in GRID.trained and run.replicate == run.round == 1
    ]
    if not pages:
        raise WorkflowError(
            "preview shows pairs of single languages, by raw rewards: add a setting with `pools: [monolingual]`, "
            "without match and standardise"
        )
    return sorted(set(pages))


def previewed_runs(wildcards):
    """The setting's runs whose pool is one language."""
    names = [f"{wildcards.model}/{code}/{wildcards.setting}" for code in GRID.trained]
    return [GRID.runs[name] for name in names if name in GRID.runs]


def paths_previewed(wildcards, name):
    """The files that a preview shows, one for each language."""
    runs = previewed_runs(wildcards)
    model, reward = runs[0].responses, runs[0].reward_model
    patterns = {
        "prompts": "prompts/{language}.jsonl",
        "generations": f"{model}/{{language}}/generations.jsonl",
        "scores": f"{model}/{{language}}/scores/{reward}.jsonl",
        "pairs": f"{wildcards.model}/{{language}}/{wildcards.setting}/pairs.jsonl",
        "ledger": f"{wildcards.model}/{{language}}/{wildcards.setting}/ledger.json",
        "identified": f"{model}/{{language}}/languages.jsonl",
    }
    wanted = name != "identified" or GRID.identifies(runs[0])
    return [place(patterns[name].format(language=run.pool)) for run in runs if wanted]


def paths_votes():
    """Filled ballots in the folder preview.votes."""
    folder = GRID.config["preview"].get("votes")
    return sorted(map(str, Path(GRID.path(folder)).glob("*.csv"))) if folder else []
