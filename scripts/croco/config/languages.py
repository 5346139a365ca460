"""The languages that the workflow knows: config/languages.tsv, one row per language."""

import csv
from pathlib import Path

from croco.errors import InputError

COLUMNS = ("code", "name", "native_name", "translation", "translategemma", "tasks", "sample", "resource")
CHOICES = {"translategemma": ("yes", "no", ""), "resource": ("high", "low", "")}  # "": not known


def read_languages(path: str | Path) -> dict[str, dict[str, str]]:
    """{code: row, column by column}; raises InputError, with file, line and field, for a row that cannot be used."""
    try:
        # Spreadsheets begin a file with a byte order mark.
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError as error:
        raise InputError("no such file", "check the path", path) from error
    known: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        wrong = [name for name in COLUMNS if row.get(name) is None] + (["(too many)"] if None in row else [])
        if wrong:
            raise InputError(
                f"the row does not have {len(COLUMNS)} columns: {', '.join(wrong)}",
                "separate the columns by single tabs, as in the other rows",
                path,
                line,
            )
        for name, choices in CHOICES.items():
            if row[name] not in choices:
                raise InputError(
                    f"{row[name]!r} is not one of {', '.join(choices[:2])}", "correct it", path, line, name
                )
        if row["code"] in known:
            raise InputError(f"a second row for {row['code']}", "keep one of them", path, line, "code")
        known[row["code"]] = row
    return known
