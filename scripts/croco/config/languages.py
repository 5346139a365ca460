"""The languages that the workflow knows: config/languages.tsv, one row per language."""

import csv
from pathlib import Path


def read_languages(path: str | Path) -> dict[str, dict[str, str]]:
    """{code: row, column by column}."""
    with open(path, encoding="utf-8") as file:
        return {row["code"]: row for row in csv.DictReader(file, delimiter="\t")}
