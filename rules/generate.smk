"""Responses of the untuned policies.

In:  prompts/{language}.jsonl, the policy.
Out: {model}/{language}/generations.jsonl, one line a prompt with its N responses.
"""


rule generate:
    """N samples for each prompt of one language; chunks under state/ survive a kill."""
    input:
        prompts=rules.prompts.output.prompts,
        model=lambda wc: list_model_files(GRID.policies[wc.model]),
    output:
        generations=place("{model}/{language}/generations.jsonl"),
        manifest=place("{model}/{language}/generations.manifest.json"),
    log:
        place("logs/generate/{model}.{language}.log"),
    benchmark:
        place("benchmarks/generate/{model}.{language}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: lambda wc: get_resource(GRID.policies[wc.model], "threads")
    resources:
        gpu=lambda wc: get_resource(GRID.policies[wc.model], "gpu"),
        mem_mb=lambda wc: get_resource(GRID.policies[wc.model], "mem_mb"),
        runtime=lambda wc: get_resource(GRID.policies[wc.model], "runtime"),
    params:
        model=lambda wc: list_model_options(GRID.policies[wc.model]),
        identity=lambda wc: identify_model(GRID.policies[wc.model]),
        options=lambda wc: list_options(GRID.policies[wc.model], "temperature", "top_p", "max_tokens", "batch"),
        samples=GRID.config["samples"],
        seed=GRID.config["seed"],
        state=STATE,
        code=digest_code("generate"),
        lock=LOCK,
    message:
        "generate: {wildcards.model}, {wildcards.language}"
    shell:
        r"""
        python scripts/generate.py --prompts {input.prompts:q} {params.model:q} {params.options:q} \
            --samples {params.samples:q} --seed {params.seed:q} --state {params.state:q} \
            --output {output.generations:q} 2>&1 | tee {log:q}
        """
