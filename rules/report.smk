"""The report page, one self-contained file, and its key plots.

In:  summary.csv, findings.json and tables if the config has them; pairs, ledger and training metrics of every run; all
     scores. Verdicts, answers, fidelity, audits and manifests are read from the same folders if they exist.
Out: {results}/report.html, with `partial: true` {results}/partial/report.html
"""

TUNED = [run for run in GRID.runs.values() if not run.is_base]
PAIRED = [run for run in TUNED if run.row["target"] == "pair"]
SCORED = [run for run in TUNED if run.row["target"] in ("pair", "best")]
RESPONSES = sorted({(run.responses, code, run.reward_model) for run in SCORED for code in run.languages})
REPORTED = [
    *[place(f"{run.name}/ledger.json") for run in TUNED],
    *[place(f"{run.name}/checkpoint/metrics.jsonl") for run in TUNED],
    *[place(f"{run.name}/pairs.jsonl") for run in PAIRED],
    *[place(f"{model}/{code}/scores/{reward}.jsonl") for model, code, reward in RESPONSES],
]


rule write_report:
    """Makes plots, tables and a search from the result files alone; missing results are marked."""
    input:
        runs=rules.write_runs.output.runs,
        plan=rules.write_plan.output.plan,
        summary=rules.summarise.output.summary,
        findings=rules.check_findings.output.findings,
        tables=rules.check_findings.output.tables,
        template=[
            f"{SCRIPTS}/templates/{name}" for name in ("report.html.j2", "tables.html.j2", "report.css", "report.js")
        ],
        glossary=[path for path in [shipped("docs/glossary.md")] if Path(path).is_file()],
        contamination=inputs_of_page([rules.count_contamination.output.found]),
        files=inputs_of_page(REPORTED),
    output:
        report=report(place_made("report.html"), caption="../report/page.rst", category="Report"),
        wins=report(place_made("win_rates.svg"), caption="../report/win_rates.rst", category="Key plots"),
        structured=report(place_made("structured.svg"), caption="../report/structured.rst", category="Key plots"),
        ledger=report(place_made("ledger.svg"), caption="../report/ledger.rst", category="Key plots"),
        manifest=place_made("report.manifest.json"),
    log:
        place_made("logs/report.log"),
    benchmark:
        place_made("benchmarks/report.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=3000,
        runtime=30,
    params:
        scripts=path_scripts,
        root=lambda wc: GRID.results,
        contrasts=[part for contrast in GRID.contrasts for part in ("--contrast", *contrast)],
        asked=options_of(
            {
                "judged": JUDGED,
                "fidelity": EVALUATION["fidelity"],
                "tasks": bool(EVALUATION["tasks"]) or any(GRID.suites.values()),
            },
            "judged",
            "fidelity",
            "tasks",
        ),
        findings=lambda wc, input: ["--findings", input.findings] if GRID.config["findings"] == "paper" else [],
        tables=lambda wc, input: str(Path(input.tables[0]).parent),
        partial=["--partial"] if PARTIAL else [],
        miniature="--miniature" if EVALUATION["judge"] == "oracle" else [],
        found=lambda wc: found_so_far(REPORTED),
        code=digest_code("report"),
        lock=LOCK,
    message:
        "report: {output.report}"
    shell:
        r"""
        python {params.scripts:q}/report.py \
            --root {params.root:q} \
            --runs {input.runs:q} \
            --plan {input.plan:q} \
            {params.contrasts:q} \
            --summary {input.summary:q} \
            {params.findings:q} \
            --tables {params.tables:q} \
            {params.asked:q} \
            {params.partial:q} \
            {params.miniature:q} \
            --template {input.template[0]:q} \
            --output {output.report:q} \
            2>&1 | tee {log:q}
        """
