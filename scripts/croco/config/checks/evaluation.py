"""Evaluation: tasks fit the languages, and contrasts, imports, audit and releases concern what the run makes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from croco.config.checks.models import is_hub_id
from croco.config.faults import Fault
from croco.runs import find_last

if TYPE_CHECKING:
    from croco.grid import Grid


def check_tasks(grid: "Grid") -> Iterator[Fault]:
    """The config's own tasks are in languages of the config, and none is translated into the source language."""
    for i, task in enumerate(grid.config["evaluation"]["tasks"]):
        for j, code in enumerate(task.get("languages", [])):
            if code not in grid.languages or ("source" in task and code == grid.config["source_language"]):
                keys = ("evaluation", "tasks", i, "languages", j)
                yield Fault(keys, f"the task is not needed in {code}", "correct it, or take it out")


def check_suite(grid: "Grid") -> Iterator[Fault]:
    """Every evaluated language has a structured task, and no task of the config's own has the name of one of lm-eval's."""
    evaluation = grid.config["evaluation"]
    if "suite_limit" in evaluation and not grid.wanted_capabilities():
        problem = "has no effect without a suite"
        yield Fault(("evaluation", "suite_limit"), problem, "leave it out, or say suite")
    for code, names in grid.suites.items():
        for i, task in enumerate(evaluation["tasks"]):
            if task["name"] in names:
                problem = f"lm-eval has a task of the name {task['name']}"
                yield Fault(("evaluation", "tasks", i, "name"), problem, "choose another name")
        if not names and not grid.own_tasks([code]):
            yield Fault(
                ("evaluation", "suite"),
                f"there is no structured task in {code}",
                f"list lm-eval's tasks (scripts/check_language.py {code}) in column tasks of config/languages.tsv, "
                "ask for further capabilities, or add tasks of your own under evaluation.tasks",
            )


def check_contrasts(grid: "Grid") -> Iterator[Fault]:
    """A contrast has a judge, and compares two different settings that exist. None is listed twice."""
    rows = grid.config["contrasts"]
    for i, row in enumerate(rows):
        if grid.config["evaluation"]["judge"] == "none":
            problem = "win rates are compared, which need a judge"
            yield Fault(("contrasts", i), problem, "name a judge, or write contrasts: []")
        if row in rows[:i] or row["setting"] == row["versus"]:
            yield Fault(("contrasts", i), "says nothing new", "compare two different settings, and once")
        for model in grid.tuned:
            yield from _check_sides(grid, ("contrasts", i), row, model)


def _check_sides(grid: "Grid", keys: tuple, row: dict, model: str) -> Iterator[Fault]:
    """A contrast has both settings for a tuned policy, evaluated in the same languages."""
    names = [row["setting"]] + ([row["versus"]] if row["versus"] != "base" else [])
    runs = [find_last(grid.runs.values(), model, row["pool"], name) for name in names]
    missing = [name for name, run in zip(names, runs, strict=True) if run is None]
    if seeds := [run for run in runs if run and run.setting != run.arm]:
        problem = f"{seeds[0].setting} is a training seed of {seeds[0].arm}"
        yield Fault(keys, problem, "name the setting: all of its seeds are compared")
    elif missing:
        problem = f"there is no setting {missing[0]} with the pool {row['pool']}"
        yield Fault(keys, problem, "name a setting that has it")
    elif len({frozenset(run.evaluated) for run in runs if run}) > 1:
        problem = "the two settings are evaluated in different languages"
        yield Fault(keys, problem, "give both the same `evaluate`")


def check_releases(grid: "Grid") -> Iterator[Fault]:
    """Every release names a model that is tuned, and has a name that the hub takes."""
    tuned = [name for name, run in grid.runs.items() if not run.is_base]
    for i, row in enumerate(grid.config["release"]):
        if row["run"] not in tuned:
            yield Fault(("release", i, "run"), f"there is no tuned model {row['run']}", f"one of {', '.join(tuned)}")
        if "name" in row and not is_hub_id(row["name"]):
            remedy = "let it end with a letter or digit, but not with .git, and leave -- and .. out"
            yield Fault(("release", i, "name"), f"{row['name']} is no hub id", remedy)


CHECKS = (check_tasks, check_suite, check_contrasts, check_releases)
