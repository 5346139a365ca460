"""How much work lm-eval's tasks are: config/suites.tsv."""

import csv
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from croco.errors import InputError

TABLE = Path(__file__).parents[3] / "config/suites.tsv"


@dataclass(frozen=True)
class SuiteTask:
    """A row of config/suites.tsv.

    Attributes:
        task: name of lm-eval's task, group or tag, or a pattern with ``*``.
        single_tasks: how many it has. documents: of all of them together.
        max_gen_toks: tokens of a reply at most; 0 for a task whose choices are only read.
    """

    task: str
    single_tasks: int
    documents: int
    max_gen_toks: int


@cache
def read_suite_tasks(path: Path = TABLE) -> list[SuiteTask]:
    """The rows; raises InputError for a figure that is no number from 0."""
    tasks = []
    with open(path, encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file, delimiter="\t"), start=2):
            try:
                figures = [int(row[name]) for name in ("single_tasks", "documents", "max_gen_toks")]
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"not a row of tasks ({error})", "write a number per column", path, line) from error
            if min(figures) < 0:
                raise InputError("a figure below 0", "write a number from 0", path, line)
            tasks.append(SuiteTask(row["task"], *figures))
    return tasks


def find_suite_task(name: str) -> SuiteTask | None:
    """The first row that is for a task, None without one."""
    return next((task for task in read_suite_tasks() if fnmatchcase(name, task.task)), None)
