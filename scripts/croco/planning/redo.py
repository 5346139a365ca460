"""Finished work that a start would make again: it is refused above the config's redo_limit."""

from pathlib import Path
from typing import Any

from croco.grid import Grid
from croco.planning.jobs import read_dag
from croco.planning.plan import Plan, add_up, group, plan_jobs, shorten_reasons

RULES = 5  # that a message names


def describe_excess(grid: Grid, plan: Plan) -> str | None:
    """What is made again above redo_limit, and why.

    None where the limit is kept, or there is none, or redo allows it, or nothing is made again, by from_state.
    """
    limit = _find_limit(grid)
    redone = add_up(plan.redone)
    if limit is None or redone.gpu_hours <= limit:
        return None
    rules = [f"{name} ({sums.jobs})" for name, sums in group(plan.redone, "rule").items()]
    hours = f"{redone.gpu_hours:,.1f}" if redone.gpu_hours >= 1 else f"{redone.gpu_hours:.2g}"
    more = [f"{len(rules) - RULES} more rules"] if len(rules) > RULES else []
    return (
        f"finished work of at most {hours} GPU-hours would be made again, and redo_limit is {limit:g}: "
        f"{', '.join([*rules[:RULES], *more])}; reasons: {shorten_reasons(redone.reasons)}"
    )


def _find_limit(grid: Grid) -> float | None:
    return None if grid.config["redo"] or grid.config["from_state"] else grid.config.get("redo_limit")


def find_excess(grid: Grid, checkout: Path, dag: Any) -> str | None:
    """describe_excess of the jobs in Snakemake's DAG."""
    if _find_limit(grid) is None:
        return None
    jobs = read_dag(dag)
    if not any(job.is_redone and job.gpus for job in jobs):
        return None
    return describe_excess(grid, plan_jobs(grid, jobs, checkout))
