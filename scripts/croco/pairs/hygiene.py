"""Which responses leave a pool before its mean and standard deviation are taken; a new filter is a line of FILTERS."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from croco.text.normalise import is_blank

# The filters of a config that names none; a new filter is asked for by name.
DEFAULT = ("empty", "truncated", "wrong_language")
# Filters nothing.
PAPER = "paper"
# A response without a reward leaves its pool always.
NULL_REWARD = "null_reward"


@dataclass(frozen=True)
class Filter:
    """A reason to leave a response out.

    Attributes:
        name: the reason, in the config and in the ledger.
        fails: (response as generated, the prompt's language, the response's language or None) -> whether it leaves.
        by_language: whether it needs the languages of the responses (scripts/identify.py).
    """

    name: str
    fails: Callable[[dict, str, str | None], bool]
    by_language: bool = False


FILTERS = {
    each.name: each
    for each in (
        Filter("empty", lambda response, language, detected: is_blank(response["text"])),
        Filter("truncated", lambda response, language, detected: response["finish_reason"] == "length"),
        Filter(
            "wrong_language", lambda response, language, detected: detected not in (None, language), by_language=True
        ),
    )
}


def needs_languages(names: Iterable[str]) -> bool:
    """Whether one of the filters needs the languages of the responses."""
    return any(FILTERS[name].by_language for name in names if name != PAPER)


def find_reason(
    names: Iterable[str], response: dict, reward: float | None, language: str, detected: str | None
) -> str | None:
    """Why a response leaves its pool, the first reason in the order of ``names``; None where it stays.

    ``language`` is the prompt's, ``detected`` the response's, None where it cannot be determined.
    """
    if reward is None:
        return NULL_REWARD
    return next((name for name in names if name != PAPER and FILTERS[name].fails(response, language, detected)), None)
