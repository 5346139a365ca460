"""The documents: their links and paths exist, the map of the source is complete, and the columns are those of the table."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, script
from snakemake.common import configfile

from croco.results.table import COLUMNS

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
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
    folders = [
        f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._" and path.name != "site"
    ]
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


def find_anchors(path):
    """Anchors of the headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_anchors_exist(path):
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text(encoding="utf-8"))
    targets = [((path.parent / link).resolve() if link else path, anchor) for link, anchor in links]
    assert [anchor for target, anchor in targets if anchor not in find_anchors(target)] == []


def test_each_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_have_known_options(path):
    """Each script's options are written in it or in the library, and each Snakemake target is a rule."""
    blocks = re.findall(r"(?ms)^ *```\w*\n(.*?)^ *```", path.read_text(encoding="utf-8"))
    shared = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "scripts/croco").rglob("*.py"))
    rules = (ROOT / "Snakefile").read_text(encoding="utf-8")
    rules += "".join(file.read_text(encoding="utf-8") for file in (ROOT / "rules").glob("*.smk"))
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        if command := re.search(r"python (scripts/\w+\.py)([^#|]*)", line):
            source = (ROOT / command[1]).read_text(encoding="utf-8") + shared
            options = re.findall(r"(?<=\s)--[a-z-]+", command[2])
            assert [option for option in options if f'"{option}"' not in source] == [], line
        if command := re.search(r"bin/snakemake ([a-z]\w*)", line):
            assert re.search(rf"(?m)^rule {command[1]}:", rules), line
        for config in re.findall(r"--configfile (config/\S+)", line):
            assert (ROOT / config).exists(), line


def test_messages_of_the_troubleshooting_are_in_the_code():
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"(?m)^\| `([^`]+)` \|", text)
    # Snakemake reads the config files first, with messages of its own.
    files = [*(ROOT / "scripts").rglob("*.py"), Path(configfile.__file__)]
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    pieces = [piece.strip() for message in messages for piece in message.split("…") if piece.strip()]
    assert len(messages) > 15 and [piece for piece in pieces if piece not in code] == []


def test_reference_of_files_is_up_to_date(tmp_path):
    script("file_reference", "--formats", ROOT / "docs/files.yaml", "--output", tmp_path / "files.md")
    written = (tmp_path / "files.md").read_text(encoding="utf-8")
    assert written == (ROOT / "docs/files.md").read_text(encoding="utf-8"), "run `make reference`"


def test_configs_of_the_tutorials_are_yaml():
    for path in (ROOT / "docs/tutorials").glob("*.md"):
        for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", path.read_text(encoding="utf-8")):
            assert isinstance(yaml.safe_load(block), dict), path.name
