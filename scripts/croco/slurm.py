"""The SLURM jobs of one results folder: their names, and the end of those whose run was killed.

SLURM goes on with a job when the run that submitted it is gone. A run that is started again would submit a second job
for the same files. So the names of the jobs begin with a prefix that belongs to the results folder, and a new run
cancels the jobs with that prefix before it submits its own.
"""

import os
import shutil
import subprocess
import sys
import time

from croco.digests import digest
from croco.errors import InputError

COMMAND_TIMEOUT = 60.0  # seconds for one answer of SLURM's controller
PATIENCE = 600.0  # seconds for cancelled jobs to end, and for the controller to come back
POLL = 2.0  # seconds between two questions


def job_prefix(results: str) -> str:
    """How the names of all jobs begin that write to this results folder."""
    return f"croco-{digest(os.path.realpath(results))[:16]}"


def cancel_jobs(results: str) -> None:
    """Cancels this user's SLURM jobs for the folder and waits until all have ended.

    Only for the holder of the folder's lock, before it submits jobs. Raises InputError where SLURM does not answer, or a
    job does not end.
    """
    if shutil.which("squeue") is None:  # the folder was copied from the cluster
        return
    prefix = job_prefix(results)
    deadline = time.monotonic() + PATIENCE
    announced = False
    while jobs := list_jobs(prefix, deadline):
        if not announced:
            print(f"cancelling SLURM jobs of the run before: {' '.join(jobs)}", file=sys.stderr)
        announced = True
        if time.monotonic() > deadline:
            raise InputError(f"SLURM jobs of a killed run do not end: {' '.join(jobs)}", "ask the site's support")
        ask_slurm("scancel", *jobs)
        time.sleep(POLL)


def list_jobs(prefix: str, deadline: float) -> list[str]:
    """Ids of this user's jobs that wait, run or end, and whose names begin with ``prefix``.

    Raises InputError where SLURM's controller does not answer until ``deadline``, in seconds of the monotonic clock.
    """
    while (answer := ask_slurm("squeue", "--me", "--noheader", "--format", "%A %j")) is None:
        if time.monotonic() > deadline:
            raise InputError(
                "squeue: SLURM does not answer, so jobs of the run before may still write to this folder",
                "start again when squeue --me works",
            )
        time.sleep(POLL)
    rows = [line.split(maxsplit=1) for line in answer.splitlines() if line.strip()]
    return sorted({job for job, name in rows if name.startswith(prefix)}, key=int)


def ask_slurm(*command: str) -> str | None:
    """What a command of SLURM prints; None where it fails or does not answer."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
