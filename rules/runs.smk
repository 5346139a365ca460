"""The run table, from which the later stages take their runs: one line per evaluated model.

Out: {results}/runs.jsonl
"""


rule write_runs:
    """Writes each Run of the config (scripts/croco/runs.py), every field by name."""
    input:
        f"{SCRIPTS}/templates/runs.jsonl.j2",
    output:
        runs=place("runs.jsonl"),
    log:
        place("logs/runs.log"),
    localrule: True
    threads: 1
    resources:
        gpu=0,
        mem_mb=500,
        runtime=5,
    params:
        runs=[run.to_row() for run in GRID.runs.values()],
    message:
        "run table: {output.runs}"
    template_engine:
        "jinja2"
