"""The run table, from which the later stages take their runs: one line per evaluated model; and the plan by stage.

Out: {results}/runs.jsonl, {results}/plan.json
"""

from croco.planning.stages import plan_stages


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


rule write_plan:
    """Writes the jobs, items and hours that the config plans by stage, for the report page; no result of the run is read."""
    input:
        f"{SCRIPTS}/templates/plan.json.j2",
    output:
        plan=place("plan.json"),
    log:
        place("logs/plan.log"),
    localrule: True
    threads: 1
    resources:
        gpu=0,
        mem_mb=500,
        runtime=5,
    params:
        plan=lambda wc: plan_stages(GRID, Path(shipped("config/speeds.tsv"))).to_row(),
    message:
        "plan: {output.plan}"
    template_engine:
        "jinja2"
