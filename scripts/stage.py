"""Fetch what a run needs from the hub into the hub's own cache: models, datasets and the tasks of the suites.

Example:
  python scripts/stage.py --model eurollm utter-project/EuroLLM-1.7B-Instruct main --tokenizer org/tokenizer - \\
      --dataset train allenai/Dolci-Instruct-SFT - main train --suite belebele_dan_Latn multiblimp_dan \\
      --state state --output stage.manifest.json

Run it on a machine with a network; jobs with HF_HUB_OFFLINE=1 and the same HF_HOME then need none. Write a dash for an
omitted value. The manifest lists every item with its commit and size, and local folders as such. If items cannot be
fetched, the error at the end lists all of them, and nothing is written.
"""

import json
from pathlib import Path

from croco import cli
from croco.digests import WEIGHTS, model_identity
from croco.errors import InputError
from croco.evaluation.tasks import describe, load_suite
from croco.prompts.sources import open_dataset

# Other forms of the same weights.
IGNORED = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "*.ckpt", "original/*", "consolidated*"]


def main():
    args = parse_arguments()
    items, failures = [], []
    for kind, name, fetch in list_items(args):
        print(f"{kind} {name}", flush=True)
        try:
            items.append({"kind": kind, "name": name, **fetch()})
        except Exception as error:  # any library's error: all items are tried, and all failures reported together
            failures.append(f"{kind} {name}: {error.problem if isinstance(error, InputError) else describe(error)}")
    suite, missing = stage_suite(args.suite)
    items += suite
    failures += missing
    if failures:
        raise InputError(
            f"{len(failures)} of {len(items) + len(failures)} items cannot be fetched:"
            + "".join(f"\n    {failure}" for failure in failures),
            "run it where the hub can be reached, without HF_HUB_OFFLINE; check ids and revisions; for a gated one accept "
            "its licence on the hub and log in (hf auth login)",
        )
    cli.write_manifest(args.output, __file__, args, {}, items=items)


def parse_arguments():
    parser = cli.parser(__doc__)
    of = {"action": "append", "default": []}
    parser.add_argument("--model", nargs=3, metavar=("NAME", "PATH", "REVISION"), help="a model with its weights", **of)
    parser.add_argument("--tokenizer", nargs=2, metavar=("PATH", "REVISION"), help="a model without its weights", **of)
    columns = ("NAME", "PATH", "SUBSET", "REVISION", "SPLIT")
    parser.add_argument("--dataset", nargs=5, metavar=columns, help="a dataset of prompts or of a task", **of)
    parser.add_argument("--suite", nargs="+", default=[], help="tasks of lm-eval, by name")
    parser.add_argument("--state", type=Path, required=True, help="folder that remembers hashes of local files")
    parser.add_argument("--output", type=Path, required=True, help="manifest to write")
    return parser.parse_args()


def list_items(args):
    """(kind, name, function that fetches it and says what it is) for models and datasets."""

    def given(*values):
        return [None if value == "-" else value for value in values]

    for name, path, revision in args.model:
        yield "model", name, lambda p=path, r=revision: stage_model(p, *given(r), args.state)
    for path, revision in args.tokenizer:
        yield "tokenizer", path, lambda p=path, r=revision: stage_model(p, *given(r), args.state, weights=False)
    for name, path, *rest in args.dataset:
        yield "dataset", name, lambda p=path, r=rest: stage_dataset(p, *given(*r))


def stage_model(path, revision, state, weights=True):
    """A model's path, commit or content hash, and size; it is fetched unless it is a local folder."""
    if Path(path).is_dir():
        identity = model_identity(path, cache=state / "digests") if weights else None
        return {"path": path, "state": "local", "revision": None, "identity": identity, "bytes": measure(path)}
    from huggingface_hub import snapshot_download

    ignored = IGNORED if weights else [*IGNORED, WEIGHTS]
    folder = Path(snapshot_download(path, revision=revision, ignore_patterns=ignored))
    if weights:
        check_weights(path, folder)
    return {"path": path, "state": "fetched", "revision": folder.name, "identity": None, "bytes": measure(folder)}


def check_weights(path, folder):
    """Raises InputError where weights are missing: without a network, the cache may hold an incomplete model."""
    index = folder / "model.safetensors.index.json"
    wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    missing = sorted(name for name in wanted if not (folder / name).is_file())
    if missing or not list(folder.glob(WEIGHTS)):
        raise InputError(f"no {', '.join(missing) or WEIGHTS} in {folder}", "fetch the model anew", path)


def measure(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def stage_dataset(path, subset, revision, split):
    if Path(path).exists():
        size = measure(path) if Path(path).is_dir() else Path(path).stat().st_size
        return {"path": path, "state": "local", "revision": None, "bytes": size}
    data = open_dataset(path, subset, revision, split)
    return {"path": path, "state": "fetched", "subset": subset, "split": split, "rows": len(data), **find_commit(data)}


def find_commit(data):
    """The commit of a prepared dataset, which names its folder in the cache, and its size."""
    files = [Path(file["filename"]) for file in data.cache_files]
    return {
        "revision": files[0].parent.name if files else None,
        "bytes": sum(file.stat().st_size for file in files if file.is_file()),
    }


def stage_suite(names):
    """The items of lm-eval's tasks, a row for each dataset that they read, and what could not be loaded."""
    if not names:
        return [], []
    try:
        loaded, failures = load_suite(list(dict.fromkeys(names)))
    except InputError as error:
        return [], [error.problem]
    items = [
        {"kind": "task", "name": name, "path": path, "state": "fetched", "split": split, "rows": len(data), **find_commit(data)}
        for name, tasks in loaded.items()
        for path, split, data in sorted(
            {
                (task.DATASET_PATH, task.DATASET_NAME, split): (str(task.DATASET_PATH), split, data)
                for task in tasks.values()
                for split, data in task.dataset.items()
            }.values(),
            key=lambda item: item[:2],
        )
    ]  # fmt: skip
    return items, [f"task {name}: {why}" for name, why in failures.items()]


if __name__ == "__main__":
    cli.run(main)
