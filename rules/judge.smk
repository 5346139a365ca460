"""Pairwise verdicts on a tuned model's answers against those of the policy before tuning.

In:  {run}/answers/{language}.jsonl of the run and of {model}/untuned/base
Out: {run}/arena/{language}.jsonl
"""

for BATCH, LANGUAGES in list_batches().items():

    rule:
        name:
            f"judge_{BATCH}"
        input:
            answers=expand(place("{run}/answers/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
            baseline=lambda wc, languages=LANGUAGES: list_baseline_answers(wc, languages),
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
            "../envs/croco.yaml"
        threads: 1
        resources:
            gpu=0,
            mem_mb=2000,
            runtime=30,
        params:
            judge=EVALUATION["judge"],
            languages=LANGUAGES,
            folder=lambda wc: place(f"{wc.run}/arena"),
            code=digest_code("judge"),
            lock=LOCK,
        message:
            "judge: {wildcards.run} in {params.languages}"
        shell:
            r"""
            python scripts/judge.py --judge {params.judge:q} --languages {params.languages:q} \
                --answers {input.answers:q} --baseline {input.baseline:q} \
                --output {params.folder:q} 2>&1 | tee {log:q}
            """
