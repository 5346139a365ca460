"""Say what will fail in a run of a config, when, and what to do, before anything expensive runs.

Example:
  python scripts/doctor.py --configfile my.yaml
  python scripts/doctor.py --configfile my.yaml --gpu-memory 80 --gpus 8     for other GPUs than this machine's

Looks at the config, prompt and task files and their overlap, columns of datasets, models (there, gate and licence, class, weights by name and
shape, chat template, context, size, LoRA modules, GPU memory), engines, GPUs, the disk for results and downloads, locks,
and the audit. Loads and fetches no weights. Models that the workflow makes itself, or that the run does not load, are left
out. Without a network, what is in the hub's cache is examined. Give the config files in the order of Snakemake's
--configfile.

The exit code is 1 if anything will fail.
"""

import sys
from pathlib import Path

from croco import cli
from croco.config.read import build_grid, read_files
from croco.examination.data import examine_data
from croco.examination.findings import ERROR, NOTE, SEVERITIES, WARNING, list_models
from croco.examination.hub import examine_connection
from croco.examination.machine import examine_audit, examine_disk, examine_gpus, examine_limits, find_gpus
from croco.examination.models import examine_model
from croco.pins import check_local_items

CHECKOUT = Path(__file__).resolve().parents[1]


def main():
    args = parse_arguments()
    config, locator = read_files(args.configfile, CHECKOUT)
    grid, _ = build_grid(config, CHECKOUT, locator)
    check_local_items(grid)
    findings = list(examine(args, grid))
    for finding in sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)):
        print(f"{finding.severity}: {finding.where}: {finding.what}")
        if finding.severity != NOTE:
            print(f"  Shows in: {finding.when}\n  Remedy: {finding.remedy}")
    errors, warnings = (sum(finding.severity == severity for finding in findings) for severity in (ERROR, WARNING))
    print(f"{errors} errors, {warnings} warnings")
    sys.exit(1 if errors else 0)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--configfile", nargs="*", type=Path, default=[], help="files merged into the default config")
    parser.add_argument("--gpu-memory", type=float, help="GB of one GPU, if not this machine's are to be used")
    parser.add_argument("--gpus", type=int, help="number of GPUs, if not this machine's are to be used")
    return parser.parse_args()


def examine(args, grid):
    """All findings; models with a bar."""
    memory, count = find_gpus()
    memory, count = args.gpu_memory or memory, args.gpus if args.gpus is not None else count
    yield from examine_connection(grid)
    yield from examine_disk(grid)
    yield from examine_limits(grid)
    yield from examine_gpus(grid, count)
    for used in cli.progress(list_models(grid), desc="models", unit="model"):
        yield from examine_model(grid, used, memory)
    yield from examine_data(grid)
    yield from examine_audit(grid, args.configfile)


if __name__ == "__main__":
    cli.run(main)
