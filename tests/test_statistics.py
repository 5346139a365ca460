"""Intervals and p values, against exact or simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from croco.statistics import holm, paired_interval, paired_p


def test_interval_covers_the_mean_as_often_as_it_says():
    """200 samples of 60 differences around 0.1: the 95 % interval holds it in 88 % or more."""
    rng = np.random.default_rng(5)
    inside = 0
    for i in range(200):
        low, high = paired_interval(rng.normal(0.1, 0.3, 60), i)
        inside += low <= 0.1 <= high
    assert 176 <= inside <= 199


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-1, 1, width=16), min_size=8, max_size=40).filter(lambda values: np.ptp(values) > 0.01))
def test_interval_holds_the_estimate_and_follows_from_the_seed(values):
    low, high = paired_interval(values, 1)
    assert low <= np.mean(values) + 1e-9 and high >= np.mean(values) - 1e-9
    assert (low, high) == paired_interval(values, 1)
    mirrored_low, mirrored_high = paired_interval([-value for value in values], 1)
    assert mirrored_low <= -np.mean(values) + 1e-9 <= mirrored_high + 2e-9


def test_nothing_to_test_gives_null():
    assert paired_interval([0.0, 0.0, 0.0], 1) == (None, None) and paired_p([0.2, 0.2], 1) is None
    assert paired_interval([0.3], 1) == (None, None)


def test_p_is_exact_where_all_signs_can_be_tried():
    """Eight differences of one sign: only all plus and all minus are as extreme, 2 of 256."""
    assert paired_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 1) == pytest.approx(2 / 256)


def test_holm_by_hand():
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([None, None]) == [None, None]
