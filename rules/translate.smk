"""Prompts in the languages that have none of their own.

In:  {results}/prompts/{source}/{start}.jsonl, the translator.
Out: {results}/prompts/{language}/{start}.jsonl, and the same under prompts/evaluate/.
"""

for USE, SECTION in SECTIONS.items():
    if not GRID.translated(USE):
        continue

    rule:
        name:
            f"translate_{USE}"
        input:
            prompts=place(f"{SECTION}/{GRID.config['source_language']}/{{start}}.jsonl"),
            languages=ancient(f"{workflow.basedir}/config/languages.tsv"),
            template=find_template("translator", find_translator(USE)["name"]),
            model=list_model_files(find_translator(USE)),
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
            find_environment(find_translator(USE))
        threads: GRID.resource("threads", [find_translator(USE)])
        resources:
            gpu=GRID.resource("gpu", [find_translator(USE)]),
            mem_mb=lambda wc, attempt, use=USE: GRID.resource("mem_mb", [find_translator(use)], attempt),
            runtime=lambda wc, attempt, use=USE: GRID.resource("runtime", [find_translator(use)], attempt),
        params:
            lease=lambda wc, resources, use=USE: lease(resources, find_translator(use)),
            # A function, because a template holds braces.
            model=lambda wc, use=USE: list_model_options(
                find_translator(use), "format", "template", "max_tokens", "longest", "attempts"
            ),
            identity=lambda wc, use=USE: identify_model(find_translator(use)),
            names=name_languages,
            seed=GRID.config["seed"],
            state=STATE,
            code=digest_code("translate"),
            lock=lock_engine(find_translator(USE)),
        message:
            "translate: {output.prompts} ({resources.gpu} GPU)"
        shell:
            r"""
            {params.lease:q} python scripts/translate.py --prompts {input.prompts:q} --language {wildcards.language:q} \
                --languages {input.languages:q} {params.model:q} --seed {params.seed:q} --state {params.state:q} \
                --output {output.prompts:q} 2>&1 | tee {log:q}
            """
