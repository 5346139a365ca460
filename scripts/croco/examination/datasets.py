"""Whether datasets have the splits, subsets and columns that a config declares; no rows of the hub are fetched."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from croco.errors import InputError
from croco.examination.declared import Declared, list_datasets, list_declared
from croco.examination.findings import ERROR, NOTE, WARNING, Finding
from croco.grid import Grid
from croco.pins import Item
from croco.prompts.sources import dataset_errors, find_missing_fields, open_dataset

if TYPE_CHECKING:
    import pyarrow
    from datasets import DatasetBuilder, Features

PARQUET = ".parquet"
FOOTER_BYTES = 2**20  # read at once from the end of a file
ALL_SPLITS = "all"
CORRECT_COLUMNS = "correct the columns in the config"
SERVER_FAILED = 500  # HTTP status from which on the fault is the server's
TRY_LATER = (408, 429)  # HTTP status of a request that took too long, or is one of too many


def examine_datasets(grid: Grid) -> Iterator[Finding]:
    """Declared columns, subsets and splits that a dataset in a local folder or on the hub lacks."""
    for item in list_datasets(grid):
        yield from examine_dataset(item, list_declared(grid, item))


def examine_dataset(item: Item, declared: Declared) -> Iterator[Finding]:
    """As examine_datasets, of one dataset; without a network what is staged is examined.

    A note where the hub does not say the columns, a warning where it does not answer or the dataset is not staged.
    """
    from huggingface_hub import is_offline_mode

    try:
        if Path(item.path).is_dir() or is_offline_mode():
            yield from examine_rows(item, declared)
        else:
            yield from examine_hub_dataset(item, declared)
    except InputError as fault:
        if silence := _find_silence(fault):
            what = f"the hub did not answer, so that its columns are not known: {silence}"
            remedy = "run the doctor once where the hub can be reached"
            yield Finding(WARNING, _name(item, declared), what, "prompts", remedy)
        else:
            yield Finding(ERROR, _name(item, declared), fault.problem, "prompts", fault.remedy)


def examine_rows(item: Item, declared: Declared) -> Iterator[Finding]:
    """Declared columns that a dataset lacks that is here; raises InputError where it cannot be loaded."""
    revision = None if Path(item.path).is_dir() else item.revision
    data = open_dataset(item.path, item.subset, revision, str(item.split))
    yield from _compare(_name(item, declared), declared, data, data.column_names)


def examine_hub_dataset(item: Item, declared: Declared) -> Iterator[Finding]:
    """As examine_rows, by what the hub says of a dataset: its card, or the footer of its first Parquet file.

    Raises InputError where the dataset, its revision or its subset is not there, access is denied, or the hub does not
    answer.
    """
    builder, features = describe_dataset(item)
    yield from examine_split(item, declared, builder)
    if features is None:
        columns = ", ".join(column for columns in declared.values() for column in columns)
        what = f"the hub does not say its columns, so that these are not known to be there before `stage`: {columns}"
        yield Finding(NOTE, _name(item, declared), what, "prompts", CORRECT_COLUMNS)
    else:
        readable = {key: _without_opaque(columns, features) for key, columns in declared.items()}
        stated = {key: columns for key, columns in readable.items() if columns}
        yield from _compare(_name(item, declared), stated, [make_empty(features.arrow_schema)], list(features))


def describe_dataset(item: Item) -> "tuple[DatasetBuilder, Features | None]":
    """(builder, columns with their types, or None where the hub does not say them); raises InputError."""
    from datasets import load_dataset_builder
    from huggingface_hub import auth_check, dataset_info

    with dataset_errors(item.path):
        builder = load_dataset_builder(item.path, item.subset, revision=item.revision)
        # The card of a gated dataset may be public.
        if dataset_info(item.path, revision=item.revision).gated:
            auth_check(item.path, repo_type="dataset")
        return builder, find_features(item, builder)


def _find_silence(fault: BaseException) -> BaseException | None:
    """The error behind ``fault`` by which the hub gave no answer, failed by itself, or was too busy; None without one."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    error = fault
    while behind := error.__cause__ or error.__context__:  # datasets raises some errors `from None`
        error = behind
        if isinstance(error, HfHubHTTPError):  # an answer of the hub
            status = error.response.status_code
            return error if status >= SERVER_FAILED or status in TRY_LATER else None
        if isinstance(error, ConnectionError | HTTPError):
            return error
    return None


def examine_split(item: Item, declared: Declared, builder: "DatasetBuilder") -> Iterator[Finding]:
    """An error where the dataset does not have the split; nothing where it does not say its splits."""
    splits = list(builder.info.splits or builder.config.data_files or ())
    # `train[:10%]+test` names the splits train and test.
    wanted = {part.partition("[")[0].strip() for part in str(item.split).split("+")}
    missing = sorted(wanted - {*splits, ALL_SPLITS}) if splits else []
    if missing:
        what = f"`split`: no split {', '.join(missing)}; it has {', '.join(map(str, splits))}"
        yield Finding(ERROR, _name(item, declared), what, "prompts", "correct `split` in the config")


def find_features(item: Item, builder: "DatasetBuilder") -> "Features | None":
    """The columns with their types by the card, or by the first Parquet file of the split; None without these."""
    if builder.info.features:
        return builder.info.features
    from datasets import Features
    from huggingface_hub import HfFileSystem
    from pyarrow.parquet import read_schema

    files = builder.config.data_files or {}
    split = re.split(r"[\[+]", str(item.split))[0].strip()
    first = next(iter(files.get(split, [])), "")
    if not (first.startswith("hf://") and first.endswith(PARQUET)):
        return None
    with HfFileSystem().open(first, block_size=FOOTER_BYTES) as file:
        return Features.from_arrow_schema(read_schema(file))


def make_empty(fields: "Iterable[pyarrow.Field]") -> dict[str, Any]:
    """A row with the nested records of a schema, and null everywhere else."""
    from pyarrow.types import is_struct

    return {field.name: make_empty(field.type) if is_struct(field.type) else None for field in fields}


def _without_opaque(columns: list[str], features: "Features") -> list[str]:
    """The columns without those in a field, nested or not, that holds JSON of any form."""
    from datasets import Json

    def is_opaque(column: str) -> bool:
        part: Any = features
        for name in [column] if column in features else column.split("."):
            part = part.get(name) if isinstance(part, dict) else None
            if isinstance(part, Json):
                return True
        return False

    return [column for column in columns if not is_opaque(column)]


def describe_missing(rows: Any, declared: Declared, columns: list[str] | None) -> str | None:
    """The declared columns that the first rows lack, for a message; None where there are all.

    ``columns``: those of the dataset, None where they are not known.
    """
    missing = find_missing_fields(rows, declared)
    named = [f"{column} (`{key}`)" for key, some in declared.items() for column in some if column in missing]
    there = f"; it has {', '.join(columns)}" if columns is not None else ""
    return f"no column {', '.join(named)}{there}" if named else None


def _compare(name: str, declared: Declared, rows: Any, columns: list[str]) -> Iterator[Finding]:
    if what := describe_missing(rows, declared, columns):
        yield Finding(ERROR, name, what, "prompts", CORRECT_COLUMNS)


def _name(item: Item, declared: Declared) -> str:
    """The key of the config that names the dataset, and the dataset."""
    key = "prompts" if "text" in declared else "task"
    return f"{key} {item.name}, {item.path}{f', subset {item.subset}' if item.subset else ''}"
