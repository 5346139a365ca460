"""What a config takes from elsewhere, and the lock that holds a run to the commits and contents that `stage` found."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from croco.commands import name_command
from croco.config.faults import raise_errors
from croco.digests import digest, file_digest, model_identity, tokenizer_identity
from croco.errors import InputError
from croco.prompts.sources import COMMIT
from croco.records import read_json

if TYPE_CHECKING:
    from croco.grid import Grid

MODEL, TOKENIZER, DATASET = "model", "tokenizer", "dataset"
NEWEST = "main"  # what the hub takes where no revision is given
NONE = "none"
STAGING = name_command("snakemake", "stage", "-f", "--cores", "1", "--config", "lock=none")
STAGE_AGAIN = f"run `{STAGING}` with the same config files, and use the new lock"


@dataclass(frozen=True)
class Item:
    """One model, tokenizer or dataset of a config.

    ``row`` is the config's row that names it, and ``key`` the key of its revision there.
    """

    kind: str
    name: str
    path: str
    row: dict
    key: str = "revision"
    subset: str | None = None
    split: str | None = None

    @property
    def revision(self) -> str | None:
        """What the config asks for, or None for the newest."""
        return self.row.get(self.key)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder or file here, and not on the hub."""
        return Path(self.path).exists()


def list_items(grid: "Grid") -> Iterator[Item]:
    """The items of a config, local ones included; not what the workflow makes itself."""
    tokenizers = [row for row in grid.config["prompts"] if "tokenizer" in row]
    tasks = [row for row in grid.config["evaluation"]["tasks"] if "source" in row]
    named = [Item(MODEL, row["name"], grid.path(row["path"]), row) for row in grid.list_models()]
    named += [Item(TOKENIZER, row["use"], grid.path(row["tokenizer"]), row, "tokenizer_revision") for row in tokenizers]
    for item in named:
        if not item.path.startswith(f"{grid.results}/miniature/"):
            yield item
    for row in grid.config["prompts"]:
        if "dataset" in row:
            yield from _list_subsets(grid, row)
    for row in tasks:
        path, split = grid.path(row["source"]), row.get("split", "test")
        yield Item(DATASET, row["name"], path, row, subset=row.get("subset"), split=split)


def _list_subsets(grid: "Grid", row: dict) -> Iterator[Item]:
    """A dataset of prompts, once for each language that has its own subset."""
    subset, codes = row.get("subset"), [grid.config["source_language"]]
    if subset and "{language}" in subset:
        codes += [code for code in grid.languages if code not in codes and grid.has_prompts(row["use"], code)]
    for code in codes:
        name = subset and grid.path(subset, language=code)
        yield Item(DATASET, row["use"], grid.path(row["dataset"]), row, subset=name, split=row.get("split", "train"))


def list_unpinned(grid: "Grid") -> list[str]:
    """Names of the hub's items whose revision is no commit, so that they may change during a run or between runs."""
    return list(
        dict.fromkeys(
            f"{item.kind} {item.name}"
            for item in list_items(grid)
            if not COMMIT.fullmatch(item.revision or "") and not item.is_local
        )
    )


def hold_to_lock(grid: "Grid") -> None:
    """Sets the revision of each item of the hub to the commit in the config's lock, if the config names one.

    Raises InputError with all items that the lock lacks or contradicts.
    """
    if grid.config["lock"] == NONE:
        return
    path = grid.path(grid.config["lock"])
    locked, commits, errors = read_lock(path), [], []
    for item in list_items(grid):
        try:
            entries = find_entries(item, locked, path)
            if not item.is_local:
                commits.append((item, find_commit(item, entries, path)))
        except InputError as error:
            errors.append(error)
    raise_errors(errors)
    for item, commit in commits:
        if any(other.row is item.row and other.key == item.key and theirs != commit for other, theirs in commits):
            problem = f"the subsets of {item.path} were staged at several commits"
            raise InputError(problem, STAGE_AGAIN, path, field=f"{item.kind} {item.name}")
    for item, commit in commits:
        item.row[item.key] = commit


def check_local_items(grid: "Grid") -> None:
    """Raises InputError with all local folders and files whose content is not the one in the config's lock."""
    if grid.config["lock"] == NONE:
        return
    path = grid.path(grid.config["lock"])
    locked, errors = read_lock(path), []
    for item in list_items(grid):
        if not item.is_local:
            continue
        expected = {entry["digest"] for entry in find_entries(item, locked, path)}
        if local_digest(item.kind, item.path, f"{grid.results}/state/digests") not in expected:
            problem = f"the content of {item.path} is not the one in the lock"
            errors.append(InputError(problem, f"restore it, or {STAGE_AGAIN}", path, field=f"{item.kind} {item.name}"))
    raise_errors(errors)


def read_lock(path: str | Path) -> list[dict]:
    """The entries of a lock; raises InputError where it is missing or no lock."""
    if not Path(path).is_file():
        remedy = f"give the path of a stage.lock.json, relative to the working directory, or {STAGE_AGAIN}"
        raise InputError("the lock is not here", remedy, path)
    entries = read_json(path).get("items")
    keys = {"kind": str, "path": str, "subset": str | None, "split": str | None, "revision": str | None}
    keys |= {"commit": str | None, "digest": str | None}
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(key in entry and isinstance(entry[key], keys[key]) for key in keys)
        for entry in entries
    ):
        raise InputError("not a lock of `snakemake stage`", STAGE_AGAIN, path)
    return entries


def find_entries(item: Item, locked: list[dict], path: str) -> list[dict]:
    """The lock's entries of an item, at any revision; raises InputError where there are none."""
    # The weights' repository has the tokenizer, too, but its digest covers the weights.
    kinds = {MODEL, TOKENIZER} if item.kind == TOKENIZER and not item.is_local else {item.kind}
    wanted = (item.path, item.subset, item.split)
    entries = [
        entry
        for entry in locked
        if entry["kind"] in kinds and (entry["path"], entry["subset"], entry["split"]) == wanted
    ]
    if not entries:
        what = f"{item.path}{f', subset {item.subset}' if item.subset else ''}"
        raise InputError(f"the lock does not have {what}", STAGE_AGAIN, path, field=f"{item.kind} {item.name}")
    return entries


def find_commit(item: Item, entries: list[dict], path: str) -> str:
    """The commit of an item of the hub; raises InputError where the config asks for another revision than the lock."""
    asked = item.revision or NEWEST
    commits = {
        entry["commit"]
        for entry in entries
        if entry["commit"] and asked in (entry["revision"] or NEWEST, entry["commit"])
    }
    if len(commits) == 1:
        return commits.pop()
    found = ", ".join(
        sorted({f"{entry['revision'] or NEWEST} at {entry['commit'] or 'a local path'}" for entry in entries})
    )
    raise InputError(
        f"the config asks for revision {asked} of {item.path}, and the lock has {found}",
        f"correct `{item.key}` in the config, or {STAGE_AGAIN}",
        path,
        field=f"{item.kind} {item.name}",
    )


def local_digest(kind: str, path: str | Path, cache: str | Path | None = None) -> str | None:
    """Content digest of a local item, the same on every machine; ``cache`` as in file_digest.

    Raises InputError for a model without weights.
    """
    if kind == TOKENIZER:
        return tokenizer_identity(path)
    if kind == MODEL:
        try:
            return model_identity(path, cache=cache)
        except FileNotFoundError as error:
            raise InputError(str(error), "give a folder with the model's weights", path) from error
    if Path(path).is_file():
        return file_digest(path, cache)
    files = list_data_files(path)
    return digest([[file.relative_to(path).as_posix(), file_digest(file, cache)] for file in files])


def list_data_files(folder: str | Path) -> list[Path]:
    """The files of a local dataset, sorted; no hidden ones, such as .git/ and what the hub's client notes in .cache/."""
    return sorted(
        file
        for file in Path(folder).rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
