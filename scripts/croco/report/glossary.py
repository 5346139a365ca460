"""The terms of the page: docs/glossary.md, as a section and as tooltips at the first use of a term in each section."""

import re
from pathlib import Path

from markupsafe import Markup, escape

ROW = re.compile(r"^\| (?!term \||---)(?P<term>[^|]+) \| (?P<meaning>.+) \|$", re.MULTILINE)
# Terms with a tooltip, as the page's text has them: {text: the term of the glossary}.
TOOLTIPS = {
    **{term: term for term in ("arm", "hygiene", "margin", "off-policy", "pool", "separation", "setting")},
    "length-controlled": "win rate, length-controlled",
}
TERM = re.compile(rf"(?<![\w-])({'|'.join(TOOLTIPS)})s?(?![\w-])", re.IGNORECASE)
PART = re.compile(r"(<[^>]*>)")
TAG = re.compile(r"<(/?)(\w+)")
TEXT = {"p", "figcaption", "thead"}
# Lists have texts of models, and rows of tables names; what folds is hidden at first; the others have their own use of a
# click or a key.
SKIPPED = {"a", "article", "b", "button", "code", "details", "select", "tbody", "ul"}


def read_glossary(path: Path) -> dict[str, str]:
    """{term: meaning, in Markdown} of the table in docs/glossary.md; empty where the file is missing."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {found["term"]: found["meaning"] for found in ROW.finditer(text)}


def to_plain(meaning: str) -> str:
    """A meaning without the marks of Markdown; of a link, the text is left."""
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", meaning).replace("`", "")


def to_html(meaning: str) -> Markup:
    """A meaning with its code in ``code`` elements; of a link, the text is left."""
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", meaning)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def mark_terms(section: str, glossary: dict[str, str]) -> Markup:
    """The HTML of a section, in which the first use of each term in a paragraph, caption or head of a table has its
    meaning as a tooltip.

    The keyboard and a touch reach the term, because it takes the focus.
    """
    opened: list[str] = []
    shown: set[str] = set()
    parts: list[str] = []
    for part in PART.split(str(section)):
        tag = TAG.match(part)
        if tag is None:
            is_text = bool(TEXT & {*opened}) and not SKIPPED & {*opened}
            parts.append(TERM.sub(lambda found: mark_term(found, glossary, shown), part) if is_text else part)
            continue
        parts.append(part)
        closes, name = tag.groups()
        if name in TEXT | SKIPPED:
            opened = (
                opened[: len(opened) - 1 - opened[::-1].index(name)] if closes and name in opened else [*opened, name]
            )
    return Markup("".join(parts))


def mark_term(found: re.Match[str], glossary: dict[str, str], shown: set[str]) -> str:
    """The text of a term, with its tooltip where its section has not ``shown`` it yet."""
    term = TOOLTIPS[found[1].lower()]
    if term in shown or term not in glossary:
        return found[0]
    shown.add(term)
    meaning = escape(to_plain(glossary[term]))
    return f'<dfn tabindex="0" aria-description="{meaning}" data-meaning="{meaning}">{found[0]}</dfn>'
