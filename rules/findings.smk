"""The paper's findings tested on this run, and its tables in the paper's shape.

In:  summary.csv, prompts/{language}.jsonl, prompts/evaluate/{language}.jsonl; audit/{reward}.json where there is one.
Out: {results}/findings.json, {results}/tables/{win_rate,structured,fidelity}.{csv,md,tex}
"""


rule check_findings:
    """F1 to F6, each supported, not supported, or nobody can tell, with the reason."""
    input:
        summary=rules.summarise.output.summary,
        prompts=[place(f"{SECTIONS[use]}/{code}.jsonl") for code in GRID.trained for use in ("train", "evaluate")],
        audits=list_audits(),
    output:
        findings=place("findings.json"),
        manifest=place("findings.manifest.json"),
        tables=[
            place(f"tables/{name}.{ending}")
            for name in ("win_rate", "structured", "fidelity")
            for ending in ("csv", "md", "tex")
        ],
    log:
        place("logs/findings.log"),
    benchmark:
        place("benchmarks/findings.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    params:
        prompts=[
            part
            for code in GRID.trained
            for part in ("--prompts", code, *(place(f"{SECTIONS[use]}/{code}.jsonl") for use in ("train", "evaluate")))
        ],
        audits=lambda wc, input: ["--audit", *input.audits] if input.audits else [],
        low_resource=[code for code in GRID.languages if KNOWN_LANGUAGES[code].get("resource") == "low"],
        tables=place("tables"),
        code=digest_code("findings"),
        lock=LOCK,
    message:
        "findings: {output.findings}"
    shell:
        r"""
        python scripts/findings.py --summary {input.summary:q} {params.prompts:q} {params.audits:q} \
            --low-resource {params.low_resource:q} --tables {params.tables:q} --output {output.findings:q} 2>&1 | tee {log:q}
        """
