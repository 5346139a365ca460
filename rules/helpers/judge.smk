# The row of a judge model. The oracle has none and needs few resources.
JUDGE = GRID.judge or {"engine": "transformers", "dtype": "float32", "resources": {"mem_mb": 2000, "runtime": 30}}


def options_judge(languages):
    """Options of scripts/judge.py: the judge, and for a model how it is asked."""
    options = ["--judge", EVALUATION["judge"]]
    if translated := [code for code in languages if code in GRID.translated("evaluate")]:
        options += ["--translated", *translated]
    if GRID.judge:
        options += options_model(GRID.judge, "max_tokens", "max_length", "temperature", "orders")
        options += ["--seed", str(GRID.config["seed"])]
        options += ["--template", GRID.judge["prompt"], *options_of(EVALUATION, "max_unparseable")]
        options += ["--names", *(GRID.known_languages[code]["name"] for code in languages)]
    return options


def paths_baseline_answers(wildcards, languages):
    base = GRID.base(find_run(wildcards).model).name
    return [place(f"{base}/answers/{language.format(**wildcards)}.jsonl") for language in languages]
