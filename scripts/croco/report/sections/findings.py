"""Section "The paper's findings": verdicts of this run, and the paper's tables."""

from typing import Any

from croco.report.elements import Section, Table, label, sentence, table, table_of
from croco.report.page import Page
from croco.report.units import PERCENT, PLAIN, POINTS, Unit, find_unit
from croco.spreadsheets import read_csv

# Columns of the tables in the paper's shape that say what a row is about.
FACTS = ("model", "setting", "round", "trained_on", "task", "suite", "metric")


def show(page: Page) -> Section:
    """The section: a table of the paper's findings, each with its verdict."""
    if page.findings is None:
        page.gaps.say(
            "findings", "findings.json, the paper's findings F1 to F6", "snakemake --cores 2 --forcerun summarise"
        )
    tables = read_tables(page)
    if page.comparability:
        tables.append(table_of("What may be compared with the paper", page.comparability))
    rows = [{**row, "unit": find_unit_of(row)} for row in (page.findings or {}).get("findings", [])]
    return Section(tables=tables, content={"findings": rows, "cards": list_cards(rows)})


def list_cards(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """[{id, claim, rows}]: one card per finding, whose rows are its contrasts in the order of findings.json."""
    cards: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        card = cards.setdefault(
            (row["id"], row["claim"]), {"id": row["id"], "claim": sentence(row["claim"]), "rows": []}
        )
        card["rows"].append(row)
    return list(cards.values())


def read_tables(page: Page) -> list[Table]:
    """The tables in the paper's shape that have a row."""
    tables = []
    for path in sorted(page.tables.glob("*.csv")) if page.tables else []:
        frame = read_csv(path)
        if frame.empty:
            continue
        frame = frame.astype(object).where(frame.notna(), None)
        lines = [show_line(line, path.stem) for line in frame.to_dict("records")]
        tables.append(table(f"In the paper's shape: {label(path.stem)}", frame.columns, lines))
    return tables


def show_line(line: dict[str, Any], name: str) -> list[Any]:
    """The cells of a row of the table ``name``, with its numbers in the unit of its metric."""
    unit = find_unit(str(line.get("metric", name)))
    is_number = {key: key not in FACTS and isinstance(value, int | float) for key, value in line.items()}
    return [unit.show(value) if is_number[key] else value for key, value in line.items()]


def find_unit_of(finding: dict[str, Any]) -> Unit:
    """The unit of a finding's estimate: a share, or a change of a share."""
    measure = str(finding["measure"])
    if measure.startswith("share "):
        return PERCENT
    return POINTS if measure.startswith(("win rate", "structured tasks")) else PLAIN
