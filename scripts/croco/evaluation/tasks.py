"""Structured tasks by name: what a language's row lists, and how lm-eval loads them with their data."""

import sys
from collections.abc import Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.defaults import DEFAULT_NAMESPACE

from croco.commands import STAGE
from croco.digests import digest
from croco.errors import InputError, hide_secrets
from croco.evaluation.task_files import Tag, read_task

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

CAPABILITIES = ("reading", "knowledge", "common_sense", "semantics", "acceptability", "instructions", "maths")
# What a run may evaluate, as config/comparability.tsv names it in its column needs.
EVALUATED = ("llm_judge", "oracle", *CAPABILITIES, "own_tasks", "euroeval")
# The languages without a data set in the paper's harness, in the paper's order.
WITHOUT_EUROEVAL = ("gl", "cy", "mt", "ga")
# Files of NLTK that tasks need while they score, by the start of the task's name.
NLTK_FILES = {"ifeval": "tokenizers/punkt_tab"}
REMEDY = (
    f"run where there is a network, with the same HF_HOME: {STAGE}; or remove the task from "
    "the language's row in config/languages.tsv, or remove its capability from evaluation.suite"
)


def parse_tasks(text: str) -> dict[str, str]:
    """{task: capability} of the column tasks, such as ``reading: belebele_dan_Latn; knowledge: m_mmlu_da, arc_da``.

    Raises ValueError for an unknown capability, or a duplicate task.
    """
    tasks = {}
    for part in filter(str.strip, text.split(";")):
        capability, colon, names = part.partition(":")
        if not colon or capability.strip() not in CAPABILITIES:
            raise ValueError(f"{part.strip()!r} does not begin with a capability and a colon")
        for name in filter(None, map(str.strip, names.split(","))):
            if name in tasks:
                raise ValueError(f"duplicate {name}")
            tasks[name] = capability.strip()
    return tasks


def list_evaluated(grid: Any, known_languages: dict[str, dict]) -> dict[str, list[str]]:
    """{what: languages} that a checked config evaluates; keys are of EVALUATED."""
    evaluation = grid.config["evaluation"]
    codes = list(dict.fromkeys(code for run in grid.runs.values() for code in run.evaluated))
    found: dict[str, list[str]] = {name: [] for name in EVALUATED}
    if evaluation["judge"] != "none":
        found["oracle" if evaluation["judge"] == "oracle" else "llm_judge"] = codes
    for code, names in grid.suites.items():
        capabilities = parse_tasks(known_languages[code]["tasks"] or "")
        for capability in dict.fromkeys(capabilities[name] for name in names):
            found[capability].append(code)
    found["own_tasks"] = [code for code in WITHOUT_EUROEVAL if code in codes and grid.own_tasks([code])]
    if any(row["format"] == "euroeval" for row in grid.config["imports"]):
        found["euroeval"] = codes
    return {what: languages for what, languages in found.items() if languages}


def list_question_fields(path: str | Path) -> list[str]:
    """The fields of a task's question; none if the task's own code makes it, or if it is the same for all rows.

    A field that a row may lack, by `default` or `is defined` in the template, has a `?` behind it.
    """
    if not Path(path).is_file():
        raise InputError("not a task of lm-eval (no such file)", "write the YAML as in config/tasks/", path)
    task = read_task(path)
    query = task.get("doc_to_decontamination_query") or task.get("doc_to_text")
    if not isinstance(query, str) or isinstance(query, Tag):  # !function: the fields are unknown
        return []
    try:
        template = jinja2.Environment().parse(query)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"not a task of lm-eval ({error})", "write the YAML as in config/tasks/", path) from error
    # jinja2.meta would compile the template, which fails on lm-eval's own filters.
    names: dict[str, set[str]] = {"load": set(), "store": set(), "param": set()}
    filters = [use for use in template.find_all(nodes.Filter) if use.name in ("default", "d")]
    with_default = {id(use.node) for use in filters}
    for name in template.find_all(nodes.Name):
        if id(name) not in with_default:
            names[name.ctx].add(name.name)
    tests = [test for test in template.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    optional = {test.node.name for test in tests if isinstance(test.node, nodes.Name)}
    own = names["store"] | names["param"] | {"loop", *DEFAULT_NAMESPACE}
    required = names["load"] - own - optional
    lacking = {use.node.name for use in filters if isinstance(use.node, nodes.Name)} | optional
    fields = [*sorted(required), *(f"{name}?" for name in sorted(lacking - own - required))]
    # As in lm-eval, a name alone is a field.
    return fields or ([query] if query.isidentifier() else [])


def check_names(names: Iterable[str]) -> "TaskManager":
    """lm-eval's manager of tasks (takes some seconds); raises InputError for names that it does not know."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    known = set(manager.all_tasks)
    if unknown := sorted(set(names) - known):
        raise InputError(
            f"lm-eval {metadata.version('lm_eval')} has no task {', '.join(unknown)}",
            "correct column tasks of config/languages.tsv; scripts/check_language.py CODE lists its tasks",
            field="tasks",
        )
    return manager


def check_names_once(names: Iterable[str], state: str | Path) -> None:
    """As check_names, but remembers under ``state`` the valid names for this version of lm-eval."""
    names = sorted(set(names))
    known = Path(state) / "suites" / digest([metadata.version("lm_eval"), names])
    if names and not known.exists():
        print("looking the suites' tasks up in lm-eval, which takes some seconds ...", file=sys.stderr)
        check_names(names)
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()


def load_suite(names: Iterable[str]) -> tuple[dict[str, dict], dict[str, str]]:
    """lm-eval's tasks with their data, from the hub or its cache; groups and tags become their single tasks.

    Returns ({name: {task: lm_eval Task}}, {name: why it could not be loaded}); raises InputError for unknown names.
    """
    manager, loaded, failures = check_names(names), {}, {}
    for name in names:
        try:
            loaded[name] = manager.load(name)["tasks"]
            for start, file in NLTK_FILES.items():
                if name.startswith(start):
                    _find_nltk(file)
        except Exception as error:
            failures[name] = describe(error)
    return loaded, failures


def refuse_overlap(language: str, suite: Mapping[str, Collection[str]]) -> None:
    """Raises InputError where two names of a language's suite, {name: its single tasks}, share a task.

    Each task counts in the mean of one group.
    """
    owners: dict[str, str] = {}
    remedy = "name one of the two in column tasks of config/languages.tsv"
    for name, tasks in suite.items():
        for task in tasks:
            if task in owners:
                raise InputError(f"{language}: {owners[task]} and {name} both have the task {task}", remedy)
            owners[task] = name


def _find_nltk(file: str) -> None:
    import nltk

    nltk.data.find(file)


def describe(error: BaseException) -> str:
    """The kind of an error and what it says, on one line, without credentials."""
    return f"{type(error).__name__}: {hide_secrets(' '.join(str(error).split()))[:300]}".removesuffix(": ")
