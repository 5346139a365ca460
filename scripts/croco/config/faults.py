"""What is wrong with a config, collected so that the user sees all of it at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from croco.errors import InputError

if TYPE_CHECKING:
    from croco.config.schema import Locator


@dataclass(frozen=True)
class Fault:
    """One wrong value: the keys that lead to it, what is wrong and what to do.

    ``path`` names the file where it is another one than the config.
    """

    keys: tuple
    problem: str
    remedy: str
    path: str | None = None


class ConfigError(InputError):
    """Several faults of a config as one error."""

    def __init__(self, errors: list[InputError]) -> None:
        self.problem = f"the config has {len(errors)} faults"
        Exception.__init__(self, "\n".join([self.problem, *map(str, errors)]))


def raise_faults(faults: Iterable[Fault], locator: "Locator") -> None:
    """Raises InputError with all faults, in the order of the config files; returns where there is none."""
    unique = sorted(dict.fromkeys(faults), key=lambda fault: locator.rank(fault.keys))
    raise_errors([locator.error(fault) for fault in unique])


def raise_errors(errors: list[InputError]) -> None:
    """Raises one InputError that shows all errors; returns where there is none."""
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigError(errors)
