"""Task files of the user's, in lm-eval's YAML: what in them runs code, and which files they consist of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from croco.errors import InputError

# lm-eval's own metrics. It looks others up on the hub, as a program that it downloads and runs.
METRICS = frozenset(
    [
        *("acc", "acc_all", "acc_bytes", "acc_mutual_info", "acc_norm", "bits_per_byte", "bleu", "brier_score"),
        *("bypass", "byte_perplexity", "chrf", "chrf++", "exact_match", "f1", "likelihood", "mcc", "perplexity"),
        *("ter", "word_perplexity"),
    ]
)
# Keys that name a class, a prompt or other tasks, each with code of its own.
CODE_KEYS = ("class", "use_prompt", "group", "task_list", "unsafe_code")
REMEDY = "read that code; if you trust it, set trust_task_code: true in the task's row (--trust-task-code NAME)"


class Tag(str):
    """The text of a tag such as `!function utils.answer`."""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_multi_constructor("!", lambda _loader, name, node: Tag(f"!{name} {node.value}"))


def find_code(path: str | Path) -> list[str]:
    """What in a task file, or in those that it includes, runs code; empty for a file that is only data.

    Raises InputError for a file that is missing or no task of lm-eval.
    """
    return [found for file, task in _read_all(Path(path)) for found in _find_code(task, file)]


def refuse_code(path: str | Path) -> None:
    """Raises InputError for a task file that runs code."""
    if found := find_code(path):
        raise InputError(f"the task runs code: {', '.join(found)}", REMEDY, path)


def list_files(path: str | Path) -> list[Path]:
    """A task file, those that it includes, and the modules beside them that hold their functions."""
    files = []
    for file, task in _read_all(Path(path)):
        modules = [tag.split()[-1].rpartition(".")[0].replace(".", "/") for _, tag in _find_tags(task)]
        beside = (file.parent / f"{module}.py" for module in modules)
        files += [file, *(module for module in beside if module.is_file())]
    return list(dict.fromkeys(files))


def read_task(path: str | Path) -> dict[str, Any]:
    """A task file with the keys of those that it includes, as lm-eval reads it: the file's own keys win.

    Raises InputError for a file that is missing or no task of lm-eval.
    """
    merged: dict[str, Any] = {}
    for _, task in _read_all(Path(path)):
        merged = task | merged
    return merged


def sandbox_templates() -> None:
    """Lets the templates of lm-eval's tasks reach no Python internals for the rest of the process."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    usual = utils.env
    sandbox = SandboxedEnvironment(
        loader=usual.loader, undefined=usual.undefined, keep_trailing_newline=usual.keep_trailing_newline
    )
    sandbox.filters.update(usual.filters)
    utils.env = sandbox


def _read_all(path: Path, seen: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict]]:
    """(file, content) of a task file and of those that it includes, in the order in which their keys win.

    What a linked file includes is beside the file that the link leads to.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.resolve() in seen:
        return
    try:
        task = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        if not isinstance(task, dict):
            raise ValueError("not a mapping")
        includes = task.get("include", [])
        included = [path.parent / name for name in (includes if isinstance(includes, list) else [includes])]
    except OSError as error:
        raise InputError(str(error.strerror), "check the path", path) from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            f"not a task of lm-eval ({' '.join(str(error).split())})", "write the YAML as in config/tasks/", path
        ) from error
    yield path, task
    for file in reversed(included):
        yield from _read_all(file, (*seen, path.resolve()))


def _find_tags(value: Any, place: str = "") -> Iterator[tuple[str, Tag]]:
    """(key, tag) of all tags in a task."""
    if isinstance(value, Tag):
        yield place, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _find_tags(part, f"{place}.{key}".lstrip("."))


def _find_code(task: dict, path: Path) -> Iterator[str]:
    for place, tag in _find_tags(task):
        yield f"{tag} ({place} in {path.name})"
    for key in CODE_KEYS:
        if key in task:
            yield f"{key} in {path.name}"
    metrics = task.get("metric_list") or []
    for row in metrics if isinstance(metrics, list) else [metrics]:
        name = row.get("metric") if isinstance(row, dict) else row
        from_hub = isinstance(row, dict) and bool(row.get("hf_evaluate"))
        if not isinstance(name, Tag) and (from_hub or not isinstance(name, str) or name not in METRICS):
            yield f"the metric {name}, which comes from the hub"
