"""Forms the training data of a setting, and the ledger that counts everything that was not used.

In:  prompts, generations and scores of the pool's languages; the pairs of the setting that this one is matched to.
Out: {model}/{pool}/{setting}/pairs.jsonl (DPO), completions.jsonl (SFT) or prompts.jsonl (online DPO), ledger.json
"""


include: "helpers/pairs.smk"


rule build_pairs:
    """Forms a chosen and a rejected response for each prompt."""
    input:
        prompts=lambda wc: paths_pool(wc, "prompts/{language}.jsonl"),
        generations=lambda wc: paths_scored(wc, "{model}/{language}/generations.jsonl"),
        scores=lambda wc: paths_scored(wc, "{model}/{language}/scores/{reward}.jsonl"),
        identified=paths_languages,
        match=paths_matched,
        exclude=lambda wc: paths_contamination(find_run(wc).languages, GRID.blocks("train")),
        policies=lambda wc: paths_scored(wc, "{model}/{language}/generations.manifest.json"),
    output:
        data=place("{model}/{pool}/{setting}/pairs.jsonl"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        manifest=place("{model}/{pool}/{setting}/pairs.manifest.json"),
    log:
        place("logs/pairs/{model}.{pool}.{setting}.log"),
    benchmark:
        place("benchmarks/pairs/{model}.{pool}.{setting}.tsv")
    wildcard_constraints:
        setting=match_settings("pair"),
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=60,
    params:
        scripts=path_scripts,
        files=lambda wc, input: [
            part
            for name in ("prompts", "generations", "scores", "identified", "match", "exclude")
            if input.get(name)
            for part in (f"--{name}", *input.get(name))
        ],
        options=lambda wc: options_of({**find_run(wc).row, "seed": find_run(wc).seed}, *PAIRING_KEYS, "seed"),
        hygiene=lambda wc: GRID.hygiene_of(find_run(wc)) or "paper",
        code=digest_code("build_pairs"),
        lock=LOCK,
    message:
        "pairs: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
    shell:
        r"""
        python {params.scripts:q}/build_pairs.py \
            {params.files:q} \
            {params.options:q} \
            --hygiene {params.hygiene:q} \
            --output {output.data:q} \
            --ledger {output.ledger:q} \
            2>&1 | tee {log:q}
        """


use rule build_pairs as build_completions with:
    output:
        data=place("{model}/{pool}/{setting}/completions.jsonl"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        manifest=place("{model}/{pool}/{setting}/completions.manifest.json"),
    wildcard_constraints:
        setting=match_settings("reference", "best"),
    message:
        "completions: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"


use rule build_pairs as build_prompts with:
    output:
        data=place("{model}/{pool}/{setting}/prompts.jsonl"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        manifest=place("{model}/{pool}/{setting}/prompts.manifest.json"),
    wildcard_constraints:
        setting=match_settings("prompts"),
    message:
        "prompts: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
