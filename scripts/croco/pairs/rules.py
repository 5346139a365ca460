"""The pair rules: which two responses of a pool are chosen and rejected. A new rule is a line of RULES."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# For n responses no reward lies more than sqrt(n - 1) standard deviations below the mean (Samuelson's
# inequality), so with up to this many the target of mean-2sd is at or below the minimum.
DEGENERATE_UP_TO = 5
# Share of normal pools of n responses whose rejected one under mean-2sd is the minimum (100,000 simulated pools each).
MINIMUM_SHARE = {8: 1.0, 16: 0.96, 32: 0.66, 64: 0.27, 128: 0.04}


@dataclass(frozen=True)
class PairRule:
    """How a pair is chosen from a pool. A rule has either a target or a draw.

    Attributes:
        name: in the config, on the command line and in the ledger.
        target: the pool's rewards -> the reward that the rejected response should be nearest to; the chosen response is
            the best.
        draw: (texts of the pool, seed) -> indices of chosen and rejected, whatever the rewards; the second is None where
            no pair can be drawn.
        degenerate_up_to: with so many responses or fewer, the rule is the same as `min`.
    """

    name: str
    target: Callable[[Sequence[float]], float] | None = None
    draw: Callable[[Sequence[str], int], tuple[int, int | None]] | None = None
    degenerate_up_to: int = 0

    @property
    def uses_rewards(self) -> bool:
        """Whether the rewards decide which pair is chosen."""
        return self.target is not None


def mean_less_2sd(rewards: Sequence[float]) -> float:
    """mean - 2 population standard deviations of all rewards, the chosen one's included (the paper's Eq. 2, arXiv
    2605.26293)."""
    mean, std = mean_std(rewards)
    return mean - 2 * std


def first_quartile(rewards: Sequence[float]) -> float:
    """The 25th percentile, linearly interpolated."""
    ranked = sorted(rewards)
    place = 0.25 * (len(ranked) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


def draw_pair(texts: Sequence[str], seed: int) -> tuple[int, int | None]:
    """Indices of two responses with different texts, drawn whatever their rewards: the null control.

    The second is None where all texts are equal. Each ordered pair of different texts is equally likely.
    """
    order = list(range(len(texts)))
    rng = random.Random(seed)
    while True:
        if len(set(texts)) < 2:
            return order[0], None
        first, second = rng.sample(order, 2)
        if texts[first] != texts[second]:
            return first, second


def draw_language(texts: dict[str, list[str]], seed: int) -> str | None:
    """A language of {language: its texts}, as likely as it has ordered pairs of different texts, or None without any."""
    weights = [len(own) ** 2 - sum(count**2 for count in Counter(own).values()) for own in texts.values()]
    return random.Random(seed).choices(list(texts), weights)[0] if any(weights) else None


RULES = {
    rule.name: rule
    for rule in (
        PairRule("mean-2sd", target=mean_less_2sd, degenerate_up_to=DEGENERATE_UP_TO),
        PairRule("q1", target=first_quartile),
        PairRule("min", target=min),
        PairRule("random", draw=draw_pair),
    )
}


def mean_std(rewards: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation."""
    mean = math.fsum(rewards) / len(rewards)
    return mean, math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))


def select_pair(rewards: Sequence[float], rule: str, chosen: int | None = None) -> tuple[int, int | None, float]:
    """Indices (chosen, rejected) and the target reward, or (chosen, None, target) where none is strictly below.

    Chosen is the highest reward unless its index is given, rejected the one nearest the target among those strictly
    below the chosen's; the first one wins a tie. ``rewards`` holds at least one number and no null.

    Raises KeyError for an unknown rule, ValueError for one that draws.
    """
    find_target = RULES[rule].target
    if find_target is None:
        raise ValueError(f"the rule {rule} has no target")
    if chosen is None:
        chosen = max(range(len(rewards)), key=rewards.__getitem__)
    target = find_target(rewards)
    return chosen, nearest_lower(rewards, chosen, target), target


def match_pair(rewards: Sequence[float], chosen: float, rejected: float) -> tuple[int | None, int | None]:
    """The two indices whose rewards, one strictly below the other, are nearest to two given ones, or (None, None).

    Least is the sum of both distances; the first chosen wins a tie.
    """
    close = min(range(len(rewards)), key=lambda i: abs(rewards[i] - rejected))
    best: tuple[float, int | None, int | None] = (math.inf, None, None)
    lower, level = None, None
    for i in sorted(range(len(rewards)), key=rewards.__getitem__):
        if level is not None and rewards[level] < rewards[i]:
            lower = level  # the highest reward below this one
        if level is None or rewards[level] < rewards[i]:
            level = i
        if lower is not None:
            other = close if rewards[close] < rewards[i] else lower
            best = min(best, (abs(rewards[i] - chosen) + abs(rewards[other] - rejected), i, other))
    return best[1:]


def nearest_lower(rewards: Sequence[float], chosen: int, target: float) -> int | None:
    """Index of the reward nearest to ``target`` among those strictly below the chosen's, or None; ties as above."""
    lower = (i for i, reward in enumerate(rewards) if reward < rewards[chosen])
    return min(lower, key=lambda i: abs(rewards[i] - target), default=None)


def rank_balanced(rewards: Sequence[float], languages: Sequence[str], taken: Counter) -> list[int]:
    """Index of the best response of each language, the language that was chosen least so far first.

    Args:
        rewards, languages: of each response of the pool, at least one.
        taken: Counter of the chosen languages so far. Of several that were chosen as often, the best response decides.
    """
    best: dict[str, int] = {}
    for i, language in enumerate(languages):
        if language not in best or rewards[i] > rewards[best[language]]:
            best[language] = i
    return sorted(best.values(), key=lambda i: (taken[languages[i]], -rewards[i]))


def advise(share: float | None, size: int) -> str | None:
    """What to do about a share of mean-2sd pairs whose rejected is the minimum, pools having ``size`` responses.

    Returns None where at most half of the pairs are such.
    """
    if share is None or share <= 0.5:
        return None
    expected = next((known for n, known in sorted(MINIMUM_SHARE.items(), reverse=True) if n <= size), 1.0)
    said = f"in {share:.0%} of the pairs mean - 2 sd picked the minimum, as the rule min would have"
    if share > expected + 0.2:
        return f"{said}: more than the {expected:.0%} of normal rewards, so these have a short lower tail; look at them"
    return f"{said}; with normal rewards it is 27% at 64 responses and 4% at 128: take more samples"
