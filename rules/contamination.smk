"""Counts training prompts that are part of the evaluation data, before anything is sampled.

In:  prompts/{language}/{start}.jsonl, prompts/evaluate/{language}.jsonl, data of the config's own tasks.
Out: {results}/prompts/{language}/{start}.contamination.json, which sampling and pairing wait for; contamination.json

Each block of a language is checked separately, so that a new language or more prompts never affect finished checks.
"""


include: "helpers/contamination.smk"


rule check_contamination:
    """Compares one block with its language's evaluation prompts and tasks; fails above the shares of max_overlap."""
    input:
        prompts=place("prompts/{language}/{start}.jsonl"),
        evaluate=place("prompts/evaluate/{language}.jsonl"),
        tasks=lambda wc: paths_tasks(wc, [wc.language]),
    output:
        found=place("prompts/{language}/{start}.contamination.json"),
        manifest=place("prompts/{language}/{start}.contamination.manifest.json"),
    log:
        place("logs/prompts/{language}.{start}.contamination.log"),
    benchmark:
        place("benchmarks/prompts/{language}.{start}.contamination.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    params:
        scripts=path_scripts,
        tasks=lambda wc: [
            part
            for task, _ in GRID.own_tasks([wc.language])
            for part in ("--task", task["name"], GRID.task_file(task, wc.language), *question_fields(task))
        ],
        limits=options_of(
            {**GRID.config["max_overlap"], "action": GRID.config["contamination"]}, "exact", "ngram", "action"
        ),
        code=digest_code("contamination"),
        lock=LOCK,
    message:
        "contamination: {wildcards.language}, prompts from {wildcards.start}"
    shell:
        r"""
        python {params.scripts:q}/contamination.py \
            --language {wildcards.language:q} \
            --prompts {input.prompts:q} \
            --evaluate {input.evaluate:q} \
            {params.tasks:q} \
            {params.limits:q} \
            --output {output.found:q} \
            2>&1 | tee {log:q}
        """


rule count_contamination:
    """Adds up all blocks, and lists the evaluations that could not be compared."""
    input:
        checked=paths_contamination(GRID.trained, GRID.blocks("train")),
    output:
        found=place("contamination.json"),
        manifest=place("contamination.manifest.json"),
    log:
        place("logs/contamination.log"),
    benchmark:
        place("benchmarks/contamination.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=10,
    params:
        scripts=path_scripts,
        unchecked=[
            *dict.fromkeys(name for names in GRID.suites.values() for name in names),
            *(f"{row['name']} (imported)" for row in GRID.config["imports"]),
        ],
        code=digest_code("contamination"),
        lock=LOCK,
    message:
        "contamination: {output.found}"
    shell:
        r"""
        python {params.scripts:q}/contamination.py \
            --checked {input.checked:q} \
            --unchecked {params.unchecked:q} \
            --output {output.found:q} \
            2>&1 | tee {log:q}
        """
