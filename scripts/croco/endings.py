"""What a run says at its start and end.

At its start it says where the page will be and how to follow it. At its end it gives result, page and warnings, or what
failed: these lines are far above in the log by then.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from croco.errors import InputError
from croco.records import read_json

SHOWN, LINES = 10, 8  # jobs, and last lines of the log of each
SEPARATOR = ", "  # of paths in Snakemake's log
EARLIER = re.compile(r"\.\d{8}-\d{6}\.log$")  # logs of earlier attempts, see croco.results_folder.keep_logs
ERROR = re.compile(
    r"^Error in rule (?P<rule>\S+):\n"
    r"(?:    message: .*\n)?"
    r"    jobid: (?P<job>\d+)\n"
    r"(?:    input: .*\n)?"
    r"(?:    output: (?P<outputs>.*)\n)?"
    r"(?:    log: (?P<logs>.*) \(check log file\(s\) for error details\)\n)?",
    re.MULTILINE,
)
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.MULTILINE)


class Failure(NamedTuple):
    """A job that failed: its rule, and the paths of its outputs and logs, as Snakemake writes them: "a, b"."""

    rule: str
    outputs: str
    logs: str

    def read_ends(self) -> list[str]:
        """The last lines of its logs; of several, each after its path."""
        paths = self.logs.split(SEPARATOR) if self.logs else []
        ends = {path: read_end(path) for path in paths}
        return [line for path, end in ends.items() for line in ([f"{path}:", *end] if len(ends) > 1 else end)]


def list_failures(log: str | Path) -> list[Failure]:
    """The failed jobs of Snakemake's log file; one that was done at another attempt did not fail."""
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    done = {match[1]: match.start() for match in FINISHED.finditer(text)}
    failed = {error["job"]: error for error in ERROR.finditer(text) if done.get(error["job"], -1) < error.start()}
    return [Failure(error["rule"], error["outputs"] or "", error["logs"] or "") for error in failed.values()]


def describe_failures(log: str | Path) -> str:
    """Each failed job of Snakemake's log file with the end of its own log; empty if none is left failed."""
    return "\n".join(write_failures(list_failures(log), log))


def write_failures(failures: Sequence[Failure], log: str | Path | None) -> Iterator[str]:
    """Lines on failed jobs; ``log`` is the file of Snakemake's that has them all."""
    for failure in failures[:SHOWN]:
        yield f"failed: {failure.rule}, log {failure.logs or f'{log} (it has none of its own)'}"
        yield from (f"    {line}" for line in failure.read_ends())
    if len(failures) > SHOWN:
        yield f"and {len(failures) - SHOWN} more jobs failed: see {log}"


def read_end(path: str | Path) -> list[str]:
    """The last lines of a job's log, a progress bar as it stood at its end."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return [f"(its log cannot be read: {error.strerror})"]
    return [line.rpartition("\r")[2] for line in text.strip().split("\n")][-LINES:]


def describe_prospect(results: str | Path) -> str:
    """Where the page of a run will be, and what tells how far the run is."""
    return (
        f"page at the end:        {Path(results, 'report.html')}\n"
        "how far, and time left: python scripts/status.py, with the --configfile and --config of this run"
    )


def describe_result(results: str | Path) -> str:
    """The headline of a finished run, where its page is, and the warnings of its jobs; empty without a page."""
    page = Path(results, "report.html")
    if not page.is_file():
        return ""
    lines = [
        "",
        *read_headlines(page.with_suffix(".manifest.json")),
        f"report:  {page}",
        f"table:   {page.with_name('summary.csv')}",
    ]
    warnings = count_warnings(Path(results, "logs"))
    if warnings:
        lines.append(f"{warnings.total()} warnings in {page.with_name('logs')}:")
        lines += [f"  {count} x {text}" if count > 1 else f"  {text}" for text, count in warnings.most_common(SHOWN)]
    if len(warnings) > SHOWN:
        lines.append(f"  and {len(warnings) - SHOWN} others")
    return "\n".join(lines)


def read_headlines(manifest: Path) -> list[str]:
    """The sentences on the result with which the page begins."""
    try:
        return list(read_json(manifest).get("headlines", []))
    except InputError:
        return []


def count_warnings(logs: Path) -> Counter[str]:
    """{text: how often} of the project's warnings in the logs of the last attempts."""
    found: Counter[str] = Counter()
    for path in sorted(logs.rglob("*.log")):
        if not EARLIER.search(path.name):
            text = path.read_text(encoding="utf-8", errors="replace")
            found.update(re.findall(r"^warning: (.*)$", text, re.MULTILINE))
    return found
