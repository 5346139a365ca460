"""The time left, in the log of a run."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from croco.grid import Grid
from croco.planning.jobs import PlannedJob, read_dag
from croco.planning.plan import Step, plan_jobs
from croco.planning.progress import RUNNING, WAITING, Progress, find_progress

LOGGER = logging.getLogger("snakemake.logging")
INTERVAL = 60.0  # seconds


def log_time_left(grid: Grid, checkout: Path, dag: Any, interval: float = INTERVAL) -> None:
    """Lets the log of a run say the time left after Snakemake's lines of progress, at most every ``interval`` seconds.

    ``dag`` is that of the run, and ``checkout`` the folder of the code. Snakemake removes the handler at the end.
    """
    LOGGER.addHandler(TimeLeftHandler(RunningJobs(grid, checkout, dag), interval))


class RunningJobs:
    """The jobs of a run that goes on in this process.

    They are planned once, because this reads the manifests of all results; afterwards only what has changed is read.
    """

    def __init__(self, grid: Grid, checkout: Path, dag: Any) -> None:
        self.grid, self.checkout, self.dag = grid, checkout, dag
        self.jobs: list[Any] = []  # of Snakemake, in the order of the steps
        self.steps: list[Step] = []

    def find_progress(self, finished: set[int]) -> Progress:
        """How far the run is when a job has just ended; ``finished`` are the numbers of the jobs that this run finished."""
        jobs = list(self.dag.jobs)
        if jobs != self.jobs:  # the first time, and after a checkpoint has added jobs
            self.jobs, self.steps = jobs, plan_jobs(self.grid, read_dag(self.dag), self.checkout).steps
        self.steps = [
            replace(step, job=self._update(job, step.job, finished)) if step.job.why is not None else step
            for job, step in zip(jobs, self.steps, strict=True)
        ]
        return replace(find_progress(self.steps, (), runs=True), freed=1)

    def _update(self, job: Any, planned: PlannedJob, finished: set[int]) -> PlannedJob:
        records = self.dag.workflow.persistence
        if self.dag.jobid(job) in finished:
            return replace(planned, why=None, is_started=False, seconds=records.seconds_of(job))
        # For Snakemake, a failed job is running. Records are on a disk that may be slow, so they come second.
        return replace(planned, is_started=self.dag.is_running(job) and records.is_started(job))


class TimeLeftHandler(logging.Handler):
    """Writes the time left to the log from which it gets its records."""

    def __init__(self, jobs: RunningJobs, interval: float) -> None:
        super().__init__()
        self.jobs, self.interval = jobs, interval
        self.finished: set[int] = set()
        self.next = 0.0  # by the clock of time.monotonic

    def emit(self, record: logging.LogRecord) -> None:
        """Takes note of a finished job, and writes after a line of progress."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_FINISHED:
            self.finished.add(record.__dict__["job_id"])
        elif event == LogEvent.PROGRESS and time.monotonic() >= self.next:
            self._write()

    def _write(self) -> None:
        try:
            progress = self.jobs.find_progress(self.finished)
            counts = progress.count()
            if counts[RUNNING] + counts[WAITING]:
                LOGGER.info(f"time left: {progress.describe_time_left()}")
            self.next = time.monotonic() + self.interval
        except Exception as error:  # whatever it is: it must not end a run
            LOGGER.warning(f"warning: the time left is not shown, because it cannot be estimated: {error!r}")
            self.next = float("inf")
