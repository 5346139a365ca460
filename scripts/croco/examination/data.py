"""Whether the prompts and task files of a config can be read, and whether they overlap; no data are downloaded."""

from collections.abc import Iterator
from pathlib import Path

from croco.errors import InputError
from croco.evaluation.tasks import list_question_fields
from croco.examination.datasets import examine_datasets
from croco.examination.findings import ERROR, WARNING, Finding
from croco.grid import Grid
from croco.prompts.overlap import KINDS, Evaluated, list_turns
from croco.prompts.sources import Entry, Source, check_sources, find_missing_fields, read_source
from croco.records import read_jsonl
from croco.text.normalise import fold

SHOWN = 3


def examine_data(grid: Grid) -> Iterator[Finding]:
    """Faults of prompts, datasets and task files, and training prompts that are evaluation prompts."""
    yield from examine_datasets(grid)
    try:
        check_sources(grid)
        yield from examine_overlap(grid)
    except InputError as fault:
        yield _report(fault, "prompts", "prompts")
    for task in grid.config["evaluation"]["tasks"]:
        try:
            check_task(grid, task)
        except InputError as fault:
            yield _report(fault, f"task {task['name']}", "evaluate")


def check_task(grid: Grid, task: dict) -> None:
    """Raises InputError where a task's YAML or its local data cannot be read, or the data lack the declared fields."""
    asked = list_question_fields(task["yaml"])
    if "source" in task:
        declared = {"id": [task.get("id", "id")], "fields": task.get("fields", [])}
    else:  # the task's own code may make fields of others
        required = [field for field in asked if not field.endswith("?")]
        declared = {"fields": [] if task.get("trust_task_code") else required}
    for file in list_task_files(grid, task):
        missing = find_missing_fields((row for _, row in read_jsonl(file)), declared)
        if missing:
            remedy = "correct the fields in the config or in the task's YAML"
            raise InputError(f"no row has the field {', '.join(missing)}", remedy, file)


def list_task_files(grid: Grid, task: dict) -> list[Path]:
    """The local files with a task's rows, except those that the run itself writes."""
    if "source" in task:
        path = Path(grid.path(task["source"]))
        return [path] if path.is_file() else []
    files = [Path(grid.task_file(task, code)) for code in grid.task_languages(task)]
    return [file for file in files if not file.is_relative_to(grid.results)]


def check_tasks(grid: Grid) -> None:
    """Raises InputError, before any job runs, for a task as check_task does; Snakemake names files that are missing."""
    for task in grid.config["evaluation"]["tasks"]:
        if all(map(Path.is_file, [Path(task["yaml"]), *list_task_files(grid, task)])):
            check_task(grid, task)


def examine_overlap(grid: Grid) -> Iterator[Finding]:
    """Training prompts that are an evaluation prompt of their language, where both are local files.

    An error where the run would surely stop because of them. With a limit it may not select them.
    """
    for code in grid.trained:
        files = {use: grid.prompt_file(use, code) for use in ("train", "evaluate")}
        if not all(
            path and Path(path).is_file() and not Path(path).is_relative_to(grid.results) for path in files.values()
        ):
            continue
        evaluated, trained = Evaluated(), _read_entries(grid, "train", str(files["train"]), code)
        for entry in _read_entries(grid, "evaluate", str(files["evaluate"]), code):
            turns = list_turns({"messages": entry.messages})
            evaluated.add(turns, ["\n".join(turns)])
        found = {entry.prompt_id: _find_evaluated(entry, evaluated) for entry in trained}
        hits = [prompt_id for prompt_id, shared in found.items() if shared]
        allowed = grid.config["max_overlap"].get(KINDS[0], 0)
        if not hits or grid.config["contamination"] == "remove" or len(hits) / len(trained) <= allowed:
            continue
        shown = ", ".join(hits[:SHOWN]) + (", ..." if len(hits) > SHOWN else "")
        what = f"{len(hits)} of {len(trained)} training prompts in {code} are evaluation prompts ({shown})"
        others, limit = evaluated.count - len(set().union(*found.values())), grid.limit("evaluate")
        avoided = grid.limit("train") or (limit and (limit <= others or allowed))
        severity = WARNING if avoided else ERROR
        remedy = "choose other prompts, or write contamination: remove"
        yield Finding(severity, str(files["train"]), what, "contamination", remedy)


def _read_entries(grid: Grid, use: str, path: str, code: str) -> list[Entry]:
    """The prompts of a file that can be asked, of those that ``where`` chooses; the source's file chooses by id for all."""
    row, leading = grid.prompts[use], grid.config["source_language"]
    source = Source.of_row(row) if code == leading else Source.of_row(row, where={})
    entries = [entry for entry in read_source(path, source)[0] if entry.messages is not None]
    first = grid.prompt_file(use, leading)
    if code == leading or "where" not in row or not first or not Path(first).is_file():
        return entries
    chosen = {entry.prompt_id for entry in read_source(first, Source.of_row(row))[0]}
    return [entry for entry in entries if entry.prompt_id in chosen]


def _find_evaluated(entry: Entry, evaluated: Evaluated) -> set[int]:
    """Numbers of the evaluation prompts that are the whole of the user's turns, or one of them."""
    turns = list_turns({"messages": entry.messages})
    return set().union(*(evaluated.whole.get(fold(text), ()) for text in ("\n".join(turns), *turns)))


def _report(fault: InputError, where: str, stage: str) -> Finding:
    """The finding of an error, whose text names file, line and field."""
    return Finding(ERROR, where, str(fault).removesuffix(f"\n  Remedy: {fault.remedy}"), stage, fault.remedy)
