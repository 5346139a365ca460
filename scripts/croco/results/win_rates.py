"""Win rates from pairwise verdicts, with and without control for length and position; lines as arena/LANGUAGE.jsonl.

A tie counts a half. An unparseable verdict is excluded from every mean and counted separately. Each function returns
{prompt_id: value}: one number per prompt, whose mean is the rate. For a regression the number is the estimate plus n
times the prompt's influence on it (the infinitesimal jackknife), so that the spread of the numbers gives the
cluster-robust standard error, and the intervals of all rates are computed in the same way.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from croco.evaluation.verdicts import NOT_ASKED, ORDERS, WORTH

PENALTY = 1.0  # of phi squared, in the length-controlled win rate
SINGULAR = 1e-7  # an eigenvalue of the information of one verdict, below which a fit has gone to infinity


def length_controlled(lines: Iterable[dict]) -> dict[str, float]:
    """Length-controlled win rate: sigmoid(theta) of sigmoid(theta + phi tanh(delta length / sd)).

    It is fitted to one row per sample, the mean of its readable orders and the difference in characters, by maximum
    likelihood minus 1.0 phi^2; sd is that of the differences, over n. This is AlpacaEval 2's method (Dubois et al.,
    arXiv 2404.04475) without its terms for models and instructions. {} if no verdict is readable.
    """
    prompts, wins, lengths = [], [], []
    for prompt, length, verdicts in _samples(lines):
        worth = [WORTH[verdict] for verdict in verdicts if verdict in WORTH]
        if worth:
            prompts.append(prompt)
            wins.append(sum(worth) / len(worth))
            lengths.append(length)
    design = np.column_stack([np.ones(len(wins)), _squash(lengths)])
    return _of_intercept(prompts, design, np.array(wins), _fit_penalised, np.array([0.0, 2 * PENALTY]))


def adjusted(lines: Iterable[dict]) -> dict[str, float]:
    """Win rate of a binomial GLM on single verdicts: at equal lengths, and midway between the two positions.

    Covariates are the position (answer first or second) and tanh(delta length / sd). {} where no verdict is readable,
    all readable ones are in one order, so that nothing says what the other would give, or the likelihood has no maximum.
    """
    prompts, wins, lengths, positions = [], [], [], []
    for prompt, length, verdicts in _samples(lines):
        for verdict, position in zip(verdicts, (0.5, -0.5), strict=True):
            if verdict in WORTH:
                prompts.append(prompt)
                wins.append(WORTH[verdict])
                lengths.append(length)
                positions.append(position)
    if len(set(positions)) < 2:
        return {}
    design = np.column_stack([np.ones(len(wins)), positions, _squash(lengths)])
    return _of_intercept(prompts, design, np.array(wins), _fit_glm, np.zeros(3))


def position_consistency(lines: Iterable[dict]) -> dict[str, float]:
    """Share of a prompt's samples with the same verdict in both orders, among those with two readable verdicts."""
    shares = {}
    for line in lines:
        pairs = [
            pair for pair in zip(*(line["verdicts"][order] for order in ORDERS), strict=True) if set(pair) <= set(WORTH)
        ]
        if pairs:
            shares[line["prompt_id"]] = sum(first == second for first, second in pairs) / len(pairs)
    return shares


def unparseable(lines: Iterable[dict]) -> dict[str, float]:
    """Share of a prompt's verdicts, in the orders that were asked for, that cannot be read."""
    shares = {}
    for line in lines:
        verdicts = [verdict for order in ORDERS for verdict in line["verdicts"][order] if verdict != NOT_ASKED]
        if verdicts:
            shares[line["prompt_id"]] = sum(verdict not in WORTH for verdict in verdicts) / len(verdicts)
    return shares


def _samples(lines: Iterable[dict]) -> Iterator[tuple[str, int, tuple[str, str]]]:
    """Yields (prompt_id, difference in characters, verdicts of both orders) of each sample."""
    for line in lines:
        verdicts = zip(*(line["verdicts"][order] for order in ORDERS), strict=True)
        for ours, theirs, pair in zip(line["lengths"], line["baseline_lengths"], verdicts, strict=True):
            yield line["prompt_id"], ours - theirs, pair


def _squash(lengths: Sequence[float]) -> np.ndarray:
    spread = np.std(lengths) if lengths else 0
    return np.tanh(np.array(lengths) / spread) if spread else np.zeros(len(lengths))


def _fit_penalised(design: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """Intercept and slope; each row is given twice, with the weights y and 1 - y; the penalty is scikit-learn's 1/(2C)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (2 * PENALTY), solver="newton-cholesky", tol=1e-8)
    model.fit(
        np.tile(design[:, 1:], (2, 1)), np.repeat([1, 0], len(wins)), sample_weight=np.concatenate([wins, 1 - wins])
    )
    return np.concatenate([model.intercept_, model.coef_[0]])


def _fit_glm(design: np.ndarray, wins: np.ndarray) -> np.ndarray:
    import statsmodels.api as sm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separation and overflowing steps are visible in the result
        result = sm.GLM(wins, design, family=sm.families.Binomial()).fit(maxiter=100)
    # Where a covariate separates wins from losses, the likelihood rises for ever. The fit stops when it hardly rises, far
    # out, and says that it converged; but its information there is singular.
    expected = result.fittedvalues
    information = design.T @ (design * (expected * (1 - expected))[:, None]) / len(wins)
    is_singular = (np.linalg.eigvalsh(information) > SINGULAR).sum() < np.linalg.matrix_rank(design)
    return np.full(design.shape[1], np.nan) if is_singular or not result.converged else result.params


def _of_intercept(
    prompts: Sequence[str],
    design: np.ndarray,
    wins: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray],
    penalty: np.ndarray,
) -> dict[str, float]:
    """{prompt: value} of sigmoid(intercept), which fit(design, wins) gives; ``penalty`` applies to squared coefficients / 2."""
    names = list(dict.fromkeys(prompts))
    if not names:
        return {}
    if np.ptp(wins) == 0 and wins[0] in (0, 1):  # the likelihood's limit
        return dict.fromkeys(names, float(wins[0]))
    beta = fit(design, wins)
    if not np.isfinite(beta).all():
        return {}
    expected = 1 / (1 + np.exp(-design @ beta))
    rate = 1 / (1 + np.exp(-beta[0]))
    curvature = design.T @ (design * (expected * (1 - expected))[:, None]) + np.diag(penalty)
    scores = np.zeros((len(names), design.shape[1]))
    place = {name: i for i, name in enumerate(names)}
    np.add.at(scores, [place[prompt] for prompt in prompts], design * (wins - expected)[:, None])
    influence = rate * (1 - rate) * scores @ np.linalg.pinv(curvature)[0]
    return dict(zip(names, (rate + len(names) * (influence - influence.mean())).tolist(), strict=True))
