"""Collects all results in one table.

In:  {run}/eval/{language}.json and {language}.samples.jsonl, {run}/arena/{language}.jsonl, {run}/fidelity/ of all runs.
Out: {results}/summary.csv, with `partial: true` {results}/partial/summary.csv
"""


include: "helpers/summary.smk"


RESULTS = [
    file
    for run in GRID.runs.values()
    for file in [
        *[
            place(f"{run.name}/eval/{language}.{kind}")
            for language in run.evaluated
            for kind in ("json", "samples.jsonl")
        ],
        *[place(f"{run.name}/arena/{code}.jsonl") for code in run.evaluated if JUDGED and not run.is_base],
        *paths_fidelity(run),
    ]
]


rule summarise:
    """Computes values, paired intervals and p values."""
    input:
        runs=rules.write_runs.output.runs,
        results=inputs_of_page(RESULTS),
        imported=inputs_of_page([place("imported.csv")] if GRID.config["imports"] else []),
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
        scripts=path_scripts,
        root=lambda wc: GRID.results,
        contrasts=[part for contrast in GRID.contrasts for part in ("--contrast", *contrast)],
        judged="--judged" if JUDGED else [],
        fidelity=["--fidelity"] if EVALUATION["fidelity"] else [],
        partial=["--partial"] if PARTIAL else [],
        imported=lambda wc, input: ["--imported", *input.imported] if input.imported else [],
        found=lambda wc: found_so_far(RESULTS),
        code=digest_code("summary"),
        lock=LOCK,
    message:
        "summary: all results in one table"
    shell:
        r"""
        python {params.scripts:q}/summary.py \
            --root {params.root:q} \
            --runs {input.runs:q} \
            {params.contrasts:q} \
            {params.judged:q} \
            {params.fidelity:q} \
            {params.partial:q} \
            {params.imported:q} \
            --output {output.summary:q} \
            2>&1 | tee {log:q}
        """
