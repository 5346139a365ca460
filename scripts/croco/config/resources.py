"""What jobs ask of the machine: GPUs, CPU cores, main memory and time, by the sizes of their models."""

import math
from collections.abc import Iterable

from croco.objectives import OBJECTIVES


def bytes_of(dtype: str) -> int:
    """Bytes per weight."""
    return 4 if dtype == "float32" else 2


def weigh(model: dict) -> float:
    """GB of a model's weights in its dtype; 0 for a model without a size."""
    return model.get("size", 0) * bytes_of(model["dtype"])


def resource(
    name: str, rows: list, attempt: int = 1, processes: int = 1, weights: float | None = None, least: int = 0
) -> int:
    """What a job asks of the machine: the value of the first config row that has it, else by the model's size.

    The model's size is in billions of parameters; a job without a size belongs to the miniature. mem_mb is main
    memory: the weights pass through it in each process. ``weights`` gives their GB where they are not those of one
    model in its dtype; ``least`` is the least that follows from the job's work. Memory and time by the model's size grow
    with every attempt; what the config says may be the most that a site permits, and stays.
    """
    said: int | None = next((row["resources"][name] for row in rows if name in row.get("resources", {})), None)
    if said is not None:
        return said
    model: dict = next((row for row in rows if "size" in row), {"size": 0, "dtype": "float32"})
    size, weights = model["size"], weigh(model) if weights is None else weights
    by_size = {
        "gpu": 1 if size else 0,
        "threads": 4 * processes if size else 1,
        "mem_mb": math.ceil(3000 + 1250 * weights * processes),
        "runtime": math.ceil(60 + 50 * size),
    }
    by_work = max(least, by_size[name])
    return by_work * attempt if name in ("mem_mb", "runtime") else by_work


def training_resource(
    name: str, objective: str, recipe: dict, policy: dict, reward_model: dict, attempt: int = 1, least: int = 0
) -> int:
    """What a training asks of the machine: one process per GPU.

    If all weights are tuned, they are float32, with the reference beside them; online DPO loads the reward model, too.
    """
    rows, weights = [recipe, policy], weigh(policy)
    if recipe["weights"] == "full":
        weights = 4 * policy.get("size", 0) * (2 if OBJECTIVES[objective].has_reference else 1)
    if OBJECTIVES[objective].samples:
        weights += weigh(reward_model)
    return resource(name, rows, attempt, max(1, resource("gpu", rows)), weights, least)


def most_gpus(jobs: Iterable[list]) -> int:
    """GPUs of the most demanding job; a job is given by the config rows that say what it asks for."""
    return max(resource("gpu", rows) for rows in jobs)
