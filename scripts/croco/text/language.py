"""Which language a text is in, offline, by py3langid."""

import copy
import functools
import re
from collections import Counter

import regex
from py3langid import langid
from py3langid.langid import LanguageIdentifier

from croco.text.normalise import SPACELESS, strip_invisible

FEWEST_LETTERS = 20  # with fewer the result would be a guess
# Scripts with few languages or many characters: one character tells as much as several letters.
TELLING, LETTERS_EACH = regex.compile(rf"[{SPACELESS}\p{{Hangul}}]"), 4
LONGEST = 2000  # characters used; more cost time, and accuracy is at its maximum from 100 letters on
DOUBT = 2  # another language must be this many times as likely as the pool's own
SURE = 0.5  # where no language is this likely, as for a list of names, the result would be a guess
NO_LANGUAGE = "zxx"  # what py3langid calls the moves of a game, or an alphabet
# Languages that a model never answers in by accident, but that would get over 0.2 % of the texts of a close relative or
# of English.
NOT_JUDGED = frozenset(("af", "an", "ext", "la", "lb", "pcm"))
SAME = {"nb": "no", "nn": "no", "bs": "sh", "hr": "sh", "sr": "sh"}

NOT_PROSE = re.compile(
    r"""
    # Models open a fence behind the number of a list's item, or behind a sentence; a truncated response leaves it open.
    (?P<fence>`{3,}+|^[ \t>*+-]*~{3,}+)[^`\n]*\n.*?(?:^[ \t>]*(?P=fence)|\Z)
    | `{1,3}[^`\n]+`{1,3}
    | (?:https?://|www\.)[!-~]+  # not to the next white space, which some scripts rarely have
    | \$\$.{1,2000}?\$\$
    | \\\[.{1,2000}?\\\]
    | \\\(.{1,2000}?\\\)
    | \\begin\{(?P<name>\w+\*?)\}.{1,2000}?\\end\{(?P=name)\}
    | (?<![\\$])\$(?![\s$])[^$\n]{0,300}?(?<![\s\\$])\$(?![\d$])  # as in pandoc, so that prices stay
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


def strip_code(text: str) -> str:
    """The text without fenced and inline code, URLs and LaTeX maths, a space in the place of each."""
    return NOT_PROSE.sub(" ", text)


@functools.cache
def can_identify(code: str) -> bool:
    """Whether the language can be detected at all."""
    return name_language(code) in {name_language(label) for label in _model().labels}


def detect_language(text: str, language: str) -> str | None:
    """The code of the language that ``text`` is in, as judged in a pool of ``language``.

    The candidates are ``language``, the project's languages and some hundred others, independent of the config. If the
    decision is close, the result is the pool's language: a few words do not distinguish two close relatives. Norwegian
    counts as one language, and so do Bosnian, Croatian and Serbian, and a language with different scripts or regions in
    its code (pt_BR). Invisible characters are ignored, and the text is normalised to NFC.
    None if it cannot be determined: too few letters without code, no language that is likely (a list of names), or a
    language that py3langid lacks.
    """
    text = strip_code(strip_invisible(text))[:LONGEST]
    if not can_identify(language) or not has_letters(text):
        return None
    own, shares = name_language(language), Counter[str]()
    for label, share in _identifier(own).rank(text):
        shares[name_language(label)] += share
    found, likely = shares.most_common(1)[0]
    if found != own and shares[own] * DOUBT >= likely:
        found, likely = own, likely + shares[own]
    if likely < SURE or found == NO_LANGUAGE:
        return None
    return language if found == own else found


def has_letters(text: str) -> bool:
    """Whether the text has enough letters to tell its language: 20, or 5 of a script such as Chinese or Thai."""
    others, telling = TELLING.subn("", text)
    return sum(map(str.isalpha, others)) + LETTERS_EACH * telling >= FEWEST_LETTERS


def name_language(code: str) -> str:
    """The language of a code, without script, region and standard: pt for pt_BR, no for nb, sh for hr."""
    base = code.split("_")[0]
    return SAME.get(base, base)


@functools.cache
def _model() -> LanguageIdentifier:
    langid.classify("")  # reads the library's model, unless this process has it from one that started it (croco.warm)
    model = langid.IDENTIFIER
    parts = (model.nb_ptc, model.nb_pc, model.nb_classes, model.tk_nextmove, model.tk_output)
    return LanguageIdentifier(*parts, norm_probs=True, tk_row=model.tk_row)


@functools.cache
def _identifier(name: str) -> LanguageIdentifier:
    identifier = copy.copy(_model())
    identifier.set_languages([label for label in identifier.labels if label not in NOT_JUDGED or label == name])
    return identifier
