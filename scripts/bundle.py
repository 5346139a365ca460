"""Pack the evidence of a run into one small archive that others can check without a GPU: no weights.

Example:
  python scripts/bundle.py --root results/demo --runs results/demo/runs.jsonl --responses mini en english \\
      --config '{"results": "results/demo"}' --languages config/languages.tsv --output results/demo/bundle.tar.gz

It holds prompts, scores, pairs, ledgers, answers, verdicts, samples, metrics, tables, the report, every manifest, the
config, the table of languages and a README; with --responses the generations, too, from which pairs are formed again.
The same files give the same bytes. The root digest that is printed is over all names and hashes: publish it, and others
can tell whether they have your bundle. Check it: python scripts/verify.py results/demo/bundle.tar.gz
"""

import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path

from croco import cli
from croco.digests import file_digest
from croco.errors import InputError
from croco.files import partial_path
from croco.records import write_json
from croco.results.bundles import CONFIG, INDEX, LANGUAGES, README, root_digest, write_readme
from croco.results.coverage import find_origin, needs_manifest
from croco.runs import add_run_options, read_runs

# What is packed from a run's folder and from the output root, where it exists.
OF_A_RUN = (
    "*.json",
    "*.jsonl",
    "answers/*.jsonl",
    "arena/*",
    "eval/*",
    "fidelity/**/*.json*",
    "checkpoint/manifest.json",
    "checkpoint/metrics.jsonl",
)
OF_THE_ROOT = (
    "*.csv",
    "runs.jsonl",
    "*.html",
    "*.svg",
    "*.json",
    "tables/*",
    "audit/*.json*",
    "audit/*.md",
    "prompts/**/*.json*",
    "benchmarks/**/*.tsv",
)
UNFINISHED = ("state", "logs", "partial")  # folders without results


def main():
    args = parse_arguments()
    runs = [run.name for run in read_runs(args.runs)]
    with tempfile.TemporaryDirectory(prefix="croco-bundle-") as scratch:
        files = list_files(args) | write_own_files(args, runs, Path(scratch))
        index = {
            "root": str(args.root),
            "runs": runs,
            "files": {
                name: {"sha256": file_digest(path), "bytes": path.stat().st_size}
                for name, path in sorted(files.items())
            },
        }
        write_archive(args.output, files, index)
    size = args.output.stat().st_size
    print(f"{len(files)} files in {args.output}, {size / 2**20:.1f} MiB", file=sys.stderr)
    print(f"root digest  {root_digest(index)}")
    counts = {"files": len(files), "bytes": sum(entry["bytes"] for entry in index["files"].values()), "packed": size}
    cli.write_manifest(
        args.output.with_name("bundle.manifest.json"),
        __file__,
        args,
        {"bundle": args.output},
        counts=counts,
        root_digest=root_digest(index),
    )


def parse_arguments():
    parser = cli.parser(__doc__)
    add_run_options(parser)
    parser.add_argument(
        "--responses",
        nargs=3,
        action="append",
        default=[],
        metavar=("POLICY", "LANGUAGE", "REWARD_MODEL"),
        help="pack these responses and scores, too",
    )
    parser.add_argument(
        "--config", type=cli.mapping("--config"), required=True, metavar="JSON", help="the run's merged config"
    )
    parser.add_argument("--languages", type=Path, required=True, help="the run's table of languages")
    parser.add_argument("--output", type=Path, required=True, help="bundle.tar.gz to write")
    return parser.parse_args()


def list_files(args):
    """{name in the bundle: path}, sorted, without files that no stage has made.

    Raises InputError where a run has left nothing, or responses are missing.
    """
    found, runs = set(), {run.name: run for run in read_runs(args.runs)}
    for run in runs.values():
        folder = args.root / run.name
        of_run = [path for pattern in OF_A_RUN for path in folder.glob(pattern)]
        if not of_run:
            raise InputError("this run has no files", "let the workflow finish, then bundle", folder)
        found.update(of_run)
    found.update(path for pattern in OF_THE_ROOT for path in args.root.glob(pattern))
    found.update(list_of_page(args))
    for policy, language, reward in args.responses:
        folder = args.root / policy / language
        needed = [folder / "generations.jsonl", folder / "scores" / f"{reward}.jsonl"]
        missing = [path for path in needed if not path.is_file()]
        if missing:
            remedy = "let the workflow make it, or write bundle: {responses: false}"
            raise InputError("the bundle is to hold these responses, and the file is missing", remedy, missing[0])
        found.update(needed)
        # A language is only identified where a setting or the page asks for it.
        found.update(folder.glob("languages.jsonl"))
        found.update(path.with_suffix(".manifest.json") for path in [*needed, folder / "languages.jsonl"])
    found -= {args.root / name for name in (args.output.name, "bundle.manifest.json", "benchmarks/bundle.tsv")}
    files = {path.relative_to(args.root).as_posix(): path for path in sorted(found) if path.is_file()}
    foreign = [name for name in files if needs_manifest(name) and find_origin(name, runs).manifest not in files]
    if foreign:
        print(f"not packed, because no manifest says how they were made: {', '.join(foreign)}", file=sys.stderr)
    return {name: path for name, path in files.items() if name not in foreign}


def write_own_files(args, runs, folder):
    """{name in the bundle: path} of config, README and table of languages; the first two are written to ``folder``."""
    write_json(folder / CONFIG, args.config)
    (folder / README).write_text(write_readme(str(args.root), runs), encoding="utf-8")
    return {CONFIG: folder / CONFIG, README: folder / README, LANGUAGES: args.languages}


def list_of_page(args):
    """What the report page shows besides: rewards of all responses, and the manifests of all stages."""
    for run in read_runs(args.runs):
        for language in run.languages if run.uses_rewards else ():
            for end in ("jsonl", "manifest.json"):
                yield args.root / run.responses / language / "scores" / f"{run.reward_model}.{end}"
    for path in args.root.rglob("*manifest.json"):
        place = path.relative_to(args.root)
        if place.parts[0] not in UNFINISHED and not path.name.startswith("."):
            yield path


def write_archive(output, files, index):
    """A tar archive with the index first, without times and owners; it appears only when it is whole."""

    def add(archive, name, content, size):
        entry = tarfile.TarInfo(f"bundle/{name}")
        entry.size = size
        archive.addfile(entry, content)

    partial = partial_path(output)
    try:
        with (
            open(partial, "wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            text = json.dumps(index, ensure_ascii=False, indent=1).encode()
            add(archive, INDEX, io.BytesIO(text), len(text))
            for name, path in cli.progress(files.items(), desc="bundle", unit="file"):
                with open(path, "rb") as content:
                    add(archive, name, content, path.stat().st_size)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    cli.run(main)
