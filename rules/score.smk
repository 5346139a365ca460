"""Rewards of all responses.

In:  prompts/{language}/{start}.jsonl, {policy}/{language}/generations/{start}.jsonl, the reward model.
Out: {policy}/{language}/scores/{reward}/{start}.jsonl, joined in scores/{reward}.jsonl: one line a prompt with a
     reward or null for each response.
"""


rule score:
    """Raw logits of one reward model on one policy's responses to a block of prompts."""
    input:
        prompts=place("prompts/{language}/{start}.jsonl"),
        generations=rules.generate.output.generations,
        template=find_template("reward", "{reward}"),
        model=lambda wc: list_model_files(GRID.reward_models[wc.reward]),
    output:
        scores=place("{policy}/{language}/scores/{reward}/{start}.jsonl"),
        manifest=place("{policy}/{language}/scores/{reward}/{start}.manifest.json"),
    log:
        place("logs/score/{policy}.{language}.{reward}.{start}.log"),
    benchmark:
        place("benchmarks/score/{policy}.{language}.{reward}.{start}.tsv")
    conda:
        find_environment(*GRID.reward_models.values())
    threads: lambda wc: GRID.resource("threads", [GRID.reward_models[wc.reward]])
    resources:
        gpu=lambda wc: GRID.resource("gpu", [GRID.reward_models[wc.reward]]),
        mem_mb=lambda wc, attempt: GRID.resource("mem_mb", [GRID.reward_models[wc.reward]], attempt),
        runtime=lambda wc, attempt: GRID.resource("runtime", [GRID.reward_models[wc.reward]], attempt),
    params:
        lease=lambda wc, resources: lease(resources, GRID.reward_models[wc.reward]),
        model=lambda wc: list_model_options(GRID.reward_models[wc.reward], "max_length"),
        identity=lambda wc: identify_model(GRID.reward_models[wc.reward]),
        state=STATE,
        code=digest_code("score"),
        lock=lambda wc: lock_engine(GRID.reward_models[wc.reward]),
    message:
        "score: {wildcards.policy}, {wildcards.language}, prompts from {wildcards.start}, by {wildcards.reward} ({resources.gpu} GPU)"
    shell:
        r"""
        {params.lease:q} python scripts/score.py --prompts {input.prompts:q} --generations {input.generations:q} \
            {params.model:q} --state {params.state:q} --output {output.scores:q} 2>&1 | tee {log:q}
        """


use rule gather_generations as gather_scores with:
    input:
        prompts=place("prompts/{language}.jsonl"),
        parts=list_blocks("{policy}/{language}/scores/{reward}/{start}.jsonl"),
        manifests=list_blocks("{policy}/{language}/scores/{reward}/{start}.manifest.json"),
    output:
        gathered=place("{policy}/{language}/scores/{reward}.jsonl"),
        manifest=place("{policy}/{language}/scores/{reward}.manifest.json"),
    log:
        place("logs/score/{policy}.{language}.{reward}.log"),
    benchmark:
        place("benchmarks/score/{policy}.{language}.{reward}.tsv")
