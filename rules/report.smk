"""The report page, one self-contained file.

In:  summary.csv; of every run its pairs, ledger and training metrics; all scores.
Out: {results}/report.html
"""

TUNED = [run for run in GRID.runs.values() if run.row["objective"] != "none"]
SCORED = [run for run in TUNED if run.row["target"] in ("pair", "best")]
RESPONSES = sorted({(GRID.responses_of(run), code, GRID.reward_of(run)) for run in SCORED for code in run.languages})


rule write_report:
    """Tables and plots from the result files alone."""
    input:
        summary=rules.summarise.output.summary,
        template=f"{SCRIPTS}/report.html.j2",
        ledgers=[place(f"{run.name}/ledger.json") for run in TUNED],
        metrics=[place(f"{run.name}/checkpoint/metrics.jsonl") for run in TUNED],
        pairs=[place(f"{run.name}/pairs.jsonl") for run in TUNED if run.row["target"] == "pair"],
        scores=[place(f"{model}/{code}/scores/{reward}.jsonl") for model, code, reward in RESPONSES],
    output:
        report=place("report.html"),
        plot=place("win_rates.svg"),
        manifest=place("report.manifest.json"),
    log:
        place("logs/report.log"),
    benchmark:
        place("benchmarks/report.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    params:
        root=lambda wc: GRID.results,
        runs=[
            part
            for run in TUNED
            for part in (
                "--run",
                run.model,
                run.pool,
                run.part,
                str(run.replicate),
                GRID.responses_of(run),
                GRID.reward_of(run),
                ",".join(run.languages),
            )
        ],
        contrasts=[part for contrast in GRID.contrasts for part in ("--contrast", *contrast)],
        miniature="--miniature" if EVALUATION["judge"] == "oracle" else [],
        code=digest_code("report"),
        lock=LOCK,
    message:
        "report: {output.report}"
    shell:
        r"""
        python scripts/report.py --root {params.root:q} {params.runs:q} {params.contrasts:q} --summary {input.summary:q} \
            --template {input.template:q} {params.miniature:q} --output {output.report:q} 2>&1 | tee {log:q}
        """
