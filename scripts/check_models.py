"""Join the reports of check_template.py on all models of a config.

Example:
  python scripts/check_models.py --reports mini/template.json templates/reward/english.json --output models.json

Writes the number of errors and warnings of each report, and their sums.
"""

from pathlib import Path

from croco import cli
from croco.records import read_json, write_json


def main():
    args = parse_arguments()
    reports = {str(path): read_json(path) for path in args.reports}
    checked = {path: {name: report[name] for name in ("errors", "warnings")} for path, report in reports.items()}
    sums = {name: sum(counts[name] for counts in checked.values()) for name in ("errors", "warnings")}
    write_json(args.output, {"checked": checked, **sums})
    inputs = dict(zip(map(str, args.reports), args.reports, strict=True))
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=sums)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--reports", type=Path, nargs="+", required=True, help="reports of check_template.py")
    parser.add_argument("--output", type=Path, required=True, help="file to write, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
