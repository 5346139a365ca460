"""One table of all results.

In:  {run}/eval/{language}.samples.jsonl, {run}/arena/{language}.jsonl and {run}/fidelity/ of all runs.
Out: {results}/summary.csv
"""

# Results of other harnesses, where the config names some.
IMPORTED = [place("imported.csv")] if GRID.config.get("imports") else []


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
        fidelity=[file for run in GRID.runs.values() for file in list_fidelity(run)],
        imported=IMPORTED,
    output:
        summary=place("summary.csv"),
        manifest=place("summary.manifest.json"),
    log:
        place("logs/summary.log"),
    benchmark:
        place("benchmarks/summary.tsv")
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
        imported=["--imported", *IMPORTED] if IMPORTED else [],
        fidelity=["--fidelity", next(iter(GRID.reward_models))] if EVALUATION["fidelity"] else [],
        code=digest_code("summary"),
        lock=LOCK,
    message:
        "summary: all results in one table"
    shell:
        r"""
        python scripts/summary.py --root {params.root:q} {params.runs:q} {params.contrasts:q} \
            {params.judged:q} {params.fidelity:q} {params.imported:q} --output {output.summary:q} 2>&1 | tee {log:q}
        """
