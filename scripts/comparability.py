"""Say how far the run's numbers are comparable with the paper's: row by row, the paper's evaluation and ours.

Example:
  python scripts/comparability.py --table config/comparability.tsv --evaluated reading da,nl --evaluated llm_judge da,nl \\
      --output results/paper/comparability.json

A row of the table that the run does not evaluate gets `comparable: no` with that reason. Column needs and --evaluated
use the same names. Of the languages of `euroeval`, those count that --imported has results in. A name in --evaluated
without a row, or in column needs that no run can evaluate, is an error.
"""

import csv
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.evaluation.tasks import EVALUATED
from croco.records import write_json
from croco.results.table import read_cells

COLUMNS = ("row", "needs", "paper", "ours", "comparable", "why")
ANSWERS = ("yes", "no", "partly")
NOT_HERE = "-"  # in column needs: not part of any run


def main():
    args = parse_arguments()
    evaluated = {name: languages.split(",") for name, languages in args.evaluated}
    if args.imported:
        found = {
            row["eval_language"] for row in read_cells(args.imported) if row["task"].split("/")[0] in args.euroeval
        }
        evaluated["euroeval"] = [code for code in evaluated.get("euroeval", ()) if code in found]
    table = list(read_table(args.table))
    if unknown := [name for name in evaluated if name not in [row["needs"] for row in table]]:
        raise InputError(f"no row needs {unknown[0]}", "add a row to the table, or correct --evaluated", args.table)
    write_json(args.output, [judge(row, evaluated) for row in table])


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table with what the paper did, and what we do")
    parser.add_argument(
        "--evaluated",
        nargs=2,
        action="append",
        default=[],
        metavar=("WHAT", "LANGUAGES"),
        help="what this run evaluates, as in the table's column needs, and its languages with commas between",
    )
    parser.add_argument("--imported", type=Path, help="imported.csv of scripts/import_results.py")
    parser.add_argument(
        "--euroeval", nargs="+", default=[], metavar="NAME", help="the names of EuroEval's results in it"
    )
    parser.add_argument("--output", type=Path, required=True, help="comparability.json to write")
    return parser.parse_args()


def read_table(path):
    with open(path, encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
            if None in row or None in row.values() or set(row) != set(COLUMNS) or row["comparable"] not in ANSWERS:
                raise InputError(
                    f"a row has {', '.join(COLUMNS)}; comparable is {', '.join(ANSWERS)}", "correct the row", path, line
                )
            if row["needs"] not in (*EVALUATED, NOT_HERE):
                raise InputError(
                    f"no run evaluates {row['needs']!r}",
                    f"one of {', '.join(EVALUATED)}, or {NOT_HERE}",
                    path,
                    line,
                    "needs",
                )
            yield row


def judge(row, evaluated):
    """One row of the output: {row, paper, ours, comparable, why, languages}."""
    languages = evaluated.get(row["needs"], [])
    known = {key: row[key] for key in ("row", "paper", "ours", "comparable", "why")}
    if row["needs"] != NOT_HERE and not languages:
        known |= {"ours": None, "comparable": "no", "why": "this run does not evaluate it"}
    elif row["needs"] == NOT_HERE:
        known |= {"ours": None}
    return {**known, "languages": languages}


if __name__ == "__main__":
    cli.run(main)
