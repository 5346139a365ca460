"""Files that are part of the checkout, found from any working directory."""

from pathlib import Path


def path_shipped(path: str, base: Path) -> str:
    """The path of a file of the checkout ``base``.

    It is relative if the checkout is in the working directory: paths are among what decides whether a job runs again,
    and renaming a folder above must not re-run anything.
    """
    full = Path(base, path)
    return str(full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else full)


def find_shipped_files(config: dict, base: Path) -> None:
    """Replaces paths of task files and judge prompts that are only in the checkout, not in the working directory."""
    named = [(row, "yaml") for row in config["evaluation"]["tasks"]] + [(row, "prompt") for row in config["judges"]]
    for row, key in named:
        if not Path(row[key]).exists() and Path(base, row[key]).exists():
            row[key] = path_shipped(row[key], base)
