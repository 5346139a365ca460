"""Section "What may be claimed": contrasts that are not reproduced, and the limits of the intervals."""

from croco.report.elements import Section
from croco.report.page import Page


def show(page: Page) -> Section:
    """The section's content: the contrasts, and whether the run is the miniature."""
    return Section(content={"contrasts": page.contrasts, "miniature": page.asked.miniature})
