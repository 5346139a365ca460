"""Results of other harnesses, and how far the run's evaluation is comparable with the paper's.

In:  the files of the config's key `imports`; config/comparability.tsv.
Out: {results}/imported.csv, {results}/comparability.json
"""


include: "helpers/compare.smk"


from croco.evaluation.tasks import list_evaluated


rule import_results:
    """Converts other harnesses' results to the columns of summary.csv; only with `imports` in the config."""
    input:
        [GRID.path(row["path"]) for row in GRID.config["imports"]],
        runs=rules.write_runs.output.runs,
    output:
        table=place("imported.csv"),
        manifest=place("imported.manifest.json"),
    log:
        place("logs/imported.log"),
    benchmark:
        place("benchmarks/imported.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=10,
    params:
        scripts=path_scripts,
        imports=lambda wc: options_imports(),
        root=lambda wc: GRID.results,
        code=digest_code("import_results"),
        lock=LOCK,
    message:
        "import: results of other harnesses"
    shell:
        r"""
        python {params.scripts:q}/import_results.py \
            {params.imports:q} \
            --root {params.root:q} \
            --runs {input.runs:q} \
            --output {output.table:q} \
            2>&1 | tee {log:q}
        """


rule compare_evaluations:
    """Compares the paper's evaluation with this run's, row by row."""
    input:
        table=shipped("config/comparability.tsv"),
        imported=[place("imported.csv")] if names_euroeval() else [],
    output:
        rows=place("comparability.json"),
    log:
        place("logs/comparability.log"),
    benchmark:
        place("benchmarks/comparability.tsv")
    localrule: True
    conda:
        "../envs/croco.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=500,
        runtime=5,
    params:
        scripts=path_scripts,
        evaluated=[
            part
            for what, codes in list_evaluated(GRID, GRID.known_languages).items()
            for part in ("--evaluated", what, ",".join(codes))
        ],
        imported=lambda wc, input: (
            ["--imported", *input.imported, "--euroeval", *names_euroeval()] if input.imported else []
        ),
        code=digest_code("comparability"),
        lock=LOCK,
    message:
        "comparability: the paper's evaluation and this run's"
    shell:
        r"""
        python {params.scripts:q}/comparability.py \
            --table {input.table:q} \
            {params.evaluated:q} \
            {params.imported:q} \
            --output {output.rows:q} \
            2>&1 | tee {log:q}
        """
