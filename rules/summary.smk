"""One table of all results.

In:  {run}/eval/{language}.samples.jsonl and {run}/arena/{language}.jsonl of all runs.
Out: {results}/summary.csv
"""

JUDGED = EVALUATION["judge"] != "none"


def describe_run(run):
    """A run as scripts/summary.py takes it; a dash stands for what the base has not."""
    tuned = run.row["objective"] != "none"
    return [
        run.model,
        run.pool,
        run.setting,
        str(run.replicate),
        GRID.reward_of(run) if tuned else "-",
        str(run.row.get("pool_size", GRID.config["samples"])) if tuned else "-",
        ",".join(run.evaluated),
    ]


rule summarise:
    """Values, paired intervals and p values."""
    input:
        [
            place(f"{run.name}/{file}")
            for run in GRID.runs.values()
            for language in run.evaluated
            for file in [f"eval/{language}.samples.jsonl"]
            + ([f"arena/{language}.jsonl"] if JUDGED and run.row["objective"] != "none" else [])
        ],
    output:
        summary=place("summary.csv"),
        manifest=place("summary.manifest.json"),
    log:
        place("logs/summary.log"),
    benchmark:
        place("benchmarks/summary.tsv")
    params:
        root=GRID.results,
        runs=[part for run in GRID.runs.values() for part in ("--run", *describe_run(run))],
        contrasts=[part for contrast in GRID.contrasts for part in ("--contrast", *contrast)],
        judged="--judged" if JUDGED else [],
        code=digest_code("summary"),
        lock=LOCK,
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    message:
        "summary: all results in one table"
    shell:
        r"""
        python {SCRIPTS:q}/summary.py --root {params.root:q} {params.runs:q} {params.contrasts:q} \
            {params.judged:q} --output {output.summary:q} 2>&1 | tee {log:q}
        """
