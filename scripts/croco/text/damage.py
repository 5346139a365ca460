"""Damaged copies of an answer, which a reward model must score lower; the same seed gives the same copy."""

import random
import re
from collections.abc import Sequence
from typing import TypeVar

# A word, or one character of a script that is written without spaces (Thai, Lao, Japanese, Chinese).
SPACELESS = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
UNIT = re.compile(rf"[{SPACELESS}]|[^\s{SPACELESS}]+")
# Up to the first end of a sentence or line behind a letter or digit.
SENTENCE = re.compile(r".*?\w.*?(?:[.!?…]+(?=\s)|[\u3002\uff01\uff1f]|(?=\n)|\Z)", re.DOTALL)
FEWEST_REPEATS = 8
T = TypeVar("T")


def shuffle(text: str, seed: str | int) -> str | None:
    """The text with its words in another order, its white space left in place; None if there is no other order."""
    units = UNIT.findall(text)
    if len(set(units)) < 2:
        return None
    order, rng = list(units), random.Random(seed)
    while order == units:
        rng.shuffle(order)
    words = iter(order)
    return UNIT.sub(lambda _: next(words), text)


def truncate(text: str) -> str | None:
    """The first half of the characters, perhaps ending within a word, as at a token limit; None if it is empty."""
    return text[: len(text) // 2].rstrip() or None


def repeat(text: str) -> str | None:
    """The first sentence again and again, at least FEWEST_REPEATS times and as long as the text; None without text."""
    found = SENTENCE.match(text)
    sentence = (found[0] if found else text).strip()
    if not sentence:
        return None
    wanted = -(-(len(text) + 1) // (len(sentence) + 1))
    return " ".join([sentence] * max(FEWEST_REPEATS, wanted))


def rotate(values: Sequence[T], start: int) -> list[T]:
    """The values in turn, the one at place ``start`` (modulo their number) first."""
    first = start % len(values) if values else 0
    return [*values[first:], *values[:first]]
