"""Evaluates the untuned policies and every checkpoint: answers to the evaluation prompts, and structured tasks.

In:  prompts/evaluate/{language}.jsonl, task data, the policy and a run's checkpoint.
Out: {run}/answers/{language}.jsonl, {run}/eval/{language}.json and {language}.samples.jsonl

A job evaluates a whole pool of languages with one model load. Each language outside a run's pools is a separate job,
so that a new language never affects a finished evaluation.
"""


include: "helpers/evaluate.smk"


for BATCH, LANGUAGES in evaluation_batches().items():

    rule:
        name:
            f"evaluate_{BATCH}"
        input:
            prompts=expand(place("prompts/evaluate/{language}.jsonl"), language=LANGUAGES),
            tasks=lambda wc, languages=LANGUAGES: paths_tasks(wc, languages),
            yamls=lambda wc, languages=LANGUAGES: paths_task_files(wc, languages),
            models=wait_for_checks(f"{{run}}/answers/{LANGUAGES[0]}.jsonl"),
            template=lambda wc: place(f"{find_run(wc).model}/template.json"),
            model=lambda wc: paths_model(GRID.policies[find_run(wc).model]),
            tuned=lambda wc: paths_checkpoint(find_run(wc)),
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
            environment_of(*GRID.policies.values())
        threads: model_threads(lambda wc: [EVALUATION, GRID.policies[find_run(wc).model]])
        resources:
            **model_job(lambda wc: [EVALUATION, GRID.policies[find_run(wc).model]], f"evaluate_{BATCH}"),
        params:
            scripts=path_scripts,
            gpus=lambda wc, resources: options_gpus(resources, EVALUATION, GRID.policies[find_run(wc).model]),
            languages=LANGUAGES,
            model=options_evaluated_model,
            identity=lambda wc: identify_model(GRID.policies[find_run(wc).model]),
            options=options_answers,
            tasks=lambda wc, languages=LANGUAGES: options_tasks(wc, languages),
            seed=GRID.config["seed"],
            folder=lambda wc: place(f"{wc.run}"),
            state=STATE,
            code=digest_code("evaluate"),
            lock=lambda wc: lock_engine(GRID.policies[find_run(wc).model]),
        message:
            "evaluate: {wildcards.run} in {params.languages} ({resources.gpu} GPU)"
        shell:
            r"""
            python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
                python {params.scripts:q}/evaluate.py \
                {params.model:q} \
                --languages {params.languages:q} \
                --prompts {input.prompts:q} \
                {params.options:q} \
                {params.tasks:q} \
                --seed {params.seed:q} \
                --state {params.state:q} \
                --output {params.folder:q} \
                2>&1 | tee {log:q}
            """


prefer_pools("evaluate")
