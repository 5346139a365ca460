"""What every command line shares: help that shows defaults, errors with exit code 1, progress and manifests."""

import argparse
import errno
import json
import logging
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from croco.config.checks.secrets import refuse_secrets
from croco.digests import code_digest, digest, file_digest, versions
from croco.errors import InputError
from croco.files import final_path
from croco.hardware import name_cpu, name_gpus
from croco.locks import end_with_head
from croco.records import refuse_constant, write_json

if TYPE_CHECKING:
    from tqdm import tqdm

STARTED = time.time()
# {model: {unused weights in its files: how many}} for the models that this process has loaded.
UNUSED_WEIGHTS: dict[str, dict[str, int]] = {}
LIBRARIES = ("torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "datasets", "lm_eval", "vllm", "numpy")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOO_MANY = (errno.EMFILE, errno.ENFILE)
MANIFEST = ".manifest.json"
FOLDER = "DIR"  # metavar of an output that is a folder
Written = Callable[[argparse.Namespace], Iterable[Path]]
# Warnings that libraries repeat for each task or model, about what is done on purpose: {logger: parts of its messages}.
INTENDED = {
    # A task reads its documents from memory, and takes no options for that.
    "lm_eval.api.task": ("Custom kwargs can be passed to `--metadata`",),
    # The policy is loaded once, by croco.models.loading, with all of its options.
    "lm_eval.models.huggingface": (
        "`pretrained` model kwarg is not of type `str`",
        "Passed an already-initialized model through `pretrained`",
    ),
}
# Remedies for a file that cannot be read or written.
REMEDIES = {
    **dict.fromkeys(FULL, "free some space and start again: finished chunks are kept under --state"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "get the permission, or choose another folder"),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
        "a folder is where a file should be, or the reverse: correct the path",
    ),
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose shorter names",
    **dict.fromkeys(TOO_MANY, "raise the number of open files (ulimit -n) and start again"),
}
# What failed where the error has no file name: a write to an open file, or a pipe to another program.
WITHOUT_FILE_NAME = {**dict.fromkeys(FULL, "writing"), **dict.fromkeys(TOO_MANY, "opening a file")}


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that shows defaults, but no None, and none where the text says what holds by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_told = action.default is None or "(default" in (action.help or "")
        return action.help if is_told else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end with exit code 1 and a remedy, and that lets no output replace an input.

    ``outputs`` and ``writes`` are those of parser(). Of a script with steps, the step's parser checks its own options.
    It refuses secrets, because manifests, cache keys and logs hold what a command line says. Options cannot be
    abbreviated, those of steps included: `--out` never becomes `--output`.
    """

    def __init__(self, outputs: Sequence[str] = ("output",), writes: Written | None = None, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self.outputs = outputs
        self.writes = writes or beside(MANIFEST)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"error: {message}\n  Remedy: see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments = sys.argv[1:] if args is None else [*map(str, args)]
        refuse_secrets(arguments, {})  # first, because argparse prints what it does not understand
        namespace, rest = super().parse_known_args(arguments, namespace)
        refuse_secrets([], vars(namespace))
        self._check_languages(namespace)
        self._check_paths(namespace)
        return namespace, rest

    def _check_languages(self, args: argparse.Namespace) -> None:
        """Ends with a usage error for a language that is named twice: its second file would replace the first."""
        languages = getattr(args, "languages", None)
        if isinstance(languages, list) and (twice := [code for code in languages if languages.count(code) > 1]):
            self.error(f"--languages names {twice[0]} twice: name each language once")

    def _check_paths(self, args: argparse.Namespace) -> None:
        """Ends with a usage error for a path to write that is also read, is written twice, or is of the wrong kind."""
        read, written, kinds = [], [], []
        for action in self._actions:
            if not action.option_strings:
                continue
            option, value = action.option_strings[-1], getattr(args, action.dest, None)
            paths = [Path(value)] if action.dest == "model" and value and isinstance(value, str) else find_paths(value)
            if action.dest in self.outputs:
                kinds.append((option, paths, action.metavar == FOLDER))
                written += [(option, path) for path in paths]
                if action.dest == "output":
                    written += [(f"a file that goes with {option}", path) for path in self.writes(args)]
            else:
                read += [(option, path) for path in paths]
        seen: dict[str, str] = {}
        for i, (option, path) in enumerate([*written, *read]):
            place = os.path.realpath(path)
            if place in seen:
                self.error(f"{option} is the path of {seen[place]}, too: {path} would be replaced; write elsewhere")
            if i < len(written):
                seen[place] = option
        for kind in kinds:
            self._check_kind(*kind)

    def _check_kind(self, option: str, paths: list[Path], is_folder: bool) -> None:
        """Ends with a usage error for a folder where a file is meant, the reverse, and a manifest of another file."""
        for path in paths:
            if is_folder and path.is_file():
                self.error(f"{option}: {path} is a file, not a folder; write elsewhere")
            if is_folder:
                continue
            if path.is_dir():
                self.error(f"{option}: {path} is a folder, not a file; write elsewhere")
            manifest = path.with_suffix(MANIFEST)
            if not path.exists() and (owner := find_owner(manifest)) not in (None, path.name):
                self.error(f"{option}: {manifest} is the manifest of {owner} and would be replaced; write elsewhere")


def parser(
    description: str | None, outputs: Sequence[str] = ("output",), writes: Written | None = None
) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring followed by every option with its default.

    ``outputs`` are the options, by their names in the result, whose paths the script writes. ``writes`` lists what else
    it writes because of --output, by default the manifest beside it; steps.add_parser() takes it for a step. Reading
    arguments with it raises InputError for a secret among them.
    """
    return _Parser(description=description, formatter_class=_Help, outputs=outputs, writes=writes)


def beside(*endings: str) -> Written:
    """For parser(): files with these endings beside each --output."""
    return lambda args: [
        path.with_suffix(ending) for path in find_paths(args.output) if path.name for ending in endings
    ]


def per_language(args: argparse.Namespace) -> list[Path]:
    """For parser(): LANGUAGE.jsonl with its manifest in the folder --output, for each of --languages."""
    return [args.output / f"{code}{ending}" for code in args.languages for ending in (".jsonl", MANIFEST)]


def find_paths(value: Any, depth: int = 0) -> list[Path]:
    """The paths in an option's value; in lists of lists, such as of NAME PATH, these are the texts that name a file."""
    if isinstance(value, list | tuple):
        return [path for part in value for path in find_paths(part, depth + 1)]
    is_path = isinstance(value, Path) or (depth == 2 and isinstance(value, str) and os.path.isfile(value))
    return [Path(value)] if is_path else []


def find_owner(manifest: Path) -> str | None:
    """Name of the file that a manifest is of; None for no manifest, and for one of several files."""
    try:
        output = json.loads(manifest.read_text(encoding="utf-8"))["options"]["output"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Path(output).name if isinstance(output, str) else None


def run(main: Callable[[], None]) -> None:
    """Runs ``main()``; an InputError, or a file that cannot be read or written, becomes one message on stderr and exit code 1."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "15")  # of the libraries' bars too
    for name in INTENDED:
        logging.getLogger(name).addFilter(is_unintended)
    end_with_head()
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if (message := explain_os_error(error)) is None:
            raise
        sys.exit(message)


def is_unintended(record: logging.LogRecord) -> bool:
    """Whether a library's log message is shown: all are, except those about what is done on purpose."""
    message = record.getMessage()
    return not any(part in message for part in INTENDED.get(record.name, ()))


def explain_os_error(error: OSError) -> str | None:
    """What to tell the user of a file that cannot be read or written; None for an error of another kind."""
    remedy = REMEDIES.get(error.errno or 0)
    # Of a renaming the second name is the user's, and the first one that of a hidden file.
    path = error.filename2 or error.filename
    subject = final_path(path) if isinstance(path, str | Path) else path or WITHOUT_FILE_NAME.get(error.errno or 0)
    if not (remedy and subject):
        return None
    return f"error: {subject}: {error.strerror}\n  Remedy: {remedy}"


def put_interpreter_first() -> None:
    """Lets `python` in jobs be the interpreter that runs Snakemake, activated or not; conda's still comes before it."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def positive(text: str) -> int:
    """Reads a whole number above 0 of the command line."""
    return whole(1)(text)


def whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """Reads a whole number of the command line in [least, most]."""
    kind = "a positive whole number" if least == 1 else f"a whole number from {least}"

    def read(text: str) -> int:
        if not re.fullmatch(r"\+?[0-9]+", text) or (len(text) < 20 and int(text) < least):
            raise argparse.ArgumentTypeError(f"{text[:50]} is not {kind}")
        if len(text) > 20 or int(text) > most:
            raise argparse.ArgumentTypeError(f"{text[:50]} is too large: give {most} at most")
        return int(text)

    return read


def number(
    least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf, below: float = math.inf
) -> Callable[[str], float]:
    """Reads a finite number of the command line: ``least`` and ``most`` are in its range, ``above`` and ``below`` are not."""
    bounds = [("from", least), ("above", above), ("to", most), ("below", below)]
    place = " ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"{text[:50]} is not a finite number {place}".rstrip())
        return value

    return read


def add_state_options(
    parser: argparse.ArgumentParser, chunk: int, unit: str = "prompts", required: bool = True
) -> None:
    """Where finished chunks are kept, and how large they are."""
    parser.add_argument(
        "--chunk", type=positive, default=chunk, help=f"{unit} per chunk; a killed job loses at most one chunk"
    )
    parser.add_argument("--state", type=Path, required=required, help="folder that keeps finished chunks")


def mapping(option: str) -> Callable[[str], dict]:
    """Reads a JSON object of the command line; raises InputError for anything else."""

    def read(text: str) -> dict:
        try:
            value = json.loads(text, parse_constant=refuse_constant)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InputError("not a JSON object", 'write e.g. {"name": "value"}', field=option)
        return value

    return read


def progress(iterable: Iterable | None = None, **options: Any) -> "tqdm":
    """A tqdm bar; in a log file it prints a line now and then instead of many per second."""
    from tqdm import tqdm

    return tqdm(iterable, dynamic_ncols=True, **options)


def write_manifest(
    path: str | Path, script: str | Path, args: argparse.Namespace, inputs: dict[str, Any], **facts: Any
) -> None:
    """Writes what made an output: code, options, inputs' hashes, versions, counts, job, time, hardware, peak memory.

    Manifests with the same ``job`` were written by one process; ``seconds`` is the time since its start.
    ``inputs`` maps a name to a path or to a hash already known; ``facts`` are the stage's own figures.
    """
    hashes = {
        name: file_digest(value) if isinstance(value, str | Path) and Path(value).is_file() else value
        for name, value in inputs.items()
    }
    gpus = count_gpus()
    write_json(
        path,
        {
            "stage": Path(script).stem,
            **find_commit(Path(script).resolve().parent),
            "code_digest": code_digest(script),
            "options": {name: _plain(value) for name, value in vars(args).items()},
            "inputs": hashes,
            "versions": {"python": platform.python_version(), **versions(*LIBRARIES)},
            **({"unused_weights": UNUSED_WEIGHTS} if UNUSED_WEIGHTS else {}),
            **facts,
            "started": datetime.fromtimestamp(STARTED, UTC).isoformat(timespec="seconds"),
            "job": digest([platform.node(), os.getpid(), STARTED]),
            "seconds": round(time.time() - STARTED, 2),
            "gpus": gpus,
            "gpu_names": [] if gpus == 0 else name_gpus(),
            "cpu": name_cpu(),
            "peak_memory_mb": peak_memory_mb(),
        },
    )


def count_gpus() -> int | None:
    """GPUs that the launcher leased; without a launcher 0 for a process that used no GPU, None for others."""
    if "CROCO_GPUS" in os.environ:
        return int(os.environ["CROCO_GPUS"])
    torch = sys.modules.get("torch")
    # vLLM uses the GPU in a process of its own.
    used = "vllm" in sys.modules or (torch is not None and torch.cuda.is_initialized())
    return None if used else 0


def peak_memory_mb() -> int:
    """Peak memory of this program; the kernel's ru_maxrss would count the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _plain(value: Any) -> Any:
    return (
        [_plain(item) for item in value]
        if isinstance(value, list | tuple)
        else str(value)
        if isinstance(value, Path)
        else value
    )


def find_commit(folder: Path) -> dict[str, str | bool | None]:
    """The commit of the checkout with this folder and whether its files differ from it.

    Null where it is no checkout, as an unpacked archive inside another repository, or where there is no git.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        except (FileNotFoundError, PermissionError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "."):
        return {"code_commit": None, "code_dirty": None}
    return {"code_commit": git("rev-parse", "HEAD"), "code_dirty": bool(git("status", "--porcelain", "-uno"))}
