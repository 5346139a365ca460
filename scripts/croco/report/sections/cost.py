"""Section "Cost": time, GPU-hours and memory by stage, from the manifests, and beside the plan."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from croco.report import plots
from croco.report.elements import Section, figure, table_of
from croco.report.page import Manifest, Page
from croco.report.planned import compare_plan

NOTE = (
    "A job is one process, however many manifests it wrote. A job that ran again counts with its last run. A training that "
    "was taken from state/ counts with the run that made it; other work that was taken from state/ counts as free. "
    "GPU-hours are time x the GPUs that the job had."
)


@dataclass(frozen=True)
class Job:
    """A process that wrote at least one manifest.

    Attributes:
        seconds: until its last manifest.
        memory: peak memory in MB, or None.
        gpus: GPUs that it had, or None if unknown.
        file: its last manifest, relative to the output root.
    """

    stage: str
    seconds: float
    memory: int | None
    gpus: int | None
    file: str


def show(page: Page) -> Section:
    """The section: a figure of the time by stage, and the sums over all jobs."""
    jobs = list_jobs(page.manifests)
    without_job = [manifest for manifest in page.manifests if not is_counted(manifest)]
    if not page.manifests:
        page.gaps.say("cost", "manifests, what jobs took", "snakemake --cores 2")
    say_incomplete(page, "the job or its time", [(manifest.stage, manifest.file) for manifest in without_job])
    say_incomplete(page, "the number of GPUs", [(job.stage, job.file) for job in jobs if job.gpus is None])
    if not jobs:
        return Section()
    by_stage = defaultdict(list)
    for job in jobs:
        by_stage[job.stage].append(job)
    lines = [sum_up(stage, of_stage) for stage, of_stage in by_stage.items()]
    lines.sort(key=lambda line: -line["hours"])
    every = sum_up("all", jobs)
    unit, scale = ("hours", 1) if every["hours"] >= 2 else ("minutes", 60)
    bars = [{"name": line["stage"], "value": line["hours"] * scale} for line in lines]
    numbers = table_of("Cost by stage", [*lines, every], NOTE)
    planned, differing = compare_plan(page)
    tables = [planned] if planned else []
    content = {"all": every, "differing": differing}
    if plots.find_common_length(bars) is not None:
        return Section(tables=[numbers, *tables], content=content)
    shown = figure(
        "hours",
        [(None, plots.plot_bars(bars, f"Time of all jobs ({unit})"))],
        f"Bars: {unit} by stage, together {every['hours'] * scale:.1f}.",
        "Wall time of all jobs of a stage, one after the other.",
        numbers,
    )
    return Section(figures=[shown], tables=tables, content=content)


def is_counted(manifest: Manifest) -> bool:
    """Whether a manifest names its job and the job's time."""
    return manifest.job is not None and manifest.seconds is not None


def list_jobs(manifests: list[Manifest]) -> list[Job]:
    """The jobs of the manifests that name theirs."""
    by_job = defaultdict(list)
    for manifest in manifests:
        if is_counted(manifest):
            by_job[manifest.job].append(manifest)
    jobs = []
    for of_job in by_job.values():
        # Time and memory count from the start of the process: the last manifest covers the others.
        last = max(of_job, key=lambda manifest: manifest.seconds or 0.0)
        jobs.append(Job(last.stage, last.seconds or 0.0, last.memory, last.gpus, last.file))
    return jobs


def sum_up(stage: str, jobs: list[Job]) -> dict[str, Any]:
    """A row of the table; GPU-hours count the jobs whose GPUs are known, and are None if there is no such job."""
    gpu_hours = [job.seconds * job.gpus / 3600 for job in jobs if job.gpus is not None]
    return {
        "stage": stage,
        "jobs": len(jobs),
        "hours": sum(job.seconds for job in jobs) / 3600,
        "longest job (minutes)": max(job.seconds for job in jobs) / 60,
        "GPU-hours": sum(gpu_hours) if gpu_hours else None,
        "jobs of unknown GPUs": len(jobs) - len(gpu_hours),
        "peak memory of a job (MB)": max((job.memory for job in jobs if job.memory is not None), default=None),
    }


def say_incomplete(page: Page, what: str, manifests: list[tuple[str, str]]) -> None:
    """A gap for manifests, given as (stage, file), that lack ``what``, which is then missing in the section's numbers."""
    if not manifests:
        return
    stages = ", ".join(dict.fromkeys(stage for stage, _ in manifests))
    files = " ".join(str(page.root / file) for _, file in manifests[:3])
    more = " ..." if len(manifests) > 3 else ""
    page.gaps.say(
        "cost",
        f"{what} in {len(manifests)} manifest{'s' if len(manifests) > 1 else ''} ({stages})",
        f"snakemake --cores 2 --force {files}{more}",
    )
