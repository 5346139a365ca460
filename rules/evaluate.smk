"""Answers to the evaluation prompts and structured tasks, of the untuned policies and of every checkpoint.

In:  prompts/evaluate/{language}.jsonl, task data, the policy and a run's checkpoint.
Out: {run}/answers/{language}.jsonl, {run}/eval/{language}.json and {language}.samples.jsonl

A job evaluates a whole pool of languages with one model load. Languages outside a run's pools are jobs of their
own, so that a new language never touches a finished evaluation.
"""

for BATCH, LANGUAGES in list_batches().items():

    rule:
        name:
            f"evaluate_{BATCH}"
        input:
            prompts=expand(place("prompts/evaluate/{language}.jsonl"), language=LANGUAGES),
            tasks=lambda wc, languages=LANGUAGES: list_task_files(wc, languages),
            yamls=lambda wc, languages=LANGUAGES: list_task_files(wc, languages, "yaml"),
            model=lambda wc: list_model_files(GRID.policies[find_run(wc).model]),
            tuned=lambda wc: list_checkpoint(find_run(wc)),
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
        conda:
            find_environment(*GRID.policies.values())
        threads: lambda wc: GRID.resource("threads", [EVALUATION, GRID.policies[find_run(wc).model]])
        resources:
            gpu=lambda wc: GRID.resource("gpu", [EVALUATION, GRID.policies[find_run(wc).model]]),
            mem_mb=lambda wc, attempt: GRID.resource("mem_mb", [EVALUATION, GRID.policies[find_run(wc).model]], attempt),
            runtime=lambda wc, attempt: GRID.resource(
                "runtime", [EVALUATION, GRID.policies[find_run(wc).model]], attempt
            ),
        params:
            lease=lambda wc, resources: lease(resources, EVALUATION, GRID.policies[find_run(wc).model]),
            languages=LANGUAGES,
            model=list_evaluated_model,
            identity=lambda wc: identify_model(GRID.policies[find_run(wc).model]),
            options=list_options(EVALUATION, "samples", "temperature", "max_tokens", "batch"),
            tasks=lambda wc, languages=LANGUAGES: list_task_options(wc, languages),
            seed=GRID.config["seed"],
            folder=lambda wc: place(f"{wc.run}"),
            state=STATE,
            code=digest_code("evaluate"),
            lock=lambda wc: lock_engine(GRID.policies[find_run(wc).model]),
        message:
            "evaluate: {wildcards.run} in {params.languages} ({resources.gpu} GPU)"
        shell:
            r"""
            {params.lease:q} python scripts/evaluate.py {params.model:q} --languages {params.languages:q} \
                --prompts {input.prompts:q} {params.options:q} {params.tasks:q} --seed {params.seed:q} \
                --state {params.state:q} --output {params.folder:q} 2>&1 | tee {log:q}
            """
