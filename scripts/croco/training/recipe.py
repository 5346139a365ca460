"""What is wrong with a recipe for an objective: one set of rules, for the config and for the command line of train.py."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from croco.objectives import OBJECTIVES, SPECIAL_KEYS

SMOOTHED = ("robust", "exo_pair")  # the losses of TRL 1.16 that label smoothing changes

MOST_PROMPTS = 64  # per call of generate in online DPO, unless the recipe says otherwise


class RecipeFault(NamedTuple):
    """A key of a recipe that is wrong for an objective."""

    key: str
    problem: str
    remedy: str


def count_generation_batch(recipe: Mapping[str, Any], processes: int) -> int:
    """Prompts per call of generate in one process of online DPO, in whole micro-batches of one optimizer step.

    A recipe without a generation batch has those of the step, at most 64.
    """
    step = recipe["batch"] // processes
    micro_batch = recipe.get("micro_batch", 1)
    size = min(recipe.get("generation_batch") or MOST_PROMPTS, step)
    return max(micro_batch, size // micro_batch * micro_batch)


def find_faults(objective: str, given: Mapping[str, Any], whose: str | None = None) -> Iterator[RecipeFault]:
    """Faults of a recipe's keys.

    Args:
        given: the keys that were given, with their values; a key that is absent has its default.
        whose: what the recipe is for, in messages (default: the objective).
    """
    known, whose = OBJECTIVES[objective], whose or objective
    loss, own_recipe = given.get("loss", "sigmoid"), "leave it out, or give this setting its own recipe"
    for key in sorted(SPECIAL_KEYS & given.keys() - known.recipe_keys):
        yield RecipeFault(key, f"has no effect on {whose}", own_recipe)
    if "loss" in known.recipe_keys:
        if known.losses and loss not in known.losses:
            yield RecipeFault("loss", f"{objective} has no loss {loss}", f"one of {', '.join(known.losses)}")
        elif ("label_smoothing" in given) != (loss in SMOOTHED):
            problem = f"goes with the losses {' and '.join(SMOOTHED)}, and the loss is {loss}"
            yield RecipeFault("label_smoothing", problem, "leave it out, or take another loss")
    if given.get("checkpoint") == "best" and not given.get("validation"):
        yield RecipeFault(
            "checkpoint",
            "the best checkpoint is chosen by the validation loss, and nothing is held out",
            "hold out a share of the prompts: validation, e.g. 0.05",
        )
    if given.get("validation") and not known.validates:
        yield RecipeFault("validation", f"{objective} has no validation loss", own_recipe)
    if given.get("generation_batch", math.inf) < given.get("micro_batch", 1):
        problem = "a call of generate answers whole micro-batches, and micro_batch is larger"
        yield RecipeFault("generation_batch", problem, "raise it to micro_batch at least, or leave it out")
    if "lora_coverage" in given and "lora_targets" not in given:
        remedy = "name a part by lora_targets, or leave it out"
        yield RecipeFault("lora_coverage", "without a pattern all projections are adapted", remedy)
    try:
        re.compile(given.get("lora_targets") or "")
    except re.error as error:
        problem = f"{given['lora_targets']!r} is not a regular expression: {error}"
        yield RecipeFault(
            "lora_targets", problem, "correct it, e.g. close each bracket and put \\ before a literal one"
        )
