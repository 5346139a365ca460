"""Rewards of all responses.

In:  prompts/{language}/{start}.jsonl, {policy}/{language}/generations/{start}.jsonl, the reward model.
Out: {policy}/{language}/scores/{reward}/{start}.jsonl, joined in scores/{reward}.jsonl: one line per prompt with a
     reward or null for each response.
"""


rule score:
    """Computes raw logits of one reward model for one policy's responses to a block of prompts."""
    input:
        prompts=place("prompts/{language}/{start}.jsonl"),
        generations=rules.generate.output.generations,
        template=path_template("reward", "{reward}"),
        model=lambda wc: paths_model(GRID.reward_models[wc.reward]),
    output:
        scores=place("{policy}/{language}/scores/{reward}/{start}.jsonl"),
        manifest=place("{policy}/{language}/scores/{reward}/{start}.manifest.json"),
    log:
        place("logs/score/{policy}.{language}.{reward}.{start}.log"),
    benchmark:
        place("benchmarks/score/{policy}.{language}.{reward}.{start}.tsv")
    conda:
        environment_of(*GRID.reward_models.values())
    threads: model_threads(lambda wc: [GRID.reward_models[wc.reward]])
    resources:
        **model_job(lambda wc: [GRID.reward_models[wc.reward]], "score"),
    params:
        scripts=path_scripts,
        gpus=lambda wc, resources: options_gpus(resources, GRID.reward_models[wc.reward]),
        model=lambda wc: options_model(GRID.reward_models[wc.reward], "max_length"),
        identity=lambda wc: identify_model(GRID.reward_models[wc.reward]),
        state=STATE,
        code=digest_code("score"),
        lock=lambda wc: lock_engine(GRID.reward_models[wc.reward]),
    message:
        "score: {wildcards.policy}, {wildcards.language}, prompts from {wildcards.start}, by {wildcards.reward} ({resources.gpu} GPU)"
    shell:
        r"""
        python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
            python {params.scripts:q}/score.py \
            --prompts {input.prompts:q} \
            --generations {input.generations:q} \
            {params.model:q} \
            --state {params.state:q} \
            --output {output.scores:q} \
            2>&1 | tee {log:q}
        """


use rule gather_generations as gather_scores with:
    input:
        prompts=place("prompts/{language}.jsonl"),
        parts=paths_blocks("{policy}/{language}/scores/{reward}/{start}.jsonl"),
        manifests=paths_blocks("{policy}/{language}/scores/{reward}/{start}.manifest.json"),
    output:
        gathered=place("{policy}/{language}/scores/{reward}.jsonl"),
        manifest=place("{policy}/{language}/scores/{reward}.manifest.json"),
    log:
        place("logs/score/{policy}.{language}.{reward}.log"),
    benchmark:
        place("benchmarks/score/{policy}.{language}.{reward}.tsv")
    localrule: True
