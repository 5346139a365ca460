"""Say how far the run of a config is: what runs, what failed and why, the time left, and how to go on.

Examples:
  python scripts/status.py --configfile my.yaml
  python scripts/status.py --configfile my.yaml --watch        again every minute, until nothing runs
  python scripts/status.py --configfile my.yaml --html progress.html --every 30
                                                               a page, written again every 30 seconds until the end

Give the --configfile and --config of the run. The states of its jobs:
  done      its results are there, and are up to date
  running   a run started it; on a cluster, it may still be in the queue
  waiting   it has not started, or was cut off
  failed    it failed in the last run, and is not running again

The time left is extrapolated from finished jobs of the same rule, which count by their work. A rule without finished
jobs counts by config/speeds.tsv. Time that jobs spent in a queue is included.

The page has the same facts and the training curves so far. It is one file, and loads itself again in the browser. Stop
--every with Ctrl-C.

This writes no results and takes no lock: use it while a run goes on. The exit code is 1 if jobs failed and nothing runs.
"""

import shlex
import sys
import time
from pathlib import Path

from croco import cli
from croco.commands import name_program
from croco.endings import Failure, list_failures, write_failures
from croco.files import replacing
from croco.locks import find_holder
from croco.planning.jobs import list_jobs
from croco.planning.plan import GPU_TYPE, plan_jobs
from croco.planning.progress import DONE, FAILED, STATES, Progress, RunStatus, describe_counts, find_progress

CHECKOUT = Path(__file__).resolve().parents[1]


def main():
    args = parse_arguments()
    try:
        while True:
            status = read_status(args)
            show_page(args, status) if args.html else show_text(status)
            if not (status.goes_on if args.watch else args.every and not status.is_finished):
                break
            time.sleep(args.every or args.watch)
    except KeyboardInterrupt:
        sys.exit(130)
    if status.failures and not status.goes_on:
        sys.exit(1)


def parse_arguments():
    parser = cli.parser(__doc__, outputs=("html",))
    parser.add_argument("--configfile", nargs="+", type=Path, default=[], help="files merged into the default config")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as Snakemake's --config")
    parser.add_argument(
        "--gpu-type", help=f"a row of config/speeds.tsv (default: the config's gpu_type, else {GPU_TYPE})"
    )
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write a page instead of printing")
    repeat = parser.add_mutually_exclusive_group()
    repeat.add_argument(
        "--watch",
        nargs="?",
        type=cli.positive,
        const=60,
        metavar="SECONDS",
        help="again every so many seconds, until nothing runs",
    )
    repeat.add_argument(
        "--every", type=cli.positive, metavar="SECONDS", help="again every so many seconds, until all jobs are done"
    )
    return parser.parse_args()


def read_status(args) -> RunStatus:
    """All facts that are printed, or shown on the page."""
    from croco.results_folder import ResultsFolder  # with Snakemake, which --help needs not

    grid, jobs = list_jobs(CHECKOUT / "Snakefile", args.configfile, args.config)
    folder = ResultsFolder(grid.results, {}, CHECKOUT)
    start, holder = folder.read_start(), find_holder(folder.folder / "lock")
    failures = read_failures(start)
    plan = plan_jobs(grid, jobs, CHECKOUT, args.gpu_type)
    progress = find_progress(plan.steps, failures, holder is not None)
    failed = {
        step.job.joined_outputs for step, state in zip(progress.steps, progress.states, strict=True) if state == FAILED
    }
    counts = progress.count()
    is_left = holder is None and counts[DONE] < counts.total()
    return RunStatus(
        results=grid.results,
        run=describe_run(start, holder),
        goes_on=holder is not None,
        progress=progress,
        failures=[failure for failure in failures if failure.outputs in failed],
        log=start.get("log"),
        command=name_command(args, start) if is_left else None,
    )


def show_page(args, status: RunStatus) -> None:
    """Writes the page; a browser that has it open loads it again while the run goes on."""
    from croco.report.progress import render_progress  # with Altair, which the text needs not

    again = args.every or args.watch
    refresh = None if status.is_finished or not (again or status.goes_on) else again or 60
    with replacing(args.html) as file:
        file.write(render_progress(status, args.html, refresh))
    print(f"{args.html}: {describe_counts(status.progress.count())}", flush=True)


def show_text(status: RunStatus) -> None:
    """Prints the run, the jobs by rule, the time left, the failed jobs with the ends of their logs, and the command."""
    print("\n".join(describe(status)), flush=True)


def read_failures(start: dict) -> list[Failure]:
    """The failed jobs of the last start; none where Snakemake's log of it is gone."""
    try:
        return list_failures(start.get("log") or "")
    except OSError:
        return []


def describe(status: RunStatus):
    """Lines of the text."""
    counts = status.progress.count()
    yield f"Results    {status.results}"
    yield f"Run        {status.run}"
    yield f"Jobs       {describe_counts(counts)}, of {counts.total()}"
    yield from format_table(status.progress)
    if not status.is_finished:
        yield f"Time left  {status.progress.describe_time_left()}"
    yield from write_failures(status.failures, status.log)
    if status.command:
        yield f"Go on      {status.command}"


def describe_run(start: dict, holder) -> str:
    if holder is not None:
        return f"goes on: {holder}"
    return f"none goes on; the last one started {start['started']}" if "started" in start else "none was started yet"


def format_table(progress: Progress):
    """A line per rule that has not finished, and one for all that have."""
    rules = progress.count_by_rule()
    unfinished = {rule: counts for rule, counts in rules.items() if counts[DONE] < counts.total()}
    if unfinished:
        yield f"  {'rule':<30}" + "".join(f"{state:>9}" for state in STATES)
    for rule, counts in unfinished.items():
        yield f"  {rule[:29]:<30}" + "".join(f"{counts[state] or '-':>9}" for state in STATES)
    finished = [counts[DONE] for rule, counts in rules.items() if rule not in unfinished]
    if unfinished and finished:
        yield f"  {f'{len(finished)} finished rules':<30}{sum(finished):>9}"


def name_command(args, start: dict) -> str:
    """The command that goes on with the run."""
    if start.get("command"):
        return shlex.join(start["command"])
    where = "--workflow-profile profiles/slurm" if start.get("executor") == "slurm" else "--cores all"
    options = ["--configfile", *map(str, args.configfile)] if args.configfile else []
    options += ["--config", *args.config] if args.config else []
    return f"{name_program('snakemake')} {where} {shlex.join(options)}".rstrip()


if __name__ == "__main__":
    cli.run(main)
