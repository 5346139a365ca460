"""summary.csv: what a row holds, and its one reader and writer. docs/statistics.md says how the numbers are computed."""

import csv
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from croco.errors import InputError
from croco.files import replacing
from croco.records import read_lines
from croco.runs import Run
from croco.spreadsheets import guard_row, to_csv, unguard_row

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
# Tasks that are not structured tasks: verdicts on answers, and measures of answers.
ARENA, FIDELITY = "arena", "fidelity"
BY_REWARDS = ("reward", "reward_judge_agreement")  # metrics that depend on the reward model, whatever the run's data


@dataclass(frozen=True)
class Row:
    """One row of the summary; a field that does not apply, or is not known, is None and empty in the file.

    Attributes:
        model, pool, setting, round, reward_model, pool_size: as in a Run; the last two only if its data depends on
            them, and the reward model also in rows that it measured.
        seed: the replicate, or `all` for the mean over a setting's replicates.
        eval_language: the language of the prompts, or `all` for the mean over languages.
        languages: the languages that the row is the mean over, separated by commas.
        task: arena, fidelity, or a structured task.
        suite: the group that the task belongs to; exclude rows that have one from a mean over tasks.
        metric: see croco.results.metrics.
        better: higher or lower; empty if neither is better, as for lengths.
        value: mean over prompts.
        value_low, value_high: 95 % interval of `value`, for rates that are compared with chance.
        n: prompts.
        baseline: what the row is compared with: base, chance, or another setting.
        baseline_value: its mean over the same prompts.
        delta: value - baseline_value, or the reverse where lower is better: above 0 is better.
        se: standard error of delta.
        delta_low, delta_high: 95 % interval of `delta`.
        p: of a paired test of delta = 0; p_adjusted (Holm) among the declared contrasts; q (false discovery rate) among
            all other rows.
        mde: the minimum detectable effect: the delta that would be found in 80 % of repetitions.
    """

    model: str
    pool: str
    setting: str
    seed: str
    round: int
    reward_model: str | None
    pool_size: int | None
    eval_language: str
    languages: str | None
    task: str
    suite: str | None
    metric: str
    better: str | None
    value: float | None
    value_low: float | None
    value_high: float | None
    n: int | None
    baseline: str | None
    baseline_value: float | None
    delta: float | None
    se: float | None
    delta_low: float | None
    delta_high: float | None
    p: float | None
    p_adjusted: float | None
    q: float | None
    mde: float | None


COLUMNS = [field.name for field in fields(Row)]
NUMBERS = [field.name for field in fields(Row) if field.type in (float | None, int | None)]
NAMES = [name for name in COLUMNS if name not in (*NUMBERS, "round")]


def rank_seed(seed: str) -> int:
    """The place of a training seed among others; rows over all seeds come first."""
    return 0 if seed == ALL else int(seed)


def name_run(run: Run, by_rewards: bool = False) -> dict:
    """The columns that say which run a row is of; ``by_rewards``: the row's metric is one of BY_REWARDS."""
    return {
        "model": run.model,
        "pool": run.pool,
        "setting": run.setting,
        "seed": str(run.replicate),
        "round": run.round,
        "reward_model": run.reward_model if run.uses_rewards or by_rewards else None,
        "pool_size": run.pool_size if run.uses_responses else None,
    }


def read_summary(path: Path) -> "pd.DataFrame":
    """The rows of summary.csv with two more columns.

    `arm` and `versus` are setting and baseline without the replicates' numbers.
    Raises InputError where there is no such file, a column is missing or unknown, or a cell should be a number and is not.
    """
    import pandas as pd

    cells = pd.DataFrame(read_cells(path), columns=COLUMNS).replace("", None)
    try:
        numbers = cells[NUMBERS].astype(float)
        rounds = cells["round"].astype(int)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a cell is not a number ({error})", "give the table that scripts/summary.py wrote", path
        ) from error
    return _with_arms(cells.assign(round=rounds, **numbers))


def empty_summary() -> "pd.DataFrame":
    """No rows, in the columns that read_summary gives."""
    import pandas as pd

    kinds = {name: float for name in NUMBERS} | {"round": int}
    return _with_arms(pd.DataFrame({name: pd.Series(dtype=kinds.get(name, object)) for name in COLUMNS}))


def _with_arms(table: "pd.DataFrame") -> "pd.DataFrame":
    for name, source in (("arm", "setting"), ("versus", "baseline")):
        table[name] = [
            value.removesuffix(f".s{seed}") if isinstance(value, str) else value
            for value, seed in zip(table[source], table["seed"], strict=True)
        ]
    return table


def read_cells(path: Path) -> list[dict[str, str]]:
    """The rows of a table in the columns of summary.csv, as text.

    Raises InputError if its columns differ, a row has fewer or more cells, or a number is not finite.
    """
    lines = csv.DictReader((text + "\n" for _, text in read_lines(path)), strict=True)
    rows = []
    try:
        refuse_other_columns(lines.fieldnames or (), path)
        for row in lines:
            if None in row or None in row.values():
                raise InputError(f"not {len(COLUMNS)} fields", "fix the row", path, lines.line_num)
            if name := next((name for name in NUMBERS if _is_endless(row[name])), None):
                raise InputError(f"{row[name]!r} is not finite", "write a finite number", path, lines.line_num, name)
            rows.append(unguard_row(row))
    except csv.Error as error:
        raise InputError(f"broken CSV ({error})", "quote as RFC 4180 says", path, lines.line_num) from error
    return rows


def _is_endless(cell: str) -> bool:
    """Whether a cell reads as infinite, or as no number (NaN)."""
    try:
        return not math.isfinite(float(cell))
    except ValueError:  # empty, or no number at all
        return False


def refuse_other_columns(columns: Iterable[str], path: Path) -> None:
    """Raises InputError if the columns are not those of summary.csv in that order."""
    if list(columns) != COLUMNS:
        wrong = sorted(set(COLUMNS) ^ set(columns))
        raise InputError(
            f"other columns than those of summary.csv: {', '.join(wrong) or 'their order'}",
            f"write these columns: {','.join(COLUMNS)}",
            path,
            1,
        )


def write_summary(path: Path, table: Iterable[Row], imported: Iterable[dict[str, str]] = ()) -> None:
    """Writes the rows with six significant digits, then those of ``imported`` as they are."""
    import pandas as pd

    with replacing(path) as file:
        frame = pd.DataFrame([asdict(row) for row in table], columns=COLUMNS)
        for name in ("round", "pool_size", "n"):
            frame[name] = frame[name].astype("Int64")
        file.write(to_csv(frame))
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(map(guard_row, imported))
