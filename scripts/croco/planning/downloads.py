"""What a run takes from the hub and is not in its cache on this machine."""

from dataclasses import dataclass
from pathlib import Path

from croco.config.resources import weigh
from croco.digests import WEIGHTS
from croco.examination.findings import list_models
from croco.grid import Grid
from croco.models.loading import INDEX, read_index
from croco.pins import DATASET, MODEL, list_items

# What is fetched of a dataset in order to examine it.
CARDS = ("README.md", ".gitattributes")


@dataclass(frozen=True)
class Download:
    """A model or dataset; its size in GB is None where the config does not say it."""

    name: str
    gigabytes: float | None


def list_downloads(grid: Grid) -> list[Download]:
    """Models and datasets of the config that are in no local folder, and in no cache of the hub."""
    sizes: dict[tuple[str, str], float | None] = {}
    for used in list_models(grid):
        sizes[MODEL, used.path] = weigh(used.row) or None
    for item in list_items(grid):
        if item.kind == DATASET and not item.path.endswith(".jsonl"):
            sizes[DATASET, item.path] = None
    return [
        Download(path, gigabytes)
        for (kind, path), gigabytes in sizes.items()
        if not Path(path).exists() and not _is_cached(kind, path)
    ]


def _is_cached(kind: str, path: str) -> bool:
    """Whether the hub's cache has weights or data of the item; they may be of another revision."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=path, repo_type=kind) / "snapshots"
    return any(map(_has_weights if kind == MODEL else _has_data, folder.glob("*/")))


def _has_weights(snapshot: Path) -> bool:
    """Whether a model's weights are here, and not only what the doctor reads: its config, tokenizer and index."""
    index = snapshot / INDEX
    if index.is_file():
        return all((snapshot / name).is_file() for name in read_index(index))
    return any(file.is_file() for file in snapshot.glob(WEIGHTS))


def _has_data(snapshot: Path) -> bool:
    return any(file.is_file() and file.name not in CARDS for file in snapshot.rglob("*"))
