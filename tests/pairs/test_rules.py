"""The pair rule against a plain statement of it."""

import math
import random
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from croco.pairs.pools import Moments
from croco.pairs.rules import (
    RULES,
    draw_language,
    draw_pair,
    match_pair,
    mean_std,
    rank_balanced,
    select_pair,
)
from croco.pairs.separation import measure_separation

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
    assert RULES["mean-2sd"].target(rewards) <= min(rewards) + 1e-9


@given(rewards=pools, shift=st.integers(-8, 8), scale=st.sampled_from([0.5, 2.0, 4.0]))
def test_rule_does_not_depend_on_the_scale_of_exact_rewards(rewards, shift, scale):
    exact = [round(reward * 2) / 2 for reward in rewards]
    before, after = select_pair(exact, "min"), select_pair([reward * scale + shift for reward in exact], "min")
    assert before[:2] == after[:2]


def test_one_wild_score_moves_the_target_far():
    """Why a failed score must be null: -999 among 64 sends the target to -256."""
    assert RULES["mean-2sd"].target([1.0] * 63 + [-999.0]) == pytest.approx(-262.4, abs=0.5)


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


@given(rewards=pools, rule=st.sampled_from(["mean-2sd", "q1", "min"]))
def test_matching_a_pool_with_its_own_pair_gives_its_rewards(rewards, rule):
    chosen, rejected, _ = select_pair(rewards, rule)
    if rejected is None:
        assert match_pair(rewards, rewards[chosen], 0.0) == (None, None)
        return
    again = match_pair(rewards, rewards[chosen], rewards[rejected])
    assert [rewards[i] for i in again] == [rewards[chosen], rewards[rejected]]


@given(rewards=pools, wanted=st.tuples(real, real))
def test_a_match_is_the_pair_at_the_least_distance(rewards, wanted):
    def distance(i, j):
        return abs(rewards[i] - wanted[0]) + abs(rewards[j] - wanted[1])

    allowed = [(i, j) for i in range(len(rewards)) for j in range(len(rewards)) if rewards[j] < rewards[i]]
    found = match_pair(rewards, *wanted)
    assert found == (None, None) if not allowed else found in allowed
    assert not allowed or distance(*found) == pytest.approx(min(distance(*pair) for pair in allowed), abs=1e-9)


@given(
    prompts=st.lists(
        st.fixed_dictionaries({name: st.lists(tied, min_size=1, max_size=3) for name in "abc"}), min_size=1, max_size=30
    )
)
def test_balanced_languages_are_chosen_equally_often(prompts):
    taken = Counter()
    for prompt in prompts:
        pool = [(reward, language) for language, rewards in prompt.items() for reward in rewards]
        rewards, languages = [reward for reward, _ in pool], [language for _, language in pool]
        best = {name: max(own) for name, own in prompt.items() if taken[name] == min(taken[each] for each in prompt)}
        ranked = rank_balanced(rewards, languages, taken)
        assert sorted(languages[i] for i in ranked) == sorted(prompt), "each language once"
        chosen = ranked[0]
        language = max(best, key=best.get)
        assert (languages[chosen], rewards[chosen]) == (language, best[language])
        assert pool.index(pool[chosen]) == chosen
        taken[languages[chosen]] += 1
        counts = [taken[name] for name in prompt]
        assert max(counts) - min(counts) <= 1


@given(values=st.lists(real, max_size=60))
def test_moments_of_a_stream_are_those_of_the_list(values):
    moments = Moments()
    for value in values:
        moments.add(value)
    if not values:
        assert (moments.mean, moments.std) == (None, None)
        return
    assert moments.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert moments.std == pytest.approx(statistics.pstdev(values), abs=1e-6)
    again = [moments.standardise(value) for value in values]
    assert math.fsum(again) / len(again) == pytest.approx(0, abs=1e-6)


def test_moments_stay_exact_far_from_zero():
    """Sums of squares would lose the spread of numbers that lie far from zero; so would a mean of a constant."""
    far, constant = Moments(), Moments()
    for _ in range(1000):
        far.add(1e9 + 1)
        far.add(1e9 - 1)
        constant.add(0.1)
    assert far.std == pytest.approx(1, rel=1e-6)
    assert (constant.mean, constant.std, constant.standardise(0.1)) == (0.1, 0.0, 0.0)


def state_accuracy(pairs):
    """Leave one pair out, let the others in its two languages vote."""
    right = 0.0
    for left_out, (chosen, rejected) in enumerate(pairs):
        others = [pair for i, pair in enumerate(pairs) if i != left_out]
        votes = others.count((chosen, rejected)) - others.count((rejected, chosen))
        right += 0.5 if chosen == rejected or votes == 0 else float(votes > 0)
    return right / len(pairs)


@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(*[st.sampled_from("abc")] * 3), max_size=40))
def test_separation_agrees_with_leaving_each_pair_out(pairs):
    found = measure_separation(Counter(pairs))
    if not pairs:
        assert found is None
        return
    sides = [pair[:2] for pair in pairs]
    assert found["accuracy"] == pytest.approx(state_accuracy(sides))
    by_prompt = [[pair[:2] for pair in pairs if pair[2] == prompt] for prompt in "abc"]
    right = sum(state_accuracy(some) * len(some) for some in by_prompt if some)
    assert found["accuracy_with_prompt"] == pytest.approx(right / len(pairs))
    assert found["same_language"] == pytest.approx(sum(a == b for a, b in sides) / len(pairs))
    assert sum(sum(row.values()) for row in found["pairs"].values()) == len(pairs)


def test_languages_drawn_by_chance_stay_below_what_chance_reaches():
    rng = random.Random(1)
    draws = (Counter(tuple(rng.choice("abcd") for _ in range(3)) for _ in range(80)) for _ in range(60))
    found = [measure_separation(pairs) for pairs in draws]
    for name in ("", "_with_prompt"):
        assert 0.46 < sum(some[f"accuracy{name}"] for some in found) / 60 < 0.54
        assert sum(some[f"accuracy{name}"] > some[f"chance_95{name}"] for some in found) <= 10


def test_prompts_in_the_chosen_language_tell_every_pair_of_two_languages():
    balanced = Counter({(a, b, a): 6 for a in "abc" for b in "abc" if a != b})
    found = measure_separation(balanced)
    assert found["accuracy"] < 0.5 and found["accuracy_with_prompt"] == 1


def test_languages_are_drawn_by_their_ordered_pairs_of_different_texts():
    """6 of en, 2 of de, none of fr (4 standard errors of 3000 draws)."""
    texts = {"fr": ["z", "z"], "en": ["a", "b", "c"], "de": ["x", "y"]}
    drawn = Counter(draw_language(texts, seed) for seed in range(3000))
    assert set(drawn) == {"en", "de"} and abs(drawn["de"] - 750) < 4 * math.sqrt(3000 * 0.25 * 0.75)
    assert draw_language({"fr": ["z", "z"], "mt": ["y"]}, 0) is None
