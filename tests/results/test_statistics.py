"""Intervals and p values, against exact or simulated truth and against SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from croco.results.statistics import (
    align,
    benjamini_hochberg,
    detectable,
    holm,
    intervals,
    over_groups,
    p_values,
    paired_p,
    replicates,
)

RUNS = 1000


def cover(bounds, truth):
    return sum(low <= truth <= high for low, high in bounds) / len(bounds)


def draw_crossed(rng, seeds, prompts, of_seeds, of_prompts, rest):
    return rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_prompts, prompts) + rng.normal(0, rest, (seeds, prompts))  # fmt: skip


def bootstrap_seeds_then_prompts(rng, values, resamples):
    """The hierarchical percentile bootstrap."""
    seeds, prompts = values.shape
    chosen = rng.integers(0, seeds, (resamples, seeds, 1))
    means = values[chosen, rng.integers(0, prompts, (resamples, seeds, prompts))].mean(axis=(1, 2))
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("draw", ["normal", "win rates", "skewed"])
def test_intervals_cover_the_mean_as_often_as_they_say(draw):
    """1,000 samples of 100 paired differences: the 95 % interval holds the true mean in 93 to 97 %."""
    rng = np.random.default_rng(5)
    values, truth = {
        "normal": (rng.normal(0.1, 0.3, (RUNS, 100)), 0.1),
        "win rates": (rng.choice([0, 0.5, 1], (RUNS, 100), p=[0.3, 0.2, 0.5]), 0.6),
        "skewed": (rng.exponential(1, (RUNS, 100)), 1),
    }[draw]
    assert 0.93 <= cover(intervals(list(values), resamples=1999), truth) <= 0.97


def draw_win_rates(size, rate):
    """{name: shape (4000, size)} of scores 0 to 1 with this mean, in four ways."""
    rng = np.random.default_rng([size, round(10 * rate)])
    shape, many = (4000, size), min(0.8, 2 - 2 * rate)
    ties = {"few ties": 0.1, "many ties": many}
    found = {name: rng.choice([0, 0.5, 1], shape, p=[1 - rate - tie / 2, tie, rate - tie / 2]) for name, tie in ties.items()}  # fmt: skip
    taste = rng.beta(1.5 * rate, 1.5 * (1 - rate), shape)
    return found | {
        "two orders, prompts with a taste of their own": (rng.random((2, *shape)) < taste).mean(axis=0),
        "two orders with ties, each by itself": rng.binomial(2, rate, (2, *shape)).mean(axis=0) / 2,
    }


def cover_win_rates(size, rate, resamples):
    """{name: share of 4,000 intervals that hold the rate}."""
    return {
        name: cover(intervals(values - 0.5, resamples=resamples, ranges=[(-0.5, 0.5)] * len(values)), rate - 0.5)
        for name, values in draw_win_rates(size, rate).items()
    }


@pytest.mark.parametrize("size", [20, 50, 200])
@pytest.mark.parametrize("rate", [0.5, 0.6, 0.7, 0.8])
def test_intervals_cover_win_rates_of_few_prompts(size, rate):
    assert min(cover_win_rates(size, rate, 1999).values()) >= 0.93


@pytest.mark.parametrize("missing", [0, 0.3])
def test_intervals_cover_where_prompts_recur_in_languages(missing):
    """Five languages of different means, 120 prompts whose difficulty they share, some absent from some languages."""
    rng = np.random.default_rng(6)
    columns, naive = [], []
    for _ in range(RUNS):
        values = rng.normal(0, 0.3, 120) + rng.normal(0, 0.2, (5, 120)) + np.array([0.3, 0.1, 0, -0.1, -0.2])[:, None]
        # A language with high values lacks more prompts.
        there = rng.random((5, 120)) >= missing * np.array([2, 1.5, 1, 0.5, 0])[:, None]
        groups = [{str(i): [value] for i, value in enumerate(row) if kept[i]} for row, kept in zip(values, there, strict=True)]  # fmt: skip
        columns.append(list(over_groups(groups).values()))
        naive.append([value for group in groups for (value,) in group.values()])
    assert 0.93 <= cover(intervals(columns, resamples=1999), 0.02) <= 0.97
    errors = [np.std(column) / len(column) ** 0.5 for column in naive]
    rows = [(np.mean(v) - 1.96 * e, np.mean(v) + 1.96 * e) for v, e in zip(naive, errors, strict=True)]
    assert cover(rows, 0.02) < 0.85, "taking each language's answer for a prompt of its own must not do as well"


@pytest.mark.parametrize(
    "spread", [(0, 0.3, 0.3), (0.01, 0.15, 0.1), (0.03, 0.3, 0.3), (0.1, 0.3, 0.3), (0.1, 0.05, 0.1)]
)
def test_intervals_over_seeds_cover(spread):
    """Five seeds x 100 prompts: noise of seeds, of prompts and the rest; from no noise of seeds to nothing but that."""
    rng = np.random.default_rng(7)
    found = [replicates(draw_crossed(rng, 5, 100, *spread)) for _ in range(RUNS)]
    assert 0.93 <= cover([(interval["low"], interval["high"]) for interval in found], 0) <= 0.97


def test_bootstrap_of_seeds_then_prompts_does_not_cover():
    """Why replicates is no bootstrap."""
    rng = np.random.default_rng(8)
    bounds = [bootstrap_seeds_then_prompts(rng, draw_crossed(rng, 5, 100, 0.03, 0.3, 0.3), 199) for _ in range(300)]
    assert cover(bounds, 0) < 0.9


def test_tests_reject_a_true_null_in_five_percent():
    rng = np.random.default_rng(9)
    single = np.array(p_values(list(rng.normal(0, 0.3, (RUNS, 100))), resamples=1999))
    over_seeds = np.array([replicates(draw_crossed(rng, 5, 100, 0.03, 0.3, 0.3))["p"] for _ in range(RUNS)])
    assert 0.03 <= (single < 0.05).mean() <= 0.07 and 0.03 <= (over_seeds < 0.05).mean() <= 0.07


def test_the_detectable_effect_is_detected_in_80_percent():
    rng = np.random.default_rng(10)
    effect = detectable(stats.zscore(np.arange(100.0), ddof=1))
    found = stats.ttest_1samp(rng.normal(effect, 1, (RUNS, 100)), 0, axis=1).pvalue < 0.05
    assert 0.76 <= found.mean() <= 0.84
    drawn = [draw_crossed(rng, 5, 100, 0.03, 0.3, 0.3) for _ in range(RUNS)]
    effect = np.median([replicates(values)["mde"] for values in drawn])
    assert 0.75 <= np.mean([replicates(values + effect)["p"] < 0.05 for values in drawn]) <= 0.88


@pytest.mark.parametrize("size", [25, 40, 150])
def test_intervals_and_p_are_those_of_scipy(size):
    values = np.random.default_rng(size).exponential(1, size) - 0.7
    random = dict(n_resamples=50000, rng=np.random.default_rng(1))
    low, high = stats.bootstrap((values,), np.mean, method="BCa", batch=1000, **random).confidence_interval
    width = high - low
    assert intervals([values], resamples=50000)[0] == (pytest.approx(low, abs=width / 30), pytest.approx(high, abs=width / 30))  # fmt: skip
    p = stats.permutation_test((values,), np.mean, permutation_type="samples", vectorized=True, batch=1000, **random).pvalue  # fmt: skip
    assert p_values([values], resamples=50000)[0] == pytest.approx(p, abs=0.01)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=40), min_size=1, max_size=4
    )
)  # fmt: skip
def test_no_column_depends_on_the_others(columns):
    together, ps = intervals(columns, resamples=499), p_values(columns, resamples=499)
    for column, (low, high), p in zip(columns, together, ps, strict=True):
        alone = (*intervals([column], resamples=499)[0], p_values([column], resamples=499)[0])
        assert alone == pytest.approx((low, high, p), abs=1e-12)  # the last bit may follow from the order of a sum
        assert low <= np.mean(column) + 1e-9 and high >= np.mean(column) - 1e-9 and 0 < p <= 1 and low < high


@pytest.mark.parametrize("size", [1, 20, 70])
def test_what_does_not_vary_has_exact_bounds_and_the_sign_tests_p(size):
    """Nothing but wins, ties or losses: Clopper and Pearson's interval of the rate, and the binomial test's p."""
    for won, column in ((size, [0.5] * size), (0, [-0.5] * size)):
        exact = stats.binomtest(won, size).proportion_ci(method="exact")
        [(low, high)] = intervals([column], ranges=[(-0.5, 0.5)])
        assert (low + 0.5, high + 0.5) == (pytest.approx(exact.low), pytest.approx(exact.high))
        assert p_values([column]) == [pytest.approx(stats.binomtest(won, size).pvalue)]
    [(low, high)] = intervals([[0.0] * size], ranges=[(-0.5, 0.5)])
    assert low == pytest.approx(-high) and 0 < high <= 0.5 and p_values([[0.0] * size]) == [1]
    # At the bound, 2.5 % of samples are all ties.
    assert stats.binom.pmf(size, size, 1 - high / 0.5) == pytest.approx(0.025)


def test_rounding_is_no_variation():
    noisy = [1e-17, -1e-17, 0.0, 3e-17]
    assert intervals([noisy])[0] == pytest.approx(intervals([[0.0] * 4])[0]) and p_values([noisy]) == [1]


def test_few_differences_say_no_more_than_the_sign_test():
    """Up to five wins among ties (p .0625) the interval holds no change, from six on (.031) it does not."""
    columns = [[0.5] * wins + [0.0] * (40 - wins) for wins in range(1, 12)]
    for (low, high), p in zip(intervals(columns, ranges=[(-0.5, 0.5)] * 11), p_values(columns), strict=True):
        assert (low <= 0) == (p > 0.05) and high > 0


@pytest.mark.parametrize("missing", [0, 1, 12])
def test_a_prompt_that_a_language_lacks_makes_no_difference_certain(missing):
    """Two wins among 38 ties show nothing, whichever prompts the second language lacks."""
    english = {f"p{i:02}": [0.5 if i < 2 else 0.0] for i in range(40)}
    german = dict(list(english.items())[: 40 - missing])
    [(low, high)] = intervals([list(over_groups([english, german]).values())], ranges=[(-0.5, 0.5)])
    assert low < 0 < high


def test_nothing_to_test_gives_null():
    assert detectable([0.3]) is None and detectable([1, 1]) is None and replicates([[0.1, 0.2]]) is None
    assert intervals([]) == [] == p_values([])


def test_seeds_that_agree_in_all_or_in_the_mean():
    low, high = intervals([[0.5] * 30], ranges=[(-0.5, 0.5)])[0]
    same = replicates(np.full((3, 30), 0.5), -0.5, 0.5)
    assert (same["low"], same["high"], same["p"]) == (pytest.approx(low), pytest.approx(high), 0.5**29)
    # Each seed gives all prompts the same: Student's interval over seeds.
    seeds = np.array([0.1, 0.2, 0.15])
    exact = stats.ttest_1samp(seeds, 0)
    found = replicates(np.repeat(seeds[:, None], 40, axis=1))
    assert (found["low"], found["high"]) == pytest.approx(exact.confidence_interval()) and found["p"] == pytest.approx(exact.pvalue)  # fmt: skip
    # Prompts' means are the same by chance, and neither interval nor error is 0.
    found = replicates([[0.1, 0.2], [0.2, 0.1]])
    assert found["se"] > 0 and found["low"] < 0.15 < found["high"]
    # A mean cannot be outside the range of what it is the mean of.
    found = replicates([[0.0, 0.5], [0.5, 0.5]], -0.5, 0.5)
    assert found["low"] == -0.5 and found["high"] == 0.5


def test_p_is_exact_where_all_signs_can_be_tried():
    """Eight differences of one sign: only all plus and all minus are as extreme, 2 of 256."""
    assert paired_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 1) == pytest.approx(2 / 256)


def test_the_mean_over_languages_is_moved_by_no_missing_prompt():
    english, german = {"a": [1.0], "b": [1.0], "c": [1.0]}, {"a": [0.0], "b": [0.0], "c": [0.0]}
    assert over_groups([english, german]) == {"a": 0.5, "b": 0.5, "c": 0.5}
    del german["c"]
    assert np.mean(list(over_groups([english, german]).values())) == pytest.approx(0.5)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_values_of_prompts_carry_estimate_and_clustered_error(data):
    """Their mean is the mean of means; in one language their error is the cluster-robust one of a mean of rows."""
    numbers = st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=3)
    groups = data.draw(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), numbers, min_size=2), min_size=1, max_size=3))  # fmt: skip
    expected = np.mean([np.mean([v for row in group.values() for v in row]) for group in groups])
    assert np.mean(list(over_groups(groups).values())) == pytest.approx(expected, abs=1e-9)
    import statsmodels.api as sm

    rows = [(prompt, value) for prompt, values in groups[0].items() for value in values]
    clusters = np.unique([prompt for prompt, _ in rows], return_inverse=True)[1]
    model = sm.OLS([value for _, value in rows], np.ones(len(rows)))
    robust = model.fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}).bse[0]
    values = list(over_groups(groups[:1]).values())
    assert np.std(values) / len(values) ** 0.5 == pytest.approx(robust, abs=1e-6)


def test_replicates_that_lack_prompts_keep_their_means():
    columns = [{"a": 1.0, "b": 0.0, "c": 0.5}, {"a": 1.0, "c": 0.0}]
    aligned = align(columns)
    assert aligned.shape == (2, 3) and aligned.mean(axis=1) == pytest.approx([0.5, 0.5])
    assert aligned[0] == pytest.approx([1, 0, 0.5]) and aligned[1] == pytest.approx([1.25, 0.5, -0.25])


def test_adjusted_by_hand():
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert benjamini_hochberg([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, *[pytest.approx(0.04)] * 2]
    assert holm([None, None]) == [None, None] == benjamini_hochberg([None, None])
