"""Section "Structured tasks": the change of each metric of each task from the base."""

from croco.report import plots
from croco.report.elements import Figure, Section, figure, label
from croco.report.estimates import find_base, in_words, list_estimates, say_direction, say_unpooled, table_estimates
from croco.report.looks import list_looks
from croco.report.page import Page
from croco.report.units import find_change_unit, find_unit

INTRO = "Tasks with a right answer, run by lm-eval: gains and losses of tuning without a judge."
# Tasks of the summary that have sections of their own.
OTHER_SECTIONS = ("arena", "fidelity")


def show(page: Page) -> Section:
    """A forest plot for each structured task and metric."""
    summary = page.summary
    tasks = summary[~summary["task"].isin(OTHER_SECTIONS) & summary["baseline"].notna()]
    say_unpooled("structured", tasks, page.gaps)
    figures: list[Figure] = []
    looks = list_looks(page)
    for task, metric in tasks[["task", "metric"]].drop_duplicates().itertuples(index=False):
        lines = list_estimates(summary, task, metric, "delta")
        if not lines:
            continue
        before = find_base(lines)
        unit = find_change_unit(metric)
        note = f" The base has {find_unit(metric).write(before)}, languages pooled." if before is not None else ""
        direction = say_direction(summary, task, metric)
        figures.append(
            figure(
                f"task-{len(figures)}",
                [(None, plots.plot_forest(lines, 0, f"Change of {label(metric)}", looks, unit))],
                f"Dots with intervals: change of {metric} on {task} from the base. {in_words(lines, 0, unit)}",
                f"{label(metric).capitalize()} on {task}: change from the base, with its 95 % interval{direction}; coloured marks are single languages, small crosses training seeds.{note}",
                table_estimates(f"{metric} on {task}: change from the base{direction}", lines, "change", unit, unit),
            )
        )
    if not figures and page.asked.tasks:
        page.gaps.say("structured", "results of structured tasks in summary.csv", "snakemake --cores 2")
    return Section(intro=INTRO, figures=figures, empty="None was configured.")
