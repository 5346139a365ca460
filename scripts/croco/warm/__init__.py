"""An interpreter that runs scripts in forks of one process that has imported their libraries: imports take longest."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

MODULES = [
    *("torch", "pandas", "jinja2", "matplotlib.figure", "datasets", "transformers", "peft", "trl", "lm_eval.evaluator"),
    *("transformers.models.llama.modeling_llama", "transformers.trainer"),
    *("altair", "jsonschema", "msgspec", "sklearn.linear_model", "statsmodels.api", "vl_convert"),
    *("snakemake.cli", "snakemake.report", "dpath", "smart_open", "yte"),
]

# What such a process needs: forks cannot use a GPU that it has touched, and share its cores with each other.
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@contextmanager
def warm_interpreter(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """``folder``/python, an interpreter that starts in no time; commands with other variables for libraries start as ever.

    It takes signals and files as the real one would, and ends with this process. The
    folder, which exists, is removed at the end.
    """
    interpreter, address, here = folder / "python", folder / "socket", Path(__file__).parent
    start = shlex.join(["exec", sys.executable, "-IS", str(here / "client.py"), sys.executable, str(address)])
    interpreter.write_text(f'#!/bin/sh\n{start} "$@"\n', encoding="utf-8")
    interpreter.chmod(0o755)
    command = [sys.executable, here / "server.py", address, interpreter, *MODULES]
    try:
        with subprocess.Popen(
            [*map(str, command)], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            assert server.stdin is not None and server.stdout is not None
            if server.stdout.readline() != b"ready\n":
                raise RuntimeError("the process that starts scripts has ended")
            yield interpreter
            server.stdin.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
