"""Sources of prompts: each needed language has exactly one, and no key is without effect."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from croco.config.faults import Fault

if TYPE_CHECKING:
    from croco.grid import Grid


def check_sources(grid: "Grid") -> Iterator[Fault]:
    """Files by language include the source language, and no key is without effect."""
    for i, row in enumerate(grid.config["prompts"]):
        keys, source = ("prompts", i), grid.config["source_language"]
        parallel = "{language}" in row.get("path", row.get("subset", ""))
        if "languages" in row and not parallel:
            problem = "has no effect where path or subset is one for all"
            yield Fault((*keys, "languages"), problem, "write {language} in the path or subset, or leave it out")
        if parallel and source not in row.get("languages", grid.languages):
            remedy = "add it: the others are chosen by its ids"
            yield Fault((*keys, "languages"), "the source language is missing", remedy)
        if "max_tokens" in row and not grid.limit(row["use"]):
            yield Fault((*keys, "max_tokens"), "needs a limit", "say how many prompts to take")


def check_translations(grid: "Grid") -> Iterator[Fault]:
    """Each language that needs prompts has exactly one source of them."""
    for i, row in enumerate(grid.config["prompts"]):
        use = row["use"]
        codes = [translation["language"] for translation in row["translations"]]
        for j, code in enumerate(codes):
            keys = ("prompts", i, "translations", j, "language")
            if code not in grid.prompt_languages(use) or code == grid.config["source_language"]:
                yield Fault(keys, f"no prompts are needed in {code}", "correct it, or take it out")
            if code in codes[:j]:
                yield Fault(keys, f"{code} is listed twice", "give one file per language")
        translated = grid.translated(use)
        if translated and "translator" not in row:
            yield Fault(
                ("prompts", i, "translator"),
                f"nothing gives the prompts in {', '.join(translated)}",
                "name a translator, list your own files under translations, or write {language} in the path or subset",
            )
        if "translator" in row and not translated:
            yield Fault(("prompts", i, "translator"), "every language has its own file", "leave it out")


CHECKS = (check_sources, check_translations)
