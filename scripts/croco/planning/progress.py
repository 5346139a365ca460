"""How far a run is: the state of each job, and the time left by what finished jobs took."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from croco.endings import Failure
from croco.planning.jobs import TARGET, PlannedJob, find_ends, order_jobs
from croco.planning.plan import Step

DONE, RUNNING, WAITING, FAILED = STATES = "done", "running", "waiting", "failed"


@dataclass(frozen=True)
class Progress:
    """All jobs of a config with their states.

    Attributes:
        steps: the jobs, in the order of PlannedJob.after.
        states: of each job one of STATES, None for a target, which is no work.
        freed: jobs that have just ended, and in whose place no other one has started yet.
    """

    steps: Sequence[Step]
    states: Sequence[str | None]
    freed: int = 0

    def count(self) -> Counter[str]:
        """{state: number of jobs}."""
        return Counter(state for state in self.states if state)

    def count_at_once(self) -> int:
        """How many jobs run at the same time, at least one."""
        counts = self.count()
        return max(1, counts[RUNNING] + min(self.freed, counts[WAITING]))

    def count_by_rule(self) -> dict[str, Counter[str]]:
        """{rule: {state: number of jobs}}; a rule comes after the rules that it needs."""
        rules: dict[str, Counter[str]] = {}
        for number in order_jobs([step.job for step in self.steps]):
            if (state := self.states[number]) is not None:
                rules.setdefault(self.steps[number].job.rule, Counter())[state] += 1
        return rules

    def seconds_left(self) -> tuple[float, int]:
        """(seconds until the end, number of jobs of unknown duration, which count as none).

        As many jobs as run at once now go on to do so, and no job starts before those that it needs. A running job
        counts in full.
        """
        left = self._durations_left()
        unknown = sum(seconds is None for seconds in left)
        seconds_of = [seconds or 0.0 for seconds in left]
        ends = find_ends([step.job for step in self.steps], seconds_of)
        return max(sum(seconds_of) / self.count_at_once(), *ends, 0.0), unknown

    def work_left(self) -> dict[str, float | None]:
        """{rule: seconds of its unfinished jobs, one after the other}; None where a duration is unknown."""
        left: dict[str, float | None] = {}
        for step, seconds in zip(self.steps, self._durations_left(), strict=True):
            before = left.get(step.job.rule, 0.0)
            left[step.job.rule] = None if before is None or seconds is None else before + seconds
        return left

    def describe_time_left(self) -> str:
        """The time until the end, in words."""
        seconds, unknown = self.seconds_left()
        if not seconds:
            return "unknown: no job of these rules has finished yet"
        at_once = self.count_at_once()
        more = f", and {_count_jobs(unknown)} of rules that have not been measured" if unknown else ""
        return f"about {format_duration(seconds)} with {_count_jobs(at_once)} at once{more}"

    def _durations_left(self) -> list[float | None]:
        """Seconds of each job that is left; 0 for a finished job and a target, None where the duration is unknown."""
        durations = estimate_durations(self.steps)
        return [
            0.0 if state in (None, DONE) else duration for state, duration in zip(self.states, durations, strict=True)
        ]


@dataclass(frozen=True)
class RunStatus:
    """How far the run of a config is: what scripts/status.py prints, and what it shows on a page.

    Attributes:
        results: the output root.
        run: in words, whether a run goes on. goes_on: whether one does.
        failures: the failed jobs that are not running again. log: Snakemake's log of the last start, which has them.
        command: what starts the run again; None while it goes on, and when it is finished.
    """

    results: str
    run: str
    goes_on: bool
    progress: Progress
    failures: Sequence[Failure]
    log: str | None
    command: str | None

    @property
    def is_finished(self) -> bool:
        """Whether all jobs are done."""
        counts = self.progress.count()
        return counts[DONE] == counts.total()


def describe_counts(counts: Counter[str]) -> str:
    """The numbers of jobs by state, in words."""
    return ", ".join(f"{counts[state]} {state}" for state in STATES)


def _count_jobs(count: int) -> str:
    return f"{count} job{'s' if count > 1 else ''}"


def format_duration(seconds: float) -> str:
    """A duration in minutes or hours, at least a minute."""
    minutes = max(1, round(seconds / 60))
    if minutes < 120:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{minutes / 60:,.1f} hours"


def find_progress(steps: Sequence[Step], failures: Iterable[Failure], runs: bool) -> Progress:
    """The progress of a run. ``failures`` are its failed jobs; ``runs`` is whether it goes on."""
    failed = {failure.outputs for failure in failures}
    return Progress(steps, [_find_state(step.job, failed, runs) for step in steps])


def _find_state(job: PlannedJob, failed: set[str], runs: bool) -> str | None:
    if job.why == TARGET or not job.outputs:
        return None
    if runs and job.is_started:
        return RUNNING
    if job.why is None:
        return DONE
    return FAILED if job.joined_outputs in failed else WAITING


def estimate_durations(steps: Sequence[Step]) -> list[float | None]:
    """Seconds of each job: by finished jobs of its rule, else by its planned GPU time; None where neither is known.

    A finished job of a rule counts by its planned GPU time, or by its items if it uses no GPU.
    """
    rates = _measure_rates(steps)
    return [_estimate_duration(step, rates) for step in steps]


def _measure_rates(steps: Iterable[Step]) -> dict[str, float]:
    """{rule: seconds per unit of _size} of finished jobs."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for step in steps:
        if step.job.why is None and step.job.seconds is not None:
            sums[step.job.rule][0] += step.job.seconds
            sums[step.job.rule][1] += _size(step)
    return {rule: seconds / size for rule, (seconds, size) in sums.items() if size}


def _size(step: Step) -> float:
    return _planned_seconds(step) or step.work.items or 1


def _planned_seconds(step: Step) -> float:
    return step.cost.seconds / max(1, step.job.gpus)


def _estimate_duration(step: Step, rates: Mapping[str, float]) -> float | None:
    if step.job.rule in rates:
        return rates[step.job.rule] * _size(step)
    return _planned_seconds(step) or None
