"""What this machine has for a config: GPUs, disk, locks, and the audit of its reward models."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from croco.commands import name_command
from croco.examination.findings import ERROR, WARNING, Finding
from croco.files import publish
from croco.grid import Grid
from croco.hardware import list_visible, query_gpus
from croco.locks import FileLock, take_lock
from croco.planning.downloads import list_downloads
from croco.planning.stages import list_model_jobs
from croco.planning.work import ASSUMED_PROMPTS, Facts

# By token of a response, docs/cluster.md has the measurement: of the blocks of the generations and of their scores, which
# are links to what state/ has, and of the files that join several blocks.
TOKEN_BYTES = 6
JOINED_BYTES = 6


def examine_gpus(grid: Grid, count: int | None) -> Iterator[Finding]:
    """Whether there are as many GPUs as jobs ask for; ``count`` is None where this machine shows none."""
    needed = grid.most_gpus()
    if count is not None and needed > count:
        what = f"a job asks for {needed} GPUs, and this machine shows {count}"
        remedy = "start on a machine that has them, or lower resources: {gpu: N} in the config"
        yield Finding(ERROR if count else WARNING, "GPUs", what, "the first GPU job", remedy)


def find_gpus() -> tuple[float | None, int | None]:
    """(GB of the smallest GPU, number of GPUs) of those that jobs may use; (None, None) without nvidia-smi.

    These are what CUDA_VISIBLE_DEVICES shows of the GPUs that nvidia-smi lists. The first is None, too, where the memory of
    one is not known: "[N/A]" where the GPU shares that of the machine, and instances of MIG.
    """
    gpus, visible = query_gpus("memory.total"), os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus is None:
        return None, None
    if "mig-" in (visible or "").lower():
        return None, len(str(visible).split(","))
    sizes = [size.removesuffix(" MiB") for size in list_visible(gpus, visible)]
    known = [float(size) / 1024 for size in sizes if size.isdecimal()]
    return min(known) if known and len(known) == len(sizes) else None, len(sizes)


def expect_bytes(grid: Grid) -> int:
    """Bytes of responses at most, those of later rounds too, if each has max_tokens.

    The number of prompts is assumed where neither the config nor a file says it.
    """
    facts, tokens = Facts(grid, reads_results=False), 0
    for rule, wildcards, _ in list_model_jobs(grid):
        if rule == "generate":
            prompts = facts.count_prompts("train", wildcards["language"], int(wildcards["start"]))
            tokens += prompts * grid.policies[wildcards["policy"].split("/")[0]]["max_tokens"]
    bytes_per_token = TOKEN_BYTES + JOINED_BYTES * (len(grid.blocks("train")) > 1)
    return tokens * grid.config["samples"] * bytes_per_token


def examine_disk(grid: Grid) -> Iterator[Finding]:
    """Room for responses and downloads, and what the file system of the results can do."""
    folder = find_folder(Path(grid.results))
    free, expected = shutil.disk_usage(folder).free, expect_bytes(grid)
    yield from examine_downloads(grid)
    if expected > free:
        what = f"responses may take {expected / 2**30:.0f} GB, and {free / 2**30:.0f} GB are free"
        yield Finding(WARNING, str(folder), what, "generate", "free some space, or choose `results` elsewhere")
    yield from examine_file_system(folder)


def examine_limits(grid: Grid) -> Iterator[Finding]:
    """Whether the time limits of jobs follow from the number of training prompts."""
    facts = Facts(grid, reads_results=False)
    for code in grid.trained:
        facts.count_prompts("train", code)
    if facts.assumes_prompts and grid.most_gpus():
        what = (
            "without `limit`, the prompts of a dataset are counted when it is read. A cluster's time limits are those of "
            f"{ASSUMED_PROMPTS} prompts per language"
        )
        remedy = (
            "set `limit` in the row of `prompts`, or `resources: {runtime: MINUTES}` in those of models and recipes"
        )
        yield Finding(WARNING, "prompts train", what, "generate", remedy)


def examine_file_system(folder: Path) -> Iterator[Finding]:
    """Whether a folder can be written to, locked and linked in."""
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


def examine_downloads(grid: Grid) -> Iterator[Finding]:
    """Room in the hub's cache for the models that are not in it yet."""
    from huggingface_hub import constants

    downloads = [item for item in list_downloads(grid) if item.gigabytes]
    needed = sum(item.gigabytes or 0 for item in downloads)
    cache = find_folder(Path(constants.HF_HUB_CACHE))
    free = shutil.disk_usage(cache).free / 1e9
    if needed > free:
        names = ", ".join(item.name for item in downloads)
        what = f"the downloads take {needed:.0f} GB ({names}), and {free:.0f} GB are free"
        yield Finding(ERROR, str(cache), what, "stage", "free some space, or set HF_HOME to a larger disk")


def find_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def examine_audit(grid: Grid, files: Sequence[Path] = ()) -> Iterator[Finding]:
    """Whether each reward model was audited before anything is trained on its rewards; ``files``: those of --configfile."""
    options = ["--configfile", *map(str, files)] if files else []
    audit = name_command("snakemake", "audit", "--cores", "all", *options)
    for name in grid.reward_models:
        if not Path(grid.results, "audit", f"{name}.json").is_file():
            what = "it has not been audited: nobody knows in which languages it tells answers from damaged copies"
            yield Finding(WARNING, f"reward {name}", what, "train", f"before training: {audit}")
