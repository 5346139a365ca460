"""Characters of a text: which are visible, which are words; and equality of ids independent of their code points."""

import unicodedata

import regex

# A visible character: no white space, no control or format character, and none that Unicode ignores in display
# (zero-width characters, fillers, variation selectors, tags). Braille's blank is a symbol. The few format characters
# that are drawn, such as the Arabic number sign, count as visible.
VISIBLE = regex.compile(
    r"[^\p{Z}\p{Cc}\p{Default_Ignorable_Code_Point}\u2800[\p{Cf}--\p{Prepended_Concatenation_Mark}]]", regex.V1
)
# The control characters at which str.split splits are white space, as pages' form feeds are.
INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}[\p{Cc}--[\t-\r\x1c-\x1f\x85]]]+", regex.V1)
# Scripts without spaces between words, in which one character counts as a word: for a set of a pattern of `regex`.
SPACELESS = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}"


def is_blank(text: str) -> bool:
    """Whether the text has no visible character."""
    return VISIBLE.search(text) is None


def normalise_id(prompt_id: str) -> str:
    """The form in which ids are compared and written: NFC."""
    return unicodedata.normalize("NFC", prompt_id)


def strip_invisible(text: str) -> str:
    """The text in NFC, without format and control characters; white space stays."""
    return INVISIBLE.sub("", unicodedata.normalize("NFC", text))


def fold(text: str) -> str:
    """The text in NFC without case, and with one space for each run of white space."""
    return " ".join(unicodedata.normalize("NFC", strip_invisible(text).casefold()).split())
