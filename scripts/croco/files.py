"""Files that appear whole or not at all."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def partial_path(path: str | Path) -> Path:
    """Where this process writes what will be ``path``: hidden, and named by host and process."""
    path = Path(path)
    return path.with_name(f".{path.name}{_partial_ending()}")


def final_path(path: str | Path) -> Path:
    """What this process writes at ``path`` will be: the inverse of partial_path, and any other path as it is."""
    path = Path(path)
    is_partial = path.name.startswith(".") and path.name.endswith(_partial_ending())
    return path.with_name(path.name[1:].removesuffix(_partial_ending())) if is_partial else path


def _partial_ending() -> str:
    return f".{platform.node()}.{os.getpid()}.partial"


@contextmanager
def partial_file(path: str | Path) -> Iterator[TextIO]:
    """A text file at partial_path(path), for the caller to rename; it is deleted if it is still there at the end."""
    partial = partial_path(path)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, "w", encoding="utf-8") as file:
            yield file
    finally:
        partial.unlink(missing_ok=True)


def save(file: TextIO, path: str | Path) -> None:
    """Gives an open file its final name, once what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, path)


@contextmanager
def replacing(path: str | Path) -> Iterator[TextIO]:
    """A text file that appears under ``path`` only when the block has ended without an error."""
    with partial_file(path) as file:
        yield file
        save(file, path)


def publish(source: str | Path, target: str | Path) -> None:
    """Puts a finished file in its place at once: a hard link, or a copy where the file system allows none."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(target)
    partial.unlink(missing_ok=True)  # of a killed process with this number: perhaps a link to another result
    try:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        # Also after a success: rename() leaves both names when they already are links to one file.
        partial.unlink(missing_ok=True)
