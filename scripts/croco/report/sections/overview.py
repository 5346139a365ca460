"""Section "Overview": what was run, what came out, and what is missing on the page."""

from typing import Any

from croco.report.elements import Section, interval, sentence
from croco.report.page import Page


def show(page: Page) -> Section:
    """The section: what was run, the main results, and what is missing."""
    content = {
        "facts": list_facts(page),
        "contamination": describe_contamination(page.contamination),
        "headlines": write_headlines(page),
        "partial": page.asked.partial,
    }
    return Section(content=content)


def list_facts(page: Page) -> list[tuple[str, Any]]:
    """[(what, value)] of what was run."""
    runs = page.runs
    tuned = {(run.model, run.pool, run.setting.removesuffix(f".s{run.seed}")) for run in runs}
    seeds = {run.seed for run in runs}
    prompts = max((ledger["prompts"] for ledger in page.ledgers.values()), default=None)
    return [
        (name, value)
        for name, value in (
            ("policies", ", ".join(dict.fromkeys(run.model for run in runs))),
            ("reward models", ", ".join(dict.fromkeys(run.reward_model for run in runs if run.reward_model))),
            ("trained in", ", ".join(dict.fromkeys(code for run in runs for code in run.languages))),
            ("evaluated in", ", ".join(dict.fromkeys(code for run in runs for code in run.evaluated))),
            ("settings by pool", len(tuned)),
            ("tuned runs", len(runs)),
            ("training seeds", len(seeds)),
            ("training prompts", prompts),
        )
        if value
    ]


def write_headlines(page: Page) -> list[dict[str, str]]:
    """[{mark, text, estimate, kind: for | against | open}]: plain sentences on what came out.

    A finding that was tested in one pool has no headline for the pools in which it was not.
    """
    findings = page.findings
    if findings is not None:
        tested = {(row["claim"], row["model"]) for row in findings["findings"] if row["verdict"] != "not tested"}
        kinds = {"supported": "for", "not supported": "against"}
        return [
            {
                "mark": f"{row['id']} · {row['verdict']}",
                "text": sentence(row["claim"]),
                "estimate": f"{row['contrast']}{' (' + row['model'] + ')' if row.get('model') else ''}: "
                + (f"{row['estimate']:+.3f}{interval(row['low'], row['high'])}" if row["estimate"] is not None else row["why"]),
                "kind": kinds.get(row["verdict"], "open"),
            }
            for row in findings["findings"]
            if row["verdict"] != "not tested" or (row["claim"], row["model"]) not in tested
        ]  # fmt: skip
    marks: dict[bool | None, str] = {
        True: "as the paper reports",
        False: "not as the paper reports",
        None: "inconclusive",
    }
    supports: dict[bool | None, str] = {True: "for", False: "against", None: "open"}
    return [
        {
            "mark": marks[row.agrees] if row.of_paper else "not in the paper",
            "text": sentence(row.claim if row.of_paper else f"{row.what}: {row.verdict}"),
            "estimate": f"{row.what} ({row.model}): {row.measure} {row.value:.3f}{interval(row.low, row.high)}",
            "kind": supports[row.agrees],
        }
        for row in page.contrasts
    ]


def describe_contamination(contamination: dict | None) -> dict[str, Any] | None:
    """{overlaps, unchecked, clean}: which training prompts are part of the evaluation data, in sentences; or None."""
    if contamination is None:
        return None
    overlaps, clean = [], True
    for code, total in contamination["languages"].items():
        clean = clean and not total["exact_left_in"]
        if total["ngram_13"]:
            shared = f"{code}: of {total['prompts']} {total['exact']} exact, {total['ngram_13'] - total['exact']} more with 13 words in common"
            overlaps.append(shared + (f", {total['removed']} removed" if total["removed"] else ""))
    prompts = sum(total["prompts"] for total in contamination["languages"].values())
    sources = dict.fromkeys(name for total in contamination["languages"].values() for name in total["sources"])
    none = (
        f"none of {prompts} ({', '.join(contamination['languages'])}) is in {', '.join(sources)}, exact or by 13 words"
    )
    return {"overlaps": overlaps or [none], "unchecked": contamination["unchecked"], "clean": clean}
