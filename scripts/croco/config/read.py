"""From config files to the run table, as Snakemake merges them."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from croco.config.languages import read_languages
from croco.config.schema import Locator, check_config
from croco.config.shipped import find_shipped_files, path_shipped
from croco.errors import InputError
from croco.grid import Grid
from croco.pins import hold_to_lock
from croco.records import advise_encoding

DEFAULT = "config/config.yaml"


def read_files(files: Sequence[str | Path], checkout: Path) -> tuple[dict[str, Any], Locator]:
    """The default config with the files of --configfile merged into it in their order, and where its keys come from.

    Raises InputError with file, line and column for a file that is not YAML, and as Locator does.
    """
    default = path_shipped(DEFAULT, checkout)
    merged: dict[str, Any] = {}
    for path in (default, *files):
        update_config(merged, load_mapping(path))
    return merged, Locator([*reversed(files), default], default=default)


def load_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises InputError with line and column for a file that is not YAML or not UTF-8."""
    raw = Path(path).read_bytes()
    try:
        value = yaml.safe_load(raw.decode())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at column {mark.column + 1}" if mark else ""
        remedy = "correct the line, or the one above it"
        at = mark.line + 1 if mark else None
        raise InputError(f"not YAML{where}: {error.problem}", remedy, path, at) from None
    except UnicodeDecodeError as error:
        line, column = _find_place(raw[: error.start].decode())
        problem = f"not a text file in UTF-8: the byte 0x{raw[error.start]:02x} at column {column}"
        raise InputError(problem, advise_encoding(raw), path, line) from None
    except yaml.reader.ReaderError as error:
        line, column = _find_place(raw.decode()[: error.position])
        problem = f"not a text file: the control character U+{error.character:04X} at column {column}"
        raise InputError(problem, "remove it", path, line) from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", "write numbers of ordinary size, and few levels", path) from None
    if not isinstance(value, dict):
        raise InputError("no mapping of keys to values", "write key: value lines, as in config/config.yaml", path)
    return value


def _find_place(before: str) -> tuple[int, int]:
    """(line, column), from 1, of what follows a text."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def build_grid(config: dict[str, Any], checkout: Path, locator: Locator) -> tuple[Grid, dict[str, Any]]:
    """(run table, the merged config as it was asked for) of a merged config; raises InputError with all its faults.

    Revisions in the run table are the commits of the config's lock.
    """
    checked, asked = _check(config, checkout, locator)
    grid = Grid(checked, read_languages(checkout / "config/languages.tsv"), locator)
    hold_to_lock(grid)
    return grid, asked


def build_foreign_grid(config: dict[str, Any], checkout: Path, languages: Path) -> Grid:
    """The run table of a merged config from another machine, whose lock and files are not here.

    Revisions are as in the config. ``languages``: that machine's table of languages. Raises InputError as build_grid.
    """
    locator = Locator([])
    checked, _ = _check(config, checkout, locator)
    return Grid(checked, read_languages(languages), locator, on_this_machine=False)


def _check(config: dict[str, Any], checkout: Path, locator: Locator) -> tuple[dict[str, Any], dict[str, Any]]:
    """(a config with its defaults filled in, the config as it was asked for)."""
    checked = copy.deepcopy(config)
    # In --config, Snakemake converts True but not true.
    checked.update({key: value == "true" for key, value in checked.items() if value in ("true", "false")})
    asked = copy.deepcopy(checked)
    for name in ("redo", "from_state"):  # they are for one start, and say nothing of the results
        asked.pop(name, None)
    check_config(checked, checkout / "config/schema.yaml", locator)
    find_shipped_files(checked, checkout)
    return checked, asked
