"""Measures of answers without a judge: their languages, repetition and similarity."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import regex
from sacrebleu.metrics import CHRF

from croco.digests import digest

NONE = "none"  # for a language that could not be identified
PAIRS = 10  # pairs of different texts compared for a prompt: all of five samples'
LONGEST = 2000  # characters of a text that are compared
# beta 1 makes chrF the same from both sides.
CHRF1 = CHRF(word_order=0, beta=1)
WORD_BREAK = regex.compile(r"\b", flags=regex.V1 | regex.WORD)
LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")


def list_words(text: str) -> list[str]:
    """The words of a text, case folded, punctuation left out, by the default word boundaries of Unicode (UAX 29).

    In scripts without spaces between words (Chinese, Japanese kana except katakana, Thai, Lao, Khmer, Burmese) these
    boundaries make each character a word.
    """
    return [word.casefold() for word in WORD_BREAK.split(text) if LETTER_OR_DIGIT.search(word)]


def share_distinct(words: Sequence[str], n: int) -> float | None:
    """Different n-grams over all n-grams, in (0, 1]; None for fewer than n words. Li et al. 2016, arXiv 1510.03055."""
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def measure_repetition(words: Sequence[str], n: int = 4) -> float:
    """1 - different n-grams over all n-grams, in [0, 1); 0 for fewer than n words.

    seq-rep-4 of Welleck et al. 2020, arXiv 1908.04319, over words instead of a model's tokens, so that models with
    different tokenizers are comparable.
    """
    distinct = share_distinct(words, n)
    return 0.0 if distinct is None else 1 - distinct


def measure_self_similarity(texts: Sequence[str]) -> float | None:
    """Mean similarity of all pairs of a prompt's answers, in [0, 1], independent of their order; None for fewer than two.

    The similarity of two is chrF (Popović 2015, character 1- to 6-grams, no words) with beta 1; equal texts have 1.
    If there are more, only ``PAIRS`` pairs of different texts are used, drawn by the texts' digests.
    """
    if len(texts) < 2:
        return None
    copies = Counter(text[:LONGEST] for text in texts)
    total = len(texts) * (len(texts) - 1) / 2
    equal = sum(count * (count - 1) / 2 for count in copies.values())
    if len(copies) == 1:
        return 1.0
    ranked = sorted(copies, key=digest)
    neighbours = ((a, b) for step in range(1, len(ranked)) for a, b in zip(ranked, ranked[step:], strict=False))
    weight, similarity = 0, 0.0
    for a, b in islice(neighbours, PAIRS):
        weight += copies[a] * copies[b]
        similarity += copies[a] * copies[b] * CHRF1.sentence_score(a, [b]).score / 100
    return min(1.0, (equal + (total - equal) * similarity / weight) / total)


def count_languages(lines: Iterable[dict]) -> dict[str, dict[str, int]]:
    """The confusion matrix of fidelity files' lines: {language asked for: {language found, or none: answers}}.

    Both are sorted by code, ``none`` comes last.
    """
    found: dict[str, Counter[str]] = {}
    for line in lines:
        found.setdefault(line["language"], Counter()).update(code or NONE for code in line["languages"])
    return {
        asked: {code: codes[code] for code in sorted(codes, key=lambda code: (code == NONE, code))}
        for asked, codes in sorted(found.items())
    }
