"""Overlap between training and evaluation prompts."""

import re
import unicodedata

N = 13  # words, as in the GPT-3 report (Brown et al., arXiv 2005.14165, appendix C)


def count_overlap(train, evaluate):
    """{train, evaluate, exact, ngram_13}: numbers of prompts, and of evaluation prompts that stand in training, too.

    ``exact`` have the same words as a training prompt; ``ngram_13`` have 13 words in a row in common with one, or are
    one where they are shorter. Case, punctuation and white space do not count.

    Args:
        train, evaluate: iterables of the rows of prompt files; only the evaluation prompts are held in memory.
    """
    whole, grams = {}, {}
    number = -1
    for number, row in enumerate(evaluate):
        words = list_words(row)
        whole.setdefault(tuple(words), []).append(number)
        for gram in list_grams(words):
            grams.setdefault(gram, []).append(number)
    exact, shared, trained = set(), set(), 0
    for row in train:
        trained += 1
        words = list_words(row)
        exact.update(whole.get(tuple(words), ()) if words else ())
        for gram in list_grams(words):
            shared.update(grams.get(gram, ()))
    return {"train": trained, "evaluate": number + 1, "exact": len(exact), f"ngram_{N}": len(shared)}


def list_words(row):
    """The words of all the user's turns."""
    text = "\n".join(message["content"] for message in row["messages"] if message["role"] == "user")
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def list_grams(words):
    """All runs of 13 words, or the whole text where it is shorter; none of a text without words."""
    return {tuple(words[i : i + N]) for i in range(max(1, len(words) - N + 1))} - {()}
