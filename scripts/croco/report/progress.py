"""The page of a run's progress: the facts of scripts/status.py, and the training curves so far."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from croco.endings import SHOWN
from croco.planning.plan import Step
from croco.planning.progress import RUNNING, STATES, Progress, RunStatus, describe_counts, format_duration
from croco.report.elements import Table, read_json, table, table_of
from croco.report.looks import assign_looks
from croco.report.render import TEMPLATES, render_page
from croco.report.sections.training import TRAINING, add_points, draw_curves, read_curves

if TYPE_CHECKING:
    import pandas as pd

CONTENTS = (
    ("progress", "Progress"),
    ("stages", "Stages"),
    ("running", "Running jobs"),
    ("failed", "Failed jobs"),
    ("training", "Training curves"),
)
CHART_WIDTH = 400  # pixels; the page scales a chart to its place


class Training(NamedTuple):
    """A training with the metrics that it has logged; ``options`` has its objective and beta."""

    name: str
    state: str
    metrics: "pd.DataFrame"
    options: dict[str, Any]


def render_progress(status: RunStatus, page: Path, refresh: int | None) -> str:
    """The page as HTML.

    ``page`` is where it will be, for the link to the report; a browser loads it again after ``refresh`` seconds.
    """
    progress = status.progress
    counts = progress.count()
    report = Path(status.results, "report.html")
    charts, trainings = show_trainings(list_trainings(status))
    return render_page(
        TEMPLATES / "progress.html.j2",
        contents=CONTENTS,
        title=Path(status.results).name,
        headline=name_headline(status),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        refresh=refresh,
        counts={state: counts[state] for state in STATES},
        total=counts.total(),
        states=STATES,
        facts=list_facts(status),
        finished=status.is_finished,
        report=Path(os.path.relpath(report, page.parent)).as_posix() if report.is_file() else None,
        command=status.command,
        stages=list(list_stages(progress)),
        running=list_running(progress),
        failures=[
            {"rule": failure.rule, "logs": failure.logs, "end": "\n".join(failure.read_ends())}
            for failure in status.failures[:SHOWN]
        ],
        more_failures=max(0, len(status.failures) - SHOWN),
        log=status.log,
        charts=charts,
        trainings=trainings,
    )


def name_headline(status: RunStatus) -> str:
    """The state of the run, for the title."""
    if status.is_finished:
        return "finished"
    failed = len(status.failures)
    state = "running" if status.goes_on else "not running"
    return f"{state}, {failed} job{'s' if failed > 1 else ''} failed" if failed else state


def list_facts(status: RunStatus) -> dict[str, str]:
    """{name: value} for the head of the page."""
    counts = status.progress.count()
    facts = {"results": status.results, "run": status.run, "jobs": f"{describe_counts(counts)}, of {counts.total()}"}
    return facts if status.is_finished else {**facts, "time left": status.progress.describe_time_left()}


def list_stages(progress: Progress) -> Iterator[dict[str, Any]]:
    """Yields the jobs and the work left of each rule."""
    left = progress.work_left()
    for rule, counts in progress.count_by_rule().items():
        seconds = left[rule]
        yield {
            "rule": rule,
            "counts": {state: counts[state] for state in STATES},
            "total": counts.total(),
            "left": "unknown" if seconds is None else format_duration(seconds) if seconds else None,
        }


def list_running(progress: Progress) -> Table:
    """The running jobs."""
    jobs = [step.job for step, state in zip(progress.steps, progress.states, strict=True) if state == RUNNING]
    lines = [
        [job.rule, ", ".join(f"{name} {value}" for name, value in job.wildcards.items()), job.gpus, job.log]
        for job in jobs
    ]
    return table(f"{len(jobs)} jobs; on a cluster, one may be in the queue", ["rule", "of", "GPUs", "log"], lines)


def list_trainings(status: RunStatus) -> list[Training]:
    """The trainings that have logged a step: finished ones from their checkpoints, others from state/."""
    live = find_live(Path(status.results))
    found = []
    for step, state in zip(status.progress.steps, status.progress.states, strict=True):
        checkpoint = find_checkpoint(step)
        if checkpoint is None or state is None:
            continue
        if (checkpoint / "manifest.json").is_file():
            folder, options = checkpoint, read_json(checkpoint / "manifest.json")["options"]
        elif checkpoint in live:
            folder, options = live[checkpoint]
        else:
            continue
        name = checkpoint.parent.relative_to(status.results).as_posix()
        found.append(Training(name, state, read_logged(folder / "metrics.jsonl"), options))
    return found


def find_checkpoint(step: Step) -> Path | None:
    """The folder of the checkpoint that a job makes; None for a job that trains nothing."""
    return next((Path(path).parent for path in step.job.outputs if path.endswith("checkpoint/metrics.jsonl")), None)


def find_live(results: Path) -> dict[Path, tuple[Path, dict[str, Any]]]:
    """{folder of the checkpoint: (folder of the metrics, options)} of trainings in state/; the last started one counts."""
    jobs = sorted(results.glob("state/training/*/work/job.json"), key=lambda path: path.stat().st_mtime)
    read = ((path.parent, read_json(path)) for path in jobs)
    return {Path(options["output"]): (folder, options) for folder, options in read}


def read_logged(path: Path) -> "pd.DataFrame":
    """The metrics of a training that may be writing them: a line without an end is left out."""
    import pandas as pd

    if not path.is_file():
        return pd.DataFrame()
    lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])


def show_trainings(trainings: Sequence[Training]) -> tuple[list[tuple[str, str]], Table]:
    """([(title, SVG)] of the curves, the last values of each training)."""
    points: defaultdict[str, list[dict]] = defaultdict(list)
    lines = []
    for training in trainings:
        curves = read_curves(training.metrics, training.options)
        if not curves:
            continue
        add_points(points, training.name, curves)
        last = {TRAINING[kind]: float(values[-1]) for kind, (_, values) in curves.items()}
        step = int(training.metrics["step"].max())
        lines.append({"run": training.name, "state": training.state, "step": step, **last})
    looks = assign_looks(training.name for training in trainings)
    return [(title, draw(spec)) for title, spec in draw_curves(points, looks)], table_of("Last values", lines)


def draw(spec: dict) -> str:
    """A specification as SVG; its colours stay variables of report.css, so that they follow the page's theme."""
    import vl_convert

    return vl_convert.vegalite_to_svg({**spec, "width": CHART_WIDTH})
