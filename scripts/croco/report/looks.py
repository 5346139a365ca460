"""How the runs look in the charts: the same colour, dashes and marker everywhere, and the main arms emphasised."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from croco.report.leaderboard import find_main_runs, list_lines
from croco.report.page import Page
from croco.report.plots import MARKERS, SERIES

DASHES = ((1, 0), (7, 3), (2, 2), (9, 3, 2, 3), (4, 2), (12, 4))


@dataclass(frozen=True)
class Look:
    """The look of a run: colour, dashes of its line (lengths in pixels), marker, and whether it is a main arm."""

    color: str
    dash: tuple[int, ...]
    shape: str
    is_main: bool


def list_looks(page: Page) -> dict[str, Look]:
    """{name: look} of each run with the first training seed, by both of its names: with and without the model.

    The main arms, which the headlines are about, are first.
    """
    mains = [run.name for run in find_main_runs(page, list_lines(page))]
    looks = assign_looks([*mains, *(run.name for run in page.first)], mains)
    if page.summary["model"].nunique() > 1:
        return looks
    return looks | {name.partition("/")[2]: look for name, look in looks.items()}


def assign_looks(names: Iterable[str], mains: Collection[str] = ()) -> dict[str, Look]:
    """{name: look} of runs, in the order of the cycle of colours, dashes and markers; ``mains`` are emphasised."""
    return {
        name: Look(SERIES[i % len(SERIES)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)], name in mains)
        for i, name in enumerate(dict.fromkeys(names))
    }
