"""Intervals, p values and detectable effects; the unit is the prompt, and comparisons are paired.

Coverage of the 95 % intervals on simulated data is measured in tests/results/test_statistics.py and reported in
docs/statistics.md. scipy takes long to import, scipy.stats most of a second: only the functions that use it import it.
"""

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

RESAMPLES = 9999
LEVEL, POWER = 0.05, 0.8
# With fewer prompts, no result is called better or worse.
FEWEST = 20
# With fewer differing prompts, a bootstrap interval is too narrow.
FEW = 20
# Relative to the root mean square, a smaller difference counts as none there.
SMALL = 0.1
# Values whose absolute or relative difference is smaller are equal except for rounding.
NEAR = 1e-12
# Numbers in memory at once: some 130 MB.
WEIGHTS, MEANS = 2**22, 2**24


def intervals(
    columns: Sequence[Sequence[float] | np.ndarray],
    seed: int = 0,
    resamples: int = RESAMPLES,
    ranges: Sequence[tuple[float, float]] | None = None,
) -> list[tuple[float, float]]:
    """95 % intervals of the means of many samples at once: bootstrap (BCa), exact bounds where nothing varies.

    Columns of one length share their resamples, so that thousands of them take seconds and none depends on the
    others. For a mean the acceleration is the skewness of the values: Efron, Better Bootstrap
    Confidence Intervals, 1987, equations 4.4 and 6.6.

    Args:
        columns: arrays of shape (n,), n >= 1, one value per prompt; the lengths may differ.
        ranges: for each column the (lowest, highest) possible value; by default -1 and 1, or the range of the values.
    Returns [(low, high)].
    """
    ranges = ranges or [(min(-1, *column), max(1, *column)) for column in columns]
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(columns)
    for places, values in _blocks(columns, resamples):
        bounds = [ranges[place] for place in places]
        varies = _varies(values)
        for i in np.flatnonzero(~varies):
            found[places[i]] = exact_bounds(values[i], *bounds[i])
        if not varies.any():
            continue
        chosen = np.flatnonzero(varies)
        values, (lowest, highest) = values[chosen], np.array([bounds[i] for i in chosen], dtype=float).T
        means = np.empty((len(values), resamples))
        for start, weights in _resample(values.shape[1], seed, resamples):
            means[:, start : start + len(weights)] = values @ weights.T
        low, high = _widen(values, *_bca(values, means), lowest, highest)
        for i, start, end in zip(chosen, low, high, strict=True):
            found[places[i]] = (float(start), float(end))
    return found


def p_values(columns: Sequence[Sequence[float] | np.ndarray], seed: int = 0, resamples: int = RESAMPLES) -> list[float]:
    """Two-sided p values of permutation tests that flip the signs of paired differences, for many samples at once.

    The test is exact if all signs can be tried (13 values or fewer), and if nothing varies, where it is the sign test,
    whose p is 1 without any difference. Arguments as for intervals.
    """
    found = [0.5 ** (len(column) - 1) if abs(column[0]) > NEAR else 1.0 for column in columns]
    for places, values in _blocks(columns, resamples):
        chosen = np.flatnonzero(_varies(values))
        if not len(chosen):
            continue
        values, size = values[chosen], values.shape[1]
        mean = np.abs(values.mean(axis=1)) - NEAR * np.abs(values).max(axis=1)
        extreme = np.zeros(len(values))
        for signs in _flip(size, seed, resamples):
            extreme += (np.abs(values @ signs.T) / size >= mean[:, None]).sum(axis=1)
        exact = 2**size <= resamples + 1
        for i, count in zip(chosen, extreme, strict=True):
            found[places[i]] = float(count / 2**size if exact else (count + 1) / (resamples + 1))
    return found


def paired_interval(differences: Sequence[float] | np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, shape (n,): see intervals."""
    return intervals([differences], seed)[0]


def paired_p(differences: Sequence[float] | np.ndarray, seed: int) -> float:
    """Two-sided p of the permutation test of paired differences, shape (n,): see p_values."""
    return p_values([differences], seed)[0]


def exact_bounds(values: Sequence[float] | np.ndarray, lowest: float, highest: float) -> tuple[float, float]:
    """(low, high) around values that are all the same, shape (n,), where values are in [lowest, highest].

    If a share 1 - s of all prompts had other values, n equal values would have a probability of at most s^n. The bound
    uses the s with s^n = 2.5 % and takes the other values to be the lowest, or the highest. If all are wins this is
    Clopper and Pearson's interval.
    """
    value, share = values[0], (LEVEL / 2) ** (1 / len(values))
    lowest, highest = min(lowest, value), max(highest, value)
    return float(share * value + (1 - share) * lowest), float(share * value + (1 - share) * highest)


def standard_error(differences: Sequence[float] | np.ndarray) -> float | None:
    """Standard error of the mean of paired differences, shape (n,), with ddof = 1; None without spread."""
    differences = np.asarray(differences, dtype=float)
    if not _varies(differences[None])[0]:
        return None
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))


def detectable(differences: Sequence[float] | np.ndarray) -> float | None:
    """The mean difference that a two-sided paired t test at 5 % finds in 80 % of repetitions; None without spread.

    The spread is that of paired differences, shape (n,).
    """
    error = standard_error(differences)
    return None if error is None else float(_detectable_effect(len(differences)) * error * np.sqrt(len(differences)))


@functools.cache
def _detectable_effect(size: int) -> float:
    """In standard deviations."""
    from statsmodels.stats.power import TTestPower

    return TTestPower().solve_power(nobs=size, alpha=LEVEL, power=POWER, alternative="two-sided")


def replicates(
    values: Sequence[Sequence[float]] | np.ndarray, lowest: float = -1, highest: float = 1
) -> dict[str, float | None] | None:
    """{se, low, high, p, mde} of the mean over training seeds and prompts; the interval is for new seeds and new prompts.

    Seeds and prompts are crossed (each seed answers every prompt) and both random. The variance of the mean is estimated
    by the mean squares of the two-way analysis of variance, (max(MS_seed - MS_rest, 0) + MS_prompt) / (seeds x
    prompts), with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946), and the interval is Student's t.
    A bootstrap that draws seeds, and prompts in each seed, treats the seeds' prompts as different ones and has no
    correction for few seeds. With five seeds x 100 prompts its 95 % interval covers 75 to 85 % if seeds or prompts
    differ. This interval covers 94 to 97 %, with three seeds 93 to 97 % (docs/statistics.md).

    Args:
        values: shape (seeds, prompts), differences from the same baseline.
        lowest, highest: range of a prompt's difference, which limits the interval and gives the exact bounds if nothing
            varies at all.
    Returns None with fewer than two seeds or prompts.
    """
    from scipy import special

    values = np.asarray(values, dtype=float)
    if min(values.shape) < 2:
        return None
    if not _varies(values.reshape(1, -1))[0]:
        low, high = exact_bounds(values.mean(axis=0), lowest, highest)
        return {"se": None, "low": low, "high": high, "p": p_values([values.mean(axis=0)])[0], "mde": None}
    seeds, prompts = values.shape
    mean, by_seed, by_prompt = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_prompt[None, :] + mean
    of_seeds = prompts * by_seed.var(ddof=1)
    of_prompts = seeds * by_prompt.var(ddof=1)
    of_rest = (rest**2).sum() / ((seeds - 1) * (prompts - 1))
    excess = of_seeds - of_rest
    if of_prompts <= NEAR * max(of_seeds, of_rest):  # the prompts' means are the same by chance
        of_prompts = of_rest
    total = max(excess, 0) + of_prompts
    degrees = total**2 / ((of_seeds**2 / (seeds - 1) if excess > 0 else 0) + of_prompts**2 / (prompts - 1))
    error = np.sqrt(total / values.size)
    half = special.stdtrit(degrees, 1 - LEVEL / 2) * error
    return {
        "se": float(error),
        "low": float(max(mean - half, lowest)),
        "high": float(min(mean + half, highest)),
        "p": float(2 * special.stdtr(degrees, -abs(mean) / error)),
        "mde": float(half + special.stdtrit(degrees, POWER) * error),
    }


def over_groups(groups: Sequence[dict[str, list[float]]]) -> dict[str, float]:
    """One value per prompt whose mean is the mean over groups (languages) of their means, in sorted order of prompts.

    The prompt is the unit, although it recurs in each language and may have several rows in one. If each prompt has one
    row in every language, its value is the mean of its rows. Otherwise the value is the estimate plus n times the
    prompt's influence on it (the infinitesimal jackknife). So a prompt that is missing in one language does not change
    another language's mean, and resampling the values is, to first order, resampling prompts with all their rows.

    Args:
        groups: [{prompt: [number]}], none of them empty.
    """
    prompts = sorted({prompt for group in groups for prompt in group})
    place = {prompt: i for i, prompt in enumerate(prompts)}
    influence, estimate = np.zeros(len(prompts)), 0.0
    for group in groups:
        rows = sum(map(len, group.values()))
        mean = sum(map(sum, group.values())) / rows
        estimate += mean / len(groups)
        for prompt, values in group.items():
            influence[place[prompt]] += (sum(values) - mean * len(values)) / rows / len(groups)
    return dict(zip(prompts, (estimate + len(prompts) * influence).tolist(), strict=True))


def align(columns: Sequence[dict[str, float]]) -> np.ndarray:
    """{prompt: value} of several replicates as one array, shape (replicates, prompts), that keeps each one's mean.

    A prompt that a replicate lacks has no influence on its mean.
    """
    prompts = sorted({prompt for column in columns for prompt in column})
    aligned = np.empty((len(columns), len(prompts)))
    for row, column in zip(aligned, columns, strict=True):
        mean = sum(column.values()) / len(column)
        row[:] = [mean + (column.get(prompt, mean) - mean) * len(prompts) / len(column) for prompt in prompts]
    return aligned


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm-adjusted p values of a family of tests; None stays None and does not count."""
    return _adjust(p_values, "holm")


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """False discovery rates (Benjamini and Hochberg) of a family of tests; None stays None and does not count."""
    return _adjust(p_values, "fdr_bh")


def _adjust(p_values: Sequence[float | None], method: str) -> list[float | None]:
    from statsmodels.stats.multitest import multipletests

    tested = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(tested, method=method)[1].tolist() if tested else [])
    return [None if p is None else next(adjusted) for p in p_values]


def _widen(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, lowest: np.ndarray, highest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals widened to include Student's if few prompts differ at all; arrays of shape (columns,).

    There the bootstrap is too narrow: with two wins, 18 ties and no loss nearly all resamples are above no change,
    although the permutation test's p is .5. The degrees of freedom are those of the prompts that differ. Student's
    interval is limited to the values that are possible if as many prompts differed as Clopper and Pearson's bound
    allows, all in one direction. A prompt differs if its value is not small relative to the others: if a language lacks
    a prompt, over_groups leaves a little of the mean in every other prompt's value.
    """
    from scipy import special

    size, low, high = values.shape[1], low.copy(), high.copy()
    spread = np.sqrt((values**2).mean(axis=1, keepdims=True))
    differ = (np.abs(values) > SMALL * spread).sum(axis=1)
    few = differ < FEW
    values, differ, lowest, highest = values[few], differ[few], lowest[few], highest[few]
    half = special.stdtrit(np.maximum(differ - 1, 1), 1 - LEVEL / 2) * values.std(ddof=1, axis=1) / np.sqrt(size)
    share, mean = special.betaincinv(differ + 1, np.maximum(size - differ, 1), 1 - LEVEL / 2), values.mean(axis=1)
    share[differ == size] = 1.0
    low[few] = np.minimum(low[few], np.maximum(mean - half, share * lowest))
    high[few] = np.maximum(high[few], np.minimum(mean + half, share * highest))
    return low, high


def _varies(values: np.ndarray) -> np.ndarray:
    """Whether the values in each row of an array of shape (columns, n) differ, by more than rounding."""
    return np.ptp(values, axis=1) > NEAR * np.maximum(1.0, np.abs(values).max(axis=1))


def _blocks(columns: Sequence[Sequence[float] | np.ndarray], resamples: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yields (places in ``columns``, array of shape (columns, n)) by length, in blocks."""
    by_size = defaultdict(list)
    for place, column in enumerate(columns):
        by_size[len(column)].append(place)
    step = max(1, MEANS // resamples)
    for size in sorted(by_size):
        places = by_size[size]
        for i in range(0, len(places), step):
            block = places[i : i + step]
            yield block, np.array([columns[place] for place in block], dtype=float)


def _resample(size: int, seed: int, resamples: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first resample, weights of shape (resamples, size)): how often each value is drawn, over size."""
    rng, step = np.random.default_rng([seed, size]), max(1, WEIGHTS // size)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(0, size, (count, size)) + np.arange(count)[:, None] * size
        yield start, np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size) / size


def _flip(size: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yields arrays of signs, shape (rows, size): all that exist, or ``resamples`` random ones."""
    if 2**size <= resamples + 1:
        yield 1.0 - 2 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
        return
    rng, step = np.random.default_rng([seed, size, 1]), max(1, WEIGHTS // size)
    for start in range(0, resamples, step):
        yield 1.0 - 2 * rng.integers(0, 2, (min(step, resamples - start), size), dtype=np.int8)


def _bca(values: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), each of shape (columns,), from bootstrap means, shape (columns, resamples), of values, shape (columns, n)."""
    from scipy import special

    means.sort(axis=1)
    mean = values.mean(axis=1, keepdims=True)
    deviations, near = values - mean, 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    below = ((means < mean - near).mean(axis=1) + (means <= mean + near).mean(axis=1)) / 2
    bias = special.ndtri(below)
    acceleration = (deviations**3).sum(axis=1) / (6 * (deviations**2).sum(axis=1) ** 1.5)
    bounds = []
    for z in special.ndtri([LEVEL / 2, 1 - LEVEL / 2]):
        share = special.ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
        place = share * (means.shape[1] - 1)
        lower = np.floor(place).astype(int)
        upper, part, row = np.ceil(place).astype(int), place - lower, np.arange(len(means))
        bounds.append(means[row, lower] * (1 - part) + means[row, upper] * part)
    return bounds[0], bounds[1]
