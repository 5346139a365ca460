"""Fetch what a run needs from the hub into the hub's own cache: models, datasets and the tasks of the suites.

Example:
  python scripts/stage.py --model eurollm utter-project/EuroLLM-1.7B-Instruct main --tokenizer org/tokenizer - \\
      --dataset train allenai/Dolci-Instruct-SFT - main train id=id text=messages reference=last_turn \\
      --suite belebele_dan_Latn multiblimp_dan --state state --lock stage.lock.json --output stage.manifest.json

Run it on a machine with a network; jobs with HF_HUB_OFFLINE=1 and the same HF_HOME then need none. Write a dash for an
omitted value. KEY=COLUMN (id, text, reference, where, fields) declares a column that the dataset must have.

The manifest lists every item with its commit and size, and local folders as such. The lock lists every item with its
commit and a digest of its content; a config's key `lock` holds a run to it. If items cannot be fetched, or lack a
declared column, the error at the end lists all of them, and nothing is written.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

from croco import cli
from croco.digests import WEIGHTS
from croco.errors import InputError
from croco.evaluation.tasks import describe, load_suite
from croco.examination.datasets import CORRECT_COLUMNS, describe_missing
from croco.examination.declared import add_dataset_option, is_task_file, read_dataset
from croco.models.loading import INDEX, read_index
from croco.pins import DATASET, MODEL, TOKENIZER, local_digest
from croco.prompts.sources import find_commit, open_dataset
from croco.records import read_jsonl, write_json

# Other forms of the same weights.
IGNORED = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "*.ckpt", "original/*", "consolidated*"]
# Files that may name a model's own classes, and the code repository of a class, as in other/repo--module.Class.
NAMING_CLASSES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
CODE_REPOSITORY = re.compile(r'"([^"]+?)--[^"]+"')
ROWS_AT_ONCE = 1000
# What the lock says of an item.
IN_LOCK = ("kind", "name", "path", "subset", "split", "asked", "commit", "digest")


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
            f"{len(failures)} of {len(items) + len(failures)} items cannot be fetched, or lack columns:"
            + "".join(f"\n    {failure}" for failure in failures),
            "run it where the hub can be reached, without HF_HUB_OFFLINE; check ids, revisions and columns; for a gated one accept "
            "its licence on the hub and log in (hf auth login)",
        )
    if args.lock:
        write_lock(args.lock, items)
    cli.write_manifest(args.output, __file__, args, {}, items=items)


def parse_arguments():
    parser = cli.parser(__doc__, outputs=("output", "lock"))
    of = {"action": "append", "default": []}
    parser.add_argument("--model", nargs=3, metavar=("NAME", "PATH", "REVISION"), help="a model with its weights", **of)
    parser.add_argument("--tokenizer", nargs=2, metavar=("PATH", "REVISION"), help="a model without its weights", **of)
    add_dataset_option(parser)
    parser.add_argument("--suite", nargs="+", default=[], help="tasks of lm-eval, by name")
    parser.add_argument("--state", type=Path, required=True, help="folder that remembers hashes of local files")
    parser.add_argument("--lock", type=Path, help="lock to write")
    parser.add_argument("--output", type=Path, required=True, help="manifest to write")
    return parser.parse_args()


def list_items(args):
    """(kind, name, function that fetches it and says what it is) for models and datasets."""

    def given(*values):
        return [None if value == "-" else value for value in values]

    for name, path, revision in args.model:
        yield MODEL, name, lambda p=path, r=revision: stage_model(MODEL, p, *given(r), args.state)
    for path, revision in args.tokenizer:
        yield TOKENIZER, path, lambda p=path, r=revision: stage_model(TOKENIZER, p, *given(r), args.state)
    for item, declared in map(read_dataset, args.dataset):
        yield DATASET, item.name, lambda i=item, d=declared: stage_dataset(i, d, args.state)


def stage_model(kind, path, revision, state):
    """What the manifest and the lock say of a model or tokenizer; it is fetched unless it is a local folder."""
    facts = {"path": path, "asked": revision}
    if Path(path).is_dir():
        content = local_digest(kind, path, state / "digests")
        identity = content if kind == MODEL else None
        local = {"state": "local", "revision": None, "commit": None, "identity": identity, "digest": content}
        return {**facts, **local, "bytes": measure(path)}
    from huggingface_hub import snapshot_download

    ignored = IGNORED if kind == MODEL else [*IGNORED, WEIGHTS]
    folder = Path(snapshot_download(path, revision=revision, ignore_patterns=ignored))
    if kind == MODEL:
        check_weights(path, folder)
    stage_code(path, folder)
    fetched = {"state": "fetched", "revision": folder.name, "commit": folder.name, "identity": None}
    return {**facts, **fetched, "digest": local_digest(kind, folder, state / "digests"), "bytes": measure(folder)}


def stage_code(path, folder):
    """Fetches the code that a model takes from other repositories; a model whose code is not trusted needs none."""
    from huggingface_hub import snapshot_download

    for name in list_code_repositories(folder):
        try:
            snapshot_download(name, allow_patterns="*.py")
        except Exception as error:  # any library's error
            print(f"warning: {path}: no code of {name}, for trust_remote_code: {describe(error)}", file=sys.stderr)


def list_code_repositories(folder):
    found = set()
    for file in filter(Path.is_file, map(folder.joinpath, NAMING_CLASSES)):
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # not needed here; what loads the model says it
            continue
        classes = settings.get("auto_map") if isinstance(settings, dict) else None
        found.update(CODE_REPOSITORY.findall(json.dumps(classes)))
    return sorted(found)


def check_weights(path, folder):
    """Raises InputError where weights are missing: without a network, the cache may hold an incomplete model."""
    index = folder / INDEX
    wanted = read_index(index) if index.is_file() else []
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing or not list(folder.glob(WEIGHTS)):
        raise InputError(f"no {', '.join(missing) or WEIGHTS} in {folder}", "fetch the model anew", path)


def measure(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def stage_dataset(item, declared, state):
    """What the manifest and the lock say of a dataset; raises InputError where it lacks a declared column."""
    path = item.path
    facts = {"path": path, "subset": item.subset, "split": item.split, "asked": item.revision}
    local, is_file = Path(path).exists(), is_task_file(item)
    data = None if local and (is_file or not declared) else open_dataset(path, item.subset, item.revision, item.split)
    if declared:
        rows, columns = ((row for _, row in read_jsonl(path)), None) if data is None else (data, data.column_names)
        if missing := describe_missing(rows, declared, columns):
            raise InputError(missing, CORRECT_COLUMNS)
    if local:
        size = measure(path) if Path(path).is_dir() else Path(path).stat().st_size
        content = local_digest(DATASET, path, state / "digests")
        return {**facts, "state": "local", "revision": None, "commit": None, "digest": content, "bytes": size}
    return {**facts, "state": "fetched", "rows": len(data), **describe_rows(data)}


def describe_rows(data):
    """The commit of a prepared dataset, a digest of its rows, and its size."""
    files = [Path(file["filename"]) for file in data.cache_files]
    return {
        # Datasets that are not of the hub are in a folder with another name.
        "revision": files[0].parent.name if files else None,
        "commit": find_commit(data),
        "digest": digest_rows(data),
        "bytes": sum(file.stat().st_size for file in files if file.is_file()),
    }


def digest_rows(data):
    """SHA-256 of a dataset's rows, 32 hex digits; neither the cache's path nor the libraries' file format changes it."""
    found = hashlib.sha256()
    for table in data.with_format("arrow").iter(ROWS_AT_ONCE):  # pictures and sound stay bytes
        for row in table.to_pylist():
            text = json.dumps(row, sort_keys=True, default=lambda value: value.hex() if isinstance(value, bytes) else str(value))  # fmt: skip
            found.update(f"{text}\n".encode())
    return found.hexdigest()[:32]


def write_lock(path, items):
    """Writes the lock: the same bytes for the same commits and contents, in whatever order the items came."""
    entries = [{key: item.get(key) for key in IN_LOCK} for item in items]
    for entry in entries:
        entry["revision"] = entry.pop("asked")
    write_json(path, {"items": sorted(entries, key=lambda entry: json.dumps(list(entry.values())))})


def stage_suite(names):
    """The items of lm-eval's tasks, a row for each dataset that they read, and what could not be loaded."""
    if not names:
        return [], []
    try:
        loaded, failures = load_suite(list(dict.fromkeys(names)))
    except InputError as error:
        return [], [error.problem]
    items = [
        {"kind": "task", "name": name, "path": path, "state": "fetched", "subset": subset, "split": split, "rows": len(data), **describe_rows(data)}
        for name, tasks in loaded.items()
        for path, subset, split, data in sorted(
            {
                (task.DATASET_PATH, task.DATASET_NAME, split): (str(task.DATASET_PATH), task.DATASET_NAME, split, data)
                for task in tasks.values()
                for split, data in task.dataset.items()
            }.values(),
            key=lambda item: tuple(map(str, item[:3])),
        )
    ]  # fmt: skip
    return items, [f"task {name}: {why}" for name, why in failures.items()]


if __name__ == "__main__":
    cli.run(main)
