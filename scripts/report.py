"""Write the report page: one HTML file with plots, tables and a search, made from result files only; it opens offline.

Example:
  python scripts/report.py --root results/demo --runs results/demo/runs.jsonl --summary results/demo/summary.csv \\
      --judged --output results/demo/report.html

A missing result is marked in its section with the command that makes it, and is never an error. The key plots are also
written as files beside the page: win_rates.svg, structured.svg and ledger.svg.
"""

from collections.abc import Mapping
from pathlib import Path

import jinja2

from croco import cli
from croco.files import replacing
from croco.report.elements import Figure, Section, embed
from croco.report.glossary import mark_terms, read_glossary
from croco.report.page import Page, read_page
from croco.report.plots import read_library, read_palette, to_svg
from croco.report.sections import (
    claims,
    cost,
    data,
    examples,
    fidelity,
    findings,
    glossary,
    open_ended,
    overview,
    provenance,
    rewards,
    structured,
    training,
)
from croco.runs import add_contrast_option, add_run_options

# The sections of the page in their order: the name in links and gaps, the heading, and what makes the section. A section
# that needs more than an introduction, figures and tables has a macro in the template.
SECTIONS = (
    ("overview", "Result", overview.show),
    ("data", "Data", data.show),
    ("rewards", "Rewards", rewards.show),
    ("training", "Training", training.show),
    ("structured", "Structured tasks", structured.show),
    ("open-ended", "Open-ended answers", open_ended.show),
    ("fidelity", "Fidelity of the answers", fidelity.show),
    ("findings", "The paper's findings", findings.show),
    ("examples", "Pairs and answers", examples.show),
    ("provenance", "Provenance", provenance.show),
    ("cost", "Cost", cost.show),
    ("claims", "What may be claimed", claims.show),
    ("glossary", "Glossary", glossary.show),
)
# {file name without its ending: the figure of the page}.
KEY_PLOTS = {"win_rates": "win-rates", "structured": "task-0", "ledger": "prompts"}


def main() -> None:
    args = parse_arguments()
    page = read_page(args)
    sections = {name: show(page) for name, _, show in SECTIONS if name != "findings" or args.findings}
    figures = {figure.id: figure for section in sections.values() for figure in section.figures}
    css = (args.template.parent / "report.css").read_text(encoding="utf-8")
    with replacing(args.output) as file:
        file.write(render(args.template, page, sections, figures, css))
    write_key_plots(args.output.parent, figures, css)
    inputs = {name: path for name in ("summary", "findings") if (path := getattr(args, name)) and path.is_file()}
    missing = {name: len(gaps) for name in sections if (gaps := page.gaps.of(name))}
    shown = [manifest.file for manifest in page.manifests]
    facts = {
        "gaps": missing,
        "manifests": shown,
        "headlines": sections["overview"].content["headlines"],
        "config": page.config,
    }
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, **facts)


def render(template: Path, page: Page, sections: Mapping[str, Section], figures: Mapping[str, Figure], css: str) -> str:
    """The page as HTML. Its script, report.js, is beside the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    terms = read_glossary(glossary.SOURCE)
    environment.filters["mark_terms"] = lambda text: mark_terms(text, terms)
    records = {name: rows for section in sections.values() for name, rows in section.records.items()}
    return environment.get_template(template.name).render(
        title=page.root.name,
        subject=name_subject(page),
        partial=page.asked.partial,
        names={name: heading for name, heading, _ in SECTIONS if name in sections},
        sections=sections,
        gaps={name: page.gaps.of(name) for name in sections},
        commits=sorted({manifest.short_commit for manifest in page.manifests}),
        dirty=sum(manifest.dirty for manifest in page.manifests),
        css=css,
        script=(template.parent / "report.js").read_text(encoding="utf-8"),
        library=read_library(),
        plots=embed({name: [chart["spec"] for chart in figure.charts] for name, figure in figures.items()}),
        rows=embed(records),
    )


def name_subject(page: Page) -> str:
    """What was tuned, for the title of the page."""
    policies = ", ".join(dict.fromkeys(run.model for run in page.runs))
    languages = dict.fromkeys(code for run in page.runs for code in run.languages)
    if not policies:
        return "no runs"
    return f"preference tuning of {policies} in {len(languages)} language{'s' if len(languages) > 1 else ''}"


def write_key_plots(folder: Path, figures: Mapping[str, Figure], css: str) -> None:
    """Writes each key plot as an SVG file in the page's light colours."""
    palette = read_palette(css)
    for name, key in KEY_PLOTS.items():
        with replacing(folder / f"{name}.svg") as file:
            file.write(to_svg(figures[key].charts[0]["spec"] if key in figures else None, palette))


def parse_arguments():
    parser = cli.parser(__doc__)
    add_run_options(parser)
    add_contrast_option(parser)
    parser.add_argument("--summary", type=Path, required=True, help="summary.csv")
    parser.add_argument(
        "--findings", type=Path, help="findings.json; without it the page has no section on the paper's findings"
    )
    parser.add_argument("--tables", type=Path, help="folder of tables in the paper's shape, *.csv")
    parser.add_argument("--plan", type=Path, help="plan.json, what the config planned by stage")
    parser.add_argument("--judged", action="store_true", help="the config asks for verdicts")
    parser.add_argument("--fidelity", action="store_true", help="the config asks for measures of the answers")
    parser.add_argument("--tasks", action="store_true", help="the config asks for structured tasks")
    parser.add_argument(
        "--examples", type=int, default=10, help="number of pairs, and of answers, to show per run and language"
    )
    parser.add_argument("--partial", action="store_true", help="say that the run is not finished")
    parser.add_argument("--miniature", action="store_true", help="say what the miniature may and may not claim")
    parser.add_argument(
        "--template",
        type=Path,
        default=Path(__file__).parent / "templates/report.html.j2",
        help="template of the page; its css and js are beside it",
    )
    parser.add_argument("--output", type=Path, required=True, help="report.html to write")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
