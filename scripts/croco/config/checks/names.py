"""Names: each is unique, none is reserved, and whatever another row names exists."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from croco.config.faults import Fault
from croco.evaluation.tasks import CAPABILITIES, parse_tasks
from croco.objectives import NONE, OBJECTIVES
from croco.results.table import ARENA, FIDELITY

if TYPE_CHECKING:
    from croco.grid import Grid

RESERVED = (
    "untuned",
    "prompts",
    "preview",
    "audit",
    "release",
    "partial",
    "state",
    "logs",
    "benchmarks",
    "miniature",
    "scores",
    "language",
    "monolingual",
    "tables",
    "tasks",
    "templates",
)
# Values of evaluation.judge that are no model.
NO_MODELS = ("oracle", "none")
# Lists of the config whose rows have unique names: where, the key that names a row, and what to do about a duplicate.
UNIQUE = (
    (("policies",), "name", "give each row its own name"),
    (("reward_models",), "name", "give each row its own name"),
    (("translators",), "name", "give each row its own name"),
    (("judges",), "name", "give each row its own name"),
    (("recipes",), "name", "give each row its own name"),
    (("settings",), "name", "give each row its own name"),
    (("prompts",), "use", "give each row its own use"),
    (("evaluation", "tasks"), "name", "give each task its own name"),
    (("imports",), "name", "give each its own name"),
    (("release",), "run", "release a run once"),
)


def check_unique(grid: "Grid", _known_languages: dict[str, dict]) -> Iterator[Fault]:
    """No two rows of a list have the same name."""
    for place, key, remedy in UNIQUE:
        rows: Any = grid.config
        for part in place:
            rows = rows[part]
        names = [row[key] for row in rows]
        for i, name in enumerate(names):
            if name in names[:i]:
                yield Fault((*place, i, key), f"{name} is listed twice", remedy)


def check_languages(grid: "Grid", known_languages: dict[str, dict]) -> Iterator[Fault]:
    """The languages are known and listed once, and the source language is one of them."""
    codes = grid.languages
    for i, code in enumerate(codes):
        keys = ("languages", i, "code")
        if code not in known_languages:
            remedy = "correct the code, or add the language to config/languages.tsv"
            yield Fault(keys, f"unknown language {code}", remedy)
        if code in codes[:i]:
            yield Fault(keys, f"the language {code} is listed twice", "keep one row per language")
    if grid.config["source_language"] not in codes:
        yield Fault(("source_language",), "not one of the languages", f"choose one of {', '.join(codes)}")


def check_language_tasks(grid: "Grid", known_languages: dict[str, dict]) -> Iterator[Fault]:
    """The column tasks of config/languages.tsv, where the config asks for lm-eval's tasks."""
    for code in grid.languages if grid.wanted_capabilities() else []:
        try:
            parse_tasks(known_languages.get(code, {}).get("tasks") or "")
        except ValueError as error:
            remedy = f"write capability: task, task; ... with {', '.join(CAPABILITIES)}"
            yield Fault(("tasks",), f"{code}: {error}", remedy, "config/languages.tsv")


def check_pools(grid: "Grid", _known_languages: dict[str, dict]) -> Iterator[Fault]:
    """No pool has the name of a language or of another pool, and its languages are trained."""
    names = [row["name"] for row in grid.config["pools"]]
    for i, row in enumerate(grid.config["pools"]):
        if row["name"] in (*grid.languages, *names[:i]):
            problem = f"the name {row['name']} is taken by a language or pool"
            yield Fault(("pools", i, "name"), problem, "choose another name")
        for j, code in enumerate(row["languages"]):
            if code not in grid.trained:
                problem = f"{code} is not a trained language"
                yield Fault(("pools", i, "languages", j), problem, "add it to languages, or take it out")


def check_reserved(grid: "Grid", _known_languages: dict[str, dict]) -> Iterator[Fault]:
    """No name is reserved, and no policy has the name of a pool."""
    for i, row in enumerate(grid.config["evaluation"]["tasks"]):
        if row["name"] in (ARENA, FIDELITY):  # what verdicts and measures of answers are called in summary.csv
            keys = ("evaluation", "tasks", i, "name")
            yield Fault(keys, f"the name {row['name']} is reserved", "choose another name")
    for key in ("policies", "pools", "settings"):
        for i, row in enumerate(grid.config[key]):
            if row["name"] in RESERVED:
                problem = f"the name {row['name']} is reserved"
                yield Fault((key, i, "name"), problem, f"reserved are {', '.join(RESERVED)}")
    for i, row in enumerate(grid.config["policies"]):
        if row["name"] in grid.pools:
            yield Fault(("policies", i, "name"), f"the name {row['name']} is taken by a pool", "choose another name")
    for i, row in enumerate(grid.config["judges"]):
        if row["name"] in NO_MODELS:
            yield Fault(("judges", i, "name"), f"the name {row['name']} is reserved", "choose another name")


def check_models_named(grid: "Grid", _known_languages: dict[str, dict]) -> Iterator[Fault]:
    """Translators, the judge and the audit's policy exist."""
    config, evaluation = grid.config, grid.config["evaluation"]
    for place, rows in ((("prompts",), config["prompts"]), (("evaluation", "tasks"), evaluation["tasks"])):
        for i, row in enumerate(rows):
            if "translator" in row and row["translator"] not in grid.translators:
                problem = f"there is no {row['translator']}"
                yield Fault((*place, i, "translator"), problem, f"one of {', '.join(grid.translators)}")
    name = evaluation["judge"]
    if name not in (*NO_MODELS, *grid.judges):
        remedy = f"one of {', '.join([*NO_MODELS, *grid.judges])}, or add it to judges"
        yield Fault(("evaluation", "judge"), f"there is no judge {name}", remedy)
    name = config["audit"].get("policy")
    if name is not None and name not in grid.policies:
        yield Fault(("audit", "policy"), f"there is no {name}", f"one of {', '.join(grid.policies)}")


def check_anything_tuned(grid: "Grid", _known_languages: dict[str, dict]) -> Iterator[Fault]:
    """There is a base, a setting that is tuned, and a policy that is tuned."""
    settings = grid.config["settings"]
    if not any(row["name"] == "base" and row["objective"] == NONE for row in settings):
        remedy = "add the row {name: base, objective: none}: all is compared with it"
        yield Fault(("settings",), "no base", remedy)
    if all(row["objective"] == NONE for row in settings):
        yield Fault(("settings",), "nothing is tuned", "add a setting with the objective sft or dpo")
    if not grid.tuned:
        yield Fault(("policies",), "no policy is tuned", "leave out `tune: false` in one of them")


def check_settings(grid: "Grid", _known_languages: dict[str, dict]) -> Iterator[Fault]:
    """What settings that are tuned name: target, reward model, recipe, pools and responses."""
    for i, row in enumerate(grid.config["settings"]):
        keys, objective = ("settings", i), row["objective"]
        if objective == NONE:
            continue
        targets = OBJECTIVES[objective].targets
        if row.get("target") not in targets:
            yield Fault((*keys, "target"), f"objective {objective} needs a target", f"one of {', '.join(targets)}")
        for key, known in (("reward_model", grid.reward_models), ("recipe", grid.recipes)):
            if key in row and row[key] not in known:
                yield Fault((*keys, key), f"there is no {row[key]}", f"one of {', '.join(known)}")
        if "recipe" not in row and objective not in grid.recipes:
            yield Fault(("recipes",), f"no recipe {objective}", "add it, or name another under `recipe`")
        yield from _check_pools_of(grid, keys, row)
        if "responses" in row:
            yield from _check_responses(grid, (*keys, "responses"), row)


def _check_pools_of(grid: "Grid", keys: tuple, row: dict) -> Iterator[Fault]:
    """A setting has at least one pool, and its pools exist."""
    if "pools" not in row:
        yield Fault((*keys, "pools"), "missing key", "add it: names of pools, or monolingual")
    elif not grid.expand_pools(row):
        problem, remedy = "no language is trained", "leave out `train: false` in one of the languages"
        yield Fault((*keys, "pools"), problem, remedy)
    for j, pool in enumerate(row.get("pools", [])):
        if pool != "monolingual" and pool not in grid.pools:
            remedy = f"monolingual, or one of {', '.join(grid.pools)}"
            yield Fault((*keys, "pools", j), f"there is no pool {pool}", remedy)


def _check_responses(grid: "Grid", keys: tuple, row: dict) -> Iterator[Fault]:
    """Responses of a setting come from another policy that exists, for each policy that is tuned."""
    for model in grid.tuned:
        if isinstance(row["responses"], dict) and model not in row["responses"]:
            yield Fault(keys, f"nothing is said for {model}", "name a policy for each one that is tuned")
            continue
        other = grid.responses_for(row, model)
        if other not in grid.policies:
            yield Fault(keys, f"there is no {other}", f"one of {', '.join(grid.policies)}")
        elif other == model:
            remedy = "leave it out; or name another policy for each model: {MODEL: POLICY, ...}"
            yield Fault(keys, f"{model} would be tuned on its own responses", remedy)


CHECKS = (
    check_unique,
    check_languages,
    check_language_tasks,
    check_pools,
    check_reserved,
    check_models_named,
    check_anything_tuned,
    check_settings,
)
