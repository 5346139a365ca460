"""Translates prompts for languages that have no prompt file of their own.

In:  {results}/prompts/{source}/{start}.jsonl, the translator.
Out: {results}/prompts/{language}/{start}.jsonl, and the same under prompts/evaluate/.
"""


include: "helpers/translate.smk"


for USE, SECTION in SECTIONS.items():
    if not GRID.translated(USE):
        continue

    rule:
        name:
            f"translate_{USE}"
        input:
            prompts=place(f"{SECTION}/{GRID.config['source_language']}/{{start}}.jsonl"),
            template=path_template("translator", translator_of(USE)["name"]),
            models=wait_for_checks(f"{SECTION}/{{language}}/{{start}}.jsonl"),
            model=paths_model(translator_of(USE)),
        output:
            prompts=place(f"{SECTION}/{{language}}/{{start}}.jsonl"),
            manifest=place(f"{SECTION}/{{language}}/{{start}}.manifest.json"),
        log:
            place(f"logs/{SECTION}/{{language}}.{{start}}.log"),
        benchmark:
            place(f"benchmarks/{SECTION}/{{language}}.{{start}}.tsv")
        wildcard_constraints:
            language=match_any(GRID.translated(USE)),
        conda:
            environment_of(translator_of(USE))
        threads: model_threads([translator_of(USE)])
        resources:
            **model_job([translator_of(USE)], f"translate_{USE}"),
        params:
            scripts=path_scripts,
            table=path_languages,
            gpus=lambda wc, resources, use=USE: options_gpus(resources, translator_of(use)),
            # A function, because a template contains braces.
            model=lambda wc, use=USE: options_model(
                translator_of(use), "format", "template", "max_tokens", "longest", "attempts"
            ),
            identity=lambda wc, use=USE: identify_model(translator_of(use)),
            names=name_languages,
            seed=GRID.config["seed"],
            state=STATE,
            code=digest_code("translate"),
            lock=lock_engine(translator_of(USE)),
        message:
            "translate: {output.prompts} ({resources.gpu} GPU)"
        shell:
            r"""
            python {params.scripts:q}/with_gpus.py {params.gpus:q} -- \
                python {params.scripts:q}/translate.py \
                --prompts {input.prompts:q} \
                --language {wildcards.language:q} \
                --languages {params.table:q} \
                {params.model:q} \
                --seed {params.seed:q} \
                --state {params.state:q} \
                --output {output.prompts:q} \
                2>&1 | tee {log:q}
            """
