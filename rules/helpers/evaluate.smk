from croco.evaluation.task_files import list_files


def paths_task_files(wildcards, languages):
    """The YAML of the own structured tasks in a job's languages, with the files that it includes and takes code from."""
    yamls = [task["yaml"] for task, _ in GRID.own_tasks(fill(languages, wildcards))]
    # Snakemake names a file that is missing.
    return [str(path) for yaml in yamls for path in (list_files(yaml) if Path(yaml).is_file() else [yaml])]


def evaluation_batches():
    """{name: languages} of evaluation jobs: one per multilingual pool, and one for a single language."""
    names = {name for run in GRID.runs.values() for name in run.batches}
    pools = {row["name"]: row["languages"] for row in GRID.config["pools"] if row["name"] in names}
    return {"language": ["{language}"], **pools}


def match_batch(batch):
    """A regex of the runs with evaluation jobs of this name; of any single language for `language`."""
    names = GRID.languages if batch == "language" else [batch]
    return match_any(name for name, run in GRID.runs.items() if not run.batches.keys().isdisjoint(names))


def prefer_pools(stage):
    """If a run's languages form a pool, its job makes their files instead of the jobs of single languages."""
    for batch in evaluation_batches():
        if batch != "language":
            workflow.ruleorder(f"{stage}_{batch}", f"{stage}_language")  # as the directive, which takes no variables


def options_evaluated_model(wildcards):
    """Options for the model of a run: the policy with its adapter, or a checkpoint of all weights."""
    run = find_run(wildcards)
    row, checkpoint = GRID.policies[run.model], place(f"{run.name}/checkpoint")
    if run.is_base:
        return options_model(row)
    if GRID.recipe_of(run)["weights"] == "full":
        return options_model({**row, "path": checkpoint, "revision": None})
    return [*options_model(row), "--adapter", checkpoint]


def options_answers(wildcards):
    """Options of how a run's model answers evaluation prompts; its policy may have a temperature of its own."""
    row = {**EVALUATION, **GRID.policies[find_run(wildcards).model]["answers"]}
    return options_of(row, "samples", "temperature", "max_tokens", "batch")


def options_tasks(wildcards, languages):
    """--task NAME YAML DATA [LANGUAGE ...] for each own task, --suite LANGUAGE TASK ... for each language."""
    languages, options = fill(languages, wildcards), []
    for task, codes in GRID.own_tasks(languages):
        options += ["--task", task["name"], task["yaml"], GRID.task_file(task), *(codes if codes != languages else [])]
    trusted = [task["name"] for task, _ in GRID.own_tasks(languages) if task["trust_task_code"]]
    options += ["--trust-task-code", *trusted] if trusted else []
    for code in languages:
        options += ["--suite", code, *GRID.suites[code]] if GRID.suites.get(code) else []
    return options + options_of(EVALUATION if "--suite" in options else {}, "suite_limit")
