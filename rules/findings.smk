"""The paper's findings tested on this run, and its tables in the paper's shape.

In:  summary.csv; audit/{reward}.json with audit.in_findings.
Out: {results}/findings.json (or with `partial: true` under {results}/partial/), {results}/tables/{win_rate,structured,fidelity}.{csv,md,tex}
"""


rule check_findings:
    """F1 to F6, each supported, not supported, inconclusive or not tested, with the reason."""
    input:
        runs=rules.write_runs.output.runs,
        summary=rules.summarise.output.summary,
        audits=inputs_of_page(paths_audits()),
    output:
        findings=place_made("findings.json"),
        manifest=place_made("findings.manifest.json"),
        tables=[
            place_made(f"tables/{name}.{ending}")
            for name in ("win_rate", "structured", "fidelity")
            for ending in ("csv", "md", "tex")
        ],
    log:
        place_made("logs/findings.log"),
    benchmark:
        place_made("benchmarks/findings.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    params:
        scripts=path_scripts,
        audits=lambda wc: ["--audit", *readable(paths_audits())],
        found=lambda wc: found_so_far(paths_audits()),
        low_resource=[code for code in GRID.languages if GRID.known_languages[code].get("resource") == "low"],
        tables=lambda wc, output: str(Path(output.tables[0]).parent),
        code=digest_code("findings"),
        lock=LOCK,
    message:
        "findings: {output.findings}"
    shell:
        r"""
        python {params.scripts:q}/findings.py \
            --runs {input.runs:q} \
            --summary {input.summary:q} \
            {params.audits:q} \
            --low-resource {params.low_resource:q} \
            --tables {params.tables:q} \
            --output {output.findings:q} \
            2>&1 | tee {log:q}
        """
