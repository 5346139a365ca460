"""Finished work under the digest of all its inputs (``state/``), outside the files that Snakemake deletes.

``Parts`` keeps results per prompt (generations, scores, translations), so that a later run computes only the missing
ones. ``Finished`` keeps a result as a whole (a checkpoint, an evaluation). Results are published by hard links.
"""

import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from croco.digests import digest
from croco.errors import InputError
from croco.records import dump, replacing, write_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
NAMED_TEMPLATES = "additional_chat_templates"  # a folder that some tokenizers have
# Files of a checkpoint besides its weights.
CHECKPOINT_FILES = (*TOKENIZER_FILES, "generation_config.json", "metrics.jsonl", "manifest.json")
WEIGHT_FILES = {
    "lora": ("adapter_model.safetensors", "adapter_config.json"),
    "full": ("model.safetensors", "config.json"),
}


def list_checkpoint_files(weights: str) -> list[str]:
    """Names of the files of a checkpoint; ``weights`` is lora or full."""
    return [*WEIGHT_FILES[weights], *CHECKPOINT_FILES]


def take_lock(file: IO, wait: bool = True) -> None:
    """Locks an open file until it is closed, or its process ends.

    Raises BlockingIOError where another process holds the lock and ``wait`` is false, InputError where the file system
    has no locks: two jobs would then write the same result.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise InputError(
            f"the file system has no file locks ({error.strerror})",
            "mount it with locks (Lustre: -o flock), or choose `results` on another file system",
            file.name,
        ) from error


def publish(source: str | Path, target: str | Path) -> None:
    """Puts a finished file in its place at once: a hard link, or a copy where the file system allows none."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)  # of a killed process with this number: perhaps a link to another result
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
    # rename() leaves both names when they already are links to one file.
    partial.unlink(missing_ok=True)


class Parts:
    """Lines by prompt in small files that only ever appear whole, under a folder named by ``inputs``' digest.

    Each part NAME.jsonl has an index NAME.index: the digest of its inputs, its size, and the prompt_digest, place and
    extent of each line. If a part was cut off, its whole lines are used. A part that was made with other inputs is
    renamed. Missing results are computed again.

    Args:
        inputs: all that decides a line's content besides the prompt itself; saved in readable form in inputs.json.
        prompts: prompt_digests that this job wants; others are not kept in memory.
        extent: function from a line to how far it reaches (e.g. the number of samples), for ``settle``.
    """

    def __init__(
        self,
        state: str | Path,
        stage: str,
        inputs: Any,
        prompts: Iterable[str],
        extent: Callable[[dict], int] = lambda line: 0,
    ) -> None:
        self._inputs, self._extent = digest(inputs), extent
        self.folder = Path(state) / stage / self._inputs
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "inputs.json").exists():
            write_json(self.folder / "inputs.json", inputs)
        self._places: dict[str, list[tuple[Path, int]]] = {prompt: [] for prompt in prompts}
        self._parts: dict[Path, dict[str, int]] = {}
        # Held until this process ends: a second job for the same prompts waits, and then finds the work done.
        self._lock = open(self.folder / f"{digest(sorted(self._places))}.lock", "w")  # noqa: SIM115
        take_lock(self._lock)
        for path in sorted(self.folder.glob("*.jsonl")):
            entries, whole = self._read_index(path)
            if entries is not None:
                self._take(path, entries, whole)
                continue
            with suppress(FileNotFoundError):  # another job may just have settled its block
                path.rename(path.with_suffix(".foreign"))
                print(f"renamed a part that does not belong to this run: {path}", file=sys.stderr)

    def _read_index(self, path: Path) -> tuple[list[tuple[str, int, int]] | None, int]:
        """[prompt_digest, place, extent] of each line and how many are whole, or (None, 0) for a foreign part."""
        try:
            index = json.loads(path.with_suffix(".index").read_text(encoding="utf-8"))
            if index["inputs"] != self._inputs:
                return None, 0
            entries, size = index["lines"], path.stat().st_size
            ends = [place for _, place, _ in entries[1:]] + [index["size"]]
        except (OSError, ValueError, KeyError):
            return None, 0
        whole = sum(end <= size for _, end in zip(entries, ends, strict=False))
        if whole < len(entries):
            print(
                f"a part was cut off; {len(entries) - whole} of its lines are computed again: {path}",
                file=sys.stderr,
            )
        return entries, whole

    def _take(self, path: Path, entries: list[tuple[str, int, int]], whole: int) -> None:
        for prompt, offset, _ in entries[:whole]:
            if prompt in self._places:
                self._places[prompt].append((path, offset))
        if all(prompt in self._places for prompt, *_ in entries):  # nothing in it belongs to another job
            self._parts[path] = {prompt: extent for prompt, _, extent in entries}

    def lines(self, prompt: str) -> list[dict]:
        """The lines stored for a prompt, in no set order; raises InputError where one is not what its index says."""
        found = []
        for path, offset in self._places[prompt]:
            with open(path, "rb") as file:
                file.seek(offset)
                raw = file.readline()
            try:
                line = json.loads(raw)
                whole = line["prompt_digest"] == prompt
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                raise InputError(
                    f"the part is damaged at byte {offset}",
                    "delete it and start again: its results are computed again",
                    path,
                )
            found.append(line)
        return found

    def add(self, lines: list[dict]) -> None:
        """Writes lines as one new part, named by its content."""
        self._write(digest([dump(line) for line in lines]), lines)

    def settle(self, lines: Iterable[dict], name: Any) -> Path:
        """Writes a block's final lines as one part, named after ``name``, in place of those that it covers.

        Returns its path. ``lines`` may be drawn from the parts that are replaced.
        """
        path = self.folder / f"{digest(name)}.jsonl"
        self._write(digest(name), lines)
        final = self._parts[path]
        for other, extents in list(self._parts.items()):
            if other != path and all(extent <= final.get(prompt, -1) for prompt, extent in extents.items()):
                other.unlink(missing_ok=True)
                other.with_suffix(".index").unlink(missing_ok=True)
                del self._parts[other]
        self._places = {
            prompt: [place for place in places if place[0] in self._parts] for prompt, places in self._places.items()
        }
        return path

    def _write(self, name: str, lines: Iterable[dict]) -> None:
        path, size = self.folder / f"{name}.jsonl", 0
        entries: list[tuple[str, int, int]] = []
        with replacing(path) as file:
            for line in lines:
                text = dump(line) + "\n"
                entries.append((line["prompt_digest"], size, self._extent(line)))
                size += len(text.encode())
                file.write(text)
            # The index is written first, because a part without an index counts as foreign.
            write_json(path.with_suffix(".index"), {"inputs": self._inputs, "size": size, "lines": entries})
        self._take(path, entries, len(entries))


class Finished:
    """A folder of result files that is complete as soon as it exists, under its inputs' digest."""

    def __init__(self, state: str | Path, stage: str, inputs: Any) -> None:
        self.folder = Path(state) / stage / digest(inputs)
        self.work = self.folder / "work"
        self.final = self.folder / "final"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "inputs.json").exists():
            write_json(self.folder / "inputs.json", inputs)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process works on this result; the kernel frees the lock when its holder dies."""
        with open(self.folder / "lock", "w") as lock:
            try:
                take_lock(lock, wait=False)
            except BlockingIOError:
                print(f"another job is at work on the same result: waiting for it ({self.folder})", file=sys.stderr)
                take_lock(lock)
            yield

    @property
    def complete(self) -> bool:
        """Whether the result is there."""
        return self.final.is_dir()

    def finish(self, folder: str | Path) -> None:
        """Declares the files in ``folder`` to be the result, and deletes files that only served to resume."""
        os.replace(folder, self.final)
        shutil.rmtree(self.work, ignore_errors=True)

    def publish_as(self, name: str, target: str | Path) -> None:
        """Links one of the result's files to its place."""
        publish(self.final / name, target)
