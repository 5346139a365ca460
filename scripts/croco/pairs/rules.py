"""The pair rule: which two responses of a pool are chosen and rejected, and what their languages tell."""

import math
import random
from collections import Counter

from croco.text.normalise import is_blank

RULES = ("mean-2sd", "q1", "min", "random")
# Left out of a pool before mean and std, by name; a missing score leaves it always. ``found`` is the language that
# the response is in, None where that cannot be said.
FILTERS = {
    "empty": lambda response, language, found: is_blank(response["text"]),
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


def select_pair(rewards, rule, chosen=None):
    """Indices (chosen, rejected) and the target reward, or (chosen, None, target) where none is strictly below.

    Chosen is the highest reward unless its index is given, rejected the one nearest the target among those strictly
    below the chosen's; the first one wins a tie. ``rewards`` holds at least one number and no null.
    """
    if chosen is None:
        chosen = max(range(len(rewards)), key=rewards.__getitem__)
    target = target_reward(rewards, rule)
    return chosen, nearest_lower(rewards, chosen, target), target


def match_pair(rewards, chosen, rejected):
    """The two indices whose rewards, one strictly below the other, are nearest to two given ones, or (None, None).

    Least is the sum of both distances; the first chosen wins a tie.
    """
    close = min(range(len(rewards)), key=lambda i: abs(rewards[i] - rejected))
    best, lower, level = (math.inf, None, None), None, None
    for i in sorted(range(len(rewards)), key=rewards.__getitem__):
        if level is not None and rewards[level] < rewards[i]:
            lower = level  # the highest reward below this one
        if level is None or rewards[level] < rewards[i]:
            level = i
        if lower is not None:
            other = close if rewards[close] < rewards[i] else lower
            best = min(best, (abs(rewards[i] - chosen) + abs(rewards[other] - rejected), i, other))
    return best[1:]


def nearest_lower(rewards, chosen, target):
    """Index of the reward nearest to ``target`` among those strictly below the chosen's, or None; ties as above."""
    lower = (i for i, reward in enumerate(rewards) if reward < rewards[chosen])
    return min(lower, key=lambda i: abs(rewards[i] - target), default=None)


def rank_balanced(rewards, languages, taken):
    """Index of the best response of each language, the language that was chosen least so far first.

    Args:
        rewards, languages: of each response of the pool, at least one.
        taken: Counter of the chosen languages so far. Of several that were chosen as often, the best response decides.
    """
    best = {}
    for i, language in enumerate(languages):
        if language not in best or rewards[i] > rewards[best[language]]:
            best[language] = i
    return sorted(best.values(), key=lambda i: (taken[languages[i]], -rewards[i]))


class Moments:
    """Count, mean and population standard deviation of numbers that come one by one (Welford), null without any."""

    def __init__(self):
        self.count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, value):
        self.count += 1
        off = value - self._mean
        self._mean += off / self.count
        self._squares += off * (value - self._mean)

    @property
    def mean(self):
        return self._mean if self.count else None

    @property
    def std(self):
        return math.sqrt(self._squares / self.count) if self.count else None

    def standardise(self, value):
        """``value`` in standard deviations from the mean; where nothing varies, only the mean is taken off."""
        return (value - self.mean) / (self.std or 1)


def measure_separation(pairs):
    """How well languages alone tell chosen from rejected, or None without pairs.

    Each pair is told by the majority of all others in the same languages; a tie, no other pair, or one language for both
    responses counts one half.

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
    nested, sides, with_prompt = {}, Counter(), Counter()
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


def tell_apart(pairs, total):
    """(accuracy, what it stays below by chance) of telling which of two languages is chosen; see measure_separation."""
    both = Counter()
    for (chosen, rejected, *known), count in pairs.items():
        if chosen != rejected:
            both[min(chosen, rejected), max(chosen, rejected), *known] += count
    same = total - both.total()

    def accuracy(first):
        """From {key of both: how often the first of the two languages is chosen}."""
        return (same / 2 + sum(count_right(first[key], both[key] - first[key]) for key in both)) / total

    rng = random.Random(0)
    drawn = sorted(accuracy({key: rng.getrandbits(n).bit_count() for key, n in both.items()}) for _ in range(2000))
    return accuracy({key: pairs.get(key, 0) for key in both}), drawn[1900]


def count_right(one, other):
    """Of one + other pairs, how many are told right by the majority of all others; a tie counts one half."""

    def share(own, against):
        return 0.5 if own - 1 == against else float(own - 1 > against)

    return one * share(one, other) + other * share(other, one)


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


def draw_language(texts, seed):
    """A language of {language: its texts}, as likely as it has ordered pairs of different texts, or None without any."""
    weights = [len(own) ** 2 - sum(count**2 for count in Counter(own).values()) for own in texts.values()]
    return random.Random(seed).choices(list(texts), weights)[0] if any(weights) else None
