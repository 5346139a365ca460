"""What several sections show of summary.csv: estimates with their intervals, against the base."""

from typing import TYPE_CHECKING, Any

from croco.report.elements import Gaps, Table, number, prefer_all_seeds, table
from croco.report.units import PLAIN, Unit
from croco.results.findings import find_imported
from croco.results.statistics import FEWEST

if TYPE_CHECKING:
    import pandas as pd


def of_metric(summary: "pd.DataFrame", task: str, metric: str) -> "pd.DataFrame":
    """The rows of one metric against the base."""
    return summary[(summary["task"] == task) & (summary["metric"] == metric) & (summary["baseline"] == "base")]


def say_direction(summary: "pd.DataFrame", task: str, metric: str) -> str:
    """A clause for metrics where lower is better, whose positive changes are decreases; empty for others."""
    rows = of_metric(summary, task, metric)
    less = ((rows["value"] - rows["baseline_value"]) * rows["delta"] < 0).any()
    return "; lower is better, positive means lower" if less else ""


def list_estimates(summary: "pd.DataFrame", task: str, metric: str, column: str) -> list[dict[str, Any]]:
    """[{name, value, tuned, low, high, n, p, q, mde, languages, others}], one line per arm.

    For several seeds the values are from the row `all` if there is one, else from the first seed's, with the others'.
    """
    import pandas as pd

    lines = []
    for name, group in of_metric(summary, task, metric).groupby("run", sort=False):
        pooled, single = (group[(group["eval_language"] == "all") == is_pooled] for is_pooled in (True, False))
        pooled = prefer_all_seeds(pooled)
        if pooled.empty or pd.isna(pooled.iloc[0][column]):
            continue
        first, each = pooled.iloc[0], pooled[pooled["seed"] != "all"]
        languages = single[single["seed"] == first["seed"]].set_index("eval_language")[column].dropna().to_dict()
        others = each[column].dropna().tolist()
        lines.append(
            {
                "name": name,
                "value": float(first[column]),
                "tuned": number(first["value"]),
                "low": number(first[f"{column}_low"]),
                "high": number(first[f"{column}_high"]),
                "n": number(first["n"]),
                "baseline": number(first["baseline_value"]),
                **{key: number(first[key]) for key in ("p", "p_adjusted", "q", "mde")},
                "languages": languages if len(languages) > 1 else {},
                "others": (others if first["seed"] == "all" else others[1:]) if len(others) > 1 else [],
            }
        )
    return lines


def say_unpooled(section: str, rows: "pd.DataFrame", gaps: Gaps) -> None:
    """Lists as a gap the runs that have values of single languages but no mean, because a language is missing.

    Other harnesses may have measured one language only.
    """
    rows = rows[~find_imported(rows)]
    keys = ["task", "metric", "run"]
    pooled = rows.loc[rows["eval_language"] == "all", keys].drop_duplicates()
    found = rows[keys].drop_duplicates().merge(pooled, how="left", indicator=True)
    for (task, metric), lines in found[found["_merge"] == "left_only"].groupby(["task", "metric"], sort=False):
        what = f"{metric} of {task} over all languages, of {', '.join(lines['run'])}: a language has no value"
        gaps.say(section, what, "snakemake --cores 2 --forcerun summarise")


def find_base(lines: list[dict[str, Any]]) -> float | None:
    """The base's value if all lines are compared with the same one, else None."""
    values = {line["baseline"] for line in lines}
    return values.pop() if len(values) == 1 else None


def table_estimates(
    caption: str,
    lines: list[dict[str, Any]],
    value: str,
    unit: Unit,
    change_unit: Unit,
    base_unit: Unit | None = None,
) -> Table:
    """The table of `list_estimates`.

    Args:
        value: head of the column of the estimates, whose differences are in ``change_unit``.
        base_unit: of a column with the base's values; without it there is none.
    """
    return table(
        caption,
        ["run", *(["base"] if base_unit else []), value, "95 % from", "to", "n", "p", "p, adjusted", "q", "detectable (mde)", "other seeds"],
        [
            [
                line["name"], *([base_unit.show(line["baseline"])] if base_unit else []),
                *(unit.show(line[key]) for key in ("value", "low", "high")),
                line["n"] and int(line["n"]), line["p"], line["p_adjusted"], line["q"], change_unit.show(line["mde"]),
                unit.show_several(line["others"]),
            ]
            for line in lines
        ],
    )  # fmt: skip


def in_words(lines: list[dict[str, Any]], reference: float, unit: Unit = PLAIN) -> str:
    """A sentence on a forest plot: which intervals exclude the reference."""
    lines = [line for line in lines if (line["n"] or 0) >= FEWEST]
    above = [line["name"] for line in lines if line["low"] is not None and line["low"] > reference]
    below = [line["name"] for line in lines if line["high"] is not None and line["high"] < reference]
    parts = [f"{len(lines)} runs with {FEWEST} prompts or more"]
    parts += [f"{len(names)} clearly {word} {unit.write(reference)} ({', '.join(names)})" for word, names in (("above", above), ("below", below)) if names]  # fmt: skip
    return "; ".join(parts) + "."
