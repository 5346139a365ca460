"""What a setting is tuned on, and the ledger of all that was not.

In:  prompts, generations and scores of the pool's languages.
Out: {model}/{pool}/{setting}/pairs.jsonl (DPO) or completions.jsonl (SFT), ledger.json
"""


def list_pool_files(wildcards, pattern):
    """A file for each language of the run's pool, of the policy whose responses it uses."""
    run = find_run(wildcards)
    model, reward = GRID.responses_of(run), GRID.reward_of(run)
    return [place(pattern.format(model=model, language=language, reward=reward)) for language in run.languages]


def list_scored_files(wildcards, pattern):
    """As list_pool_files, or nothing where the references are the target."""
    reference = find_run(wildcards).row["target"] == "reference"
    return [] if reference else list_pool_files(wildcards, pattern)


rule build_pairs:
    """Chosen and rejected for each prompt."""
    input:
        prompts=lambda wc: list_pool_files(wc, "prompts/{language}.jsonl"),
        generations=lambda wc: list_scored_files(wc, "{model}/{language}/generations.jsonl"),
        scores=lambda wc: list_scored_files(wc, "{model}/{language}/scores/{reward}.jsonl"),
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
    params:
        files=lambda wc, input: [
            part
            for name in ("prompts", "generations", "scores")
            if input.get(name)
            for part in (f"--{name}", *input.get(name))
        ],
        options=lambda wc: list_options(
            {**find_run(wc).row, "seed": find_run(wc).seed}, "target", "rejected", "pool_size", "seed"
        ),
        hygiene=lambda wc: find_run(wc).row.get("hygiene", GRID.hygiene) or "paper",
        code=digest_code("build_pairs"),
        lock=LOCK,
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=60,
    message:
        "pairs: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
    shell:
        r"""
        python {SCRIPTS:q}/build_pairs.py {params.files:q} {params.options:q} --hygiene {params.hygiene:q} \
            --output {output.data:q} --ledger {output.ledger:q} 2>&1 | tee {log:q}
        """


use rule build_pairs as build_completions with:
    output:
        data=place("{model}/{pool}/{setting}/completions.jsonl"),
        ledger=place("{model}/{pool}/{setting}/ledger.json"),
        manifest=place("{model}/{pool}/{setting}/completions.manifest.json"),
    wildcard_constraints:
        setting=match_any(
            {run.setting for run in GRID.runs.values() if run.row.get("target") in ("reference", "best")}
        ),
    message:
        "completions: {wildcards.model}, {wildcards.pool}, {wildcards.setting}"
