"""Recipes: every option has an effect in the settings that use it, and batches divide among the processes."""

from collections.abc import Iterator

from croco.config.faults import Fault
from croco.training.encode import SMOOTHED


def check_recipes(grid) -> Iterator[Fault]:
    """Faults of the recipes that are used, each once, whatever the number of settings that use the recipe."""
    places, faults = {name: ("recipes", i) for i, name in enumerate(grid.recipes)}, {}
    for run in grid.runs.values():
        if run.row["objective"] != "none":
            recipe = grid.recipe_of(run)
            keys = places[recipe["name"]]
            for fault in [*_check_options(grid, keys, recipe, run), *_check_batch(grid, keys, recipe, run)]:
                faults.setdefault((fault.keys, fault.remedy), fault)
    yield from faults.values()


def _check_batch(grid, keys, recipe, run):
    processes = max(1, grid.resource("gpu", [recipe, grid.policies[run.model]]))
    if recipe["batch"] % (recipe["micro_batch"] * processes):
        problem = f"{recipe['micro_batch']} x {processes} processes does not divide the batch of {recipe['batch']}"
        yield Fault((*keys, "micro_batch"), problem, "choose a divisor, or another resources.gpu")


def _check_options(grid, keys, recipe, run):
    """Faults of the options of a recipe that its setting's objective, loss or weights would leave without effect."""
    setting, answer = run.row, grid.policies[run.model]["max_tokens"]
    objective, loss = setting["objective"], recipe.get("loss", "sigmoid")
    longest = grid.reward_models[run.reward_model]["max_length"]
    losses = [key for key in ("beta", "loss", "label_smoothing") if key in recipe]
    checks = [
        *(
            (
                objective == "sft",
                key,
                f"has no effect on {setting['name']}, which is sft",
                "give it its own recipe",
            )
            for key in losses
        ),
        (
            objective != "sft" and "loss_on" in recipe,
            "loss_on",
            f"has no effect on {setting['name']}, which is {objective}",
            "give sft its own recipe",
        ),
        (
            objective != "sft" and ("label_smoothing" in recipe) != (loss in SMOOTHED),
            "label_smoothing",
            f"goes with the losses {' and '.join(SMOOTHED)}, and the loss is {loss}",
            "leave it out, or take another loss",
        ),
        (
            objective == "online_dpo" and loss not in ("sigmoid", "ipo"),
            "loss",
            f"online DPO knows no loss {loss}",
            "sigmoid or ipo",
        ),
        (
            recipe["checkpoint"] == "best" and not recipe.get("validation"),
            "checkpoint",
            "the best checkpoint is chosen by the validation loss, and nothing is held out",
            "hold out a share of the prompts: validation, e.g. 0.05",
        ),
        (
            objective == "online_dpo" and recipe.get("validation"),
            "validation",
            "online DPO has no validation loss",
            "give it its own recipe",
        ),
        (
            objective == "online_dpo" and recipe["max_length"] <= answer,
            "max_length",
            f"an answer of {run.model} may have {answer} tokens, which leaves no room for a prompt",
            "raise it, or lower the policy's max_tokens",
        ),
        (
            objective == "online_dpo" and recipe["max_length"] > longest,
            "max_length",
            f"the reward model gives no reward beyond its max_length of {longest}",
            "lower it, or raise the reward model's",
        ),
        (
            recipe["weights"] == "full" and setting["rounds"] > 1,
            "weights",
            "rounds go with LoRA",
            "take LoRA, or one round",
        ),
    ]
    for wrong, key, problem, remedy in checks:
        if wrong:
            yield Fault((*keys, key), problem, remedy)


CHECKS = (check_recipes,)
