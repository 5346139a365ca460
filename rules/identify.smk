"""Identifies the languages of the responses.

In:  prompts/{language}/{start}.jsonl, {policy}/{language}/generations/{start}.jsonl
Out: {policy}/{language}/languages/{start}.jsonl, joined in {policy}/{language}/languages.jsonl
"""


rule identify:
    """A language, or null, for each response of a block."""
    input:
        prompts=place("prompts/{language}/{start}.jsonl"),
        generations=rules.generate.output.generations,
    output:
        languages=place("{policy}/{language}/languages/{start}.jsonl"),
        manifest=place("{policy}/{language}/languages/{start}.manifest.json"),
    log:
        place("logs/identify/{policy}.{language}.{start}.log"),
    benchmark:
        place("benchmarks/identify/{policy}.{language}.{start}.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=60,
    params:
        scripts=path_scripts,
        code=digest_code("identify"),
        lock=LOCK,
    message:
        "identify: {wildcards.policy}, {wildcards.language}, prompts from {wildcards.start}"
    shell:
        r"""
        python {params.scripts:q}/identify.py \
            --prompts {input.prompts:q} \
            --generations {input.generations:q} \
            --language {wildcards.language:q} \
            --processes {threads:q} \
            --output {output.languages:q} \
            2>&1 | tee {log:q}
        """


use rule gather_generations as gather_languages with:
    input:
        prompts=place("prompts/{language}.jsonl"),
        parts=paths_blocks("{policy}/{language}/languages/{start}.jsonl"),
        manifests=paths_blocks("{policy}/{language}/languages/{start}.manifest.json"),
    output:
        gathered=place("{policy}/{language}/languages.jsonl"),
        manifest=place("{policy}/{language}/languages.manifest.json"),
    log:
        place("logs/identify/{policy}.{language}.log"),
    benchmark:
        place("benchmarks/identify/{policy}.{language}.tsv")
    localrule: True
