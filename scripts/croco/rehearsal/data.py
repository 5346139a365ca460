"""The first usable rows of a config's prompts and tasks, as local files."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from croco.errors import InputError
from croco.grid import Grid
from croco.prompts.sources import (
    NOT_CHOSEN,
    ROW_NUMBER,
    Source,
    Unanswerable,
    dataset_errors,
    is_chosen,
    open_dataset,
    read_entry,
    read_prompt_id,
)
from croco.records import read_jsonl, write_jsonl

LOOKED_AT = 50  # rows of each dataset that `where` chooses
SCANNED = 100_000  # rows of each dataset among which they are looked for: it may be sorted by what `where` names
WANTED = 8  # rows of each dataset; some are left out again by the prompts' own checks


def stream_rows(name: str, subset: str | None, revision: str | None, split: str) -> Iterator[dict]:
    """Rows of a dataset in their order; of one on the hub, only what is read is fetched.

    Raises InputError where the dataset cannot be read.
    """
    if Path(name).is_dir():
        yield from open_dataset(name, subset, revision, split)
        return
    import datasets

    with dataset_errors(name):
        yield from datasets.load_dataset(name, subset, revision=revision, split=split, streaming=True)


def take_usable(
    rows: Iterable[dict], source: Source, name: str, seen: set[str]
) -> tuple[list[tuple[int, dict]], Counter]:
    """([(number, usable row)], {why another is not: how many}) up to the LOOKED_AT-th row that ``where`` chooses.

    At most SCANNED rows are read. The columns of ``where`` that a row has are added to ``seen``.
    """
    usable: list[tuple[int, dict]] = []
    faults: Counter = Counter()
    for number, row in enumerate(itertools.islice(rows, SCANNED), start=1):
        if not is_chosen(row, source, seen):
            faults[NOT_CHOSEN] += 1
            continue
        try:
            read_entry(row, source, name, number, number)
        except Unanswerable as error:
            faults[error.problem] += 1
        except InputError as error:
            faults[error.problem] += 1
        else:
            usable.append((number, row))
        if number - faults[NOT_CHOSEN] == LOOKED_AT:
            break
    return usable, faults


def cut_prompts(grid: Grid, row: dict, languages: list[str], folder: Path) -> tuple[dict, str]:
    """(the row of the config with local files, what was found): a dataset becomes a file of its first usable rows.

    Raises InputError where none of its first rows is usable.
    """
    if "dataset" not in row:
        return row, "local file"
    use, parallel = row["use"], "{language}" in row.get("subset", "")
    source = Source.of_row(row)
    name = grid.path(row["dataset"])
    revision = grid.prompts[use].get("revision")  # a lock may have set it
    codes = [code for code in languages if parallel and grid.has_prompts(use, code)]
    wanted: set[str] | None = None
    passed_over, found = False, ""
    for code in dict.fromkeys([grid.config["source_language"], *codes]):
        subset = grid.path(row.get("subset", ""), language=code) or None
        rows = stream_rows(name, subset, revision, row.get("split", "train"))
        if wanted is None:
            seen: set[str] = set()
            usable, faults = take_usable(rows, source, name, seen)
            passed_over = faults[NOT_CHOSEN] == SCANNED and seen == set(source.where)
            if passed_over:  # a later row may be chosen
                rows = stream_rows(name, subset, revision, row.get("split", "train"))
                usable, faults = take_usable(rows, replace(source, where={}), name, set())
            said = "; ".join(f"{count} {why}" for why, count in faults.most_common())
            if not usable:
                raise InputError(
                    f"none of the first {faults.total()} rows can be used: {said}",
                    "correct `id`, `text`, `reference` or `where`",
                    name,
                )
            looked_at = len(usable) + faults.total()
            found = f"{len(usable)} of the first {looked_at} rows can be used{': ' * bool(said)}{said}"
            if passed_over:
                found += f"; `where` chooses none of the first {SCANNED:,}, so it was left out"
            usable = usable[:WANTED]
            ids = (read_id(one, source, number) for number, one in usable)
            wanted = {prompt_id for prompt_id in ids if prompt_id is not None}
        else:
            usable = take_wanted(rows, source, wanted)
            if len(usable) < len(wanted):
                problem = (
                    f"the subset {subset} has {len(usable)} of {len(wanted)} prompts in its first {SCANNED:,} rows"
                )
                raise InputError(problem, "correct `id`, or take the language out of `languages`", name)
        write_jsonl(folder / f"{use}.{code if parallel else 'all'}.jsonl", (plain(one) for _, one in usable))
    left_out = ("dataset", "subset", "revision", "split", *(["where"] if passed_over else []))
    kept = {name: value for name, value in row.items() if name not in left_out}
    return {**kept, "path": f"{folder}/{use}.{'{language}' if parallel else 'all'}.jsonl"}, found


def take_wanted(rows: Iterable[dict], source: Source, wanted: set[str]) -> list[tuple[int, dict]]:
    """[(number, row)] of the wanted ids among the first SCANNED rows; the order need not be that of another subset."""
    usable: list[tuple[int, dict]] = []
    missing = set(wanted)
    for number, row in enumerate(itertools.islice(rows, SCANNED), start=1):
        prompt_id = read_id(row, source, number)
        if prompt_id in missing:
            missing.remove(prompt_id)
            usable.append((number, row))
        if not missing:
            break
    return usable


def read_id(row: dict, source: Source, number: int) -> str | None:
    """The id by which a row is the same prompt in several languages, None where it cannot be used."""
    if source.id == ROW_NUMBER:
        return str(number)
    try:
        return read_prompt_id(row, source, None, None)
    except InputError:
        return None


def plain(row: dict) -> dict:
    """A row as JSON can hold it."""
    return json.loads(json.dumps(row, default=str, ensure_ascii=False))


def cut_task(grid: Grid, task: dict, languages: list[str], count: int, folder: Path) -> dict:
    """The row of an own task with local files of its first rows."""
    if "source" in task:
        name = grid.path(task["source"])
        held = next(row for row in grid.config["evaluation"]["tasks"] if row["name"] == task["name"])  # to a lock
        rows: Iterator[Any] = (
            (row for _, row in read_jsonl(Path(name)))
            if name.endswith(".jsonl")
            else stream_rows(name, task.get("subset"), held.get("revision"), task.get("split", "test"))
        )
        path = folder / f"{task['name']}.jsonl"
        write_jsonl(path, (plain(row) for row in itertools.islice(rows, count)))
        return {**{key: task[key] for key in task if key not in ("subset", "revision", "split")}, "source": str(path)}
    if task["data"].startswith("{results}"):  # the workflow makes it
        return task
    for code in languages:
        given = Path(grid.task_file(task, code))
        if given.is_file():
            rows = (row for _, row in read_jsonl(given))
            write_jsonl(folder / task["name"] / f"{code}.jsonl", itertools.islice(rows, count))
    return {**task, "data": f"{folder}/{task['name']}/{{language}}.jsonl"}
