"""What this machine has for a config: GPUs, disk, locks, and the audit of its reward models."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from croco.config.resources import weigh
from croco.examination.findings import ERROR, STAGES, WARNING, Finding, list_models
from croco.files import publish
from croco.grid import Grid
from croco.locks import FileLock, take_lock

# Of the memory of a GPU, what the weights of one process may take: caches, activations and the runtime need the rest.
WEIGHTS_AT_MOST = 0.85
TOKEN_BYTES = 6  # of a response in the generations, their scores and its copy in state/, by token


def examine_gpus(grid: Grid, memory: float | None, count: int | None) -> Iterator[Finding]:
    """Whether jobs fit the GPUs; ``memory`` of one in GB and ``count``, None where this machine shows none."""
    needed = grid.most_gpus()
    if count is not None and needed > count:
        what = f"a job asks for {needed} GPUs, and this machine shows {count}"
        remedy = "start on a machine that has them, or lower resources: {gpu: N} in the config"
        yield Finding(ERROR if count else WARNING, "GPUs", what, "the first GPU job", remedy)
    if memory is None:
        return
    for used in list_models(grid):
        weights = weigh(used.row)
        gpus = max(1, grid.resource("gpu", [used.row]))
        if weights > WEIGHTS_AT_MOST * memory * gpus:
            what = f"its weights take {weights:.0f} GB in {used.row['dtype']}, on {gpus} GPUs of {memory:.0f} GB"
            remedy = "ask for more GPUs (resources: {gpu: N} with tensor_parallel_size), or for larger ones"
            yield Finding(ERROR, str(used), what, STAGES[used.role], remedy)


def find_gpus() -> tuple[float | None, int | None]:
    """(GB of the smallest GPU, number of GPUs) that nvidia-smi lists; (None, None) without it."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    sizes = [float(line) / 1024 for line in done.stdout.split("\n") if line.strip()]
    return (min(sizes), len(sizes)) if sizes else (None, 0)


def expect_bytes(grid: Grid) -> int:
    """Bytes of responses at most, if each has max_tokens: prompts x languages x samples x tokens x TOKEN_BYTES."""
    prompts = len(grid.blocks("train")) * grid.config["block"]
    prompts = min(prompts, grid.limit("train") or prompts)
    policies = {run.responses for run in grid.runs.values() if run.responses in grid.policies}
    tokens = sum(grid.policies[name]["max_tokens"] for name in policies)
    return prompts * len(grid.trained) * grid.config["samples"] * tokens * TOKEN_BYTES


def examine_disk(grid: Grid) -> Iterator[Finding]:
    """Room for the responses, and what the file system of the results can do."""
    folder = Path(grid.results).absolute()
    while not folder.is_dir():
        folder = folder.parent
    free, expected = shutil.disk_usage(folder).free, expect_bytes(grid)
    if expected > free:
        what = f"responses may take {expected / 2**30:.0f} GB, and {free / 2**30:.0f} GB are free"
        yield Finding(WARNING, str(folder), what, "generate", "free some space, or choose `results` elsewhere")
    probe = folder / f".probe.{os.getpid()}"
    try:
        lock = take_lock(probe, wait=False)
        if not isinstance(lock, FileLock):
            what = (
                "the file system has no flock: lock files with a lease are used, and a killed job's lock lasts longer"
            )
            yield Finding(WARNING, str(folder), what, "all stages", "Lustre: mount with -o flock")
        lock.release()
        publish(probe, probe.with_suffix(".link"))
        if probe.stat().st_nlink == 1:
            what = "the file system has no hard links: results and state/ take their space twice"
            yield Finding(WARNING, str(folder), what, "all stages", "choose `results` on another file system")
    except OSError as error:
        reason = error.strerror or errno.errorcode.get(error.errno or 0, "unknown")
        what = f"nothing can be written here: {reason}"
        yield Finding(ERROR, str(folder), what, "the first job", "get the permission, or choose `results` elsewhere")
    finally:
        for path in (probe, probe.with_suffix(".link")):
            path.unlink(missing_ok=True)


def examine_audit(grid: Grid) -> Iterator[Finding]:
    """Whether each reward model was audited before anything is trained on its rewards."""
    for name in grid.reward_models:
        if not Path(grid.results, "audit", f"{name}.json").is_file():
            what = "it has not been audited: nobody knows in which languages it tells answers from damaged copies"
            yield Finding(WARNING, f"reward {name}", what, "train", "snakemake audit, before training")
