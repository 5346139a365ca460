"""Section "Data": from prompts to training data, every difference by its reason."""

from dataclasses import replace
from typing import Any

from croco.report import plots
from croco.report.elements import Figure, Section, Table, figure, label, reasons, table_of, total
from croco.report.looks import list_looks
from croco.report.page import Page
from croco.report.units import PERCENT

INTRO = (
    "From prompts to training data. The ledger of each run counts what went in, what came out, and every difference by "
    "its reason. If a ledger does not add up, its stage fails."
)

MINIMUM_NOTE = (
    "“rejected is the minimum”: share of pairs in which the rejected response is simply the worst one. Near 100 %, the run's rule "
    "picks what the rule min would."
)


def show(page: Page) -> Section:
    """The section: where responses and prompts were lost, and which prompts are part of the evaluation data."""
    bars = count_prompts(page)
    unlost = say_none_lost(bars)
    shown = [part for part in (show_responses(page), show_prompts(page, bars, unlost)) if part is not None]
    tables = [part for part in shown if isinstance(part, Table)]
    if page.contamination:
        tables.append(table_of("Training prompts in the evaluation data", list_contamination(page.contamination)))
    return Section(
        intro=INTRO,
        figures=[part for part in shown if isinstance(part, Figure)],
        tables=tables,
        undrawn={"prompts": unlost} if unlost else {},
    )


def show_responses(page: Page) -> Figure | Table | None:
    """Responses of each policy and language, and why they left the pools."""
    bars, lines = count_responses(page), []
    if not bars:
        return None
    for run in page.first:
        ledger = page.ledgers.get(run.folder)
        for code, counts in ledger["languages"].items() if ledger else ():
            lines.append(
                {
                    "run": run.name,
                    "language": code,
                    "prompts": counts["prompts"],
                    "skipped prompts": reasons([counts.get("skipped", {})]),
                    "responses": counts.get("responses"),
                    "excluded": reasons([counts.get("left_out", {})]),
                    "eligible": counts.get("eligible"),
                    "duplicates": counts.get("duplicates"),
                    "chosen": counts.get("chosen"),
                    "rejected": counts.get("rejected"),
                }
            )
    numbers = table_of("Responses by run and language", lines)
    if not count_lost(bars):
        return replace(numbers, note="No response left its pool.")
    return figure(
        "responses",
        [(None, plots.plot_losses(bars, "Responses that left their pool (count)", list_looks(page)))],
        f"Bars: how many responses of each policy and language left their pool, by reason. {total(bars)}",
        "Responses of each policy and language that left their pool before mean and standard deviation, by reason. The numbers say how many stayed. A language has a second line if a run has another pool size or hygiene.",
        numbers,
    )


def count_responses(page: Page) -> list[dict[str, Any]]:
    """Parts of the bars: each policy and language once, unless the counts of its runs differ."""
    bars: list[dict[str, Any]] = []
    shown = set()
    for run in page.first:
        ledger = page.ledgers.get(run.folder)
        for code, counts in ledger["languages"].items() if ledger else ():
            name = f"{run.responses}, {code}"
            key = (name, str(counts.get("left_out")), counts.get("responses"))
            if not counts.get("responses") or key in shown:
                continue
            shown.add(key)
            name = name if name not in {bar["name"] for bar in bars} else f"{name} ({run.name})"
            bars.append({"name": name, "part": "eligible responses", "count": counts["eligible"], "kind": "kept"})
            for reason, count in counts["left_out"].items():
                bars.append({"name": name, "part": label(reason), "count": count, "kind": "lost"})
    return bars


def count_prompts(page: Page) -> list[dict[str, Any]]:
    """Parts of the bars: the prompts of each run that became training data, and the others by reason."""
    bars = []
    for run in page.first:
        ledger = page.ledgers.get(run.folder)
        if ledger is None:
            continue
        formed = "prompts with a pair" if ledger["target"] == "pair" else "prompts with a training text"
        bars.append({"name": run.name, "part": formed, "count": ledger["formed"], "kind": "kept"})
        for reason, count in ledger["no_pair"].items():
            bars.append({"name": run.name, "part": label(reason), "count": count, "kind": "lost"})
    return bars


def count_lost(bars: list[dict[str, Any]]) -> int:
    """Everything that was lost, over all bars."""
    return sum(bar["count"] for bar in bars if bar["kind"] == "lost")


def say_none_lost(bars: list[dict[str, Any]]) -> str | None:
    """A sentence where no prompt was lost; None where one was, or there are no runs."""
    if not bars or count_lost(bars):
        return None
    return "Each prompt of each run became training data."


def show_prompts(page: Page, bars: list[dict[str, Any]], unlost: str | None) -> Figure | Table | None:
    """Prompts of each run that became training data, and why the others did not; a table where none was lost."""
    if not bars:
        return None
    lines = [
        {
            "run": run.name,
            "prompts": ledger["prompts"],
            "formed": ledger["formed"],
            "not formed": reasons([ledger["no_pair"]]),
            "languages": ", ".join(f"{code} {count}" for code, count in ledger["formed_by_language"].items()),
            "rejected is the minimum": PERCENT.show(ledger.get("rejected_is_minimum")),
            "advice": ledger.get("advice"),
        }
        for run in page.first
        if (ledger := page.ledgers.get(run.folder))
    ]
    numbers = table_of("Ledger: prompts by run", lines, MINIMUM_NOTE)
    if unlost:
        return replace(numbers, note=f"{unlost} {MINIMUM_NOTE}")
    return figure(
        "prompts",
        [(None, plots.plot_losses(bars, "Prompts without training data (count)", list_looks(page)))],
        f"Bars: how many prompts of each run did not become training data, by reason. {total(bars)}",
        "Prompts of each run that did not become training data, by reason. The numbers say how many did. Of several replicates, the figure shows the first.",
        numbers,
    )


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
