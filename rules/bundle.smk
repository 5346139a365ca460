"""Packs the evidence of a run, without weights, in one archive that others can check without a GPU.

In:  everything that the target `all` makes.
Out: {results}/bundle.tar.gz
"""


rule write_bundle:
    """Prompts, scores, pairs, ledgers, answers, verdicts, samples, tables, report, manifests and config."""
    input:
        runs=rules.write_runs.output.runs,
        summary=rules.summarise.output.summary,
        findings=rules.check_findings.output.findings,
        report=rules.write_report.output.report,
        beside=paths_beside_summary(),
    output:
        bundle=place("bundle.tar.gz"),
        manifest=place("bundle.manifest.json"),
    log:
        place("logs/bundle.log"),
    benchmark:
        place("benchmarks/bundle.tsv")
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=60,
    params:
        scripts=path_scripts,
        languages=path_languages,
        root=lambda wc: GRID.results,
        responses=[
            part
            for model, code, reward in RESPONSES
            for part in ("--responses", model, code, reward)
            if GRID.config["bundle"]["responses"]
        ],
        # As it was merged: with it as a config file anyone can repeat the run.
        config=lambda wc: json.dumps(ASKED, ensure_ascii=False),
        code=digest_code("bundle"),
        lock=LOCK,
    message:
        "bundle: {output.bundle}"
    shell:
        r"""
        python {params.scripts:q}/bundle.py \
            --root {params.root:q} \
            --runs {input.runs:q} \
            {params.responses:q} \
            --config {params.config:q} \
            --languages {params.languages:q} \
            --output {output.bundle:q} \
            2>&1 | tee {log:q}
        """
