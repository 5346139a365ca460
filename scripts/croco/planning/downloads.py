"""What a run takes from the hub and is not in its cache on this machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from croco.config.resources import weigh
from croco.examination.findings import list_models
from croco.grid import Grid


@dataclass(frozen=True)
class Download:
    """A model or dataset; its size in GB is None where the config does not say it."""

    name: str
    gigabytes: float | None


def list_downloads(grid: Grid) -> list[Download]:
    """Models and datasets of the config that are in no local folder, and in no cache of the hub."""
    sizes: dict[tuple[str, str], float | None] = {}
    for used in list_models(grid):
        sizes["model", used.path] = weigh(used.row) or None
    for path in _list_datasets(grid):
        sizes["dataset", path] = None
    return [
        Download(path, gigabytes)
        for (kind, path), gigabytes in sizes.items()
        if not Path(path).exists() and not _is_cached(kind, path)
    ]


def _list_datasets(grid: Grid) -> Iterable[str]:
    for row in grid.config["prompts"]:
        if "dataset" in row:
            yield grid.path(row["dataset"])
    for task in grid.config["evaluation"]["tasks"]:
        if "source" in task and not task["source"].endswith(".jsonl"):
            yield grid.path(task["source"])


def _is_cached(kind: str, path: str) -> bool:
    """Whether the hub's cache has a snapshot; it may be of another revision."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=path, repo_type=kind) / "snapshots"
    return folder.is_dir() and any(folder.iterdir())
