"""When the jobs of a plan run on a number of GPUs, as Snakemake starts them, and how busy the GPUs are."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from croco.planning.jobs import PlannedJob


@dataclass(frozen=True)
class Schedule:
    """A simulated run.

    Attributes:
        hours: from the start of the first job to the end of the last one.
        busy: share of the GPU time in which a GPU has a job, in [0, 1]; None where no job takes time.
    """

    hours: float
    busy: float | None


def simulate(jobs: Sequence[PlannedJob], durations: Sequence[float], gpus: int) -> Schedule:
    """The run of jobs with these durations, in hours, on GPUs that are all there from the start.

    As Snakemake does, it starts whatever is ready and fits, jobs of a higher priority first. A job that asks for more
    than all GPUs gets them all. CPUs, memory and queues are without limit.
    """
    waits_for = [len(job.after) for job in jobs]
    users: list[list[int]] = [[] for _ in jobs]
    for position, job in enumerate(jobs):
        for needed in job.after:
            users[needed].append(position)
    asked = [min(job.gpus, gpus) for job in jobs]
    ready = [(-jobs[position].priority, position) for position, count in enumerate(waits_for) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []  # (end, position)
    now, free = 0.0, gpus
    while ready or running:
        waiting = []
        while ready:
            entry = heapq.heappop(ready)
            position = entry[1]
            if asked[position] > free:
                waiting.append(entry)
            else:
                free -= asked[position]
                heapq.heappush(running, (now + durations[position], position))
        ready = waiting  # sorted, so a heap
        now, ended = heapq.heappop(running)
        free += asked[ended]
        for position in users[ended]:
            waits_for[position] -= 1
            if not waits_for[position]:
                heapq.heappush(ready, (-jobs[position].priority, position))
    used = sum(duration * count for duration, count in zip(durations, asked, strict=True))
    return Schedule(now, used / (gpus * now) if now else None)
