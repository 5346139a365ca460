"""The pair rule against a plain statement of it."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from croco.pairing import draw_pair, mean_std, select_pair, target_reward

# Few distinct values make ties; halves keep sums exact.
tied = st.integers(-4, 4).map(lambda value: value / 2)
real = st.floats(-20, 20, allow_nan=False).map(lambda value: round(value, 6))
pools = st.lists(st.one_of(tied, real), min_size=1, max_size=128)


def state_target(rewards, rule):
    """The paper's Eq. 2 and its ablations, written down with another library."""
    values = np.asarray(rewards, dtype=np.float64)
    return {
        "mean-2sd": values.mean() - 2 * values.std(ddof=0),
        "q1": np.percentile(values, 25),
        "min": values.min(),
    }[rule]


@pytest.mark.parametrize("rule", ["mean-2sd", "q1", "min"])
@given(rewards=pools)
def test_rule_agrees_with_its_statement(rule, rewards):
    chosen, rejected, target = select_pair(rewards, rule)
    assert target == pytest.approx(state_target(rewards, rule), abs=1e-9)
    assert chosen == rewards.index(max(rewards))
    lower = [i for i, reward in enumerate(rewards) if reward < max(rewards)]
    if not lower:
        assert rejected is None
        return
    distances = [abs(rewards[i] - target) for i in lower]
    assert rejected == lower[distances.index(min(distances))]


@given(rewards=st.lists(real, min_size=2, max_size=5))
def test_up_to_five_responses_the_target_is_never_above_the_minimum(rewards):
    assert target_reward(rewards, "mean-2sd") <= min(rewards) + 1e-9


@given(rewards=pools, shift=st.integers(-8, 8), scale=st.sampled_from([0.5, 2.0, 4.0]))
def test_rule_does_not_depend_on_the_scale_of_exact_rewards(rewards, shift, scale):
    exact = [round(reward * 2) / 2 for reward in rewards]
    before, after = select_pair(exact, "min"), select_pair([reward * scale + shift for reward in exact], "min")
    assert before[:2] == after[:2]


def test_one_wild_score_moves_the_target_far():
    """Why a failed score must be null: -999 among 64 sends the target to -256."""
    assert target_reward([1.0] * 63 + [-999.0], "mean-2sd") == pytest.approx(-262.4, abs=0.5)


@given(rewards=pools)
def test_standard_deviation_is_that_of_the_population(rewards):
    mean, std = mean_std(rewards)
    assert mean == pytest.approx(statistics.fmean(rewards), abs=1e-9)
    assert std == pytest.approx(statistics.pstdev(rewards), abs=1e-6)


@given(texts=st.lists(st.sampled_from("abcd"), min_size=1, max_size=20), seed=st.integers(0, 2**32))
def test_null_pairs_differ_in_text_and_follow_from_the_seed(texts, seed):
    first, second = draw_pair(texts, seed)
    assert (first, second) == draw_pair(texts, seed)
    if len(set(texts)) == 1:
        assert second is None
    else:
        assert texts[first] != texts[second]


def test_null_pairs_prefer_neither_side():
    """Over many seeds each of two responses is chosen about equally often (4 standard errors)."""
    firsts = sum(draw_pair(["a", "b"], seed)[0] for seed in range(2000))
    assert abs(firsts - 1000) < 4 * math.sqrt(500)
