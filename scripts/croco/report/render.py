"""Pages from the templates in scripts/templates, all in one design: report.css, and layout.html.j2 around the content."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


def render_page(template: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """A page as HTML, one file with its style. What the template extends, and report.css, are beside it.

    ``filters`` are those of the template by their names, besides Jinja's own.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    css = (template.parent / "report.css").read_text(encoding="utf-8")
    return environment.get_template(template.name).render(css=css, **values)
