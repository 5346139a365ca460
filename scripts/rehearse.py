"""Run a config's whole workflow on tiny copies of its own models, in minutes on a CPU, before you pay for the real run.

Example:
  python scripts/rehearse.py --configfile my.yaml
  python scripts/rehearse.py --configfile my.yaml --engines transformers vllm --languages da mt --keep

Each model of the config becomes a random replica: its class, tokenizer, chat template and special tokens, with layers,
widths, experts and image towers shrunk. Only configs and tokenizers are fetched, a few megabytes. Prompts, samples,
tokens and languages are cut; every setting stays. Of the pools that this makes equal one is left, and one of the pools
of a single language. A stage that breaks does not stop the others.

The table at the end says what ran, what broke, and what a rehearsal cannot show. rehearsal.json has the same, with the
end of each failed job's log. The exit code is 1 if anything broke. Prompts and tasks come from the first rows of the
config's datasets.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from croco import cli
from croco.config.read import build_grid, read_files
from croco.errors import InputError
from croco.models.options import ENGINES
from croco.records import write_json
from croco.rehearsal.cut import choose_languages, choose_targets
from croco.rehearsal.outcome import describe, read_outcome
from croco.rehearsal.prepare import prepare
from croco.warm import ON_CPU, warm_interpreter

CHECKOUT = Path(__file__).resolve().parents[1]
REPORT = "rehearsal.json"


def main():
    args = parse_arguments()
    config, locator = read_files(args.configfile, CHECKOUT)
    grid, asked = build_grid(config, CHECKOUT, locator)
    empty(args.output)
    languages = choose_languages(grid, args.languages)
    outcomes = []
    report = {"config": [str(file) for file in args.configfile], "languages": languages, "engines": outcomes}
    write_json(args.output / REPORT, report)
    for engine in args.engines:
        folder = args.output / engine
        prepared = prepare(CHECKOUT, grid, asked, folder, languages, engine, args.output / "models")
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(prepared.config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        with starter(engine, prepared.runs) as python:
            targets = choose_targets(prepared.config)
            if prepared.runs:
                run(path, targets, args.cores, engine, python)
            outcomes.append(read_outcome(CHECKOUT, path, engine, prepared, targets, partial(generate, python)))
    write_json(args.output / REPORT, report)
    print(describe(report))
    broken = any(outcome["broken"] for outcome in outcomes)
    if not args.keep:
        for folder in (args.output / "models", *(args.output / engine for engine in args.engines)):
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if broken else 0)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument("--configfile", nargs="*", type=Path, default=[], help="files merged into the default config")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=["transformers"],
        help="engines to run all models on, one after the other",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        default=[],
        help="languages besides the source (default: one whose prompts are translated, one that is only evaluated, "
        "and others up to three with the source)",
    )
    parser.add_argument("--cores", type=cli.positive, default=2, help="jobs at a time")
    parser.add_argument(
        "--output", type=Path, default=Path("results/rehearsal"), metavar="DIR", help="folder to write, emptied first"
    )
    parser.add_argument("--keep", action="store_true", help="keep replicas and results for a look")
    return parser.parse_args()


def empty(folder):
    """Removes an earlier rehearsal; raises InputError for a folder that holds something else."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / REPORT).is_file():
        raise InputError("the folder is not empty, and no rehearsal wrote it", "name another --output", folder)
    shutil.rmtree(folder, ignore_errors=True)


def run(config, targets, cores, engine, python):
    """Runs the workflow on the CPU, past what breaks; what it says is in run.log beside the config."""
    command = ["-m", "snakemake", "--snakefile", CHECKOUT / "Snakefile", "--configfile", config, "--cores", cores]
    command += ["--keep-going", "--rerun-incomplete", "--", *targets]
    path = config.parent / "run.log"
    print(f"rehearsing with {engine}: {path}", file=sys.stderr)
    called = [str(python), *map(str, command)]
    with (
        open(path, "wb") as log,
        subprocess.Popen(called, env=read_environment(), stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        show_progress(process, path)


def show_progress(process, log):
    """A bar of the jobs that are done, until the process ends."""
    with cli.progress(desc="rehearse", unit="job") as bar:
        while process.poll() is None:
            time.sleep(1)
            if steps := re.findall(r"^(\d+) of (\d+) steps", log.read_text(errors="replace"), re.MULTILINE):
                done, bar.total = map(int, steps[-1])
                bar.update(done - bar.n)


def generate(python, *arguments):
    """Runs scripts/generate.py on the CPU; returns the finished process."""
    called = [str(python), str(CHECKOUT / "scripts/generate.py"), *map(str, arguments)]
    return subprocess.run(called, env=read_environment(), capture_output=True, text=True, check=False)


def read_environment():
    """The environment, without GPUs."""
    return {**os.environ, **ON_CPU}


@contextmanager
def starter(engine, runs):
    """The interpreter for the jobs, warm where there are any, except for vLLM, which starts processes of its own."""
    if engine == "vllm" or not runs:
        yield Path(sys.executable)
    else:
        with warm_interpreter(Path(tempfile.mkdtemp(prefix="croco-")), read_environment()) as python:
            yield python


if __name__ == "__main__":
    cli.run(main)
