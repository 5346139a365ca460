"""Pairwise verdicts on a tuned model's answers against those of the policy before tuning.

In:  {run}/answers/{language}.jsonl of the run and of {model}/untuned/base, prompts/evaluate/{language}.jsonl, the judge
Out: {run}/arena/{language}.jsonl: one line per prompt, all seen from the tuned model

A judge model's replies are kept under state/, keyed by the two answers. So a killed job resumes, and new languages need
only their own replies.
"""


include: "helpers/judge.smk"


for BATCH, LANGUAGES in evaluation_batches().items():

    rule:
        name:
            f"judge_{BATCH}"
        input:
            answers=expand(place("{run}/answers/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
            baseline=lambda wc, languages=LANGUAGES: paths_baseline_answers(wc, languages),
            prompts=expand(place("prompts/evaluate/{language}.jsonl"), language=LANGUAGES),
            prompt=[GRID.judge["prompt"]] if GRID.judge else [],
            template=[path_template("judge", GRID.judge["name"])] if GRID.judge else [],
            model=paths_model(GRID.judge) if GRID.judge else [],
        output:
            arena=expand(place("{run}/arena/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
            manifests=expand(place("{run}/arena/{language}.manifest.json"), language=LANGUAGES, allow_missing=True),
        log:
            place(f"logs/judge/{{run}}.{'.'.join(LANGUAGES)}.log"),
        benchmark:
            place(f"benchmarks/judge/{{run}}.{'.'.join(LANGUAGES)}.tsv")
        wildcard_constraints:
            run=match_batch(BATCH),
        conda:
            environment_of(JUDGE)
        threads: model_threads([JUDGE])
        resources:
            **model_job([JUDGE], f"judge_{BATCH}"),
        params:
            scripts=path_scripts,
            gpus=lambda wc, resources: options_gpus(resources, JUDGE),
            judge=lambda wc, languages=LANGUAGES: options_judge([code.format(**wc) for code in languages]),
            identity=lambda wc: identify_model(JUDGE) if GRID.judge else None,
            languages=LANGUAGES,
            state=STATE,
            folder=lambda wc: place(f"{wc.run}/arena"),
            code=digest_code("judge"),
            lock=lock_engine(JUDGE),
        message:
            "judge: {wildcards.run} in {params.languages} ({resources.gpu} GPU)"
        shell:
            r"""
            python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
                python {params.scripts:q}/judge.py \
                {params.judge:q} \
                --languages {params.languages:q} \
                --prompts {input.prompts:q} \
                --answers {input.answers:q} \
                --baseline {input.baseline:q} \
                --state {params.state:q} \
                --output {params.folder:q} \
                2>&1 | tee {log:q}
            """


prefer_pools("judge")
