"""The pair rule: which two responses of a pool are chosen and rejected."""

import math
import random

RULES = ("mean-2sd", "q1", "min", "random")
# Left out of a pool before mean and std, by name; a missing score leaves it always. ``found`` is the language that
# the response is in, None where that cannot be said.
FILTERS = {
    "empty": lambda response, language, found: not response["text"].strip(),
    "truncated": lambda response, language, found: response["finish_reason"] == "length",
    "wrong_language": lambda response, language, found: found not in (None, language),
}
# For n responses no reward lies more than sqrt(n - 1) standard deviations below the mean (Samuelson's
# inequality), so with up to this many the target of mean-2sd is at or below the minimum.
DEGENERATE_UP_TO = 5
# Share of normal pools of n responses whose rejected one under mean-2sd is the minimum (100,000 simulated pools each).
MINIMUM_SHARE = {8: 1.0, 16: 0.96, 32: 0.66, 64: 0.27, 128: 0.04}


def target_reward(rewards, rule):
    """The reward that the rejected response should be nearest to.

    ``mean-2sd``: mean - 2 population standard deviations of all rewards, the chosen one's included (the paper's
    Eq. 2, arXiv 2605.26293). ``q1``: the 25th percentile, linearly interpolated. ``min``: the minimum.
    """
    if rule == "mean-2sd":
        mean, std = mean_std(rewards)
        return mean - 2 * std
    if rule == "q1":
        ranked = sorted(rewards)
        place = 0.25 * (len(ranked) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ranked) - 1)
        return ranked[below] + (place - below) * (ranked[above] - ranked[below])
    return min(rewards)


def mean_std(rewards):
    mean = math.fsum(rewards) / len(rewards)
    return mean, math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))


def select_pair(rewards, rule):
    """Indices (chosen, rejected) and the target reward, or (chosen, None, target) where none is strictly below.

    Chosen is the highest reward, rejected the one nearest the target among those strictly below the chosen's; the
    first one wins a tie. ``rewards`` holds at least one number and no null.
    """
    chosen = max(range(len(rewards)), key=rewards.__getitem__)
    target = target_reward(rewards, rule)
    lower = (i for i, reward in enumerate(rewards) if reward < rewards[chosen])
    return chosen, min(lower, key=lambda i: abs(rewards[i] - target), default=None), target


def advise(share, size):
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


def draw_pair(texts, seed):
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
