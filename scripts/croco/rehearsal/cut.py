"""A config cut to minutes on a CPU: three languages, few prompts, samples and tokens; every setting stays."""

import copy
from collections.abc import Sequence
from typing import Any

from croco.errors import InputError
from croco.grid import Grid

LANGUAGES = 3
PROMPTS, SAMPLES, BLOCK, ANSWER_SAMPLES = 4, 8, 2, 2
TOKENS, CONTEXT = 24, 4000  # of what a model writes, and of what it reads at most
TASK_ROWS = 4
LEARNING_RATE = 2e-2  # so large that an adapter changes what a replica answers
MODEL_LIMITS = {"max_tokens": TOKENS, "max_length": CONTEXT}
MODELS = ("policies", "reward_models", "translators", "judges")
OF_THE_MACHINE = ("revision", "size", "resources", "lock")


def choose_languages(grid: Grid, wanted: Sequence[str] = ()) -> list[str]:
    """Codes of the languages of a rehearsal: the source, one whose prompts are translated, one that is only evaluated.

    Two are trained if the config trains two, so that there are pools of several languages. Languages that no setting
    of the cut config needs are left out.

    Raises InputError for a wanted language that the config does not have.
    """
    if unknown := [code for code in wanted if code not in grid.languages]:
        has = ", ".join(grid.languages)
        raise InputError(f"the config has no language {', '.join(unknown)}", f"choose among {has}", field="languages")
    source = grid.config["source_language"]
    if wanted:
        return drop_idle([code for code in grid.languages if code in {*wanted, source}], grid)
    translated = set(grid.translated("train"))
    trained = [code for code in grid.trained if code != source]
    first = sorted(trained, key=lambda code: code not in translated)
    needed = 1 if source in grid.trained else 2
    only_evaluated = [code for code in grid.languages if code not in grid.trained]
    order = [source, *first[:needed], *only_evaluated[:1], *first[needed:], *grid.languages]
    chosen = list(dict.fromkeys(order))[:LANGUAGES]
    return drop_idle([code for code in grid.languages if code in chosen], grid)


def drop_idle(languages: Sequence[str], grid: Grid) -> list[str]:
    """The source language, and those of the languages in which a setting of the cut config is tuned or evaluated."""
    rows, stands_for = cut_pools(grid.config["pools"], languages, grid)
    pools = {code: [code] for code in languages} | {row["name"]: row["languages"] for row in rows}
    trained = [code for code in languages if code in grid.trained]
    needed = {grid.config["source_language"]}
    for row in grid.config["settings"]:
        if row["objective"] != "none":
            own = [code for name in cut_setting(row, stands_for, languages, grid)["pools"] for code in pools[name]]
            needed.update({"own": own, "trained": [*own, *trained], "all": languages}[row["evaluate"]])
    return [code for code in languages if code in needed]


def cut(grid: Grid, asked: dict[str, Any], results: str, languages: Sequence[str], engine: str) -> dict[str, Any]:
    """A copy of the config ``asked`` for a rehearsal under ``results``.

    Models, prompts and tasks still have their own paths. ``engine`` is that of all models.
    """
    config = copy.deepcopy(asked)
    config |= {
        "results": results,
        "languages": [row for row in config["languages"] if row["code"] in languages],
        "samples": SAMPLES,
        "limit": PROMPTS,
        "block": BLOCK,
        "imports": [],
        "partial": False,
        # A replica translates all prompts with the same few words.
        "max_overlap": {"exact": 1, "ngram": 1},
    }
    for name in OF_THE_MACHINE:
        config.pop(name, None)
    for kind in MODELS:
        config[kind] = [cut_model(row, kind, engine) for row in config.get(kind, [])]
    config["prompts"] = [cut_prompt_row(row, languages, grid) for row in config["prompts"]]
    config["pools"], stands_for = cut_pools(config["pools"], languages, grid)
    config["settings"] = [cut_setting(row, stands_for, languages, grid) for row in config["settings"]]
    config["contrasts"] = cut_contrasts(config["contrasts"], stands_for)
    config["recipes"] = [cut_recipe(row) for row in config["recipes"]]
    config["evaluation"] = cut_evaluation(config["evaluation"], languages)
    config["audit"] = {**config.get("audit", {}), "prompts": PROMPTS, "samples": 1}
    config["release"] = []
    config.get("preview", {}).pop("votes", None)  # of answers that a rehearsal does not have
    cut_miniature(config["miniature"])
    return config


def cut_model(row: dict, kind: str, engine: str) -> dict:
    """A model's row without what only the real model needs."""
    row = {name: value for name, value in row.items() if name not in OF_THE_MACHINE}
    row |= {"dtype": "float32", "engine": engine, "batch": 8}
    row["engine_options"] = {"max_model_len": CONTEXT + 96} if engine == "vllm" else {}
    if engine == "vllm":
        row["resources"] = {"gpu": 0}
    # Translators and judges have large defaults.
    limits = {"max_tokens": TOKENS} if kind in ("translators", "judges") else {}
    limits |= {"max_length": CONTEXT} if kind == "judges" else {}
    given = {name: min(row[name], most) for name, most in MODEL_LIMITS.items() if name in row}
    return row | given | limits


def cut_prompt_row(row: dict, languages: Sequence[str], grid: Grid) -> dict:
    """A row of prompts with the languages that are left; without a translator if each of them has its own file."""
    row = cut_languages(row, languages)
    row["translations"] = [own for own in row.get("translations", []) if own["language"] in languages]
    if not set(grid.translated(row["use"])) & set(languages):
        row.pop("translator", None)
    return row


def cut_languages(row: dict, languages: Sequence[str]) -> dict:
    """A row with those of its ``languages`` that are left; without any, the key is left out."""
    kept = [code for code in row.get("languages", []) if code in languages]
    return {name: value for name, value in row.items() if name != "languages"} | ({"languages": kept} if kept else {})


def cut_pools(pools: Sequence[dict], languages: Sequence[str], grid: Grid) -> tuple[list[dict], dict[str, str]]:
    """(the pools that are left, {name of a pool in the config: name of the pool in its place}).

    A pool that has lost too many languages takes all that are trained. Of pools that have become equal the first one is
    left, and of the pools of one language one: that of a language whose prompts are translated, if there is one.
    """
    trained = [code for code in grid.trained if code in languages]
    translated = set(grid.translated("train"))
    alone = next((code for code in trained if code in translated), trained[-1] if trained else "monolingual")
    left: dict[tuple[str, ...], dict] = {}
    stands_for = dict.fromkeys([*grid.trained, "monolingual"], alone)
    for row in pools:
        kept = [code for code in row["languages"] if code in languages]
        kept = kept if len(kept) > 1 else trained
        if len(kept) > 1:
            stands_for[row["name"]] = left.setdefault(tuple(kept), {**row, "languages": kept})["name"]
    return list(left.values()), stands_for


def cut_contrasts(contrasts: Sequence[dict], stands_for: dict[str, str]) -> list[dict]:
    """The contrasts in pools that are left, each once."""
    moved = [{**row, "pool": stands_for[row["pool"]]} for row in contrasts if row["pool"] in stands_for]
    return [row for position, row in enumerate(moved) if row not in moved[:position]]


def cut_setting(row: dict, stands_for: dict[str, str], languages: Sequence[str], grid: Grid) -> dict:
    """A setting with one seed, two rounds, the pools and languages that are left.

    It has no guards, and no caliper: the rewards of random models rarely lie within it.
    """
    row = {**row, "seeds": [1]} if row["objective"] != "none" else dict(row)
    if row["objective"] == "dpo" or "guards" in row:
        row["guards"] = "none"
    row.pop("caliper", None)
    if "pools" in row:
        kept = dict.fromkeys(stands_for[name] for name in row["pools"] if name in stands_for)
        row["pools"] = list(kept) or [stands_for["monolingual"]]
    if "rounds" in row:
        row["rounds"] = min(row["rounds"], 2)
    if "pool_size" in row:
        row["pool_size"] = min(row["pool_size"], SAMPLES)
    if row.get("rejected") == "mean-2sd":
        row["allow_degenerate"] = True
    if row.get("prompt_language") in grid.languages and row["prompt_language"] not in languages:
        source = grid.config["source_language"]
        row["prompt_language"] = source if source in grid.trained else "chosen"
    return row


def cut_recipe(row: dict) -> dict:
    """Two steps per checkpoint; the learning rate is large. A warm-up of so many steps would be longer than the training."""
    steps = ("warmup",) if row.get("warmup", 0) >= 1 else ()
    row = {name: value for name, value in row.items() if name not in (*OF_THE_MACHINE, *steps)}
    row |= {"learning_rate": LEARNING_RATE, "epochs": 4, "batch": 2, "micro_batch": 1, "save_every": 2}
    return row | {"max_length": min(row.get("max_length", CONTEXT), CONTEXT)}


def cut_evaluation(evaluation: dict, languages: Sequence[str]) -> dict:
    """Few short answers, any share of unparseable verdicts, and no task from the hub."""
    evaluation = {name: value for name, value in evaluation.items() if name not in (*OF_THE_MACHINE, "suite_limit")}
    evaluation |= {
        "samples": min(evaluation["samples"], ANSWER_SAMPLES),
        "max_tokens": min(evaluation["max_tokens"], TOKENS),
        "max_unparseable": 1,
        "suite": "none",
    }
    tasks = [cut_languages(task, languages) for task in evaluation["tasks"]]
    before = [set(task.get("languages", languages)) for task in evaluation["tasks"]]
    evaluation["tasks"] = [task for task, codes in zip(tasks, before, strict=True) if codes & set(languages)]
    return evaluation


def choose_releases(grid: Grid) -> list[dict]:
    """The first LoRA run of each tuned policy of the cut config, merged, as a run may give it away."""
    found: dict[str, str] = {}
    for run in grid.runs.values():
        if not run.is_base and grid.recipe_of(run)["weights"] == "lora" and run.round == 1:
            found.setdefault(run.model, run.name)
    return [{"run": name, "weights": "merged"} for name in found.values()]


def choose_targets(config: dict[str, Any]) -> tuple[str, ...]:
    """The workflow's targets in a rehearsal of a cut config; that of releases ends the workflow where there are none."""
    return ("all", "release") if config["release"] else ("all",)


def cut_miniature(miniature: dict) -> None:
    """Models of the miniature that are trained just enough to answer."""
    for row in miniature["policies"]:
        row |= {"chats": 4000, "sentences": 200}
    for row in miniature["reward_models"]:
        row |= {"pairs": 64}
