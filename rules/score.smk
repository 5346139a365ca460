"""Rewards of all responses.

In:  prompts, {model}/{language}/generations.jsonl, the reward model.
Out: {model}/{language}/scores/{reward}.jsonl, one line a prompt with a reward or null for each response.
"""


rule score:
    """Raw logits of one reward model on one policy's responses in one language."""
    input:
        prompts=rules.prompts.output.prompts,
        generations=rules.generate.output.generations,
        model=lambda wc: list_model_files(GRID.reward_models[wc.reward]),
    output:
        scores=place("{model}/{language}/scores/{reward}.jsonl"),
        manifest=place("{model}/{language}/scores/{reward}.manifest.json"),
    log:
        place("logs/score/{model}.{language}.{reward}.log"),
    benchmark:
        place("benchmarks/score/{model}.{language}.{reward}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: lambda wc: get_resource(GRID.reward_models[wc.reward], "threads")
    resources:
        gpu=lambda wc: get_resource(GRID.reward_models[wc.reward], "gpu"),
        mem_mb=lambda wc: get_resource(GRID.reward_models[wc.reward], "mem_mb"),
        runtime=lambda wc: get_resource(GRID.reward_models[wc.reward], "runtime"),
    params:
        model=lambda wc: list_model_options(GRID.reward_models[wc.reward]),
        identity=lambda wc: identify_model(GRID.reward_models[wc.reward]),
        options=lambda wc: list_options(GRID.reward_models[wc.reward], "max_length", "batch"),
        state=STATE,
        code=digest_code("score"),
        lock=LOCK,
    message:
        "score: {wildcards.model}, {wildcards.language}, by {wildcards.reward}"
    shell:
        r"""
        python scripts/score.py --prompts {input.prompts:q} --generations {input.generations:q} \
            {params.model:q} {params.options:q} --state {params.state:q} --output {output.scores:q} 2>&1 | tee {log:q}
        """
