"""What the outputs of a job are worth that will be made again."""

from collections.abc import Sequence

from croco.errors import InputError
from croco.records import read_json

# Where a stage's manifest counts the items of Work.
ITEMS = {
    "translate": ("counts", "prompts"),
    "generate": ("counts", "responses"),
    "score": ("counts", "responses"),
    "train": ("rows_seen", "sum"),
    "evaluate": ("counts", "answers"),
    "judge": ("counts", "verdicts"),
}


def find_finished(outputs: Sequence[str], items: int, seconds: float) -> float:
    """The share of a job's planned GPU-``seconds`` at most that its outputs cost, by their manifests; 1 without one.

    It is that of their items in the planned ``items``. The GPU-seconds of the manifests count where they are more: the
    tasks of an evaluation do not grow with its prompts. They alone say too little where a job took its results from state/.
    """
    manifests = [_read(path) for path in outputs if path.endswith("manifest.json")]
    if not manifests or None in manifests or not items or not seconds:
        return 1
    found = [manifest for manifest in manifests if manifest]
    done = sum(count for count, _ in found) / items
    recorded = max(recorded for _, recorded in found) / seconds
    return min(1, max(done, recorded))


def _read(path: str) -> tuple[int, float] | None:
    """(items, GPU-seconds) of a manifest, None where it does not say both."""
    try:
        manifest = read_json(path)
        group, name = ITEMS[manifest["stage"]]
        return manifest[group][name], manifest["seconds"] * manifest["gpus"]
    except (InputError, OSError, KeyError, TypeError):
        return None
