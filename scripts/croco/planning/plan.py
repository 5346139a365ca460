"""A plan: the jobs of a workflow with their work and cost, summed by stage, model, language or setting."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from croco.grid import Grid
from croco.planning.finished import find_finished
from croco.planning.jobs import NEW, TARGET, PlannedJob, find_ends
from croco.planning.schedule import Schedule, simulate
from croco.planning.speed import (
    Cost,
    Measured,
    Speed,
    Z,
    describe_other_gpus,
    estimate,
    list_gigabytes,
    read_measured,
    read_speed,
    read_speeds,
)
from croco.planning.work import Facts, Work, work_of

HOUR = 3600
SPEEDS = "config/speeds.tsv"
GPU_TYPE = "h100"  # a row of config/speeds.tsv, where neither the user nor the config names one


@dataclass(frozen=True)
class Step:
    """A job with its work and cost; ``finished`` is the share of the cost at most that its outputs are worth."""

    job: PlannedJob
    work: Work
    cost: Cost
    finished: float = 1

    @property
    def hours(self) -> float:
        """GPU-hours."""
        return self.cost.seconds / HOUR


@dataclass(frozen=True)
class Sum:
    """Some jobs together.

    Attributes:
        jobs: how many. reasons: {why they run: how many}.
        loads, items, tokens: of models; tokens are those read, sampled and trained on.
        gpu_hours: in total. bytes: written.
    """

    jobs: int
    reasons: dict[str, int]
    loads: int
    items: int
    tokens: float
    gpu_hours: float
    bytes: float


@dataclass(frozen=True)
class Plan:
    """All jobs of a config, with what is assumed of them.

    Attributes:
        steps: all jobs, in the order of PlannedJob.after, the finished ones included.
        assumptions: sentences.
        measured: stages and models whose speed was measured.
    """

    steps: list[Step]
    assumptions: list[str]
    measured: list[tuple[str, str]]

    @property
    def to_run(self) -> list[Step]:
        """The jobs that will run."""
        return [step for step in self.steps if step.job.why is not None]

    @property
    def redone(self) -> list[Step]:
        """The jobs that run although their outputs are there, each with the cost of these outputs at most.

        After a pilot, this is the pilot's part of a larger job.
        """
        return [
            replace(step, cost=replace(step.cost, seconds=step.cost.seconds * step.finished))
            for step in self.to_run
            if step.job.is_redone
        ]

    def longest_chain(self) -> float:
        """Hours of the longest chain of jobs that wait for each other, each on the GPUs that it asks for."""
        return max(find_ends([step.job for step in self.steps], self._durations()), default=0.0)

    def schedule(self, gpus: int) -> Schedule:
        """The run of all jobs on so many GPUs."""
        return simulate([step.job for step in self.steps], self._durations(), gpus)

    def _durations(self) -> list[float]:
        """Hours of each job on the GPUs that it asks for; 0 for a finished one."""
        return [step.hours / max(1, step.job.gpus) if step.job.why is not None else 0.0 for step in self.steps]

    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the GPU-hours that were extrapolated from measured jobs; None where nothing was measured.

        The error of a rate is the same for all jobs of its stage and model, and independent of that of others.
        """
        errors: dict[tuple[str, str], float] = defaultdict(float)
        for step in self.to_run:
            if step.cost.source and step.cost.error is not None:
                errors[step.cost.source] += step.cost.error
        if not errors:
            return None
        hours = sum(step.hours for step in self.to_run if step.cost.source)
        margin = Z * math.sqrt(sum(error**2 for error in errors.values())) / HOUR
        return max(0.0, hours - margin), hours + margin


def make_plan(grid: Grid, jobs: Sequence[PlannedJob], speed: Speed, measured: Measured) -> Plan:
    """The plan of all jobs of a config."""
    # Also of jobs that only follow others: an earlier stage may give them more prompts.
    stale = [path for job in jobs if job.why is not None for path in job.outputs]
    facts = Facts(grid, measured.response_tokens, stale)
    for sentence in describe_other_gpus(measured, speed):
        facts.note(sentence)
    steps = []
    for job in jobs:
        work = work_of(facts, job.rule, job.wildcards)
        cost = estimate(work, job.gpus, speed, measured)
        finished = find_finished(job.outputs, work.items, cost.seconds) if job.is_redone and job.gpus else 1
        steps.append(Step(job, work, cost, finished))
    sources = {step.cost.source for step in steps if step.cost.source}
    return Plan(steps, facts.assumptions, sorted(sources))


def choose_speed(grid: Grid, checkout: Path, gpu_type: str | None = None) -> Speed:
    """The speed of ``gpu_type`` in the checkout's table, by default of the config's GPUs. Raises InputError as read_speed."""
    return read_speed(checkout / SPEEDS, gpu_type or grid.config.get("gpu_type", GPU_TYPE))


def measure(grid: Grid, checkout: Path, speed: Speed, results: Path | None = None) -> Measured:
    """What ``results``, by default the config's own, has measured; the checkout's table knows the GPUs by their names."""
    return read_measured(results or Path(grid.results), speed, list_gigabytes(grid), read_speeds(checkout / SPEEDS))


def plan_jobs(grid: Grid, jobs: Sequence[PlannedJob], checkout: Path, gpu_type: str | None = None) -> Plan:
    """make_plan by what the results folder has measured, else by the checkout's table of speeds.

    Raises InputError as read_speed.
    """
    speed = choose_speed(grid, checkout, gpu_type)
    return make_plan(grid, jobs, speed, measure(grid, checkout, speed))


def add_up(steps: Iterable[Step]) -> Sum:
    """Some jobs together."""
    steps = list(steps)
    return Sum(
        jobs=len(steps),
        reasons=dict(Counter(step.job.why for step in steps if step.job.why)),
        loads=sum(step.work.loads for step in steps),
        items=sum(step.work.items for step in steps),
        tokens=sum(step.work.tokens_in + step.work.tokens_out + step.work.tokens_trained for step in steps),
        gpu_hours=sum(step.hours for step in steps),
        bytes=sum(step.work.bytes for step in steps),
    )


GROUPS: dict[str, Callable[[Step], str]] = {
    "rule": lambda step: step.job.rule,
    "model": lambda step: step.work.model or ("oracle" if step.work.stage else "no model"),
    "language": lambda step: step.work.language or ("several" if step.work.stage else "no model"),
    "setting": lambda step: step.work.setting or ("shared by settings" if step.work.stage else "no model"),
}


def group(steps: Iterable[Step], by: str) -> dict[str, Sum]:
    """{name: its jobs together} by a key of GROUPS, the most expensive first."""
    groups: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        groups[GROUPS[by](step)].append(step)
    sums = {name: add_up(members) for name, members in groups.items()}
    return dict(sorted(sums.items(), key=lambda item: (-item[1].gpu_hours, -item[1].loads, -item[1].jobs, item[0])))


def to_row(step: Step) -> dict:
    """A job as a JSON object."""
    job, work = asdict(step.job), asdict(step.work)
    return {**job, "work": work, "gpu_hours": step.hours, "measured": step.cost.source is not None}


def shorten_reasons(reasons: dict[str, int]) -> str:
    """The reasons with their numbers; targets, which are no work, are left out."""
    causes = {reason: count for reason, count in reasons.items() if reason != TARGET}
    return "all new" if set(causes) == {NEW} else ", ".join(f"{count} {reason}" for reason, count in causes.items())
