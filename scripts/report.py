"""Write the report page: one HTML file with plots, tables and a search, made from result files only; it opens offline.

Example:
  python scripts/report.py --root results/demo --run mini multi dpo 1 mini english en,de en,de \\
      --summary results/demo/summary.csv --judged --output results/demo/report.html

What is missing is marked in its section with the command that makes it, and never ends the script. Beside the page it
writes its key plots by themselves: win_rates.svg, structured.svg and ledger.svg.
"""

import math
from pathlib import Path

import jinja2
import pandas as pd

from croco import cli
from croco.records import replacing
from croco.report import page_data, page_records, page_results
from croco.report.elements import Gaps, embed, prefer_all_seeds, read_json
from croco.report.plots import read_library, read_palette, to_svg
from croco.results.findings import NULL_MARGIN, compare_with_paper
from croco.results.statistics import FEWEST
from croco.runs import add_run_options, read_runs

RUN = ["MODEL", "POOL", "SETTING", "SEED", "RESPONSES", "REWARD_MODEL", "LANGUAGES", "EVALUATED"]
SECTIONS = {
    "overview": "Overview",
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
}
# Which figure is a key plot by itself.
KEY_PLOTS = {
    "win_rates": ("open-ended", "win-rates"),
    "structured": ("structured", "task-0"),
    "ledger": ("data", "prompts"),
}


def main():
    args = parse_arguments()
    runs = read_runs(args, RUN)
    for run in runs:
        run["evaluated"] = run["evaluated"].split(",")
        run["target_has_pairs"] = (run["folder"] / "pairs.jsonl").is_file() or run["setting"] in args.paired
    gaps = Gaps(args.root)
    if not gaps.has("overview", args.summary, "summary.csv, the table of all results"):
        print(f"no {args.summary}: the page is made without it")
    summary = page_results.read_summary(args.summary)
    findings = read_json(args.findings) if args.findings and args.findings.is_file() else None
    comparability = args.root / "comparability.json"
    checked = args.root / "contamination.json"
    found = gaps.has("overview", checked, "contamination.json, the training prompts among what is evaluated")
    contamination = read_json(checked) if found else None
    first = [run for run in runs if run["seed"] == "1"]
    ledgers = page_data.read_ledgers(runs, gaps)
    claims = {(row["setting"], row["versus"]): row for row in (findings or {}).get("claims", ())}
    contrasts = read_contrasts(summary, args.contrast, claims)
    manifests = page_records.list_manifests(args.root)
    sections = {
        "data": page_data.show_data(first, ledgers),
        "rewards": page_data.show_rewards(args.root, first, ledgers, gaps),
        "training": page_data.show_training(first, gaps),
        "structured": page_results.show_structured(summary, gaps, args.tasks),
        "open-ended": page_results.show_wins(summary, gaps, args.judged),
        "fidelity": page_results.show_fidelity(args.root, first, summary, gaps, args.fidelity),
        "findings": page_results.show_findings(
            findings, args.tables, read_json(comparability) if comparability.is_file() else None, contamination, gaps
        ),
        "provenance": page_records.show_provenance(manifests, gaps),
        "cost": page_records.show_cost(args.root, manifests, gaps),
    }
    examples, shown = page_records.list_examples(args.root, first, args.examples, gaps) if args.examples else ([], {})
    figures = {figure["id"]: figure for section in sections.values() for figure in section.get("figures", ())}
    template = args.template.parent
    css = (template / "report.css").read_text(encoding="utf-8")
    html = (
        jinja2.Environment(
            loader=jinja2.FileSystemLoader(template),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        .get_template(args.template.name)
        .render(
            title=args.root.name,
            partial=args.partial,
            miniature=args.miniature,
            names=SECTIONS,
            sections=sections,
            gaps={name: gaps.of(name) for name in SECTIONS},
            facts=page_results.list_facts(runs, ledgers),
            contamination=page_results.tell_contamination(contamination),
            headlines=page_results.write_headlines(findings, contrasts),
            contrasts=contrasts,
            seed_contrasts=contrasts_over_seeds(summary, args.contrast, claims),
            null_margin=NULL_MARGIN,
            commits=sorted({(one["commit"] or "outside git")[:10] for one in manifests}),
            dirty=sum(one["dirty"] for one in manifests),
            examples=shown,
            per_cell=args.examples,
            css=css,
            script=(template / "report.js").read_text(encoding="utf-8"),
            library=read_library(),
            plots=embed({name: [chart["spec"] for chart in figure["charts"]] for name, figure in figures.items()}),
            rows=embed({"examples": examples, **sections["provenance"]["manifests"]}),
        )
    )
    with replacing(args.output) as file:
        file.write(html)
    palette = read_palette(css)
    for name, (_, key) in KEY_PLOTS.items():
        with replacing(args.output.with_name(f"{name}.svg")) as file:
            file.write(to_svg(figures[key]["charts"][0]["spec"] if key in figures else None, palette))
    inputs = {name: path for name in ("summary", "findings") if (path := getattr(args, name)) and path.is_file()}
    missing = {name: len(gaps.of(name)) for name in SECTIONS if gaps.of(name)}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, gaps=missing)


def parse_arguments():
    parser = cli.parser(__doc__)
    add_run_options(parser, RUN)
    parser.add_argument("--summary", type=Path, required=True, help="summary.csv")
    parser.add_argument("--findings", type=Path, help="findings.json")
    parser.add_argument("--tables", type=Path, help="folder of tables in the paper's shape, *.csv")
    parser.add_argument("--paired", nargs="*", default=[], metavar="SETTING", help="settings that are tuned on pairs")
    parser.add_argument("--judged", action="store_true", help="the run asks for verdicts")
    parser.add_argument("--fidelity", action="store_true", help="the run asks for measures of the answers")
    parser.add_argument("--tasks", action="store_true", help="the run asks for structured tasks")
    parser.add_argument("--examples", type=int, default=10, help="pairs, and answers, to show of each run and language")
    parser.add_argument("--partial", action="store_true", help="say that the run is not finished")
    parser.add_argument("--miniature", action="store_true", help="say what the miniature may and may not claim")
    parser.add_argument(
        "--template",
        type=Path,
        default=Path(__file__).parent / "templates/report.html.j2",
        help="page; its css and js lie beside",
    )
    parser.add_argument("--output", type=Path, required=True, help="report.html to write")
    return parser.parse_args()


def read_contrasts(summary, declared, claims):
    """The declared contrasts, each with what the paper reports and whether this run shows it.

    ``claims`` are the rows of findings.json by (setting, versus).
    """
    pooled = summary[(summary["metric"] == "win_rate") & (summary["eval_language"] == "all")]
    contrasts = []
    for setting, pool, versus in declared:
        chosen = pooled[(pooled["setting"] == setting) & (pooled["language"] == pool) & (pooled["baseline"] == versus)]
        # Over all training seeds where there are several.
        chosen = prefer_all_seeds(chosen[chosen["round"] == chosen["round"].max()]).drop_duplicates("model")
        for row in chosen.itertuples():
            middle = 0.5 if versus == "base" else 0.0
            value = row.value if versus == "base" else row.delta
            low, high = (
                endless if pd.isna(bound) else bound
                for endless, bound in ((-math.inf, row.ci_low), (math.inf, row.ci_high))
            )
            known = claims.get((setting, versus), {"expected": None, "claim": "not a finding of the paper"})
            expected, claim = known["expected"], known["claim"]
            contrasts.append(
                {
                    "model": row.model,
                    "what": f"{pool}/{setting} against {versus}",
                    "measure": "win rate" if versus == "base" else "difference of win rates",
                    "value": value,
                    "low": low,
                    "high": high,
                    "p": None if pd.isna(row.p_adjusted) else row.p_adjusted,
                    "claim": claim,
                    "of_paper": expected is not None,
                    **compare_with_paper(low - middle, high - middle, expected, row.n),
                }
            )
    return contrasts


def contrasts_over_seeds(summary, declared, claims):
    """Declared contrasts once more, paired by training seed: how many seeds show what the paper reports.

    Seeds with too few prompts for a verdict are left out.
    """
    pooled = summary[
        (summary["metric"] == "win_rate") & (summary["eval_language"] == "all") & (summary["baseline"] == "base")
    ]
    pooled = pooled[(pooled["seed"] != "all") & (pooled["n"] >= FEWEST)]

    def by_seed(model, pool, setting):
        arm = pooled[(pooled["model"] == model) & (pooled["language"] == pool)]
        names = [name.removesuffix(f".s{seed}") for name, seed in zip(arm["setting"], arm["seed"], strict=True)]
        arm = arm[pd.Series(names, index=arm.index, dtype=str) == setting]
        return arm[arm["round"] == arm["round"].max()].set_index("seed")["value"]

    table = []
    for setting, pool, versus in declared:
        for model in pooled["model"].unique():
            ours = by_seed(model, pool, setting)
            differences = (ours - (0.5 if versus == "base" else by_seed(model, pool, versus))).dropna()
            if len(differences) < 2:
                continue
            expected = claims.get((setting, versus), {}).get("expected")
            as_reported = {
                "higher": differences > 0,
                "not lower": differences >= 0,
                "equal": differences.abs() <= NULL_MARGIN,
            }.get(expected)
            table.append(
                {
                    "model": model,
                    "what": f"{pool}/{setting} - {versus if versus != 'base' else '.5'}",
                    "mean": differences.mean(),
                    "sd": differences.std(),
                    "each": ", ".join(f"{value:+.3f}" for value in differences),
                    "agree": None if as_reported is None else f"{as_reported.sum()} of {len(differences)}",
                }
            )
    return table


if __name__ == "__main__":
    cli.run(main)
