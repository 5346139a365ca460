"""Recipes: every option has an effect in the settings that use it, and batches divide among the processes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from croco.config.faults import Fault
from croco.objectives import OBJECTIVES
from croco.training.recipe import find_faults

if TYPE_CHECKING:
    from croco.grid import Grid
    from croco.runs import Run


def check_recipes(grid: "Grid") -> Iterator[Fault]:
    """Faults of the recipes that are used, each once, whatever the number of settings that use the recipe."""
    places = {name: ("recipes", i) for i, name in enumerate(grid.recipes)}
    faults: dict[tuple, Fault] = {}
    for run in grid.runs.values():
        if not run.is_base:
            recipe = grid.recipe_of(run)
            keys = places[recipe["name"]]
            for fault in [*_check_options(grid, keys, recipe, run), *_check_batch(grid, keys, recipe, run)]:
                faults.setdefault((fault.keys, fault.remedy), fault)
    yield from faults.values()


def _check_batch(grid: "Grid", keys: tuple, recipe: dict, run: "Run") -> Iterator[Fault]:
    """The batch of a recipe divides among the processes of a run."""
    processes = max(1, grid.resource("gpu", [recipe, grid.policies[run.model]]))
    if recipe["batch"] % (recipe["micro_batch"] * processes):
        problem = f"{recipe['micro_batch']} x {processes} processes does not divide the batch of {recipe['batch']}"
        yield Fault((*keys, "micro_batch"), problem, "choose a divisor, or another resources.gpu")


def _check_options(grid: "Grid", keys: tuple, recipe: dict, run: "Run") -> Iterator[Fault]:
    """Faults of the options of a recipe for a setting that uses it."""
    setting, objective = run.row, OBJECTIVES[run.objective]
    for fault in find_faults(run.objective, recipe, f"{setting['name']}, which is {run.objective}"):
        yield Fault((*keys, fault.key), fault.problem, fault.remedy)
    if objective.samples:
        answer = grid.policies[run.model]["max_tokens"]
        longest = grid.reward_models[run.reward_model]["max_length"]
        if recipe["max_length"] <= answer:
            problem = f"an answer of {run.model} may have {answer} tokens, which leaves no room for a prompt"
            yield Fault((*keys, "max_length"), problem, "raise it, or lower the policy's max_tokens")
        if recipe["max_length"] > longest:
            problem = f"the reward model gives no reward beyond its max_length of {longest}"
            yield Fault((*keys, "max_length"), problem, "lower it, or raise the reward model's")
    if recipe["weights"] == "full" and setting["rounds"] > 1:
        yield Fault((*keys, "weights"), "rounds go with LoRA", "take LoRA, or one round")
    if recipe["weights"] == "full" and grid.policies[run.model]["trust_remote_code"]:
        problem = f"full weights of {run.model} would be saved without the model's own code (trust_remote_code)"
        yield Fault((*keys, "weights"), problem, "take LoRA")


CHECKS = (check_recipes,)
