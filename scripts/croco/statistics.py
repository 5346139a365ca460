"""Intervals, p values and detectable effects; the unit is the prompt, and what is compared is paired.

Coverage of the 95 % intervals on simulated data is measured in tests/test_statistics.py and told in docs/statistics.md.
"""

import functools
from collections import defaultdict

import numpy as np
from scipy import special, stats

RESAMPLES = 9999
LEVEL, POWER = 0.05, 0.8
# Numbers in work at once: some 130 MB.
WEIGHTS, MEANS = 2**22, 2**24


def intervals(columns, seed=0, resamples=RESAMPLES):
    """95 % bootstrap intervals (BCa) of the means of many samples at once.

    Columns of one length share their resamples, so that thousands of them take seconds and none depends on which
    others stand beside it. For a mean the acceleration is the skewness of the values: Efron, Better Bootstrap
    Confidence Intervals, 1987, equations 4.4 and 6.6.

    Args:
        columns: arrays of shape (n,), one value a prompt; the lengths may differ.
    Returns [(low, high)]; (None, None) where nothing varies, or there are fewer than two values.
    """
    found = [(None, None)] * len(columns)
    for places, values in _blocks(columns, resamples):
        means = np.empty((len(values), resamples))
        for start, weights in _resample(values.shape[1], seed, resamples):
            means[:, start : start + len(weights)] = values @ weights.T
        for place, bounds in zip(places, _bca(values, means), strict=True):
            found[place] = bounds
    return found


def p_values(columns, seed=0, resamples=RESAMPLES):
    """Two-sided p values of permutation tests that flip the signs of paired differences, for many samples at once.

    Exact where all signs can be tried (13 values or fewer). Arguments as for intervals; None where that gives none.
    """
    found = [None] * len(columns)
    for places, values in _blocks(columns, resamples):
        size = values.shape[1]
        mean = np.abs(values.mean(axis=1)) - 1e-12 * np.abs(values).max(axis=1)
        extreme = np.zeros(len(values))
        for signs in _flip(size, seed, resamples):
            extreme += (np.abs(values @ signs.T) / size >= mean[:, None]).sum(axis=1)
        exact = 2**size <= resamples + 1
        for place, count in zip(places, extreme, strict=True):
            found[place] = float(count / 2**size if exact else (count + 1) / (resamples + 1))
    return found


def paired_interval(differences, seed):
    """95 % bootstrap interval (BCa) of the mean of paired differences, shape (n,), or (None, None): see intervals."""
    return intervals([differences], seed)[0]


def paired_p(differences, seed):
    """Two-sided p of the permutation test of paired differences, shape (n,), or None: see p_values."""
    return p_values([differences], seed)[0]


def standard_error(differences):
    """Of the mean of paired differences, shape (n,): their standard deviation (ddof = 1) over sqrt(n), or None as above."""
    differences = np.asarray(differences, dtype=float)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))


def detectable(differences):
    """The mean difference that a two-sided paired t test at 5 % finds in 80 % of repetitions, or None as above.

    Of paired differences, shape (n,), with this spread.
    """
    error = standard_error(differences)
    return None if error is None else float(_detectable_effect(len(differences)) * error * np.sqrt(len(differences)))


@functools.cache
def _detectable_effect(size):
    """In standard deviations."""
    from statsmodels.stats.power import TTestPower

    return TTestPower().solve_power(nobs=size, alpha=LEVEL, power=POWER, alternative="two-sided")


def replicates(values):
    """{se, low, high, p, mde} of the mean over training seeds and prompts, for other seeds and other prompts than these.

    Seeds and prompts are crossed (each seed answers every prompt) and both random. The variance of the mean is estimated
    by the mean squares of the two-way analysis of variance, (max(MS_seed - MS_rest, 0) + MS_prompt) / (seeds x
    prompts), with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946), and the interval is Student's t.
    A bootstrap that draws seeds, and prompts in each seed, takes the prompts of the seeds for different ones and has
    no correction for few seeds: with five seeds x 100 prompts its 95 % interval covers 75 to 85 % wherever seeds or
    prompts differ, this one 94 to 97 %, with three seeds 93 to 97 % (docs/statistics.md).

    Args:
        values: shape (seeds, prompts), differences from the same baseline.
    Returns None with fewer than two seeds or prompts, or where prompts do not vary.
    """
    values = np.asarray(values, dtype=float)
    if min(values.shape) < 2 or np.ptp(values.mean(axis=0)) == 0:
        return None
    seeds, prompts = values.shape
    mean, by_seed, by_prompt = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_prompt[None, :] + mean
    of_seeds = prompts * by_seed.var(ddof=1)
    of_prompts = seeds * by_prompt.var(ddof=1)
    excess = of_seeds - (rest**2).sum() / ((seeds - 1) * (prompts - 1))
    total = max(excess, 0) + of_prompts
    degrees = total**2 / ((of_seeds**2 / (seeds - 1) if excess > 0 else 0) + of_prompts**2 / (prompts - 1))
    error = np.sqrt(total / values.size)
    half = stats.t.ppf(1 - LEVEL / 2, degrees) * error
    return {
        "se": float(error),
        "low": float(mean - half),
        "high": float(mean + half),
        "p": float(2 * stats.t.sf(abs(mean) / error, degrees)),
        "mde": float(half + stats.t.ppf(POWER, degrees) * error),
    }


def over_groups(groups):
    """One value a prompt whose mean is the mean over groups (languages) of their means, in sorted order of prompts.

    The prompt is the unit, though it recurs in each language and may have several rows in one. Where each has one row
    in every language its value is the mean of them. Else it is the estimate plus n times the prompt's influence on
    it (the infinitesimal jackknife), so that a prompt that a language lacks moves no other language's mean, and
    resampling the values is, to first order, resampling prompts with all their rows.

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


def align(columns):
    """{prompt: value} of several replicates as one array, shape (replicates, prompts), that keeps each one's mean.

    A prompt that a replicate lacks has no influence on its mean.
    """
    prompts = sorted({prompt for column in columns for prompt in column})
    aligned = np.empty((len(columns), len(prompts)))
    for row, column in zip(aligned, columns, strict=True):
        mean = sum(column.values()) / len(column)
        row[:] = [mean + (column.get(prompt, mean) - mean) * len(prompts) / len(column) for prompt in prompts]
    return aligned


def holm(p_values):
    """Holm-adjusted p values of a family of tests; None stays None and does not count."""
    return _adjust(p_values, "holm")


def benjamini_hochberg(p_values):
    """False discovery rates (Benjamini and Hochberg) of a family of tests; None stays None and does not count."""
    return _adjust(p_values, "fdr_bh")


def _adjust(p_values, method):
    from statsmodels.stats.multitest import multipletests

    tested = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(tested, method=method)[1].tolist() if tested else [])
    return [None if p is None else next(adjusted) for p in p_values]


def _blocks(columns, resamples):
    """Yields (places in ``columns``, array of shape (columns, n)) of what varies, by length, in blocks."""
    by_size = defaultdict(list)
    for place, column in enumerate(columns):
        if len(column) > 1 and np.ptp(column) > 0:
            by_size[len(column)].append(place)
    step = max(1, MEANS // resamples)
    for size in sorted(by_size):
        places = by_size[size]
        for i in range(0, len(places), step):
            block = places[i : i + step]
            yield block, np.array([columns[place] for place in block], dtype=float)


def _resample(size, seed, resamples):
    """Yields (first resample, weights of shape (resamples, size)): how often each value is drawn, over size."""
    rng, step = np.random.default_rng([seed, size]), max(1, WEIGHTS // size)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(0, size, (count, size)) + np.arange(count)[:, None] * size
        yield start, np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size) / size


def _flip(size, seed, resamples):
    """Yields arrays of signs, shape (some, size): all there are, or ``resamples`` random ones."""
    if 2**size <= resamples + 1:
        yield 1.0 - 2 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
        return
    rng, step = np.random.default_rng([seed, size, 1]), max(1, WEIGHTS // size)
    for start in range(0, resamples, step):
        yield 1.0 - 2 * rng.integers(0, 2, (min(step, resamples - start), size), dtype=np.int8)


def _bca(values, means):
    """[(low, high)] from bootstrap means, shape (columns, resamples), of values, shape (columns, n)."""
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
    return list(zip(*(bound.tolist() for bound in bounds), strict=True))
