"""What failed in a run of Snakemake, said once more at its end: the lines that matter are far above by then."""

import re
from pathlib import Path
from typing import NamedTuple

SHOWN, LINES = 10, 8  # jobs, and last lines of the log of each
ERROR = re.compile(
    r"^Error in rule (?P<rule>\S+):\n"
    r"(?:    message: .*\n)?"
    r"    jobid: (?P<job>\d+)\n"
    r"(?:    (?!log:).*\n)*?"
    r"    log: (?P<log>.*) \(check log file\(s\) for error details\)$",
    re.MULTILINE,
)
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.MULTILINE)


class Failure(NamedTuple):
    """A job that failed: its rule, and the path of its log."""

    rule: str
    log: str


def list_failures(log: str | Path) -> list[Failure]:
    """The failed jobs of Snakemake's log file; one that was done at another attempt did not fail."""
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    done = {match[1]: match.start() for match in FINISHED.finditer(text)}
    failed = {error["job"]: error for error in ERROR.finditer(text) if done.get(error["job"], -1) < error.start()}
    return [Failure(error["rule"], error["log"]) for error in failed.values()]


def describe_failures(log: str | Path) -> str:
    """Each failed job of Snakemake's log file with the end of its own log; empty if none is left failed."""
    failed = list_failures(log)
    lines = []
    for failure in failed[:SHOWN]:
        lines.append(f"failed: {failure.rule}, log {failure.log}")
        lines += [f"    {line}" for line in read_end(failure.log)]
    if len(failed) > SHOWN:
        lines.append(f"and {len(failed) - SHOWN} more jobs failed: see {log}")
    return "\n".join(lines)


def read_end(path: str | Path) -> list[str]:
    """The last lines of a job's log, a progress bar as it stood at its end."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return [f"(its log cannot be read: {error.strerror})"]
    return [line.rpartition("\r")[2] for line in text.strip().split("\n")][-LINES:]
