"""Test the paper's findings F1 to F6 on a run, from result files only, and write its tables in the paper's shape.

Example:
  python scripts/findings.py --runs results/demo/runs.jsonl --summary results/demo/summary.csv \\
      --audit results/demo/audit/english.json --low-resource gl ga mt cy --tables results/demo/tables \\
      --output results/demo/findings.json

The verdict on each finding is `supported`, `not supported`, `inconclusive` or `not tested`, with the reason. Arms are
chosen by their rows in the run table, never by their names. `claims` lists what the paper reports about two settings
of the run.
"""

from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.files import replacing
from croco.records import read_json, write_json
from croco.results.findings import TABLES, check_findings, list_claims, shape_table
from croco.results.table import read_summary
from croco.runs import list_arms, read_runs
from croco.spreadsheets import to_csv


def main():
    args = parse_arguments()
    runs = read_runs(args.runs)
    arms = list_arms(runs)
    summary = read_summary(args.summary)
    audits = {path.stem: read_audit(path) for path in args.audit}
    for name in TABLES:
        write_table(args.tables / name, shape_table(summary, name))
    models = dict.fromkeys(run.model for run in runs)
    findings = check_findings(summary, audits, args.low_resource, arms, models)
    write_json(args.output, {"findings": findings, "claims": list_claims(arms)})
    files = [args.runs, args.summary, *args.audit]
    manifest = args.output.with_suffix(".manifest.json")
    cli.write_manifest(manifest, __file__, args, {str(path): path for path in files})


def parse_arguments():
    parser = cli.parser(__doc__, outputs=("output", "tables"))
    parser.add_argument("--runs", type=Path, required=True, help="runs.jsonl, the run table")
    parser.add_argument("--summary", type=Path, required=True, help="summary.csv")
    parser.add_argument("--audit", nargs="*", type=Path, default=[], help="audit/REWARD.json of the reward models")
    parser.add_argument("--low-resource", nargs="*", default=[], metavar="CODE", help="the low-resource languages")
    parser.add_argument("--tables", type=Path, required=True, metavar="DIR", help="folder to write the tables to")
    parser.add_argument("--output", type=Path, required=True, help="findings.json to write")
    return parser.parse_args()


def read_audit(path):
    audit = read_json(path)
    if not isinstance(audit.get("languages"), dict):
        raise InputError(
            "not an audit", "give audit/REWARD.json, which the target audit writes", path, field="languages"
        )
    return audit


def write_table(path, table):
    """The table as .csv, .md and .tex."""
    texts = {
        "csv": to_csv(table),
        "md": table.to_markdown(index=False, floatfmt=".3f", missingval="") + "\n",
        "tex": table.to_latex(index=False, float_format="%.3f", na_rep="", escape=True),
    }
    for ending, text in texts.items():
        with replacing(f"{path}.{ending}") as file:
            file.write(text)


if __name__ == "__main__":
    cli.run(main)
