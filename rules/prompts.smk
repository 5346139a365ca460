"""Selects prompts for tuning and evaluation on the source text; they are the same ones in every language.

In:  the config's prompt sources.
Out: {results}/prompts/{language}/{start}.jsonl, blocks, joined in prompts/{language}.jsonl; the same under
     prompts/evaluate/.
"""


include: "helpers/prompts.smk"


for USE, SECTION in SECTIONS.items():

    rule:
        name:
            f"select_{USE}"
        input:
            lambda wc, use=USE: paths_block_inputs(use, wc),
        output:
            prompts=place(f"{SECTION}/{{language}}/{{start}}.jsonl"),
            manifest=place(f"{SECTION}/{{language}}/{{start}}.manifest.json"),
        log:
            place(f"logs/{SECTION}/{{language}}.{{start}}.log"),
        benchmark:
            place(f"benchmarks/{SECTION}/{{language}}.{{start}}.tsv")
        wildcard_constraints:
            language=match_any(code for code in GRID.languages if code not in GRID.translated(USE)),
        conda:
            "../envs/croco.yaml"
        threads: 1
        resources:
            gpu=0,
            mem_mb=4000,
            runtime=60,
        params:
            scripts=path_scripts,
            source=lambda wc, use=USE: options_prompt_source(use, wc.language, wc.start),
            dataset=hash_dataset(USE),
            seed=GRID.config["seed"],
            code=digest_code("prompts"),
            lock=LOCK,
        message:
            "prompts: {output.prompts}"
        shell:
            r"""
            python {params.scripts:q}/prompts.py \
                {params.source:q} \
                --language {wildcards.language:q} \
                --seed {params.seed:q} \
                --output {output.prompts:q} \
                2>&1 | tee {log:q}
            """

    rule:
        name:
            f"gather_prompts_{USE}"
        input:
            parts=paths_blocks(f"{SECTION}/{{language}}/{{start}}.jsonl", USE),
            manifests=paths_blocks(f"{SECTION}/{{language}}/{{start}}.manifest.json", USE),
        output:
            prompts=place(f"{SECTION}/{{language}}.jsonl"),
            manifest=place(f"{SECTION}/{{language}}.manifest.json"),
        log:
            place(f"logs/{SECTION}/{{language}}.log"),
        benchmark:
            place(f"benchmarks/{SECTION}/{{language}}.tsv")
        localrule: True
        conda:
            "../envs/croco.yaml"
        threads: 1
        resources:
            gpu=0,
            mem_mb=1000,
            runtime=30,
        params:
            scripts=path_scripts,
            code=digest_code("gather"),
            lock=LOCK,
        message:
            "prompts: {output.prompts}"
        shell:
            r"""
            python {params.scripts:q}/gather.py \
                --parts {input.parts:q} \
                --output {output.prompts:q} \
                2>&1 | tee {log:q}
            """
