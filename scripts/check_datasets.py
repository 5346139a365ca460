"""Compare the columns, subsets and splits that a config declares with those of the datasets, before anything runs.

Example:
  python scripts/check_datasets.py --dataset train allenai/Dolci-Instruct-SFT - main train id=id text=messages \\
      --output datasets.json

Write a dash for an omitted value. KEY=COLUMN (id, text, reference, where, fields) declares a column that the dataset must
have. No rows are fetched from the hub; without a network (HF_HUB_OFFLINE=1) the staged rows are read. What cannot be known
yet is a warning or a note. Otherwise the error at the end lists all that is wrong, and nothing is written.
"""

import sys
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.examination.datasets import examine_dataset
from croco.examination.declared import add_dataset_option, read_dataset
from croco.examination.findings import ERROR
from croco.records import write_json


def main():
    args = parse_arguments()
    findings = [finding for values in args.dataset for finding in examine_dataset(*read_dataset(values))]
    errors = [finding for finding in findings if finding.severity == ERROR]
    if errors:
        raise InputError(
            f"{len(args.dataset)} datasets were checked, and the config declares what these do not have:"
            + "".join(f"\n    {finding.where}: {finding.what}" for finding in errors),
            "; ".join(dict.fromkeys(finding.remedy for finding in errors)),
        )
    for finding in findings:
        print(f"{finding.severity}: {finding.where}: {finding.what}", file=sys.stderr)
    unknown = [{"dataset": finding.where, "problem": finding.what} for finding in findings]
    write_json(args.output, {"datasets": len(args.dataset), "unknown": unknown})
    counts = {"datasets": len(args.dataset), "unknown": len(unknown)}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, {}, counts=counts)


def parse_arguments():
    parser = cli.parser(__doc__)
    add_dataset_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="file to write, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
