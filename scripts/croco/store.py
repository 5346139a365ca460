"""Finished work under the digest of all that went into it (``state/``), outside what Snakemake deletes.

Two shapes: ``Parts`` for results a prompt (generations, scores), of which a later run computes only what is
missing, and ``Finished`` for results as a whole (a checkpoint, an evaluation). Both are published by hard links.
"""

import fcntl
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

from croco.digests import digest
from croco.records import InputError, dump, read_jsonl, write_json, write_jsonl

# A checkpoint's files; the first two are the adapter.
CHECKPOINT_FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "metrics.jsonl",
    "manifest.json",
)


def publish(source, target):
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
    """Lines by key in small files that only ever appear whole, under a folder named by ``inputs``' digest.

    ``inputs`` is all that decides the content of a line besides the line's own ``key``; it is kept readable in
    inputs.json. A damaged part is set aside and its lines are computed again.
    """

    def __init__(self, state, stage, inputs):
        self.folder = Path(state) / stage / digest(inputs)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "inputs.json").exists():
            write_json(self.folder / "inputs.json", inputs)
        self._places = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                self._index(path)
            except (InputError, KeyError):
                print(f"set aside a damaged part, its work is done again: {path}", file=sys.stderr)
                path.rename(path.with_suffix(".damaged"))

    def _index(self, path):
        places, offset = [], 0
        with open(path, "rb") as raw_lines:
            for (_, row), raw in zip(read_jsonl(path), raw_lines, strict=True):
                places.append((row["key"], offset))
                offset += len(raw)
        for key, place in places:
            self._places.setdefault(key, []).append((path, place))

    def lines(self, key):
        """The lines stored under a key, in no set order."""
        found = []
        for path, offset in self._places.get(key, []):
            with open(path, "rb") as file:
                file.seek(offset)
                found.append(json.loads(file.readline()))
        return found

    def add(self, lines):
        """Writes lines (each with its ``key``) as one new part, named by its content."""
        path = self.folder / f"{digest([dump(line) for line in lines])}.jsonl"
        write_jsonl(path, lines)
        self._index(path)


class Finished:
    """A folder of result files that is complete as soon as it exists, under its inputs' digest."""

    def __init__(self, state, stage, inputs):
        self.folder = Path(state) / stage / digest(inputs)
        self.work = self.folder / "work"
        self.final = self.folder / "final"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "inputs.json").exists():
            write_json(self.folder / "inputs.json", inputs)

    @contextmanager
    def alone(self):
        """Waits until no other process works on this result; the kernel frees the lock when its holder dies.

        Of the processes of one distributed training only the first takes it.
        """
        if int(os.environ.get("RANK", 0)):
            yield
            return
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def complete(self):
        return self.final.is_dir()

    def finish(self, folder):
        """Declares the files in ``folder`` to be the result, and clears what only served to resume."""
        os.replace(folder, self.final)
        shutil.rmtree(self.work, ignore_errors=True)

    def publish_as(self, name, target):
        """Links one of the result's files to its place."""
        publish(self.final / name, target)
