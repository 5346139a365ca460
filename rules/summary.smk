"""One table of all results.

In:  {run}/eval/{language}.json and {language}.samples.jsonl, {run}/arena/{language}.jsonl and {run}/fidelity/ of all runs.
Out: {results}/summary.csv, with `partial: true` {results}/partial/summary.csv
"""

RESULTS = [
    file
    for run in GRID.runs.values()
    for file in [
        *[
            place(f"{run.name}/eval/{language}.{kind}")
            for language in run.evaluated
            for kind in ("json", "samples.jsonl")
        ],
        *[
            place(f"{run.name}/arena/{code}.jsonl")
            for code in run.evaluated
            if JUDGED and run.row["objective"] != "none"
        ],
        *list_fidelity(run),
    ]
]


rule summarise:
    """Values, paired intervals and p values."""
    input:
        results=need(RESULTS),
        imported=need([place("imported.csv")] if GRID.config["imports"] else []),
    output:
        summary=place_made("summary.csv"),
        manifest=place_made("summary.manifest.json"),
    log:
        place_made("logs/summary.log"),
    benchmark:
        place_made("benchmarks/summary.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    params:
        root=lambda wc: GRID.results,
        runs=[part for run in GRID.runs.values() for part in ("--run", *describe_run(run))],
        contrasts=[part for contrast in GRID.contrasts for part in ("--contrast", *contrast)],
        judged="--judged" if JUDGED else [],
        fidelity=["--fidelity", next(iter(GRID.reward_models))] if EVALUATION["fidelity"] else [],
        partial=["--partial"] if PARTIAL else [],
        imported=lambda wc, input: ["--imported", *input.imported] if input.imported else [],
        found=lambda wc: list_found(RESULTS),
        code=digest_code("summary"),
        lock=LOCK,
    message:
        "summary: all results in one table"
    shell:
        r"""
        python scripts/summary.py --root {params.root:q} {params.runs:q} {params.contrasts:q} \
            {params.judged:q} {params.fidelity:q} {params.partial:q} {params.imported:q} \
            --output {output.summary:q} 2>&1 | tee {log:q}
        """
