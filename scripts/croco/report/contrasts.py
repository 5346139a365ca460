"""The declared contrasts of win rates, with what the paper reports of each."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from croco.report.elements import number, prefer_all_seeds
from croco.report.units import PERCENT, POINTS, Unit
from croco.results.findings import NULL_MARGIN, compare_with_paper
from croco.results.statistics import FEWEST
from croco.results.table import ALL, ARENA
from croco.runs import BASE

if TYPE_CHECKING:
    import pandas as pd

    from croco.report.page import ReportedRun


@dataclass(frozen=True)
class Contrast:
    """One declared contrast of one policy.

    Attributes:
        what: pool/setting against what it is compared with.
        measure: name of ``value`` with its 95 % interval from ``low`` to ``high``, in shares; None without a
            result, and an end is None where it is not bounded.
        p: adjusted p, or None.
        claim: what the paper reports, if it does (``of_paper``).
        verdict: whether this run shows it, in words; ``agrees`` is True, False, or None if neither is known.
    """

    model: str
    what: str
    measure: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    claim: str
    of_paper: bool
    verdict: str
    agrees: bool | None

    @property
    def unit(self) -> Unit:
        """The unit of ``value``."""
        return PERCENT if self.measure == "win rate" else POINTS


def read_contrasts(
    summary: "pd.DataFrame",
    runs: Iterable["ReportedRun"],
    declared: Iterable[tuple[str, str, str]],
    claims: dict[tuple[str, str], dict],
) -> list[Contrast]:
    """The declared contrasts of each model, each with what the paper reports and whether this run shows it.

    ``claims`` are the rows of findings.json by (setting, versus).
    """
    pooled = select_win_rates(summary)
    last = {(run.setting, run.pool, run.model): run.round for run in runs}
    contrasts = []
    for setting, pool, versus in declared:
        chosen = pooled[(pooled["setting"] == setting) & (pooled["pool"] == pool) & (pooled["baseline"] == versus)]
        reported = claims.get((setting, versus), {"expected": None, "claim": "not a finding of the paper"})
        for model in (key[2] for key in last if key[:2] == (setting, pool)):
            rows = chosen[(chosen["model"] == model) & (chosen["round"] == last[setting, pool, model])]
            contrasts.append(
                Contrast(
                    model=model,
                    what=f"{pool}/{setting} against {versus}",
                    measure="win rate" if versus == BASE else "difference of win rates",
                    claim=reported["claim"],
                    of_paper=reported["expected"] is not None,
                    **read_result(rows, "value" if versus == BASE else "delta", reported["expected"]),
                )
            )
    return contrasts


def read_result(rows: "pd.DataFrame", column: str, expected: str | None) -> dict[str, Any]:
    """{value, low, high, p, verdict, agrees} of a contrast's rows, over all training seeds where there are several."""
    import pandas as pd

    row: Any = next(prefer_all_seeds(rows).itertuples(), None)
    if row is None:
        return {**dict.fromkeys(("value", "low", "high", "p", "agrees")), "verdict": "no result"}
    low, high = map(number, find_interval(row, column))
    p = None if pd.isna(row.p_adjusted) else row.p_adjusted
    verdict = compare_with_paper(*find_interval(row, "delta"), expected, row.n)
    return {"value": getattr(row, column), "low": low, "high": high, "p": p, **verdict}


def select_win_rates(summary: "pd.DataFrame") -> "pd.DataFrame":
    """The win rates over all languages by the run's own verdicts; those of other harnesses are not among them."""
    of_verdicts = (summary["task"] == ARENA) & (summary["metric"] == "win_rate")
    return summary[of_verdicts & (summary["eval_language"] == ALL)]


def find_interval(row: Any, column: str) -> tuple[float, float]:
    """The ends of a column's interval, infinite where the summary has none."""
    import pandas as pd

    low, high = getattr(row, f"{column}_low"), getattr(row, f"{column}_high")
    return -math.inf if pd.isna(low) else low, math.inf if pd.isna(high) else high


def contrasts_over_seeds(
    summary: "pd.DataFrame", declared: Iterable[tuple[str, str, str]], claims: dict[tuple[str, str], dict]
) -> list[dict]:
    """Declared contrasts once more, paired by training seed: how many seeds show what the paper reports.

    Seeds with too few prompts for a verdict are excluded.
    """
    import pandas as pd

    pooled = select_win_rates(summary)
    pooled = pooled[(pooled["baseline"] == BASE) & (pooled["seed"] != "all") & (pooled["n"] >= FEWEST)]

    def by_seed(model: str, pool: str, setting: str) -> pd.Series:
        arm = pooled[(pooled["model"] == model) & (pooled["pool"] == pool)]
        names = [name.removesuffix(f".s{seed}") for name, seed in zip(arm["setting"], arm["seed"], strict=True)]
        arm = arm[pd.Series(names, index=arm.index, dtype=str) == setting]
        return arm[arm["round"] == arm["round"].max()].set_index("seed")["value"]

    table = []
    for setting, pool, versus in declared:
        for model in pooled["model"].unique():
            ours = by_seed(model, pool, setting)
            differences = (ours - (0.5 if versus == BASE else by_seed(model, pool, versus))).dropna()
            if len(differences) < 2:
                continue
            expected = claims.get((setting, versus), {}).get("expected")
            as_reported = {
                "higher": differences > 0,
                "not lower": differences >= 0,
                "equal": differences.abs() <= NULL_MARGIN,
            }.get(expected or "")
            table.append(
                {
                    "model": model,
                    "what": f"{pool}/{setting} - {versus if versus != 'base' else '50 %'}",
                    "mean": differences.mean(),
                    "sd": differences.std(),
                    "each": ", ".join(f"{100 * value:+.1f} points" for value in differences),
                    "differences": differences.tolist(),
                    "agree": None if as_reported is None else f"{as_reported.sum()} of {len(differences)}",
                }
            )
    return table
