"""The leaderboard and the headline of the report page: one line per arm, from summary.csv alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from croco.evaluation.directions import HIGHER
from croco.report.elements import BASE, number, prefer_all_seeds
from croco.report.names import UNTUNED_NAME
from croco.report.page import Page, ReportedRun
from croco.results.findings import mark_counted
from croco.results.statistics import FEWEST
from croco.results.table import ALL, ARENA, FIDELITY

if TYPE_CHECKING:
    import pandas as pd

CHANCE = "chance"  # a baseline in summary.csv
IN_HEADLINE = 3  # arms that the headline compares with its first one


@dataclass(frozen=True)
class Line:
    """An arm in one pool, over its languages and, where there are several, its training seeds.

    Attributes:
        name: plain name; ``run``: model, pool and setting as in paths.
        win_rate: against the untuned model, with its 95 % interval from ``low`` to ``high``, in shares.
        length_controlled: win rate at equal length.
        tasks: mean over the structured tasks where higher is better, each by its first metric that is a share. Only
            tasks count that all arms of the model with the same evaluated languages have; None without any.
        task_change: mean change of these tasks from the untuned model.
        right_language: share of answers in the prompt's language; ``tokens``: mean length of an answer.
        n: prompts of the win rate.
        seeds: training seeds that the win rate is of, or without one the tasks or the measures of answers;
            ``planned_seeds``: those of the run table.
    """

    model: str
    pool: str
    setting: str
    name: str
    run: str
    languages: tuple[str, ...]
    control: bool
    win_rate: float | None
    low: float | None
    high: float | None
    length_controlled: float | None
    tasks: float | None
    task_change: float | None
    right_language: float | None
    tokens: float | None
    n: int | None
    seeds: int
    planned_seeds: int

    @property
    def is_multilingual(self) -> bool:
        """Whether it is tuned on several languages."""
        return len(self.languages) > 1

    @property
    def is_off_chance(self) -> bool:
        """Whether the interval of its win rate excludes one half."""
        return (self.n or 0) >= FEWEST and ((self.low or 0) > 0.5 or (1 if self.high is None else self.high) < 0.5)


@cache
def list_lines(page: Page) -> tuple[Line, ...]:
    """The multilingual arms, the others, and the untuned models; an arm of several rounds has the last one's results."""
    arms: dict[tuple[str, str, str], list[ReportedRun]] = {}
    for run in page.runs:
        arms.setdefault((run.model, run.pool, run.arm), []).append(run)
    summary = mark_counted(page.summary)
    found = [(runs, _select(summary, runs)) for runs in (*arms.values(), *([base] for base in page.bases))]
    common: dict[tuple, set[tuple[str, str]]] = {}
    for runs, rows in found:
        if tasks := _list_tasks(rows):
            key = (runs[0].model, runs[0].evaluated)
            common[key] = common.get(key, tasks) & tasks
    lines = [(_line(rows, runs, common.get((runs[0].model, runs[0].evaluated), set())), rows) for runs, rows in found]
    # An arm whose tasks the others lack has a line without their mean.
    shown = [line for line, rows in lines if not _is_empty(line) or _list_tasks(rows)]
    return tuple(sorted(shown, key=lambda line: not line.is_multilingual))


def rank_lines(lines: Sequence[Line]) -> list[Line]:
    """The multilingual arms, the others, and the untuned models, each by falling win rate; an arm without one is last."""

    def place(line: Line) -> tuple[bool, bool, float]:
        return line.pool == BASE[0], not line.is_multilingual, math.inf if line.win_rate is None else -line.win_rate

    return sorted(lines, key=place)


def list_unmeasured(page: Page, lines: Sequence[Line]) -> list[str]:
    """The tuned arms that have no line because they have no result, as model, pool and setting."""
    measured = {line.run for line in lines}
    planned = dict.fromkeys(f"{run.model}/{run.pool}/{run.arm}" for run in page.runs)
    return [name for name in planned if name not in measured]


def _select(summary: "pd.DataFrame", runs: Sequence[ReportedRun]) -> "pd.DataFrame":
    """The rows of an arm's last round against the base over all its languages, those over all training seeds first."""
    last = max(run.round for run in runs)
    first = runs[0]
    rows = summary[(summary["model"] == first.model) & (summary["pool"] == first.pool) & (summary["round"] == last)]
    names = {run.setting for run in runs} | {first.arm}
    rows = rows[rows["setting"].isin(names)]
    rows = rows[rows["eval_language"] == ALL]
    rows = rows[rows["baseline"].isna() | rows["baseline"].isin((BASE[1], CHANCE))]
    return prefer_all_seeds(rows)


def _find_tasks(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of structured tasks that count in a mean."""
    is_counted = rows["counted"] & (rows["better"].isna() | (rows["better"] == HIGHER))
    return rows[is_counted & rows["value"].notna()]


def _list_tasks(rows: "pd.DataFrame") -> set[tuple[str, str]]:
    """{(task, metric)} that count in a mean."""
    tasks = _find_tasks(rows)
    return set(zip(tasks["task"], tasks["metric"], strict=True))


def _line(rows: "pd.DataFrame", runs: Sequence[ReportedRun], common: set[tuple[str, str]]) -> Line:
    """The line of an arm; ``rows`` are those of `_select`, and ``common`` the (task, metric) that count in its mean."""
    last = max(run.round for run in runs)
    first = next(run for run in runs if run.round == last)
    is_base = first.pool == BASE[0]
    arena, fidelity = rows[rows["task"] == ARENA], rows[rows["task"] == FIDELITY]
    tasks = _find_tasks(rows)
    wins = arena[arena["metric"] == "win_rate"]
    single = [part[part["value"].notna() & (part["seed"] != ALL)] for part in (wins, tasks, fidelity)]
    measured = next((set(map(str, part["seed"])) for part in single if len(part)), set())
    planned = {str(run.seed) for run in runs}
    # Where one is missing, no mean over the seeds is made, and the value is one seed's.
    seeds = len(measured) if measured >= planned else min(1, len(measured))
    is_common = [key in common for key in zip(tasks["task"], tasks["metric"], strict=True)]
    tasks = tasks.loc[is_common].drop_duplicates("task")
    count = None if is_base else _first(wins, "n")
    return Line(
        model=first.model,
        pool=first.pool,
        setting=first.arm,
        name=first.plain_name,
        run=f"{first.model}/{first.pool}/{first.arm}",
        languages=first.languages,
        control=first.is_control,
        win_rate=None if is_base else _first(wins, "value"),
        low=None if is_base else _first(wins, "value_low"),
        high=None if is_base else _first(wins, "value_high"),
        length_controlled=None if is_base else _first(arena[arena["metric"] == "win_rate_lc"], "value"),
        tasks=number(tasks["value"].mean()),
        task_change=number(tasks["delta"].mean()),
        right_language=_first(fidelity[fidelity["metric"] == "language_fidelity"], "value"),
        tokens=_first(fidelity[fidelity["metric"] == "n_tokens"], "value"),
        n=None if count is None else int(count),
        seeds=seeds,
        planned_seeds=len(planned),
    )


def _first(rows: "pd.DataFrame", column: str) -> float | None:
    return number(rows.iloc[0][column]) if len(rows) else None


def _is_empty(line: Line) -> bool:
    measured = (line.win_rate, line.length_controlled, line.tasks, line.right_language, line.tokens)
    return all(value is None for value in measured)


def write_headlines(page: Page, lines: Sequence[Line]) -> list[str]:
    """A sentence on the main arm of each model with the other arms of its pool beside it.

    The main arm is the one of the first declared contrast. It is the first multilingual arm, or the first arm, where
    the contrast names none that has results.
    """
    said = []
    for model in dict.fromkeys(line.model for line in lines):
        measured = _list_measured(lines, model)
        if not measured:
            continue
        main = _find_main(page, measured)
        others = [line for line in measured if line is not main and line.pool == main.pool]
        others.sort(key=lambda line: not line.control)
        texts = [_say_first(main), *(_say_other(line) for line in others[:IN_HEADLINE])]
        several = len({line.model for line in lines}) > 1
        said.append((f"{model}: " if several else "") + "; ".join(texts) + ".")
    return said


def find_main_runs(page: Page, lines: Sequence[Line]) -> list[ReportedRun]:
    """Of each model the last round, with the first training seed, of the arm that its headline is about."""
    mains = []
    for model in dict.fromkeys(line.model for line in lines):
        measured = _list_measured(lines, model)
        main = _find_main(page, measured) if measured else None
        runs = [
            run
            for run in page.first
            if main and (run.model, run.pool, run.arm) == (main.model, main.pool, main.setting)
        ]
        mains += [max(runs, key=lambda run: run.round)] if runs else []
    return mains or page.first[:1]


def find_main_run(page: Page, lines: Sequence[Line]) -> ReportedRun | None:
    """The first of `find_main_runs`; None without runs."""
    return next(iter(find_main_runs(page, lines)), None)


def _list_measured(lines: Sequence[Line], model: str) -> list[Line]:
    """The tuned arms of a model that are judged, or those with structured tasks where none is judged."""
    tuned = [line for line in lines if line.model == model and line.pool != BASE[0]]
    judged = [line for line in tuned if line.win_rate is not None]
    return judged or [line for line in tuned if line.task_change is not None]


def _find_main(page: Page, lines: Sequence[Line]) -> Line:
    for setting, pool, _ in page.declared:
        for line in lines:
            if (line.setting, line.pool) == (setting, pool) and not line.control:
                return line
    return next((line for line in lines if line.is_multilingual and not line.control), lines[0])


def name_with_pool(line: Line) -> str:
    """The plain name with the languages that the arm is tuned on."""
    if not line.languages:
        return UNTUNED_NAME
    return f"Multilingual {line.name}" if line.is_multilingual else f"{line.name}, tuned on {line.languages[0]}"


def percent(value: float) -> str:
    """A share in per cent with one digit."""
    return f"{100 * value:.1f}"


def _interval(line: Line) -> str:
    return "" if line.low is None or line.high is None else f" [{percent(line.low)}, {percent(line.high)}]"


def _say_first(line: Line) -> str:
    if line.win_rate is None:
        return f"{name_with_pool(line)} changes the structured tasks by {_points(line)} against the untuned model"
    return f"{name_with_pool(line)} wins {percent(line.win_rate)} %{_interval(line)} against the untuned model"


def _say_other(line: Line) -> str:
    value = _points(line) if line.win_rate is None else f"{percent(line.win_rate)} %{_interval(line)}"
    return f"{line.name} {value}"


def _points(line: Line) -> str:
    return f"{100 * (line.task_change or 0.0):+.1f} points"
