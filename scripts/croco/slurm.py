"""The SLURM jobs of one results folder: their names, what they ask for, and the end of those whose run was killed.

SLURM goes on with a job when the run that submitted it is gone. A run that is started again would submit a second job
for the same files. So the names of the jobs begin with a prefix that belongs to the results folder, and a new run
cancels the jobs with that prefix before it submits its own.
"""

import asyncio
import getpass
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import psutil

from croco.digests import digest
from croco.errors import InputError

COMMAND_TIMEOUT = 60.0  # seconds for one answer of SLURM's controller
PATIENCE = 600.0  # seconds for cancelled jobs to end, and for the controller to come back
POLL = 2.0  # seconds between two questions
# File systems that only one machine sees.
NODE_LOCAL = ("tmpfs", "ramfs", "overlay", "squashfs")
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")


def job_prefix(results: str) -> str:
    """How the names of all jobs begin that write to this results folder."""
    return f"croco-{digest(os.path.realpath(results))[:16]}"


def cancel_jobs(results: str) -> None:
    """Cancels this user's SLURM jobs for the folder and waits until all have ended.

    Only for the holder of the folder's lock, before it submits jobs. Raises InputError where SLURM does not answer, a
    job does not end, or one is another user's.
    """
    prefix = job_prefix(results)
    if shutil.which("squeue") is None:  # the folder may be a copy from the cluster
        print(
            f"warning: {results}: the last start was on SLURM, which this machine does not reach. If jobs of it still run "
            f"(squeue, names that begin with {prefix}), end them first: they write to this folder",
            file=sys.stderr,
        )
        return
    deadline = time.monotonic() + PATIENCE
    announced = False
    while owners := list_jobs(prefix, deadline):
        jobs = sorted(owners, key=int)
        if others := [f"{job} ({owner})" for job, owner in sorted(owners.items()) if owner != getpass.getuser()]:
            raise InputError(
                f"SLURM jobs of a run that another user started still write to this folder: {', '.join(others)}",
                "let that user cancel them (scancel), or wait until they have ended",
                results,
            )
        if not announced:
            print(f"cancelling SLURM jobs of the run before: {' '.join(jobs)}", file=sys.stderr)
        announced = True
        if time.monotonic() > deadline:
            raise InputError(f"SLURM jobs of a killed run do not end: {' '.join(jobs)}", "ask the site's support")
        ask_slurm("scancel", *jobs)
        time.sleep(POLL)


def list_jobs(prefix: str, deadline: float) -> dict[str, str]:
    """{id: user} of the jobs that wait, run or end, and whose names begin with ``prefix``.

    Raises InputError where SLURM's controller does not answer until ``deadline``, in seconds of the monotonic clock.
    """
    while (answer := ask_slurm("squeue", "--noheader", "--format", "%A %u %j")) is None:
        print("warning: SLURM does not answer (squeue): waiting for it", file=sys.stderr)
        if time.monotonic() > deadline:
            raise InputError(
                "squeue: SLURM does not answer, so jobs of the run before may still write to this folder",
                "start again when squeue works",
            )
        time.sleep(POLL)
    rows = [line.split(maxsplit=2) for line in answer.splitlines() if line.strip()]
    return {job: owner for job, owner, *name in rows if "".join(name).startswith(prefix)}


def survive_outages() -> None:
    """Makes Snakemake's executor for SLURM go on after the controller was away, and after jobs were preempted.

    The plugin forgets a job whose state it could not ask for, and then waits for it for ever; it takes a submission that
    found no controller for a failed job; and it waits for preempted jobs that do not come back (end_preempted).
    https://github.com/snakemake/snakemake-executor-plugin-slurm, check_active_jobs and run_job
    """
    import snakemake_executor_plugin_slurm as plugin

    ask, submit = plugin.query_job_status, plugin.Executor.run_job

    async def ask_or_know_nothing(command: str, logger: Any) -> tuple[dict[str, str], float]:
        states, seconds = await ask(command, logger)
        if states is None:  # a job that an answer does not name is asked for again
            print(f"warning: SLURM does not answer ({command.split()[0]}): asking again later", file=sys.stderr)
            return {}, 0.0
        return await asyncio.to_thread(end_preempted, states), seconds

    def wait_and_submit(executor: Any, job: Any) -> None:
        wait_for_controller(time.monotonic() + PATIENCE)
        submit(executor, job)

    plugin.query_job_status, plugin.Executor.run_job = ask_or_know_nothing, wait_and_submit


def end_preempted(states: dict[str, str]) -> dict[str, str]:
    """The states by job id, with CANCELLED for preempted jobs that SLURM does not put back into the queue.

    The plugin waits for every preempted job. On sites that cancel or do not requeue such jobs it would wait for ever;
    a cancelled job is submitted again.
    """
    preempted = {job for job, state in states.items() if state == "PREEMPTED"}
    if not preempted or (queue := ask_slurm("squeue", "--me", "--noheader", "--format", "%A")) is None:
        return states
    return {**states, **dict.fromkeys(preempted - set(queue.split()), "CANCELLED")}


def wait_for_controller(deadline: float) -> None:
    """Waits until a controller of SLURM is up, at most until ``deadline``, in seconds of the monotonic clock."""
    while " is UP" not in (ask_slurm("scontrol", "ping") or "") and time.monotonic() < deadline:
        print("warning: SLURM's controller is not up: waiting to submit a job", file=sys.stderr)
        time.sleep(POLL)


def ask_slurm(*command: str) -> str | None:
    """What a command of SLURM prints; None where it fails or does not answer."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def find_local_storage(results: str) -> str | None:
    """Why other nodes will probably not see the results folder; None where nothing says so."""
    path = Path(os.path.realpath(results))
    folder = next((name for name in TEMPORARY if path.is_relative_to(name)), None)
    if folder is not None:
        return f"it is under {folder}"
    kinds = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    kind = next((kinds[parent] for parent in [path, *path.parents] if parent in kinds), "")
    return f"its file system is {kind}" if kind in NODE_LOCAL else None


def tabulate_requests(jobs: Iterable[Any], local_rules: Collection[str]) -> str:
    """A table of what Snakemake's jobs ask SLURM for: a line per rule and request, at the first attempt.

    Memory is in MB, time in minutes. Jobs of ``local_rules`` run where Snakemake runs: their partition is ``local``.
    """
    requests = Counter((job.rule.name, *_describe_request(job, local_rules)) for job in jobs)
    rows = [("rule", "jobs", "partition", "GPUs", "CPUs", "MB", "minutes")]
    rows += [(rule, str(number), *asked) for (rule, *asked), number in sorted(requests.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _describe_request(job: Any, local_rules: Collection[str]) -> tuple[str, ...]:
    asked = job.resources
    partition = "local" if job.rule.name in local_rules else asked.get("slurm_partition", "default")
    return tuple(map(str, (partition, asked.get("gpu", 0), job.threads, asked.get("mem_mb"), asked.get("runtime"))))
