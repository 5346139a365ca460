"""Command lines that make a bundle's results again, from what its manifests say.

A manifest comes from a stranger. Of its options only those on a stage's list reach a command line, each as the kind of
value that the stage writes: files stay in the folder of the evidence, outputs in a scratch folder, and no value becomes
an option. Anything else raises `Refused`, or `Missing` where a file is not packed.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any


class Kind(Enum):
    """What the value of an option is."""

    EVIDENCE = auto()  # files of the bundle
    OUTPUT = auto()  # a file or folder to write
    TEXT = auto()  # a name or a choice
    NUMBER = auto()
    SWITCH = auto()
    OFF = auto()  # has to be unset: the bundle is of a finished run
    ABSENT = auto()  # data that is not packed: the stage can be repeated only without it
    WITHOUT_EFFECT = auto()  # decides nothing of what is made again: left out


EVIDENCE, OUTPUT, TEXT, NUMBER, SWITCH = Kind.EVIDENCE, Kind.OUTPUT, Kind.TEXT, Kind.NUMBER, Kind.SWITCH
RUNS = {"runs": EVIDENCE, "root": EVIDENCE, "contrast": TEXT}
MODEL = (
    *("model", "revision", "dtype", "trust_remote_code", "engine", "engine_options", "batch", "template_options"),
    *("template", "max_tokens", "max_length", "chunk", "state"),
)
# {stage: {option of its manifest: kind}}, in the order of the data.
OPTIONS: dict[str, dict[str, Kind]] = {
    "contamination": {
        "prompts": EVIDENCE,
        "checked": EVIDENCE,
        "evaluate": EVIDENCE,
        "language": TEXT,
        "task": Kind.ABSENT,
        "exact": NUMBER,
        "ngram": NUMBER,
        "action": TEXT,
        "unchecked": TEXT,
        "output": OUTPUT,
    },
    "build_pairs": {
        **dict.fromkeys(("prompts", "generations", "scores", "identified", "exclude", "match"), EVIDENCE),
        **dict.fromkeys(("target", "per_prompt", "rejected", "rejected_from", "prompt_language", "hygiene"), TEXT),
        **dict.fromkeys(("balance", "standardise"), SWITCH),
        **dict.fromkeys(("caliper", "pool_size", "seed"), NUMBER),
        "output": OUTPUT,
        "ledger": OUTPUT,
    },
    "judge": {
        **dict.fromkeys(("answers", "baseline", "prompts"), EVIDENCE),
        **dict.fromkeys(("judge", "languages", "names", "translated", "orders"), TEXT),
        **dict.fromkeys((*MODEL, "temperature", "seed"), Kind.WITHOUT_EFFECT),
        "max_unparseable": NUMBER,
        "output": OUTPUT,
    },
    "fidelity": {"languages": TEXT, "prompts": EVIDENCE, "answers": EVIDENCE, "output": OUTPUT},
    "summary": {
        **RUNS,
        "judged": SWITCH,
        "fidelity": SWITCH,
        "imported": EVIDENCE,
        "partial": Kind.OFF,
        "output": OUTPUT,
    },
    "findings": {
        **dict.fromkeys(("runs", "summary", "audit"), EVIDENCE),
        "low_resource": TEXT,
        "tables": OUTPUT,
        "output": OUTPUT,
    },
    "report": {
        **RUNS,
        **dict.fromkeys(("summary", "findings", "tables", "plan"), EVIDENCE),
        **dict.fromkeys(("judged", "fidelity", "tasks", "miniature"), SWITCH),
        "examples": NUMBER,
        "partial": Kind.OFF,
        "template": Kind.WITHOUT_EFFECT,  # the page is made by this checkout's
        "output": OUTPUT,
    },
}


class Refused(Exception):
    """An option that no stage of this project writes, or that would lead out of the bundle."""


class Missing(Exception):
    """Data that the bundle does not have."""


@dataclass(frozen=True)
class Places:
    """Where a command line reads and writes.

    Attributes:
        root: the output root as the manifests name it.
        evidence: folder of the bundle's files.
        scratch: folder for what is made again.
    """

    root: str
    evidence: Path
    scratch: Path

    def name_of(self, text: str) -> str | None:
        """The path relative to the output root, "" for the root; None for a path elsewhere."""
        root = self.root.rstrip("/")
        return "" if text == root else text[len(root) + 1 :] if text.startswith(root + "/") else None

    def put(self, text: Any, folder: Path) -> Path:
        """A path under the output root, moved to ``folder``; raises Refused if it leads out of it."""
        name = self.name_of(text) if isinstance(text, str) else None
        path = (folder / name).resolve() if name is not None and "\0" not in name else None
        if path is None or not path.is_relative_to(folder.resolve()):
            raise Refused(f"{str(text)[:80]!r} leads out of the bundle")
        return path


def list_arguments(stage: str, options: Mapping[str, Any], places: Places) -> list[str]:
    """The arguments of a stage's script; raises Refused and Missing."""
    kinds, arguments = OPTIONS[stage], []
    for option, value in sorted(options.items()):
        if option not in kinds:
            raise Refused(f"{stage} has no option {option[:80]!r} that can be repeated")
        if kinds[option] is Kind.WITHOUT_EFFECT or value is None or value is False or value in ([], {}):
            continue
        flag = f"--{option.replace('_', '-')}"
        if kinds[option] is Kind.OFF:
            raise Refused(f"{flag} is of an unfinished run")
        if kinds[option] is Kind.ABSENT:
            raise Missing(f"the data of {flag} is not packed")
        if kinds[option] is Kind.SWITCH:
            if value is not True:
                raise Refused(f"{flag} has no value")
            arguments.append(flag)
            continue
        read = READERS[kinds[option]]
        for group in value if isinstance(value, list) and isinstance(value[0], list) else [value]:
            if isinstance(group, list):
                arguments += [flag, *(read(item, places) for item in group)]
            else:
                arguments.append(f"{flag}={read(group, places)}")
    return arguments


def read_evidence(value: Any, places: Places) -> str:
    """A file or folder of the bundle."""
    if isinstance(value, str) and places.name_of(value) is None and is_plain(value):
        raise Missing("an input is not packed")
    path = places.put(value, places.evidence)
    if not path.exists():
        raise Missing("an input is not packed")
    return str(path)


def read_output(value: Any, places: Places) -> str:
    """A path of the scratch folder."""
    return str(places.put(value, places.scratch))


def read_text(value: Any, places: Places) -> str:
    """A text that no command line takes for an option."""
    if not isinstance(value, str) or not is_plain(value):
        raise Refused(f"{str(value)[:80]!r} is no plain text")
    return value


def read_number(value: Any, places: Places) -> str:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(f"{str(value)[:80]!r} is no number")
    return repr(value)


READERS: dict[Kind, Callable[[Any, Places], str]] = {
    EVIDENCE: read_evidence,
    OUTPUT: read_output,
    TEXT: read_text,
    NUMBER: read_number,
}


def is_plain(text: str) -> bool:
    """Whether a text is printable, short and never an option."""
    return bool(re.fullmatch(r"[^-].{0,999}|-", text)) and text.isprintable()
