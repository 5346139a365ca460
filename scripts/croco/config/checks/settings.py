"""Settings: pairs have a rule, pools are large enough for it, and no key is without effect."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from croco.config.faults import Fault
from croco.pairs.rules import RULES

if TYPE_CHECKING:
    from croco.grid import Grid

# Keys of a setting that only change how a pool of several languages is paired, with their defaults.
OF_MULTILINGUAL_POOLS = {
    "per_prompt": "one",
    "balance": False,
    "standardise": False,
    "rejected_from": "pool",
    "prompt_language": "chosen",
}


def check_base(grid: "Grid") -> Iterator[Fault]:
    """A setting with the objective none is the base and has no keys of a setting that is tuned."""
    plain = {"name": "base", "objective": "none", "evaluate": "own", "seeds": [1], "allow_degenerate": False}
    for i, row in enumerate(grid.config["settings"]):
        if row["objective"] == "none" and row != {**plain, "rounds": 1, **OF_MULTILINGUAL_POOLS}:
            problem = "a setting with objective none is the base and has no other keys"
            yield Fault(("settings", i), problem, "name it base, and leave them out")


def check_tuned(grid: "Grid") -> Iterator[Fault]:
    """A setting that is tuned has a rule or a match for its pairs, keys with an effect, and pools that are large enough."""
    for i, row in enumerate(grid.config["settings"]):
        if row["objective"] == "none":
            continue
        keys = ("settings", i)
        if (row["target"] == "pair") != (("rejected" in row) + ("match" in row) == 1):
            problem = "a pair, and nothing else, needs a rule for the rejected response, or another setting to match"
            yield Fault((*keys, "rejected"), problem, "see `rejected` and `match` in config/schema.yaml")
        for key, where in list_idle(grid, row).items():
            if key in row and row[key] != {"rounds": 1, **OF_MULTILINGUAL_POOLS}.get(key):
                yield Fault((*keys, key), f"has no effect {where}", "leave it out")
        if "match" in row:
            yield from _check_match(grid, keys, row)
        yield from _check_prompt_language(grid, keys, row)
        yield from _check_pool_size(grid, keys, row)


def list_idle(grid: "Grid", row: dict) -> dict[str, str]:
    """{key: where it has no effect} of the keys that would have no effect in a setting."""
    idle: dict[str, str] = {}
    if row["target"] in ("reference", "prompts"):
        idle |= dict.fromkeys(("pool_size", "hygiene", "responses"), f"where the target is {row['target']}")
    if row["target"] == "reference":
        idle["reward_model"] = "where the references are the target"
    if row["target"] != "pair":
        idle |= dict.fromkeys(("rounds", "caliper", "rejected_from", "prompt_language"), "without pairs")
    if row["target"] != "reference":
        idle["per_prompt"] = "without references as the target"
    if row["target"] not in ("pair", "best"):
        idle |= dict.fromkeys(("balance", "standardise"), f"where the target is {row['target']}")
    if "rejected" in row and not RULES[row["rejected"]].uses_rewards:
        idle |= dict.fromkeys(("balance", "standardise"), "where rewards do not count")
    if "match" in row:
        idle |= dict.fromkeys(("balance", "standardise"), "where another setting's pairs are matched")
    if row["objective"] == "sft":
        idle["guards"] = "on sft, which stops only where the loss is not finite"
    if row["rounds"] > 1:
        idle["responses"] = "beside rounds, which generate with the tuned policy"
    if all(len(grid.pools[pool]) == 1 for pool in grid.expand_pools(row)):
        idle |= dict.fromkeys(OF_MULTILINGUAL_POOLS, "in pools of one language")
    return idle


def _check_match(grid: "Grid", keys: tuple, row: dict) -> Iterator[Fault]:
    """The other setting has pairs of one round by a rule on rewards, and the same reward model and pools."""
    other: dict = next((setting for setting in grid.config["settings"] if setting["name"] == row["match"]), {})
    by_rewards = "rejected" in other and RULES[other["rejected"]].uses_rewards
    if not by_rewards or other["rounds"] > 1:
        yield Fault(
            (*keys, "match"),
            f"{row['match']} is no setting with pairs of one round by a rule on rewards, with the seed 1",
            "name a setting with the target pair whose `rejected` is a rule",
        )
        return
    first = next(iter(grid.reward_models))
    if other.get("reward_model", first) != row.get("reward_model", first):
        yield Fault((*keys, "match"), f"{row['match']} has another reward model", "rewards of two are no match")
    pools = grid.expand_pools(other)
    if missing := [pool for pool in grid.expand_pools(row) if pool not in pools]:
        yield Fault((*keys, "pools"), f"{row['match']} has no pool {missing[0]}", "give both the same pools")


def _check_prompt_language(grid: "Grid", keys: tuple, row: dict) -> Iterator[Fault]:
    """A setting takes its prompts in the chosen's or rejected's language, or in one that all its pools have."""
    code = row["prompt_language"]
    for pool in grid.expand_pools(row):
        if code not in ("chosen", "rejected", *grid.pools[pool]):
            yield Fault(
                (*keys, "prompt_language"),
                f"{code} is no language of the pool {pool}",
                "chosen, rejected, or the code of a language in all of the setting's pools",
            )


def _check_pool_size(grid: "Grid", keys: tuple, row: dict) -> Iterator[Fault]:
    """The smallest pool of a setting has two responses or more, and enough of them for the rule."""
    samples = grid.config["samples"]
    if row.get("pool_size", 0) > samples:
        problem = f"only {samples} samples are generated"
        yield Fault((*keys, "pool_size"), problem, "raise samples or lower pool_size")
    if row["target"] != "pair":
        return
    languages = min(len(grid.pools[pool]) for pool in grid.expand_pools(row))
    size = row.get("pool_size", samples) * (1 if row["rejected_from"] == "chosen_language" else languages)
    place = (*keys, "pool_size") if "pool_size" in row else ("samples",)
    limit = RULES[row["rejected"]].degenerate_up_to if "rejected" in row else 0
    if size < 2:
        yield Fault(place, f"a pair needs two responses, the pool has {size}", "raise samples or pool_size")
    elif size <= limit and not row["allow_degenerate"]:
        yield Fault(
            place,
            f"with {size} responses mean - 2 sd never lies above the minimum, so the setting {row['name']} would be dpo_min",
            f"use more than {limit} (64 in the paper), or write allow_degenerate: true in the setting",
        )


def check_idle_languages(grid: "Grid") -> Iterator[Fault]:
    """Every language but the source language is evaluated by a run."""
    needed = {grid.config["source_language"], *(code for run in grid.runs.values() for code in run.evaluated)}
    for i, code in enumerate(grid.languages):
        if code not in needed:
            remedy = "write evaluate: all in a setting, name it in a pool, or take it out"
            yield Fault(("languages", i), f"no setting is tuned or evaluated in {code}", remedy)


CHECKS = (check_base, check_tuned, check_idle_languages)
