"""Intervals and p values; the unit is the prompt, and what is compared is paired."""

import warnings

import numpy as np
from scipy import stats

RESAMPLES = 9999


def paired_interval(differences, seed):
    """95 % bootstrap interval (BCa) of the mean of paired differences, shape (n,), or (None, None).

    None where nothing varies, or where there are fewer than two prompts.
    """
    differences = np.asarray(differences, dtype=float)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (differences,), np.mean, n_resamples=RESAMPLES, method="BCa", batch=1000, rng=np.random.default_rng(seed)
        ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_p(differences, seed):
    """Two-sided p of a permutation test that flips the signs of paired differences, or None as above."""
    differences = np.asarray(differences, dtype=float)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    return float(
        stats.permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=1000,
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def holm(p_values):
    """Holm-adjusted p values of a family of tests; None stays None and does not count."""
    from statsmodels.stats.multitest import multipletests

    tested = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(tested, method="holm")[1].tolist() if tested else [])
    return [None if p is None else next(adjusted) for p in p_values]
