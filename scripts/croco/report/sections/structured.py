"""Section "Structured tasks": the change of each metric of each task from the base."""

from typing import Any

from croco.report import plots
from croco.report.elements import Figure, Section, Table, figure, label, number, table
from croco.report.estimates import find_base, in_words, list_estimates, say_direction, say_unpooled, table_estimates
from croco.report.looks import list_looks
from croco.report.page import Page
from croco.report.units import find_change_unit, find_unit
from croco.results.findings import find_imported

INTRO = "Tasks with a right answer, run by lm-eval: gains and losses of tuning without a judge."
# Tasks of the summary that have sections of their own.
OTHER_SECTIONS = ("arena", "fidelity")


def show(page: Page) -> Section:
    """A forest plot for each structured task and metric."""
    summary = page.summary
    tasks = summary[~summary["task"].isin(OTHER_SECTIONS) & summary["baseline"].notna()]
    say_unpooled("structured", tasks, page.gaps)
    figures: list[Figure] = []
    drawn = set()
    looks = list_looks(page)
    for task, metric in tasks[["task", "metric"]].drop_duplicates().itertuples(index=False):
        lines = list_estimates(summary, task, metric, "delta")
        if not lines:
            continue
        drawn |= {(task, metric, line["name"]) for line in lines}
        before, base_unit = find_base(lines), find_unit(metric)
        unit = find_change_unit(metric)
        note = (
            "The numbers have the base's value in the languages of each run."
            if before is None
            else f"The base has {base_unit.write(before)}, languages pooled."
        )
        direction = say_direction(summary, task, metric)
        figures.append(
            figure(
                f"task-{len(figures)}",
                [(None, plots.plot_forest(lines, 0, f"Change of {label(metric)}", looks, unit, page.languages))],
                f"Dots with intervals: change of {metric} on {task} from the base. {in_words(lines, 0, unit)}",
                f"{label(metric).capitalize()} on {task}: change from the base, with its 95 % interval{direction}; coloured marks are single languages, small crosses training seeds. {note}",
                table_estimates(
                    f"{metric} on {task}: change from the base{direction}", lines, "change", unit, unit, base_unit
                ),
            )
        )
    if not figures and page.asked.tasks:
        page.gaps.say("structured", "results of structured tasks in summary.csv", "snakemake --cores 2")
    others = [
        row
        for row in summary[find_imported(summary)].itertuples(index=False)
        if (row.task, row.metric, row.run) not in drawn
    ]
    return Section(
        intro=INTRO,
        figures=figures,
        tables=[table_imported(others)] if others else [],
        empty=None if others else "None was configured.",
    )


def table_imported(rows: list[Any]) -> Table:
    """Results of other harnesses that have no figure, because they are of single languages or have no base."""
    return table(
        "Results of other harnesses",
        ["task", "metric", "language", "run", "seed", "value", "base", "change", "95 % from", "to", "n"],
        [
            [
                row.task, row.metric, row.eval_language, row.run, row.seed,
                *(find_unit(row.metric).show(value) for value in (row.value, row.baseline_value)),
                *(find_change_unit(row.metric).show(value) for value in (row.delta, row.delta_low, row.delta_high)),
                None if number(row.n) is None else int(row.n),
            ]
            for row in rows
        ],
    )  # fmt: skip
