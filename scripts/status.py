"""Say how far the run of a config is: what runs, what failed and why, the time left, and how to go on.

Examples:
  python scripts/status.py --configfile my.yaml
  python scripts/status.py --configfile my.yaml --watch        again every minute, until nothing runs

Give the --configfile and --config of the run. The states of its jobs:
  done      its results are there, and are up to date
  running   a run started it; on a cluster, it may still be in the queue
  waiting   it has not started, or was cut off
  failed    it failed in the last run, and is not running again

The time left is extrapolated from finished jobs of the same rule, which count by their work. A rule without finished
jobs counts by config/speeds.tsv. Time that jobs spent in a queue is included.

This writes no results and takes no lock: use it while a run goes on. The exit code is 1 if jobs failed and nothing runs.
"""

import shlex
import sys
import time
from collections import Counter
from pathlib import Path

from croco import cli
from croco.endings import Failure, list_failures, write_failures
from croco.locks import find_holder
from croco.planning.jobs import list_jobs
from croco.planning.plan import make_plan
from croco.planning.progress import DONE, FAILED, RUNNING, STATES, Progress, find_progress
from croco.planning.redo import GPU_TYPE
from croco.planning.speed import list_gigabytes, read_measured, read_speed

CHECKOUT = Path(__file__).resolve().parents[1]


def main():
    args = parse_arguments()
    while True:
        failed, runs = show_status(args)
        if not (args.watch and runs):
            break
        time.sleep(args.watch)
        print()
    if failed and not runs:
        sys.exit(1)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--configfile", nargs="+", type=Path, default=[], help="files merged into the default config")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as Snakemake's --config")
    parser.add_argument("--gpu-type", default=GPU_TYPE, help="a row of config/speeds.tsv")
    parser.add_argument(
        "--watch", nargs="?", type=cli.positive, const=60, metavar="SECONDS", help="show it again every so many seconds"
    )
    return parser.parse_args()


def show_status(args):
    """(number of failed jobs, whether a run goes on) of what it prints."""
    from croco.results_folder import ResultsFolder  # with Snakemake, which --help needs not

    speed = read_speed(CHECKOUT / "config/speeds.tsv", args.gpu_type)
    grid, jobs = list_jobs(CHECKOUT / "Snakefile", args.configfile, args.config)
    folder = ResultsFolder(grid.results, {}, CHECKOUT)
    start, holder = folder.read_start(), find_holder(folder.folder / "lock")
    measured = read_measured(Path(grid.results), speed, list_gigabytes(grid))
    failures = read_failures(start)
    plan = make_plan(grid, jobs, speed, measured)
    progress = find_progress(plan.steps, [failure.log for failure in failures], holder is not None)
    counts = progress.count()
    print("\n".join(describe(grid, start, holder, progress, failures)))
    if holder is None and counts[DONE] < counts.total():
        print(f"Go on      {name_command(args, start)}")
    sys.stdout.flush()
    return counts[FAILED], holder is not None


def read_failures(start: dict) -> list[Failure]:
    """The failed jobs of the last start; none where Snakemake's log of it is gone."""
    try:
        return list_failures(start.get("log") or "")
    except OSError:
        return []


def describe(grid, start, holder, progress, failures):
    """Lines: the run, the jobs by rule, the time left, and the failed jobs with the ends of their logs."""
    yield f"Results    {grid.results}"
    yield f"Run        {describe_run(start, holder)}"
    counts = progress.count()
    yield f"Jobs       {describe_counts(counts)}, of {counts.total()}"
    yield from format_table(progress)
    if counts[DONE] < counts.total():
        yield f"Time left  {describe_time(progress)}"
    logs = {step.job.log for step, state in zip(progress.steps, progress.states, strict=True) if state == FAILED}
    yield from write_failures([failure for failure in failures if failure.log in logs], start.get("log"))


def describe_run(start: dict, holder) -> str:
    if holder is not None:
        return f"goes on: {holder}"
    return f"none goes on; the last one started {start['started']}" if "started" in start else "none was started yet"


def describe_counts(counts: Counter) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in STATES)


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


def describe_time(progress: Progress) -> str:
    seconds, unknown = progress.seconds_left()
    running = progress.count()[RUNNING]
    if not seconds:
        return "unknown: no job of these rules has finished yet"
    at_once = f"with {max(1, running)} job{'s' if running > 1 else ''} at once"
    more = f", and {unknown} jobs of rules that have not been measured" if unknown else ""
    return f"about {format_duration(seconds)} {at_once}{more}"


def format_duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:,.1f} hours"


def name_command(args, start: dict) -> str:
    """The command that goes on with the run."""
    if start.get("command"):
        return shlex.join(start["command"])
    where = "--workflow-profile profiles/slurm" if start.get("executor") == "slurm" else "--cores all"
    options = ["--configfile", *map(str, args.configfile)] if args.configfile else []
    options += ["--config", *args.config] if args.config else []
    return f"snakemake {where} {shlex.join(options)}".rstrip()


if __name__ == "__main__":
    cli.run(main)
