"""Texts in CSV files that people open in spreadsheets, which would run a text such as `=1+1` as a formula.

`guard` is used by everything that writes a cell, and `unguard` by everything that reads one.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = tuple("=+-@＝＋－＠")  # spreadsheets read the full-width signs as formulas too  # noqa: RUF001
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def guard(cell: Any) -> Any:
    """The cell with a leading apostrophe if a spreadsheet could run it as a formula; numbers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def unguard(cell: Any) -> Any:
    """The cell before `guard`."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _is_formula(cell) else cell


def guard_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row to write, {column: cell}, with all its cells guarded."""
    return {name: guard(cell) for name, cell in row.items()}


def unguard_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row that was read, {column: cell}, as it was before `guard_row`."""
    return {name: unguard(cell) for name, cell in row.items()}


def to_csv(table: "pd.DataFrame") -> str:
    """A table as CSV, with six significant digits and guarded texts."""
    guarded = table.rename(columns=guard)
    for name in guarded.columns[[kind.kind not in "iufb" for kind in guarded.dtypes]]:
        guarded[name] = guarded[name].map(guard, na_action="ignore")
    return guarded.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def read_csv(path: str | Path) -> "pd.DataFrame":
    """A table that `to_csv` wrote; empty cells are missing values."""
    import pandas as pd

    table = pd.read_csv(path, keep_default_na=False, na_values=[""]).rename(columns=unguard)
    return table.apply(lambda column: column.map(unguard, na_action="ignore"))


def _is_formula(text: str) -> bool:
    """Also for a guarded text, so that a text which begins with an apostrophe itself comes back as it was."""
    bare = text.lstrip("'")
    return bare.startswith(("\t", "\r")) or (bare.lstrip().startswith(FORMULA) and not NUMBER.fullmatch(bare.strip()))
