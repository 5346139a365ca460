"""Win rates from verdicts, against their formulas written once more."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize

from croco.results.win_rates import adjusted, length_controlled, position_consistency, unparseable

VALUE = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def draw(seed, prompts=40, most_samples=4):
    """Lines of an arena file: ties, unparseable verdicts, a judge that likes length and the first position."""
    rng = np.random.default_rng(seed)
    skill, taste, position, bad = rng.normal(0, 1), rng.normal(0, 2), rng.normal(0, 0.5), rng.uniform(0, 0.3)
    lines = []
    for i in range(prompts):
        samples = rng.integers(1, most_samples + 1)
        ours, theirs = rng.integers(0, 400, (2, samples))
        verdicts = {"answer_first": [], "baseline_first": []}
        for length in ours - theirs:
            for order, sign in (("answer_first", 1), ("baseline_first", -1)):
                liked = skill + taste * np.tanh(length / 150) + sign * position + rng.logistic()
                verdict = "tie" if abs(liked) < 0.3 else "win" if liked > 0 else "loss"
                verdicts[order].append("unparseable" if rng.random() < bad else verdict)
        lines.append({"prompt_id": f"p{i}", "lengths": ours.tolist(), "baseline_lengths": theirs.tolist(), "verdicts": verdicts})  # fmt: skip
    return lines


def list_rows(lines):
    """(prompt, difference in length, first verdict, second verdict), None for one that cannot be read."""
    return [
        (line["prompt_id"], ours - theirs, VALUE.get(first), VALUE.get(second))
        for line in lines
        for ours, theirs, first, second in zip(
            line["lengths"], line["baseline_lengths"], line["verdicts"]["answer_first"], line["verdicts"]["baseline_first"], strict=True
        )
    ]  # fmt: skip


def rate(values):
    return sum(values.values()) / len(values)


def fit_length_control(d, y):
    """The authors' sigmoid(theta) at the optimum of the log-likelihood of theta + phi tanh(d / sd) less phi squared, by search."""

    def loss(beta):
        logit = beta[0] + beta[1] * np.tanh(d / d.std())
        return np.sum(np.logaddexp(0, logit) - y * logit) + beta[1] ** 2

    return 1 / (1 + np.exp(-minimize(loss, [0, 0], tol=1e-12).x[0]))


@pytest.mark.parametrize("seed", range(50))
def test_length_controlled_is_the_authors_formula(seed):
    lines = draw(seed)
    rows = [(length, [v for v in verdicts if v is not None]) for _, length, *verdicts in list_rows(lines)]
    d = np.array([length for length, verdicts in rows if verdicts])
    y = np.array([np.mean(verdicts) for _, verdicts in rows if verdicts])
    assert 100 * rate(length_controlled(lines)) == pytest.approx(100 * fit_length_control(d, y), abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_is_a_cluster_robust_glm(seed):
    lines = draw(seed, 150)
    rows = [
        (prompt, length, position, verdict)
        for prompt, length, *verdicts in list_rows(lines)
        for position, verdict in zip((0.5, -0.5), verdicts, strict=True)
        if verdict is not None
    ]
    d = np.array([row[1] for row in rows])
    design = np.column_stack([np.ones(len(d)), [row[2] for row in rows], np.tanh(d / d.std())])
    clusters = np.unique([row[0] for row in rows], return_inverse=True)[1]
    model = sm.GLM([row[3] for row in rows], design, family=sm.families.Binomial())
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": clusters})
    expected = 1 / (1 + np.exp(-fitted.params[0]))
    values = np.array(list(adjusted(lines).values()))
    assert values.mean() == pytest.approx(expected, abs=1e-6)
    error = values.std(ddof=1) / len(values) ** 0.5
    assert error == pytest.approx(fitted.bse[0] * expected * (1 - expected), rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_spread_of_values_is_the_spread_over_prompts(seed):
    """The length-controlled rate's error by its influence values, against refitting on resampled prompts."""
    lines, rng = draw(seed, 120), np.random.default_rng(seed)
    values = list(length_controlled(lines).values())
    refitted = []
    for _ in range(200):
        drawn = rng.integers(0, len(lines), len(lines))
        refitted.append(rate(length_controlled([{**lines[i], "prompt_id": str(j)} for j, i in enumerate(drawn)])))
    assert np.std(values) / len(values) ** 0.5 == pytest.approx(np.std(refitted), rel=0.2)


def test_length_and_position_leave_the_rate_that_is_left():
    """A judge who only looks at length: the rate is high where answers are long, and even when controlled for it."""
    rng = np.random.default_rng(3)
    lines = []
    for i in range(300):
        length, limit = rng.normal(60, 100), rng.logistic(0, 40)
        verdict = "win" if length > limit else "loss"
        verdicts = {"answer_first": [verdict], "baseline_first": [verdict]}
        lines.append({"prompt_id": str(i), "lengths": [round(500 + length)], "baseline_lengths": [500], "verdicts": verdicts})  # fmt: skip
    plain = np.mean([VALUE[line["verdicts"]["answer_first"][0]] for line in lines])
    assert plain > 0.65 and abs(rate(length_controlled(lines)) - 0.5) < 0.07 and abs(rate(adjusted(lines)) - 0.5) < 0.07


def judged(*pairs):
    first, second = zip(*pairs, strict=True)
    lengths = [10] * len(pairs)
    return {"prompt_id": "a", "lengths": lengths, "baseline_lengths": lengths, "verdicts": {"answer_first": list(first), "baseline_first": list(second)}}  # fmt: skip


def test_counts_by_hand():
    line = judged(("win", "win"), ("tie", "loss"), ("unparseable", "win"), ("unparseable", "unparseable"))
    assert position_consistency([line]) == {"a": 0.5} and unparseable([line]) == {"a": 3 / 8}
    assert length_controlled([line])["a"] == pytest.approx((1 + 0.25 + 1) / 3)
    assert adjusted([line])["a"] == pytest.approx((1 + 1 + 0.5 + 0 + 1) / 5, abs=0.02), "nearly balanced in position"


def test_nothing_readable_and_nothing_but_wins():
    nothing = judged(("unparseable", "unparseable"))
    assert length_controlled([nothing]) == adjusted([nothing]) == position_consistency([nothing]) == {}
    assert unparseable([nothing]) == {"a": 1} and length_controlled([]) == {}
    won = judged(("win", "win"), ("win", "win"))
    assert length_controlled([won]) == adjusted([won]) == {"a": 1.0}
    tied = judged(("tie", "tie"), ("tie", "tie"))
    assert length_controlled([tied])["a"] == pytest.approx(0.5) == adjusted([tied])["a"]


def test_where_a_covariate_separates_the_verdicts_there_is_no_adjusted_rate():
    """The likelihood has no maximum there: the rate of a fit would be that of its last step, such as 0.99999."""
    first = [judged(("win", "win" if i % 3 == 0 else "loss")) | {"prompt_id": str(i)} for i in range(30)]
    longer = [
        judged((verdict, verdict)) | {"prompt_id": str(length), "lengths": [200 + length], "baseline_lengths": [200]}
        for length, verdict in [(-3, "loss"), *((10 * i, "win") for i in range(1, 10))]
    ]
    for lines in (first, longer):
        assert adjusted(lines) == {} and 0.5 < rate(length_controlled(lines)) < 0.95


def test_where_all_readable_verdicts_are_in_one_order_there_is_no_adjusted_rate():
    """Nothing says what the other order would give: a rate midway between both would be a guess."""
    lines = [judged(("win" if i % 10 else "loss", "not_asked")) | {"prompt_id": str(i)} for i in range(30)]
    assert adjusted(lines) == {} and rate(length_controlled(lines)) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_other_adjusted_rates_are_near_what_they_adjust(seed):
    rates = rate(adjusted(draw(seed, 60))), rate(length_controlled(draw(seed, 60)))
    assert abs(rates[0] - rates[1]) < 0.2
