"""Section "Glossary": the terms of the page and of the files, from docs/glossary.md."""

from pathlib import Path

from croco.report.elements import Section
from croco.report.glossary import read_glossary, to_html
from croco.report.page import Page

SOURCE = Path(__file__).parents[4] / "docs" / "glossary.md"


def show(page: Page) -> Section:
    """The section: every term with its meaning."""
    terms = {term: to_html(meaning) for term, meaning in read_glossary(SOURCE).items()}
    return Section(empty="The file docs/glossary.md is missing.", content={"terms": terms} if terms else {})
