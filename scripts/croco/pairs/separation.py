"""How well languages alone tell chosen from rejected: what a preference model could learn instead of quality."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any


def measure_separation(pairs: Mapping[tuple[str, str, str], int]) -> dict[str, Any] | None:
    """How well languages alone tell chosen from rejected, or None without pairs.

    For each pair, the side that is chosen in most other pairs of the same two languages is predicted to be chosen. A pair
    counts one half if the others are tied, if there are none, or if both of its responses are in one language.

    Args:
        pairs: {(chosen's language, rejected's, prompt's): number of pairs}.
    Returns:
        pairs: {chosen's language: {rejected's: number}}; same_language: share of the pairs that are in one language.
        accuracy: knowing the languages of the two responses. chance_95: what it stays below in 95 % of 2,000 draws in
            which each pair's sides are swapped by a coin.
        accuracy_with_prompt, chance_95_with_prompt: knowing the prompt's language, too. Where prompts are in the chosen
            response's language, that alone tells all pairs in two languages.
    """
    total = sum(pairs.values())
    if not total:
        return None
    nested: dict[str, dict[str, int]] = {}
    sides: Counter[tuple[str, ...]] = Counter()
    with_prompt: Counter[tuple[str, ...]] = Counter()
    for (chosen, rejected, prompt), count in pairs.items():
        row = nested.setdefault(chosen, {})
        row[rejected] = row.get(rejected, 0) + count
        sides[chosen, rejected] += count
        with_prompt[chosen, rejected, prompt] += count
    accuracy, chance = tell_apart(sides, total)
    known, chance_known = tell_apart(with_prompt, total)
    return {
        "pairs": nested,
        "same_language": sum(count for (chosen, rejected), count in sides.items() if chosen == rejected) / total,
        "accuracy": accuracy,
        "chance_95": chance,
        "accuracy_with_prompt": known,
        "chance_95_with_prompt": chance_known,
    }


def tell_apart(pairs: Mapping[tuple[str, ...], int], total: int) -> tuple[float, float]:
    """How well one can say which of two languages is the chosen one; see measure_separation.

    Args:
        pairs: {(chosen's language, rejected's, whatever else is known): number of pairs}.
        total: number of all pairs.
    Returns: accuracy in [0, 1], and the accuracy below which 95 % of the draws by chance are.
    """
    both: Counter[tuple[str, ...]] = Counter()
    for (chosen, rejected, *known), count in pairs.items():
        if chosen != rejected:
            both[min(chosen, rejected), max(chosen, rejected), *known] += count
    same = total - both.total()

    def accuracy(first: Mapping[tuple[str, ...], int]) -> float:
        """From {key of both: how often the first of the two languages is chosen}."""
        return (same / 2 + sum(count_right(first[key], both[key] - first[key]) for key in both)) / total

    rng = random.Random(0)
    drawn = sorted(accuracy({key: rng.getrandbits(n).bit_count() for key, n in both.items()}) for _ in range(2000))
    return accuracy({key: pairs.get(key, 0) for key in both}), drawn[1900]


def count_right(one: int, other: int) -> float:
    """Of one + other pairs, how many are told right by the majority of all others; a tie counts one half."""

    def share(own: int, against: int) -> float:
        return 0.5 if own - 1 == against else float(own - 1 > against)

    return one * share(one, other) + other * share(other, one)
