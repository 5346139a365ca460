"""Hooks of MkDocs: pages from outside docs/, and links that work both in the repository and on the site.

The Markdown files link each other by their places in the repository, as GitHub needs it. On the site, docs/ is the top
folder. A link to another page is therefore rewritten, and a linked file that is no page is copied to the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "config/README.md")
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
FENCE = "```"


def on_files(files, config):
    """Adds the pages from outside docs/, and the files that any page links to."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for page in files.documentation_pages():
        text = Path(page.abs_src_path).read_text(encoding="utf-8")
        for link, _ in LINK.findall(text):
            target = find_target(page.src_uri, link)
            if (ROOT / target).is_file() and not files.get_file_from_path(name_on_site(target)):
                files.append(File.generated(config, name_on_site(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown, page, **_):
    """The page with links for the site, and nested lists as Python-Markdown reads them."""
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(match):
        target = name_on_site(find_target(page.file.src_uri, match[1]))
        return f"]({posixpath.relpath(target, here or '.')}{match[2] or ''})"

    blocks = markdown.split(FENCE)
    blocks[::2] = [deepen_lists(LINK.sub(rewrite, block)) for block in blocks[::2]]
    return FENCE.join(blocks)


def deepen_lists(text):
    """Doubles all indentation: a nested list needs 4 spaces in Python-Markdown, and 2 on GitHub."""
    return re.sub(r"(?m)^( +)(?=\S)", r"\1\1", text)


def find_target(page, link):
    """A link's place in the repository; the page is given by its name on the site."""
    place = page if page in OUTSIDE else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def name_on_site(path):
    """A file's name on the site: docs/ is the top folder there."""
    return path.removeprefix("docs/")
