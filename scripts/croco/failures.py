"""What failed in a run of Snakemake, said once more at its end: the lines that matter are far above by then."""

import re
from pathlib import Path

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


def describe_failures(log: str | Path) -> str:
    """Each failed job of Snakemake's log file ``log`` with the end of its own log; empty if none is left failed."""
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    # A job that failed and then was done at another attempt did not fail.
    done = {match[1]: match.start() for match in FINISHED.finditer(text)}
    failed = {error["job"]: error for error in ERROR.finditer(text) if done.get(error["job"], -1) < error.start()}
    lines = []
    for error in list(failed.values())[:SHOWN]:
        lines.append(f"failed: {error['rule']}, log {error['log']}")
        lines += [f"    {line}" for line in read_end(error["log"])]
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
