"""Prompts to tune on and to evaluate with, selected alike in every language.

In:  the config's prompt sources.
Out: {results}/prompts/{language}.jsonl and {results}/prompts/evaluate/{language}.jsonl
"""


rule prompts:
    """The prompts that are tuned on."""
    input:
        source=lambda wc: GRID.path(GRID.prompts["train"]["path"], language=wc.language),
        leading=GRID.path(GRID.prompts["train"]["path"], language=GRID.config["source_language"]),
    output:
        prompts=place("prompts/{language}.jsonl"),
        manifest=place("prompts/{language}.manifest.json"),
    log:
        place("logs/prompts/{language}.log"),
    benchmark:
        place("benchmarks/prompts/{language}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=10,
    params:
        options=list_options(GRID.prompts["train"], "columns", "id", "text", "reference", "limit"),
        seed=GRID.config["seed"],
        code=digest_code("prompts"),
        lock=LOCK,
    message:
        "prompts: {wildcards.language}"
    shell:
        r"""
        python scripts/prompts.py --input {input.source:q} --parallel-to {input.leading:q} \
            --language {wildcards.language:q} {params.options:q} --seed {params.seed:q} \
            --output {output.prompts:q} 2>&1 | tee {log:q}
        """


use rule prompts as evaluation_prompts with:
    input:
        source=lambda wc: GRID.path(GRID.prompts["evaluate"]["path"], language=wc.language),
        leading=GRID.path(GRID.prompts["evaluate"]["path"], language=GRID.config["source_language"]),
    output:
        prompts=place("prompts/evaluate/{language}.jsonl"),
        manifest=place("prompts/evaluate/{language}.manifest.json"),
    log:
        place("logs/prompts/evaluate/{language}.log"),
    benchmark:
        place("benchmarks/prompts/evaluate/{language}.tsv")
    params:
        options=list_options(GRID.prompts["evaluate"], "columns", "id", "text", "reference", "limit"),
    message:
        "evaluation prompts: {wildcards.language}"
