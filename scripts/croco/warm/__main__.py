"""Runs a command of Python, and the commands of Python that it starts, in forks of one process: many small jobs, no GPU.

    PYTHONPATH=scripts python -m croco.warm -m snakemake --cores 2

A job then starts in no time, because its libraries are imported already. It runs and ends as it would by itself.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from croco.warm import ON_CPU, warm_interpreter

PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """The exit code of the command."""
    command, environment = sys.argv[1:], {**os.environ, **ON_CPU}
    if not hasattr(os, "pidfd_open"):  # not Linux
        os.execve(sys.executable, [sys.executable, *command], environment)
    # The command decides what a signal means, and this process waits for it. Ctrl-C reaches both, others are passed on.
    started: list[subprocess.Popen] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def pass_on(number: int, _: object) -> None:
        if not started:
            sys.exit(128 + number)
        started[0].send_signal(number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    with warm_interpreter(Path(tempfile.mkdtemp(prefix="croco-")), environment) as python:
        with subprocess.Popen([str(python), *command], env=environment) as process:
            started.append(process)
        code = process.returncode
        return code if code >= 0 else 128 - code  # as a shell says that a signal has ended it


sys.exit(main())
