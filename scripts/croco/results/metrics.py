"""The metrics of the summary, and which way each is better; a new metric of answers is a line of ANSWER_METRICS.

A positive delta of the summary always means better. Lengths have no better way: their delta is positive for longer
answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from croco.evaluation.directions import HIGHER, LOWER, direction
from croco.text.measures import list_words, measure_repetition, measure_self_similarity, share_distinct


@dataclass(frozen=True)
class PromptAnswers:
    """A model's answers to one prompt, in sample order.

    Attributes:
        language: code of the prompt's language.
        texts: the answers.
        codes: the language of each, None where it cannot be determined.
        truncated: whether each was cut off at the limit of tokens.
        n_tokens: tokens of each, by the model's tokenizer.
    """

    language: str
    texts: list[str]
    codes: list[str | None]
    truncated: list[bool]
    n_tokens: list[int]

    @cached_property
    def words(self) -> list[list[str]]:
        """The words of each answer, as list_words returns them."""
        return [list_words(text) for text in self.texts]


@dataclass(frozen=True)
class Metric:
    """A column `metric` of the summary.

    Attributes:
        better: higher, lower, or None if neither is better.
        title: what the report page calls it.
        measure: of answers, without a judge: one value per answer, or one for all of them; None where there is none.
    """

    name: str
    better: str | None
    title: str
    measure: Callable[[PromptAnswers], list | float | None] | None = None


def in_language(answers: PromptAnswers) -> list[bool | None]:
    """Whether each answer is in the prompt's language."""
    return [None if code is None else code == answers.language for code in answers.codes]


def repetition(answers: PromptAnswers) -> list[float]:
    """Share of repeated 4-grams of words in each answer, in [0, 1)."""
    return [measure_repetition(words) for words in answers.words]


def distinct_2(answers: PromptAnswers) -> list[float | None]:
    """Share of different 2-grams of words in each answer, in (0, 1]; None for an answer of fewer than two words."""
    return [share_distinct(words, 2) for words in answers.words]


# Measures of each prompt's answers: scripts/fidelity.py writes them, and the summary averages them over prompts.
ANSWER_METRICS = (
    Metric("language_fidelity", HIGHER, "answers in the prompt's language", in_language),
    Metric("truncated", LOWER, "truncated answers", lambda answers: answers.truncated),
    Metric("n_tokens", None, "tokens per answer", lambda answers: answers.n_tokens),
    Metric("n_chars", None, "characters per answer", lambda answers: [len(text) for text in answers.texts]),
    Metric("repetition", LOWER, "repetition", repetition),
    Metric("distinct_2", HIGHER, "distinct 2-grams", distinct_2),
    Metric(
        "self_similarity",
        LOWER,
        "similarity of a prompt's samples",
        lambda answers: measure_self_similarity(answers.texts),
    ),
)
# Measures computed from verdicts and rewards.
ARENA_METRICS = (
    Metric("win_rate", HIGHER, "win rate"),
    Metric("win_rate_single_order", HIGHER, "win rate, one order of the answers"),
    Metric("win_rate_strict", HIGHER, "win rate, answers in the prompt's language only"),
    Metric("win_rate_lc", HIGHER, "win rate, length-controlled"),
    Metric("win_rate_glm", HIGHER, "win rate at equal length and position"),
    Metric("position_consistency", HIGHER, "same verdict in both orders"),
    Metric("unparseable", LOWER, "unreadable verdicts"),
    Metric("quality", HIGHER, "quality by the oracle"),
    Metric("reward_judge_agreement", HIGHER, "agreement of rewards and verdicts"),
)
REWARD = Metric("reward", HIGHER, "reward by the own reward model")
METRICS = {metric.name: metric for metric in (*ANSWER_METRICS, *ARENA_METRICS, REWARD)}


def better(metric: str) -> str | None:
    """higher, lower, or None if neither is better; a metric that is not listed here is that of a structured task."""
    return METRICS[metric].better if metric in METRICS else direction(metric)
