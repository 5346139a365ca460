"""Damaged copies of an answer, which a reward model must score lower; the same seed gives the same copy."""

import random
from collections.abc import Sequence
from itertools import islice
from typing import TypeVar

import regex

from croco.text.normalise import SPACELESS

UNIT = regex.compile(rf"[{SPACELESS}]|[^\s{SPACELESS}]+")
LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{SPACELESS}]]"
# A word of prose: not the number of a list's item, nor one letter of an abbreviation (z. B.).
WORD = regex.compile(
    rf"[{SPACELESS}]|(?<!{LETTER})(?!(?:\p{{N}}+|\p{{L}}\p{{M}}*)[\p{{Sentence_Terminal}})]){LETTER}+", regex.V1
)
LONG = 10  # characters of a word that is a sentence by itself
# The end of a sentence or line. A full stop may stand within a number or a name, so white space follows it.
END = regex.compile(r"(?<![.!?…])[.!?…]+(?=\s)|[\p{Sentence_Terminal}--[.!?]]+|(?=\n)|\Z", regex.V1)
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
    sentence = text[: _end_sentence(text)].strip()
    if not sentence:
        return None
    wanted = -(-(len(text) + 1) // (len(sentence) + 1))
    return " ".join([sentence] * max(FEWEST_REPEATS, wanted))


def _end_sentence(text: str) -> int:
    """Where the first sentence or line ends that has two words or a long one; the end of the text if none has."""
    words = list(islice(WORD.finditer(text), 2))
    if words and len(words[0][0]) >= LONG:
        start = words[0].end()
    elif len(words) == 2:
        start = words[1].end()
    else:
        return len(text)
    found = END.search(text, start)
    return found.end() if found else len(text)


def rotate(values: Sequence[T], start: int) -> list[T]:
    """The values in turn, the one at place ``start`` (modulo their number) first."""
    first = start % len(values) if values else 0
    return [*values[first:], *values[:first]]
