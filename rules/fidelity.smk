"""Measures answers without a judge: their languages, lengths, repetition, self-similarity and rewards.

In:  prompts/evaluate/{language}.jsonl and {run}/answers/{language}.jsonl, of tuned runs and of {model}/untuned/base.
Out: {run}/fidelity/{language}.jsonl, by the texts alone;
     {run}/fidelity/{reward}/{language}.jsonl, raw rewards by the run's reward model (for the base, by all reward models).
"""


include: "helpers/fidelity.smk"


for BATCH, LANGUAGES in evaluation_batches().items():

    rule:
        name:
            f"measure_{BATCH}"
        input:
            prompts=expand(place("prompts/evaluate/{language}.jsonl"), language=LANGUAGES),
            answers=expand(place("{run}/answers/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
        output:
            fidelity=expand(place("{run}/fidelity/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
            manifests=expand(place("{run}/fidelity/{language}.manifest.json"), language=LANGUAGES, allow_missing=True),
        log:
            place(f"logs/fidelity/{{run}}.{'.'.join(LANGUAGES)}.log"),
        benchmark:
            place(f"benchmarks/fidelity/{{run}}.{'.'.join(LANGUAGES)}.tsv")
        wildcard_constraints:
            run=match_batch(BATCH),
        conda:
            "../envs/croco.yaml"
        threads: 1
        resources:
            gpu=0,
            mem_mb=2000,
            runtime=60,
        params:
            scripts=path_scripts,
            languages=LANGUAGES,
            folder=lambda wc: place(f"{wc.run}/fidelity"),
            code=digest_code("fidelity"),
            lock=LOCK,
        message:
            "fidelity: {wildcards.run} in {params.languages}"
        shell:
            r"""
            python {params.scripts:q}/fidelity.py \
                --languages {params.languages:q} \
                --prompts {input.prompts:q} \
                --answers {input.answers:q} \
                --output {params.folder:q} \
                2>&1 | tee {log:q}
            """

    rule:
        name:
            f"score_answers_{BATCH}"
        input:
            prompts=expand(place("prompts/evaluate/{language}.jsonl"), language=LANGUAGES),
            answers=expand(place("{run}/answers/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
            template=path_template("reward", "{reward}"),
            model=lambda wc: paths_model(GRID.reward_models[wc.reward]),
        output:
            scores=expand(place("{run}/fidelity/{reward}/{language}.jsonl"), language=LANGUAGES, allow_missing=True),
            manifests=expand(
                place("{run}/fidelity/{reward}/{language}.manifest.json"), language=LANGUAGES, allow_missing=True
            ),
        log:
            place(f"logs/fidelity/{{run}}.{{reward}}.{'.'.join(LANGUAGES)}.log"),
        benchmark:
            place(f"benchmarks/fidelity/{{run}}.{{reward}}.{'.'.join(LANGUAGES)}.tsv")
        wildcard_constraints:
            run=match_batch(BATCH),
        conda:
            environment_of(*GRID.reward_models.values())
        threads: model_threads(lambda wc: [GRID.reward_models[wc.reward]])
        resources:
            **model_job(lambda wc: [GRID.reward_models[wc.reward]], f"score_answers_{BATCH}"),
        params:
            scripts=path_scripts,
            gpus=lambda wc, resources: options_gpus(resources, GRID.reward_models[wc.reward]),
            model=lambda wc: options_model(GRID.reward_models[wc.reward], "max_length"),
            identity=lambda wc: identify_model(GRID.reward_models[wc.reward]),
            state=STATE,
            code=digest_code("score"),
            lock=lambda wc: lock_engine(GRID.reward_models[wc.reward]),
        message:
            "rewards of answers: {wildcards.run} by {wildcards.reward} ({resources.gpu} GPU)"
        shell:
            r"""
            python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
                python {params.scripts:q}/score.py \
                --apart \
                --prompts {input.prompts:q} \
                --generations {input.answers:q} \
                {params.model:q} \
                --state {params.state:q} \
                --output {output.scores:q} \
                2>&1 | tee {log:q}
            """


prefer_pools("measure")
prefer_pools("score_answers")
