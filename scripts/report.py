"""Write the report page: one HTML file with plots, tables and a search, made from result files only; it opens offline.

Example:
  python scripts/report.py --root results/demo --runs results/demo/runs.jsonl --summary results/demo/summary.csv \\
      --judged --output results/demo/report.html

A missing result is marked in its section with the command that makes it, and is never an error. The key plots are also
written as files beside the page: win_rates.svg, structured.svg and ledger.svg.
"""

from argparse import Namespace
from collections.abc import Collection, Mapping
from pathlib import Path

from croco import cli
from croco.files import replacing
from croco.report.elements import Figure, Section, embed
from croco.report.glossary import mark_terms, read_glossary
from croco.report.highlights import choose_highlights
from croco.report.leaderboard import find_main_run, list_lines
from croco.report.page import Asked, Page, PageSource, read_page
from croco.report.plots import draw_text, read_library, read_palette, to_svg
from croco.report.render import render_page
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

# The headings of the sections, by their names in links and gaps.
HEADINGS = {
    "overview": "Result",
    "data": "Data",
    "rewards": "Rewards",
    "training": "Training",
    "structured": "Structured tasks",
    "open-ended": "Open-ended answers",
    "fidelity": "Fidelity of the answers",
    "findings": "The paper's findings",
    "examples": "Pairs and answers",
    "provenance": "Provenance",
    "cost": "Cost",
    "claims": "What may be claimed",
    "glossary": "Glossary",
}
# {file name without its ending: the figure of the page}.
KEY_PLOTS = {"win_rates": "win-rates", "structured": "task-0", "ledger": "prompts"}


def main() -> None:
    args = parse_arguments()
    page = read_page(choose_source(args))
    sections = make_sections(page, with_findings=args.findings is not None)
    figures = {figure.id: figure for section in sections.values() for figure in section.figures}
    with replacing(args.output) as file:
        file.write(render(args.template, page, sections, figures))
    write_key_plots(args.output.parent, sections.values(), read_palette(args.template.parent / "report.css"))
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


def choose_source(args: Namespace) -> PageSource:
    """What the command line names for the page."""
    return PageSource(
        root=args.root,
        runs=args.runs,
        summary=args.summary,
        asked=Asked(
            judged=args.judged,
            fidelity=args.fidelity,
            tasks=args.tasks,
            examples=args.examples,
            partial=args.partial,
            miniature=args.miniature,
        ),
        findings=args.findings,
        plan=args.plan,
        tables=args.tables,
        declared=[(setting, pool, versus) for setting, pool, versus in args.contrast],
    )


def make_sections(page: Page, with_findings: bool) -> dict[str, Section]:
    """The sections in the order of the page.

    A section that needs more than an introduction, figures and tables has a macro in the template.
    """
    highlights = choose_highlights(page, find_main_run(page, list_lines(page)))
    return {
        "overview": overview.show(page, highlights),
        "data": data.show(page),
        "rewards": rewards.show(page),
        "training": training.show(page),
        "structured": structured.show(page),
        "open-ended": open_ended.show(page),
        "fidelity": fidelity.show(page),
        **({"findings": findings.show(page)} if with_findings else {}),
        "examples": examples.show(page, highlights),
        "provenance": provenance.show(page),
        "cost": cost.show(page),
        "claims": claims.show(page),
        "glossary": glossary.show(page),
    }


def render(template: Path, page: Page, sections: Mapping[str, Section], figures: Mapping[str, Figure]) -> str:
    """The page as HTML. Its script, report.js, is beside the template."""
    terms = read_glossary(glossary.SOURCE)
    records = {name: rows for section in sections.values() for name, rows in section.records.items()}
    return render_page(
        template,
        filters={"mark_terms": lambda text: mark_terms(text, terms)},
        title=page.root.name,
        subject=name_subject(page),
        partial=page.asked.partial,
        names={name: HEADINGS[name] for name in sections},
        sections=sections,
        gaps={name: page.gaps.of(name) for name in sections},
        commits=sorted({manifest.short_commit for manifest in page.manifests}),
        dirty=sum(manifest.dirty for manifest in page.manifests),
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


def write_key_plots(folder: Path, sections: Collection[Section], palette: Mapping[str, str]) -> None:
    """Writes each key plot as an SVG file in the page's light colours, or a sentence where there is nothing to draw."""
    charts = {figure.id: figure.charts[0]["spec"] for section in sections for figure in section.figures}
    undrawn = {name: text for section in sections for name, text in section.undrawn.items()}
    for name, key in KEY_PLOTS.items():
        spec = charts.get(key) or draw_text(undrawn.get(key, "Nothing was measured."))
        with replacing(folder / f"{name}.svg") as file:
            file.write(to_svg(spec, palette))


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
