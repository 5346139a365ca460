"""What a setting is tuned on, and the ledger of all that was not.

In:  prompts, generations and scores of the pool's languages.
Out: {model}/{pool}/{setting}/pairs.jsonl (DPO) or completions.jsonl (SFT), ledger.json
"""


rule build_pairs:
    """Chosen and rejected for each prompt."""
    input:
        prompts=lambda wc: list_pool_files(wc, "prompts/{language}.jsonl"),
        generations=lambda wc: list_scored_files(wc, "{model}/{language}/generations.jsonl"),
        scores=lambda wc: list_scored_files(wc, "{model}/{language}/scores/{reward}.jsonl"),
        identified=list_identified_files,
        policies=lambda wc: list_scored_files(wc, "{model}/{language}/generations.manifest.json"),
    output:
        data=place("{model}/{pool}/{setting}/pairs.jsonl"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        manifest=place("{model}/{pool}/{setting}/pairs.manifest.json"),
    log:
        place("logs/pairs/{model}.{pool}.{setting}.log"),
    benchmark:
        place("benchmarks/pairs/{model}.{pool}.{setting}.tsv")
    wildcard_constraints:
        setting=match_any({run.setting for run in GRID.runs.values() if run.row.get("target") == "pair"}),
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=60,
    params:
        files=lambda wc, input: [
            part
            for name in ("prompts", "generations", "scores", "identified")
            if input.get(name)
            for part in (f"--{name}", *input.get(name))
        ],
        options=lambda wc: list_options(
            {**find_run(wc).row, "seed": find_run(wc).seed}, "target", "rejected", "pool_size", "seed"
        ),
        hygiene=lambda wc: find_run(wc).row.get("hygiene", GRID.hygiene) or "paper",
        code=digest_code("build_pairs"),
        lock=LOCK,
    message:
        "pairs: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
    shell:
        r"""
        python scripts/build_pairs.py {params.files:q} {params.options:q} --hygiene {params.hygiene:q} \
            --output {output.data:q} --ledger {output.ledger:q} 2>&1 | tee {log:q}
        """


use rule build_pairs as build_completions with:
    output:
        data=place("{model}/{pool}/{setting}/completions.jsonl"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        manifest=place("{model}/{pool}/{setting}/completions.manifest.json"),
    wildcard_constraints:
        setting=match_any({run.setting for run in GRID.runs.values() if run.row.get("target") in ("reference", "best")}),
    message:
        "completions: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
