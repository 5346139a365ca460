"""What the config planned (plan.json) beside what the manifests say was done, by stage."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from croco.planned import PlannedStage
from croco.report.elements import Table, table_of
from croco.report.page import Manifest, Page

AUDIT = "audit"  # its responses and rewards are planned apart
NOTE = (
    "The plan is made from the config and config/speeds.tsv ({gpu}), not from this run's manifests. Items are responses, "
    "scored responses, rows seen in training, answers, or verdict calls; no number is planned where the config does not say "
    "how many prompts there are. Jobs and items should be equal; rows of a training "
    "are at most those planned, because a prompt may form no pair. Fewer loads than planned are finished work that was "
    "taken from state/. Tokens are those sampled or trained on, and are planned from assumed lengths. Hours are "
    "GPU-hours{hours}. The audit and translation are left out."
)
NO_GPU = "; they are empty for stages that ask for no GPU, because the plan has no speed of a CPU"


def compare_plan(page: Page) -> tuple[Table | None, list[str]]:
    """(the table, or None without a plan; what differs, one sentence per stage)."""
    if page.plan is None:
        return None, []
    done: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in page.manifests:
        if not manifest.file.startswith(f"{AUDIT}/"):
            done[manifest.stage].append(manifest)
    lines, differing = [], []
    for planned in page.plan.stages:
        fact = sum_up(planned.stage, done[planned.stage])
        differences = find_differences(planned, fact, page.asked.partial)
        if differences:
            differing.append(f"{planned.stage}: {', '.join(differences)}")
        lines.append(make_line(planned, fact, bool(differences)))
    without_hours = any(planned.gpu_hours is None for planned in page.plan.stages)
    note = NOTE.format(gpu=page.plan.gpu_type, hours=NO_GPU if without_hours else "")
    return table_of("Plan and fact", lines, note), differing


def sum_up(stage: str, manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Jobs, loads, items, tokens and GPU-hours of a stage's manifests; None where no manifest says it.

    Two settings may share one training: its manifest is a job for each of them, and one process.
    """
    processes: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in manifests:
        processes[manifest.job or manifest.file].append(manifest)
    is_shared = stage == "train"
    if is_shared:
        processes = {job: of_job[:1] for job, of_job in processes.items()}
    seconds = [
        max(manifest.seconds or 0.0 for manifest in of_job) * of_job[0].gpus
        for of_job in processes.values()
        if of_job[0].gpus is not None
    ]
    return {
        "jobs": len(manifests if is_shared else processes),
        "loads": sum(max(manifest.loads for manifest in of_job) for of_job in processes.values()),
        "items": sum(manifest.items or 0 for manifest in manifests),
        "tokens": sum(manifest.tokens or 0 for of_job in processes.values() for manifest in of_job),
        "gpu_hours": sum(seconds) / 3600 if seconds else None,
    }


def find_differences(planned: PlannedStage, fact: dict[str, Any], partial: bool) -> list[str]:
    """The counts of a stage that are not as planned; of an unfinished run, those that are more than planned."""
    at_most = {"loads", *(("jobs", "items") if partial else ()), *(("items",) if planned.stage == "train" else ())}
    counts = {"jobs": planned.jobs, "loads": planned.loads, "items": planned.items}
    return [
        f"{fact[name]:,} {name} instead of {count:,}"
        for name, count in counts.items()
        if count is not None and (fact[name] > count if name in at_most else fact[name] != count)
    ]


def make_line(planned: PlannedStage, fact: dict[str, Any], differs: bool) -> dict[str, Any]:
    """A row of the table."""
    line: dict[str, Any] = {"stage": planned.stage}
    for name in ("jobs", "loads", "items", "tokens"):
        line |= {f"{name} planned": getattr(planned, name) or None, name: fact[name] or None}
    hours = None if planned.gpu_hours is None else fact["gpu_hours"]
    line |= {"GPU-hours planned": planned.gpu_hours, "GPU-hours": hours}
    line["measured / planned hours"] = hours / planned.gpu_hours if hours and planned.gpu_hours else None
    return line | {"as planned": "no" if differs else "yes"}
