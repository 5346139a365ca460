"""Section "What may be claimed": what the contrasts do not reproduce, and the limits of the intervals."""

from croco.report.elements import Section
from croco.report.page import Page


def show(page: Page) -> Section:
    return Section(content={"contrasts": page.contrasts, "miniature": page.asked.miniature})
