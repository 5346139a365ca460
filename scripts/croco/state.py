"""Finished work under the digest of all its inputs (``state/``), outside the files that Snakemake deletes.

``Parts`` keeps results per prompt (generations, scores, translations), so that a later run computes only the missing
ones. ``Finished`` keeps a result as a whole (a checkpoint, an evaluation). Results are published by hard links.
"""

import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from croco.digests import digest
from croco.errors import InputError
from croco.files import partial_file, publish, save
from croco.locks import take_lock
from croco.records import dump, write_json

FROM_STATE = "CROCO_FROM_STATE"  # environment variable: set where no model may be loaded, see expect_finished
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


def expect_finished() -> None:
    """Raises InputError, before a model is loaded, in a run that only takes finished work (the config's from_state)."""
    if FROM_STATE in os.environ:
        remedy = "start again without from_state: the job then makes what is missing"
        raise InputError("not all results are under state/, and from_state lets no model be loaded", remedy)


class Line(msgspec.Struct, frozen=True, array_like=True):
    """Where a line of a part is, and what it must be; ``checksum`` is zlib.crc32 of its bytes."""

    prompt: str
    place: int
    extent: int
    checksum: int


class Index(msgspec.Struct, frozen=True):
    """NAME.index of a part NAME.jsonl; ``inputs`` is the digest of what its lines were made with."""

    inputs: str
    lines: list[Line]


class Parts:
    """Lines by prompt in small files that only ever appear whole, under a folder named by ``inputs``' digest.

    Each part is named by its content and has an index of its lines. Lines that are not what their index says are left
    out, and a part without a readable index, or made with other inputs, is renamed: what is missing is computed again.
    Several jobs may share a folder; a part that another job has replaced by one that covers it is found there.

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
        self._places: dict[str, dict[Path, list[Line]]] = {prompt: {} for prompt in prompts}
        self._parts: dict[Path, dict[str, int]] = {}
        self._damaged: set[Path] = set()
        # Held until this process ends: a second job for the same prompts waits, and then finds the work done.
        self._lock = take_lock(self.folder / f"{digest(sorted(self._places))}.lock")
        self._scan()

    def _scan(self) -> None:
        """Reads the index of every part in the folder; again, if another job replaced one in the meantime."""
        complete = False
        while not complete:
            complete = True
            self._places = {prompt: {} for prompt in self._places}
            self._parts = {}
            for path in sorted(self.folder.glob("*.jsonl")):
                index = self._read_index(path)
                if index is not None:
                    self._take(path, index.lines)
                try:
                    if index is None:
                        path.rename(path.with_suffix(".foreign"))
                        print(f"renamed a part that does not belong to this run: {path}", file=sys.stderr)
                    else:
                        path.stat()
                except FileNotFoundError:
                    complete = False

    def _read_index(self, path: Path) -> Index | None:
        """The index of a part; None where it has none that can be read, or was made with other inputs."""
        try:
            index = msgspec.json.decode(path.with_suffix(".index").read_bytes(), type=Index)
        except (FileNotFoundError, ValueError):
            return None
        return index if index.inputs == self._inputs else None

    def _take(self, path: Path, lines: list[Line]) -> None:
        wanted: dict[str, list[Line]] = {}
        for line in lines:
            if line.prompt in self._places:
                wanted.setdefault(line.prompt, []).append(line)
        for prompt, own in wanted.items():
            self._places[prompt][path] = own
        if all(line.prompt in self._places for line in lines):  # nothing in it belongs to another job
            self._parts[path] = {line.prompt: line.extent for line in lines}

    def lines(self, prompt: str) -> list[dict]:
        """The lines stored for a prompt, in no set order; damaged ones are left out."""
        while True:
            try:
                return [row for path, lines in self._places[prompt].items() for row in self._read(path, lines)]
            except FileNotFoundError:  # another job has settled its block
                self._scan()

    def _read(self, path: Path, lines: list[Line]) -> Iterator[dict]:
        with open(path, "rb") as file:
            for line in lines:
                file.seek(line.place)
                raw = file.readline()
                if zlib.crc32(raw) == line.checksum:
                    yield json.loads(raw)
                elif path not in self._damaged:
                    self._damaged.add(path)
                    print(f"a part is damaged at byte {line.place}; such lines are made again: {path}", file=sys.stderr)

    def add(self, lines: Iterable[dict]) -> None:
        """Writes lines as one new part."""
        self._write(lines)

    def settle(self, lines: Iterable[dict]) -> Path:
        """Writes a block's final lines as one part, in place of those that it covers; returns its path.

        ``lines`` may be drawn from the parts that are replaced.
        """
        path = self._write(lines)
        final = self._parts[path]
        for other, extents in list(self._parts.items()):
            if other != path and all(extent <= final.get(prompt, -1) for prompt, extent in extents.items()):
                other.unlink(missing_ok=True)
                other.with_suffix(".index").unlink(missing_ok=True)
                del self._parts[other]
                for places in self._places.values():
                    places.pop(other, None)
        return path

    def _write(self, rows: Iterable[dict]) -> Path:
        """Writes a part and its index, named by the content, so that an index never speaks of another part."""
        content, place = hashlib.sha256(), 0
        lines: list[Line] = []
        with partial_file(self.folder / "part") as file:
            for row in rows:
                raw = (dump(row) + "\n").encode()
                lines.append(Line(row["prompt_digest"], place, self._extent(row), zlib.crc32(raw)))
                content.update(raw)
                place += len(raw)
                file.write(raw.decode())
            path = self.folder / f"{content.hexdigest()[:32]}.jsonl"
            # The index is written first, because a part without an index counts as foreign.
            write_json(path.with_suffix(".index"), msgspec.to_builtins(Index(self._inputs, lines)))
            save(file, path)
        self._take(path, lines)
        return path


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
        """Waits until no other process works on this result; the lock ends with its holder."""
        waiting = f"another job is at work on the same result: waiting for it ({self.folder})"
        with take_lock(self.folder / "lock", say=lambda: print(waiting, file=sys.stderr)):
            yield

    @property
    def complete(self) -> bool:
        """Whether the result is there."""
        return self.final.is_dir()

    @contextmanager
    def saving(self) -> Iterator[Path]:
        """An empty folder, whose files are the result when the block has ended without an error."""
        folder = self.folder / "saving"
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
        folder.mkdir()
        yield folder
        self.finish(folder)

    def finish(self, folder: str | Path) -> None:
        """Declares the files in ``folder`` to be the result, and deletes files that only served to resume."""
        os.replace(folder, self.final)
        shutil.rmtree(self.work, ignore_errors=True)

    def publish_as(self, name: str, target: str | Path) -> None:
        """Links one of the result's files to its place."""
        publish(self.final / name, target)
