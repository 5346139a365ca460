"""Files and folders of the user's that the config names."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from croco.config.faults import Fault

if TYPE_CHECKING:
    from croco.grid import Grid


# Folders of the checkout that hold no results.
OWN_FOLDERS = ("config", "docs", "envs", "profiles", "report", "rules", "scripts", "tests")


def check_results(grid: "Grid") -> Iterator[Fault]:
    """The output root is a folder of its own: results never mix with the user's files or with the checkout's."""
    given = str(grid.config["results"])
    path, here, checkout = Path(given).resolve(), Path.cwd(), Path(__file__).parents[4]
    own = [base / name for base in (here, checkout) for name in OWN_FOLDERS]
    if here.is_relative_to(path) or checkout.is_relative_to(path) or any(map(path.is_relative_to, own)):
        yield Fault(("results",), f"{given} is no folder of its own", "give one, such as results/NAME")
    if files := [str(place) for place in (path, *path.parents) if place.exists() and not place.is_dir()]:
        yield Fault(
            ("results",), f"{files[0]} is a file, where the results need a folder", "move it, or choose another"
        )
    if any(part.startswith("-") for part in Path(given).parts):
        yield Fault(("results",), f"{given} has a part that begins with -", "begin it with a letter or a digit")


def check_custom_rules(grid: "Grid") -> Iterator[Fault]:
    """The user's files of Snakemake rules exist."""
    for i, path in enumerate(grid.config["custom_rules"]):
        if not Path(path).is_file():
            problem = f"there is no file {path} in {Path.cwd()}"
            yield Fault(("custom_rules", i), problem, "correct the path, or start in the folder that has the file")


CHECKS = (check_results, check_custom_rules)
