"""Which training prompts are part of the evaluation data: the same text, or 13 words in a row."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import msgspec
import regex

from croco.errors import InputError
from croco.records import read_lines
from croco.text.normalise import SPACELESS, fold

N = 13  # as in the GPT-3 report (Brown et al., arXiv 2005.14165, appendix C)
KINDS = ("exact", f"ngram_{N}")
# A word, or one character of scripts without spaces between words.
WORD = regex.compile(rf"[{SPACELESS}]|[[\w\p{{M}}]--[{SPACELESS}]]+", regex.V1)


# Per source of evaluation: counts of entries, and the prompts and entries of each kind of overlap.
Source = TypedDict("Source", {"evaluated": int, "without_text": int, **dict.fromkeys(KINDS, dict[str, list])})  # type: ignore[misc]


class Found(msgspec.Struct):
    """The result of scripts/contamination.py for a block of training prompts."""

    language: str
    prompts: int
    hits: dict[str, int]
    removed: list[str]
    sources: dict[str, Source]


def read_found(path: str | Path) -> Found:
    """The Found of a file; raises InputError for a file of another kind."""
    try:
        return msgspec.json.decode("\n".join(text for _, text in read_lines(path)), type=Found)
    except msgspec.DecodeError as error:
        raise InputError(
            f"not a result of contamination.py for a block of training prompts ({error})",
            "give files that contamination.py --prompts wrote",
            path,
        ) from error


class Evaluated:
    """The texts of one source of evaluation, in memory, in which training prompts are looked up."""

    def __init__(self) -> None:
        self.count = 0
        self.without_text = 0  # entries without text to compare
        self.whole: dict[str, set[int]] = {}
        self.grams: dict[str, set[int]] = {}  # {folded text, 13 words: numbers of the entries that have it}

    def add(self, texts: Iterable[str], whole: Iterable[str]) -> None:
        """Adds an entry: its texts, and those (a subset, or joined) that must not be a whole training prompt."""
        for text in filter(None, map(fold, whole)):
            self.whole.setdefault(text, set()).add(self.count)
        for gram in list_grams(texts):
            self.grams.setdefault(gram, set()).add(self.count)
        self.count += 1

    def find(self, row: dict) -> dict[str, set[int]]:
        """{kind of overlap: numbers of the entries that a training prompt shares}; an exact one counts as a 13-gram, too.

        Exact: an entry is the whole of the user's turns, or one of them.
        """
        turns = list_turns(row)
        exact = set().union(*(self.whole.get(fold(text), ()) for text in {"\n".join(turns), *turns}))
        shared = set().union(*(self.grams.get(gram, ()) for gram in list_grams(turns)))
        return dict(zip(KINDS, (exact, exact | shared), strict=True))


def list_turns(row: dict) -> list[str]:
    """The user's turns of a row of a prompt file."""
    return [message["content"] for message in row["messages"] if message["role"] == "user"]


def list_grams(texts: Iterable[str]) -> set[str]:
    """All runs of 13 words within the texts, ignoring case and punctuation."""
    grams: set[str] = set()
    for text in texts:
        words = WORD.findall(fold(text))
        grams.update(" ".join(words[i : i + N]) for i in range(len(words) - N + 1))
    return grams
