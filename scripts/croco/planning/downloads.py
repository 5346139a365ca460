"""What a run takes from the hub and is not in its cache on this machine."""

from dataclasses import dataclass
from pathlib import Path

from croco.config.resources import weigh
from croco.examination.findings import list_models
from croco.grid import Grid
from croco.pins import DATASET, list_items


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
    for item in list_items(grid):
        if item.kind == DATASET and not item.path.endswith(".jsonl"):
            sizes["dataset", item.path] = None
    return [
        Download(path, gigabytes)
        for (kind, path), gigabytes in sizes.items()
        if not Path(path).exists() and not _is_cached(kind, path)
    ]


def _is_cached(kind: str, path: str) -> bool:
    """Whether the hub's cache has a snapshot; it may be of another revision."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=path, repo_type=kind) / "snapshots"
    return folder.is_dir() and any(folder.iterdir())
