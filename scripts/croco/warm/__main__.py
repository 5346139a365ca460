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


def main() -> int:
    """The exit code of the command."""
    command, environment = sys.argv[1:], {**os.environ, **ON_CPU}
    if not hasattr(os, "pidfd_open"):  # not Linux
        os.execve(sys.executable, [sys.executable, *command], environment)
    # Ctrl-C reaches all processes of the terminal. The command decides what it means, and this one waits for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with warm_interpreter(Path(tempfile.mkdtemp(prefix="croco-")), environment) as python:
        return subprocess.call([str(python), *command], env=environment)


sys.exit(main())
