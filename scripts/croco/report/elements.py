"""What the sections of the report page consist of: figures with their numbers, tables, and the gaps where files are missing.

No section fails because a file is missing.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from croco.results.table import rank_seed

if TYPE_CHECKING:
    import pandas as pd

# Of the programs that the page names. It is read elsewhere, and its bytes must be the same on every machine.
PROGRAMS = ".venv/bin"
# Pool and setting of the policy before tuning.
BASE = ("untuned", "base")


@dataclass(frozen=True)
class Table:
    """A table of the page: one list of cells per row, in the order of the columns."""

    caption: str
    columns: list[str]
    rows: list[list]
    note: str | None = None


@dataclass(frozen=True)
class Figure:
    """Charts with the table of their numbers.

    Attributes:
        charts: [{title: text or None, spec: Vega-Lite specification}].
        alt: what the charts show, for readers who do not see them.
        select: {label, names, none (optional)} of a choice, one of which the page shows at a time, or None.
        broad: the figure scrolls by itself on a phone.
    """

    id: str
    charts: list[dict[str, Any]]
    alt: str
    caption: str
    table: Table
    select: dict[str, Any] | None = None
    broad: bool = False


@dataclass(frozen=True)
class Section:
    """What the page shows of one section.

    Attributes:
        intro: the paragraph under the heading, or None.
        empty: the text if there is no figure and nothing is missing, or None.
        undrawn: {id of a figure whose chart would show nothing: what it would show, in a sentence}.
        content: values for the section's own markup in the template.
        records: {name: rows} for the lists that the page's script searches.
    """

    intro: str | None = None
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    empty: str | None = None
    undrawn: dict[str, str] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)


class Gaps:
    """Collects missing files by section: {what: [paths]}, with the command that makes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, dict] = defaultdict(dict)

    def has(self, section: str, path: Path, what: str) -> bool:
        """Whether a file is there; if not, it becomes a gap of the section."""
        if path.is_file():
            return True
        self.found[section].setdefault(what, []).append(path)
        return False

    def say(self, section: str, what: str, command: str) -> None:
        """A gap that is not a single file; ``command`` starts with a program of the environment."""
        self.found[section][what] = command

    def of(self, section: str) -> list[dict[str, Any]]:
        """[{what, files, command}] of a section."""
        listed = []
        for what, missing in self.found[section].items():
            if isinstance(missing, str):
                listed.append({"what": what, "files": [], "count": None, "command": f"{PROGRAMS}/{missing}"})
                continue
            files = [str(path) for path in dict.fromkeys(missing)]
            listed.append(
                {
                    "what": what,
                    "files": files[:3],
                    "count": len(files),
                    "command": f"{PROGRAMS}/snakemake --cores 2 {' '.join(files[:3])}{' ...' if len(files) > 3 else ''}",
                }
            )
        return listed


def embed(value: Any) -> str:
    """JSON for a script element: no text in it can end the element, whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def name_arm(setting: str, seed: str, number: int, rounds: int) -> str:
    """A setting without its replicate's number, with its round where there are several."""
    name = setting.removesuffix(f".s{seed}")
    return f"{name} (round {number})" if rounds > 1 else name


def read_json(path: Path) -> Any:
    """The JSON value of a UTF-8 file."""
    return json.loads(path.read_text(encoding="utf-8"))


def number(value: Any) -> float | None:
    """A finite number, or None."""
    import pandas as pd

    return None if value is None or pd.isna(value) or not np.isfinite(value) else float(value)


def table(caption: str, columns: Iterable[str], lines: Iterable[Iterable], note: str | None = None) -> Table:
    """A Table of any iterables; ``lines`` are its rows."""
    return Table(caption, list(columns), [list(line) for line in lines], note)


def table_of(caption: str, dicts: Sequence[Mapping[str, Any]], note: str | None = None) -> Table:
    """A table with a row per dict; a key that a dict lacks is an empty cell."""
    columns = list(dict.fromkeys(name for line in dicts for name in line))
    return table(caption, columns, [[line.get(name) for name in columns] for line in dicts], note)


def figure(
    name: str,
    charts: Iterable[tuple[str | None, dict]],
    text: str,
    caption: str,
    numbers: Table,
    select: dict[str, Any] | None = None,
    broad: bool = False,
) -> Figure:
    """A figure of the page; ``charts`` are [(title or None, specification)], ``text`` is its description."""
    drawn = [{"title": title, "spec": spec} for title, spec in charts]
    return Figure(name, drawn, text, caption, numbers, select, broad)


def interval(low: float | None, high: float | None) -> str:
    """An interval as it follows an estimate, with a comma before it; empty where an end is not known."""
    return "" if number(low) is None or number(high) is None else f", {low:.3f} to {high:.3f}"


def sentence(text: str) -> str:
    """The text as a sentence: a capital first letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def label(reason: str) -> str:
    """A reason or metric as it is shown: with spaces for underscores."""
    return reason.replace("_", " ")


def total(parts: Iterable[Mapping[str, Any]]) -> str:
    """The sums of a stacked plot in words."""
    sums: Counter[str] = Counter()
    for row in parts:
        sums[row["part"]] += row["count"]
    return "Over all bars: " + ", ".join(f"{part} {count:,}" for part, count in sums.items()) + "."


def reasons(parts: Iterable[Mapping[str, int]]) -> str:
    """Counts by reason, merged, in words."""
    merged: Counter[str] = Counter()
    for part in parts:
        merged.update(part)
    return ", ".join(f"{label(reason)} {count}" for reason, count in merged.items()) or "none"


def prefer_all_seeds(lines: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of the summary, those over all training seeds first, then by the seed's number."""
    return lines.sort_values("seed", key=lambda seeds: seeds.map(rank_seed), kind="stable")
