"""The columns that a run reads of a dataset, and their form on the command line."""

import argparse
import re
from pathlib import Path
from typing import Any

from croco.grid import Grid
from croco.pins import DATASET, Item, list_items
from croco.prompts.sources import Source

COLUMN = re.compile(r"(id|text|reference|where|fields)=(.+)", re.DOTALL)
POSITIONAL = 5  # values of --dataset before the columns
OMITTED = "-"
Declared = dict[str, list[str]]  # {key of the config: columns}, as find_missing_fields takes them


def is_task_file(item: Item) -> bool:
    """Whether a task's rows come from a local file, which is read before any job."""
    return Path(item.path).suffix == ".jsonl"


def list_datasets(grid: Grid) -> list[Item]:
    """The datasets of a config, in local folders and on the hub."""
    return [item for item in list_items(grid) if item.kind == DATASET and not is_task_file(item)]


def list_declared(grid: Grid, item: Item) -> Declared:
    """The columns that the run reads of a dataset."""
    row = item.row
    if "use" not in row:  # a task's
        return {"id": [row.get("id", "id")], "fields": list(row.get("fields", []))}
    source = Source.of_row(row)
    declared = {"id": [source.id], "text": [source.text]} | (
        {"reference": [source.reference]} if source.reference else {}
    )
    leading = row.get("subset") and grid.path(row["subset"], language=grid.config["source_language"])
    # Prompts are chosen in the source language; the others follow by id.
    return declared | ({"where": list(source.where)} if item.subset == leading else {})


def options_dataset(grid: Grid, item: Item) -> list[str]:
    """The dataset with its columns, as the option of add_dataset_option."""
    columns = [f"{key}={column}" for key, columns in list_declared(grid, item).items() for column in columns]
    omissible = [value or OMITTED for value in (item.subset, item.revision)]
    return ["--dataset", item.name, item.path, *omissible, str(item.split), *columns]


class DatasetOption(argparse.Action):
    """Appends the values of one --dataset; ends with a usage error for other values."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """As argparse calls it."""
        if len(values) < POSITIONAL or not all(map(COLUMN.fullmatch, values[POSITIONAL:])):
            parser.error(
                "--dataset takes NAME PATH SUBSET REVISION SPLIT, then KEY=COLUMN of id, text, reference, where, fields"
            )
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])


def add_dataset_option(parser: argparse.ArgumentParser) -> None:
    """Adds --dataset, which may be repeated; read_dataset reads the values of one."""
    parser.add_argument(
        "--dataset",
        nargs="+",
        action=DatasetOption,
        default=[],
        metavar="VALUE",
        help="a dataset of prompts or of a task: NAME PATH SUBSET REVISION SPLIT, then KEY=COLUMN for each column that "
        "the run reads",
    )


def read_dataset(values: list[str]) -> tuple[Item, Declared]:
    """The dataset and its columns, from the values of one --dataset."""
    name, path, subset, revision, split = values[:POSITIONAL]
    row = {} if revision == OMITTED else {"revision": revision}
    declared: Declared = {}
    for text in values[POSITIONAL:]:
        key, _, column = text.partition("=")
        declared.setdefault(key, []).append(column)
    return Item(DATASET, name, path, row, subset=None if subset == OMITTED else subset, split=split), declared
