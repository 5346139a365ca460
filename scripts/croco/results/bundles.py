"""The archive that scripts/bundle.py packs and scripts/verify.py reads: its index, its digest, and safe unpacking.

An archive comes from a stranger, so its names, sizes and kinds of entries are checked before anything is written.
"""

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from croco.errors import InputError

FOLDER = "bundle"
INDEX = "bundle.json"
README = "README.md"
CONFIG = "config.json"
LANGUAGES = "languages.tsv"
START = ".snakemake/start.json"  # under the output root: what the run records of its last start
MIB = 2**20
# Headers of a tar archive are read at once; those with long names take a few blocks.
LONGEST_HEADER = MIB
BLOCK = 512


@dataclass(frozen=True)
class Limits:
    """How large an archive may be.

    Attributes:
        total, single: bytes of all files together, and of one.
        files: number of entries.
        depth: parts of a path.
        name: bytes of a part of a path.
    """

    total: int = 8192 * MIB
    single: int = 2048 * MIB
    files: int = 200_000
    depth: int = 16
    name: int = 200


def root_digest(index: dict[str, Any]) -> str:
    """SHA-256 of the index, 64 hex digits: every name and every file's hash decides it."""
    text = json.dumps(index, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_readme(root: str, runs: Collection[str]) -> str:
    """The text of the README in a bundle: what it is, how to check it, and how to build on it."""
    listed = "\n".join(f"- `{run}`" for run in runs)
    return f"""# Evidence of a CroCo run

This archive holds the evidence of a run with the output root `{root}`, without weights: prompts, pairs and their
ledgers, answers, verdicts, samples of structured tasks, the summary, findings, tables, the report page, and the manifest
of every output. `{INDEX}` lists each file with its hash. `{CONFIG}` is the merged config of the run, and
`{LANGUAGES}` its table of languages.

Check it in a checkout of CroCo; no GPU is needed:

    python scripts/verify.py bundle.tar.gz

The output says what matches, what does not, and what cannot be checked. Compare the root digest in its last line with
the one that the authors published. A bundle is checked best with the code that made it: `code_commit` in a manifest.

Make the report page again from this evidence alone:

    python scripts/verify.py bundle.tar.gz --report report.html

Repeat the whole run, with the models and data that the config names:

    snakemake --cores 2 --configfile {CONFIG}

Runs:

{listed}
"""


def find_fault(name: str, limits: Limits) -> str | None:
    """Why a path may not be unpacked, or None for a relative path that stays in its folder."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name:
        return "its name has signs that no path of a bundle has"
    if any(part in ("", ".", "..") for part in parts):
        return "it leads out of the bundle"
    if len(parts) > limits.depth:
        return f"its path has more than {limits.depth} parts"
    if any(len(part.encode()) > limits.name for part in parts):
        return f"its name is longer than {limits.name} bytes"
    return None


class _Bounded:
    """A compressed file as tarfile reads it; it ends with an InputError at the limit, and never reads much at once."""

    def __init__(self, path: Path, file: Any, limit: int) -> None:
        self.path, self.file, self.limit = path, file, limit

    def read(self, size: int) -> bytes:
        if size > LONGEST_HEADER:
            raise refuse(self.path, "a header is too large")
        self._check(self.file.tell() + size)
        return self.file.read(size)

    def seek(self, position: int) -> int:
        self._check(position)
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise refuse(self.path, "it unpacks to more than --max-mib allows")


def refuse(path: Path, problem: str) -> InputError:
    """The error for an archive that no bundle.py has written."""
    return InputError(
        f"cannot be unpacked: {problem}",
        "get the bundle again from its authors; raise a limit only if you trust them",
        path,
    )


def unpack(path: Path, folder: Path, limits: Limits) -> Path:
    """Unpacks a bundle to ``folder``, an empty one, and returns the folder of its files.

    Only regular files under `bundle/` are written. Raises InputError for an archive that is damaged, has other entries
    (links, devices, absolute paths, `..`, duplicates), or is beyond the limits.
    """
    # Each entry has a header, a longer one for a long name, and is filled up to whole blocks.
    overhead = limits.files * 8 * BLOCK
    try:
        with gzip.open(path) as packed:
            bounded = _Bounded(path, packed, limits.total + overhead)
            with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]
                extract(path, archive, folder, limits)
    except FileNotFoundError as error:
        if error.filename != str(path):
            raise
        raise InputError("no such file", "give the path of a bundle", path) from error
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise refuse(path, str(error)) from error
    return folder / FOLDER


def extract(path: Path, archive: tarfile.TarFile, folder: Path, limits: Limits) -> None:
    """Writes the regular files of an open archive; raises InputError for what no bundle has."""
    seen: set[str] = set()
    total = count = 0
    for entry in archive:
        count += 1
        if count > limits.files:
            raise refuse(path, f"it has more than {limits.files} entries")
        if entry.isdir():
            continue
        where = f"{entry.name[:80]!r}: "
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
            raise refuse(path, f"{where}it is no regular file")
        if fault := find_fault(entry.name, limits):
            raise refuse(path, where + fault)
        if not entry.name.startswith(f"{FOLDER}/"):
            raise refuse(path, f"{where}it is not under {FOLDER}/")
        if entry.name in seen:
            raise refuse(path, f"{where}it is there twice")
        total += entry.size
        if not 0 <= entry.size <= limits.single or total > limits.total:
            raise refuse(path, f"{where}it is larger than --max-file-mib, or all files than --max-mib")
        seen.add(entry.name)
        write_entry(path, archive, entry, folder / entry.name)


def write_entry(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    """Writes one regular file; raises InputError where the archive ends before it does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    content, left = archive.extractfile(entry), entry.size
    with open(target, "xb") as file:
        while left and content:
            block = content.read(min(left, LONGEST_HEADER // 2))
            if not block:
                raise refuse(path, f"it ends within {entry.name[:80]!r}")
            file.write(block)
            left -= len(block)


def read_index(folder: Path, limits: Limits) -> dict[str, Any]:
    """The bundle's index: {"root", "runs", "files": {name: {"sha256", "bytes"}}}.

    Raises InputError where it is missing or damaged, where a name leads out of the bundle, or where the folder has links.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        runs, files, root = index["runs"], index["files"], index["root"]
        names = [*files, *runs]
        well_formed = (
            isinstance(runs, list)
            and all(isinstance(name, str) for name in names)
            and all(isinstance(entry["sha256"], str) for entry in files.values())
            and isinstance(root, str)
        )
        if not well_formed:
            raise ValueError("root, runs or files are of another kind")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"no bundle ({error!r})", "make one: snakemake bundle", path) from error
    for name in names:
        if fault := find_fault(name, limits):
            raise InputError(f"{name[:80]!r}: {fault}", "do not trust it", path, field="files")
    if links := sorted(found for found in folder.rglob("*") if found.is_symlink()):
        raise InputError("a bundle has no links", "do not trust it", links[0])
    if not root.strip("/") or not root.isprintable() or root.startswith("-"):
        raise InputError("no output root", "make the bundle again", path, field="root")
    if not files or not runs:
        raise InputError("the bundle is empty", "make it again after the workflow has finished", path, field="files")
    return index
