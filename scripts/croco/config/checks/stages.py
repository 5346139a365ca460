"""The order of the checks: a later stage may rely on what an earlier one has found to be right."""

from itertools import chain
from typing import TYPE_CHECKING

from croco.config.checks import evaluation, files, models, names, prompts, recipes, settings
from croco.config.faults import raise_faults

if TYPE_CHECKING:
    from croco.grid import Grid


def check_names(grid: "Grid", known_languages: dict[str, dict]) -> None:
    """Raises InputError with all names that do not exist, collide or are reserved, and rows that lack a key.

    Needs no more of ``grid`` than the config and the tables by name; afterwards every look-up by name succeeds.
    """
    raise_faults(chain.from_iterable(check(grid, known_languages) for check in names.CHECKS), grid.locator)


def check_values(grid: "Grid", on_this_machine: bool = True) -> None:
    """Raises InputError with all values that do not fit one another. Needs the whole run table.

    ``on_this_machine``: whether the files that the config names must be here.
    """
    modules = [prompts, settings, recipes, evaluation, models]
    if on_this_machine:
        modules.append(files)
    raise_faults(chain.from_iterable(check(grid) for module in modules for check in module.CHECKS), grid.locator)
