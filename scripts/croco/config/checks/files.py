"""Files of the user's that the config names."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from croco.config.faults import Fault

if TYPE_CHECKING:
    from croco.grid import Grid


def check_custom_rules(grid: "Grid") -> Iterator[Fault]:
    """The user's files of Snakemake rules exist."""
    for i, path in enumerate(grid.config["custom_rules"]):
        if not Path(path).is_file():
            problem = f"there is no file {path} in {Path.cwd()}"
            yield Fault(("custom_rules", i), problem, "correct the path, or start in the folder that has the file")


CHECKS = (check_custom_rules,)
