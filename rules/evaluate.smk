"""Answers to the evaluation prompts and structured tasks, of the untuned policies and of every checkpoint.

In:  prompts/evaluate/{language}.jsonl, task data, the policy and a run's checkpoint.
Out: {run}/answers/{language}.jsonl, {run}/eval/{language}.json and {language}.samples.jsonl

A job evaluates a whole pool of languages with one model load. Languages outside a run's pools are jobs of their
own, so that a new language never touches a finished evaluation.
"""

EVALUATION = GRID.config["evaluation"]


def list_adapter_files(wildcards):
    tuned = find_run(wildcards).row["objective"] != "none"
    return [place(f"{wildcards.run}/checkpoint/{name}") for name in ADAPTER_FILES[:2] if tuned]


def list_task_options():
    """--task NAME YAML DATA for each structured task; {language} stays for the script to fill in."""
    return [
        part
        for task in EVALUATION["tasks"]
        for part in ("--task", task["name"], task["yaml"], GRID.path(task["data"]))
    ]


for BATCH, LANGUAGES in list_batches().items():

    rule:
        name:
            f"evaluate_{BATCH}"
        input:
            prompts=expand(rules.evaluation_prompts.output.prompts, language=LANGUAGES),
            tasks=[GRID.path(task["data"], language=code) for task in EVALUATION["tasks"] for code in LANGUAGES],
            yamls=[task["yaml"] for task in EVALUATION["tasks"]],
            model=lambda wc: list_model_files(GRID.policies[find_run(wc).model]),
            adapter=list_adapter_files,
        output:
            answers=expand(place("{run}/answers/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
            results=expand(
                place("{run}/eval/{language}.{kind}"),
                kind=["json", "samples.jsonl", "manifest.json"],
                language=LANGUAGES,
                allow_missing=True,
            ),
        log:
            place(f"logs/evaluate/{{run}}.{'.'.join(LANGUAGES)}.log"),
        benchmark:
            place(f"benchmarks/evaluate/{{run}}.{'.'.join(LANGUAGES)}.tsv")
        wildcard_constraints:
            run=match_batch(BATCH),
        params:
            languages=LANGUAGES,
            model=lambda wc: list_model_options(GRID.policies[find_run(wc).model]),
            identity=lambda wc: identify_model(GRID.policies[find_run(wc).model]),
            adapter=lambda wc: ["--adapter", place(f"{wc.run}/checkpoint")] if list_adapter_files(wc) else [],
            options=list_options(EVALUATION, "samples", "temperature", "max_tokens", "batch"),
            tasks=lambda wc: list_task_options(),
            seed=GRID.config["seed"],
            folder=place("{run}"),
            code=digest_code("evaluate"),
            lock=LOCK,
        threads: get_resource(EVALUATION, "threads")
        resources:
            gpu=get_resource(EVALUATION, "gpu"),
            mem_mb=get_resource(EVALUATION, "mem_mb"),
            runtime=get_resource(EVALUATION, "runtime"),
        message:
            "evaluate: {wildcards.run} in {params.languages}"
        shell:
            r"""
            python {SCRIPTS:q}/evaluate.py {params.model:q} {params.adapter:q} --languages {params.languages:q} \
                --prompts {input.prompts:q} {params.options:q} {params.tasks:q} --seed {params.seed:q} \
                --state {STATE:q} --output {params.folder:q} 2>&1 | tee {log:q}
            """
