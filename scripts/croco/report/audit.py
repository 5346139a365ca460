"""The audit of a reward model for reading: as text for terminals and Markdown, and as a page."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from croco.report.render import TEMPLATES, render_page

WIDTH, LONGEST_NAME = 100, 40  # characters of a line, and of the name of a check
ABOUT = (
    "Accuracy is the share of prompts whose answer has a higher reward than its damaged copy. Ties count half. The "
    "interval is Wilson's 95 % interval."
)
CONTENTS = (("verdicts", "Verdicts"), ("checks", "Checks"), ("rewards", "Rewards"), ("excluded", "Excluded"))
NO_VERDICT = "none"


def format_table(report: dict[str, Any]) -> str:
    """The report as Markdown that is aligned, with at most WIDTH characters per line; ``report`` is audit/REWARD.json."""
    lines = [
        f"# Audit of the reward model {report['reward_model']}",
        "",
        *textwrap.wrap(ABOUT, WIDTH),
        "",
        *align(("language", "verdict", "check", "accuracy", "95 % interval", "prompts"), list(list_checks(report))),
        "",
        "Rewards of the answers, and Spearman's correlation of reward and length:",
        "",
        *align(("language", "mean", "sd", "correlation"), list(list_rewards(report))),
        "",
        "What to do:",
        "",
    ]
    for language, found in report["languages"].items():
        lines += wrap_item(f"{language}: {found['remedy']}.")
    lines += ["", "Excluded:", ""]
    for language, found in report["languages"].items():
        reasons = [f"{check} {reason} {count}" for check, reason, count in list_excluded(found)]
        lines += wrap_item(f"{language}: {', '.join(reasons) or 'nothing'}.")
    return "\n".join(lines) + "\n"


def render_audit(report: dict[str, Any]) -> str:
    """The report as a page; ``report`` is audit/REWARD.json."""
    languages = report["languages"]
    return render_page(
        TEMPLATES / "audit.html.j2",
        contents=CONTENTS,
        title=report["reward_model"],
        policy=report["policy"],
        about=ABOUT,
        verdicts=[(code, found["verdict"], found["remedy"]) for code, found in languages.items()],
        checks=make_table(
            "Accuracy by language and check",
            ("language", "verdict", "check", "accuracy", "95 % interval", "prompts"),
            list_checks(report),
        ),
        rewards=make_table(
            "Rewards of the answers, and Spearman's correlation of reward and length",
            ("language", "mean", "sd", "correlation"),
            list_rewards(report),
        ),
        excluded=make_table(
            "Comparisons and answers that were not used",
            ("language", "what", "reason", "number"),
            ((code, *row) for code, found in languages.items() for row in list_excluded(found)),
        ),
    )


def list_checks(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields a row per language and check that has comparisons."""
    for language, found in report["languages"].items():
        for check, result in found["checks"].items():
            if result["n"]:
                yield (
                    language,
                    found["verdict"] or NO_VERDICT,
                    textwrap.shorten(check, LONGEST_NAME, placeholder=" ..."),
                    f"{result['accuracy']:.3f}",
                    f"{result['ci_low']:.3f} to {result['ci_high']:.3f}",
                    f"{result['n']:,}",
                )


def list_rewards(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields a row per language."""
    for language, found in report["languages"].items():
        values = (found[name] for name in ("reward_mean", "reward_sd", "length_correlation"))
        yield language, *("-" if value is None else f"{value:.2f}" for value in values)


def list_excluded(found: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yields (what, reason, number) of a language."""
    for check, counts in found["left_out"].items():
        for reason, count in counts.items():
            yield check, reason, count


def align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns are aligned in a terminal, numbers to the right."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    is_number = [all(row[i][-1:].isdigit() or row[i] == "-" for row in rows) for i in range(len(columns))]
    rule = [("-" * (width - 1) + ":") if right else "-" * width for width, right in zip(widths, is_number, strict=True)]
    lines = []
    for cells in (columns, rule, *rows):
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, is_number, strict=True)
        ]
        lines.append(f"| {' | '.join(padded)} |")
    return lines


def wrap_item(text: str) -> list[str]:
    """An item of a list, over as many lines as it needs."""
    return textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ")


def make_table(caption: str, columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> dict[str, Any]:
    """A table for the template. It is no croco.report.elements.Table: a change there would make every audit run again."""
    return {"caption": caption, "columns": columns, "rows": [list(row) for row in rows], "note": None}
