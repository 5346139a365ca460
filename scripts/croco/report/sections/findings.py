"""Section "The paper's findings": verdicts of this run, prompts in common with evaluations, and the paper's tables."""

from typing import Any

from croco.report.elements import Section, Table, label, table, table_of
from croco.report.page import Page
from croco.spreadsheets import read_csv


def show(page: Page) -> Section:
    """The section: a table of the paper's findings, each with its verdict."""
    if page.findings is None:
        page.gaps.say(
            "findings", "findings.json, the paper's findings F1 to F6", "snakemake --cores 2 --forcerun summarise"
        )
    tables = []
    if page.contamination:
        tables.append(table_of("Training prompts in the evaluation data", list_contamination(page.contamination)))
    tables += read_tables(page)
    if page.comparability:
        tables.append(table_of("What may be compared with the paper", page.comparability))
    return Section(tables=tables, content={"findings": (page.findings or {}).get("findings", [])})


def read_tables(page: Page) -> list[Table]:
    """The tables in the paper's shape that have a row."""
    tables = []
    for path in sorted(page.tables.glob("*.csv")) if page.tables else []:
        frame = read_csv(path)
        if frame.empty:
            continue
        lines = frame.astype(object).where(frame.notna(), None).values.tolist()
        tables.append(table(f"In the paper's shape: {label(path.stem)}", frame.columns, lines))
    return tables


def list_contamination(contamination: dict) -> list[dict[str, Any]]:
    """Rows of the page's table: training prompts and evaluated ones, by language and source."""
    return [
        {
            "language": code,
            "training prompts": total["prompts"],
            "removed": total["removed"],
            "among": name,
            "of": source["evaluated"],
            **{
                f"{kind}, {what}": source[kind][what]
                for kind in ("exact", "ngram_13")
                for what in ("prompts", "evaluated")
            },
        }
        for code, total in contamination["languages"].items()
        for name, source in total["sources"].items()
    ]
