"""The documents: their links and paths exist, the map of the source is complete, and the columns are those of the table."""

import re

import pytest
from conftest import ROOT

from croco.results.table import COLUMNS

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = README.split("## Map of the source\n")[1]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_paths_exist(path):
    """Paths of the source; STAGE in a path stands for any stage."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:scripts|rules|config|tests|profiles|docs|envs)/[\w./-]*)`", text)
    assert [name for name in named if "STAGE" not in name and not (ROOT / name).exists()] == []


def test_map_is_complete():
    folders = [f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"]
    rules = [f"rules/{path.name}" for path in (ROOT / "rules").glob("*.smk")]
    scripts = [f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")]
    library = ROOT / "scripts/croco"
    rooms = [f"scripts/croco/{path.parent.name}/" for path in library.glob("*/__init__.py")]
    modules = [f"scripts/croco/{path.name}" for path in library.glob("*.py") if path.name != "__init__.py"]
    wanted = [*folders, *rules, *scripts, *rooms, *modules, "Snakefile", "rules/helpers/", "scripts/templates/"]
    assert sorted(name for name in wanted if f"`{name}" not in MAP) == []


def test_glossary_is_sorted_and_linked():
    lines = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").splitlines()
    terms = [line.split("|")[1].strip().casefold() for line in lines if line.startswith("| ")][1:]
    assert terms == sorted(terms) and len(terms) == len(set(terms))
    assert "(docs/glossary.md)" in README


def test_columns_of_the_summary_are_explained():
    text = (ROOT / "docs/statistics.md").read_text(encoding="utf-8")
    assert [name for name in COLUMNS if f"`{name}`" not in text] == []
