"""Check someone else's results: recompute what a bundle says from its own evidence, without a GPU.

Example:
  python scripts/verify.py results/demo/bundle.tar.gz

PATH is a bundle (target `bundle`), or the folder that it was unpacked to. The checks are:
  1. The files are those that were packed, the run table is the one of the config, and what every run must have is there.
  2. Each result has a manifest, of the stage that makes it, whose inputs are the files in the bundle.
  3. Ledgers add up, and their pairs keep the rules. Results of structured tasks are the means of their samples.
  4. Pairs, verdicts, measures of answers, statistics, tables, findings, the report page and its plots come out the
     same, to the byte, when this checkout's scripts make them again with the options of their manifests.
Files that need a model (responses, rewards, an LLM judge's replies, tuning), and what the authors only say, cannot be
checked and are counted with the reason. The exit code is 1 if anything does not match.

The last line is the root digest over all names and hashes. Compare it with the authors' (--digest): a bundle that
matches in itself may still be another one than theirs. A bundle is data: it is unpacked within limits, and only listed
options of its manifests reach a command line.
"""

import csv
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from audit import format_table
from croco import cli
from croco.config.read import build_foreign_grid
from croco.digests import code_digest, file_digest
from croco.errors import InputError
from croco.files import publish, replacing
from croco.records import dump, rows, write_json
from croco.results.bundles import (
    CONFIG,
    FOLDER,
    INDEX,
    LANGUAGES,
    MIB,
    README,
    START,
    Limits,
    read_index,
    root_digest,
    unpack,
    write_readme,
)
from croco.results.choices import list_choices
from croco.results.coverage import (
    NO_MANIFEST,
    find_origin,
    find_wrong_means,
    list_evidence,
    list_expected,
    needs_manifest,
)
from croco.results.repeat import OPTIONS, Missing, Places, Refused, list_arguments
from croco.runs import name_data, read_runs

SCRIPTS = Path(__file__).resolve().parent
CHECKOUT = SCRIPTS.parent
CONTENT_DIGESTS = ("evaluate",)  # stages that identify inputs by their content, not by their files
# Why a stage cannot be repeated: inputs that may not be packed.
NEEDS_A_MODEL = {
    "generate": "responses are sampled by the policy",
    "gather": "its parts are not packed",
    "score": "rewards are given by the reward model",
    "train": "a training is repeated on a GPU",
    "evaluate": "answers are given by the model",
    "audit": "rewards are given by the reward model",
    "translate": "translations are made by a model",
    "prompts": "the source data is not packed",
    "identify": "it is repeated only with the responses",
    "import_results": "results of other harnesses are not packed",
}
OF_A_RUN = ("build_pairs", "train", "evaluate", "judge", "fidelity")  # stages whose results are in a run's folder
MAY_LACK_INPUTS = ("build_pairs", "contamination")  # responses and data of tasks may not be packed
RUNS, PAGE = "runs.jsonl", "report.html"
PAGE_MANIFEST, SUMMARY_MANIFEST = "report.manifest.json", "summary.manifest.json"
# What reading a file may raise that holds something else than its format says.
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, csv.Error)


class Account:
    """What was checked: how many matched, what did not, and what cannot be checked, by reason."""

    def __init__(self):
        self.matched, self.mismatches, self.unchecked = Counter(), [], Counter()
        self.made_again = set()  # files
        self.page_written = False  # to --report
        self.excused = {}  # {manifest: why its outputs are not made again}
        self.left_over = set()  # manifests of runs that are no longer in the run table

    def see(self, what, matches, where, problem):
        """Counts one check of the kind ``what``, or notes the problem and where it is."""
        if matches:
            self.matched[what] += 1
        else:
            self.mismatches.append(f"{where}: {problem}")

    @contextmanager
    def reading(self, what, where):
        """Around what reads a file of the bundle: one that cannot be read is a mismatch, and the other checks go on."""
        try:
            yield
        except InputError as error:
            self.see(what, False, where, error.problem[:200])
        except DAMAGE as error:
            self.see(what, False, where, f"cannot be read ({error!r})"[:200])


def main():
    args = parse_arguments()
    account = Account()
    with tempfile.TemporaryDirectory(prefix="croco-verify-") as scratch:
        folder = open_bundle(args, Path(scratch))
        index = read_index(folder, args.limits)
        check_files(folder, index, account)
        manifests = read_manifests(folder, index, account)
        runs = read_run_table(folder, index, account)
        config = read_config(folder, account)
        account.left_over = find_left_over(index, manifests, runs)
        grid = read_grid(folder, config, account)
        check_run_table(grid, runs, account)
        choices = list_choices(grid) if grid else {}
        check_expected(index, manifests, runs, choices, account)
        check_choices(manifests, choices, account)
        check_evidence(index, manifests, runs, config, account)
        check_inputs(folder, index, manifests, account)
        check_ledgers(folder, index, account)
        check_readme(folder, index, account)
        check_means(folder, index, account)
        check_audits(folder, index, account)
        recompute(args, folder, index, manifests, account, Path(scratch))
        list_unchecked(index, manifests, runs, account)
    found = root_digest(index)
    if args.digest:
        account.see("digest", args.digest == found, INDEX, "has another root digest than --digest")
    print_account(account)
    print(f"root digest  {found}")
    sys.exit(1 if account.mismatches else 0)


def parse_arguments():
    parser = cli.parser(__doc__, outputs=("report",))
    parser.add_argument("path", type=Path, metavar="PATH", help="bundle.tar.gz, or the folder it was unpacked to")
    parser.add_argument("--digest", metavar="HEX", help="the root digest that the authors published")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report page made again from the bundle")
    parser.add_argument("--cores", type=cli.positive, default=2, help="scripts at once")
    parser.add_argument("--minutes", type=cli.positive, default=60, help="time of one script at most")
    parser.add_argument(
        "--max-mib", type=cli.positive, default=Limits.total // MIB, help="MiB that the bundle may unpack to"
    )
    parser.add_argument(
        "--max-file-mib", type=cli.positive, default=Limits.single // MIB, help="MiB of one file at most"
    )
    parser.add_argument("--max-files", type=cli.positive, default=Limits.files, help="number of files at most")
    parser.add_argument("--max-depth", type=cli.positive, default=Limits.depth, help="parts of a path at most")
    parser.add_argument("--max-name", type=cli.positive, default=Limits.name, help="bytes of a file's name at most")
    args = parser.parse_args()
    args.limits = Limits(
        total=args.max_mib * MIB,
        single=args.max_file_mib * MIB,
        files=args.max_files,
        depth=args.max_depth,
        name=args.max_name,
    )
    return args


def open_bundle(args, scratch):
    """The folder of the bundle's files: unpacked to ``scratch``, or where it was unpacked before."""
    path = args.path
    if path.is_dir():
        return path / FOLDER if (path / FOLDER / INDEX).is_file() else path
    return unpack(path, scratch, args.limits)


def check_files(folder, index, account):
    for name, entry in cli.progress(index["files"].items(), desc="files", unit="file"):
        path = folder / name
        if not path.is_file():
            account.see("files", False, name, "is missing")
        else:
            account.see("files", file_digest(path) == entry["sha256"], name, "is not the file that was packed")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(there - index["files"].keys() - {INDEX}):
        account.see("files", False, name, "was not packed with the others")


def read_manifests(folder, index, account):
    """{name: manifest} of all manifests that can be read."""
    manifests = {}
    for name in index["files"]:
        if name.endswith("manifest.json") and (folder / name).is_file():
            with account.reading("manifests", name):
                manifest = json.loads((folder / name).read_text(encoding="utf-8"))
                told = manifest["stage"], manifest["options"], manifest.get("inputs") or {}
                if not all(map(isinstance, told, (str, dict, dict))):
                    raise ValueError("stage, options or inputs are of another kind")
                manifests[name] = manifest
    return manifests


def read_run_table(folder, index, account):
    """{name: Run} of runs.jsonl, which are the runs of the index."""
    with account.reading("runs", RUNS):
        runs = {run.name: run for run in read_runs(folder / RUNS)}
        account.see("runs", sorted(runs) == sorted(index["runs"]), RUNS, "has other runs than the bundle's index")
        return runs
    return {}


def read_config(folder, account):
    """The packed config, {} where it is none."""
    with account.reading("runs", CONFIG):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
        account.see("runs", False, CONFIG, "is no config, which is a mapping of keys to values")
    return {}


def find_left_over(index, manifests, runs):
    """Manifests of runs that are no longer in the run table, because the config lost their setting, pool or seed.

    The page shows the manifests of all that was done, so they are packed, without results: there is nothing to check.
    """
    origins = {find_origin(name, runs).manifest for name in index["files"] if needs_manifest(name)}
    return {
        name
        for name, manifest in manifests.items()
        if (manifest["stage"] in OF_A_RUN or (manifest["stage"] == "score" and "/fidelity/" in name))
        and name not in origins
        and not any(name.startswith(f"{run}/") for run in runs)
    }


def read_grid(folder, config, account):
    """The Grid of the packed config, None where it is no config of this checkout."""
    if config and (folder / LANGUAGES).is_file():
        with account.reading("runs", CONFIG):
            try:
                return build_foreign_grid(config, CHECKOUT, folder / LANGUAGES)
            except InputError as error:
                account.see("runs", False, CONFIG, f"is no config of this checkout: {error.problem[:200]}")
    return None


def check_run_table(grid, runs, account):
    """The run table is the one of the packed config."""
    if grid:
        wanted = [json.loads(dump(run.to_row())) for run in grid.runs.values()]
        same = wanted == [json.loads(dump(run.to_row())) for run in runs.values()]
        account.see("runs", same, RUNS, f"is not the run table of {CONFIG}")
        account.made_again.add(RUNS)


def check_expected(index, manifests, runs, choices, account):
    """What every run of the run table must have is there."""
    asked = choices.get(SUMMARY_MANIFEST) or manifests.get(SUMMARY_MANIFEST, {"options": {}})["options"]
    for name in list_expected(runs.values(), judged=bool(asked.get("judged")), fidelity=bool(asked.get("fidelity"))):
        account.see("expected files", name in index["files"], name, "is not in the bundle")


def check_choices(manifests, choices, account):
    """Pairs, verdicts and tables were made as the packed config says: ``choices`` of list_choices."""
    for name in sorted(choices.keys() & manifests.keys()):
        told = manifests[name]["options"]
        for option, wanted in choices[name].items():
            same = (told.get(option) or None) == (wanted or None)
            account.see("choices", same, name, f"was made with another {option} than {CONFIG} says")


def check_evidence(index, manifests, runs, config, account):
    """Each result has a manifest of the stage that makes it, made from the files of its own run."""
    places = Places(index["root"], Path(), Path())
    for name in index["files"]:
        if not needs_manifest(name):
            continue
        origin = find_origin(name, runs)
        if origin.manifest not in manifests:
            account.see("origins", False, name, f"has no manifest ({origin.manifest})")
            continue
        manifest = manifests[origin.manifest]
        stage, options = manifest["stage"], manifest["options"]
        right = origin.stage in (None, stage)
        account.see("origins", right, name, f"is made by {origin.stage}; its manifest is of {stage[:40]!r}")
        for option, place in list_evidence(stage, origin.run, config).items() if right else ():
            value = options.get(option)
            texts = value if isinstance(value, list) else [value]
            names = [places.name_of(text) if isinstance(text, str) else None for text in texts]
            if place is None:
                account.see(
                    "origins", value is None, name, f"was made with {option}, which its config does not ask for"
                )
                continue
            fits = [each == place or (place.endswith("/") and str(each).startswith(place)) for each in names]
            account.see("origins", all(fits), name, f"was made with another {option} than {place or 'the bundle'}")


def check_readme(folder, index, account):
    """The README is the one that bundle.py writes."""
    if (folder / README).is_file():
        text = (folder / README).read_bytes()
        written = write_readme(index["root"], index["runs"]).encode()
        account.see("README", text == written, README, "is not the one that bundle.py writes")
        account.made_again.add(README)


def check_means(folder, index, account):
    """Results of structured tasks are the means over their documents."""
    for name in index["files"]:
        samples = folder / name.replace(".json", ".samples.jsonl")
        if not (name.endswith(".json") and "/eval/" in name and needs_manifest(name) and samples.is_file()):
            continue
        with account.reading("structured tasks", name):
            wrong = find_wrong_means(json.loads((folder / name).read_text(encoding="utf-8")), list(rows(samples)))
            account.see("structured tasks", not wrong, name, f"not the means of its samples: {', '.join(wrong)[:200]}")


def check_audits(folder, index, account):
    """An audit's table is the one of its results."""
    for name in index["files"]:
        if not re.fullmatch(r"audit/[^/]+\.md", name):
            continue
        account.made_again.add(name)
        with account.reading("audits", name):
            report = json.loads((folder / name).with_suffix(".json").read_text(encoding="utf-8"))
            same = format_table(report) == (folder / name).read_text(encoding="utf-8")
            account.see("audits", same, name, "is not the table of the audit's results")


def list_unchecked(index, manifests, runs, account):
    """Every file that nothing has made again is counted with the reason; without one it is a mismatch."""
    for name in sorted(index["files"].keys() - account.made_again):
        if name in account.left_over:
            account.unchecked[f"manifests of runs that {RUNS} does not have, whose results are not packed"] += 1
        elif name.endswith("manifest.json"):
            account.unchecked["manifests: code, versions, seeds and times are what the authors say"] += 1
        elif name.startswith("benchmarks/"):
            account.unchecked["benchmarks: times and memory were measured by the authors"] += 1
        elif name in NO_MANIFEST:
            account.unchecked[f"{name}: {NO_MANIFEST[name]}"] += 1
        elif (manifest := find_origin(name, runs).manifest) in account.excused:
            account.unchecked[f"files of {account.excused[manifest]}"] += 1
        elif manifest in manifests:
            account.see("outputs", False, name, f"is not made again by what {manifest} says")


def check_inputs(folder, index, manifests, account):
    """Compares the digests of inputs in each manifest with the files of the bundle."""
    places = Places(index["root"], folder, folder)
    for name, manifest in manifests.items():
        if name in account.left_over:  # the inputs may have been made again since
            continue
        for label, known in (manifest.get("inputs") or {}).items():
            option = manifest["options"].get(label)
            texts = [label, *(option if isinstance(option, list) else [option])]
            names = [places.name_of(text) for text in texts if isinstance(text, str)]
            paths = [folder / name for name in names if name in index["files"] and (folder / name).is_file()]
            if not isinstance(known, str) or not paths or manifest["stage"] in CONTENT_DIGESTS:
                account.unchecked[f"inputs of {manifest['stage']} that are not packed, or are models"] += 1
                continue
            # A job of several languages names all their files, and the digest of one.
            same = known in (file_digest(path) for path in paths)
            account.see("inputs", same, name, f"was made from another {label} than the bundle's")


def check_ledgers(folder, index, account):
    """Each ledger adds up, its rows are there, and each pair keeps the rule that makes it one."""
    for run in index["runs"]:
        if (folder / run / "ledger.json").is_file():
            with account.reading("ledgers", f"{run}/ledger.json"):
                check_ledger(folder, run, account)


def check_ledger(folder, run, account):
    ledger, where = json.loads((folder / run / "ledger.json").read_text(encoding="utf-8")), f"{run}/ledger.json"
    total = ledger["formed"] + sum(ledger["no_pair"].values())
    account.see("ledgers", ledger["prompts"] == total, where, f"{ledger['prompts']} prompts, {total} accounted for")
    for language, counts in ledger["languages"].items():
        accounted = counts["eligible"] + sum(counts["left_out"].values())
        account.see(
            "ledgers",
            counts["responses"] == accounted,
            where,
            f"{language}: {counts['responses']} responses, {accounted} accounted for",
        )
    name = name_data(ledger["target"])
    data = folder / run / f"{name}.jsonl"
    if not data.is_file():
        account.see("ledgers", False, f"{run}/{name}.jsonl", "is missing")
        return
    with account.reading("ledgers", f"{run}/{name}.jsonl"):
        count = 0
        for count, row in enumerate(rows(data), start=1):
            if ledger["target"] == "pair" and ledger.get("rejected") not in ("random", None):
                # Rewards standardised by language are compared before the raw ones that are written.
                ordered = row["rejected_reward"] < row["chosen_reward"] or ledger.get("standardised")
                account.see("pairs", bool(ordered), f"{run}/pairs.jsonl:{count}", "rejected is not below chosen")
        account.see("ledgers", count == ledger["formed"], where, f"says {ledger['formed']} rows, there are {count}")


def recompute(args, folder, index, manifests, account, scratch):
    """Makes the outputs of the stages that need no model once more, and compares their bytes."""
    commands = {}
    for name, manifest in manifests.items():
        stage, options = manifest["stage"], manifest["options"]
        if stage not in OPTIONS:
            account.excused[name] = f"{stage[:40]}: {NEEDS_A_MODEL.get(stage, 'it is not repeated')}"
            continue
        if stage == "judge" and options.get("judge") != "oracle":
            account.excused[name] = "an LLM judge: its replies are given by a model"
            continue
        again = scratch / "again" / f"{len(commands)}"
        if stage == "report":
            places = arrange_page(folder, index, manifest, scratch / "page", again)
        else:
            places = Places(index["root"], folder, again)
        try:
            command = Command(stage, list_arguments(stage, options, places), places)
        except Missing as error:
            account.excused[name] = f"{stage}: {error}"
            required = stage not in MAY_LACK_INPUTS or name == "contamination.manifest.json"
            if required and name not in account.left_over:
                account.see("inputs", False, name, f"cannot be made again: {error}")
        except Refused as error:
            account.see("options", False, name, f"is not repeated: {error}")
        else:
            if name not in account.left_over:
                # A job of several languages leaves a manifest for each: one recomputation is enough.
                job = json.dumps([stage, options], sort_keys=True)
                commands.setdefault(job, (name, command))
    with ThreadPoolExecutor(args.cores) as pool:
        results = pool.map(lambda entry: run_command(entry[1], args.minutes), commands.values())
        for (name, command), error in cli.progress(
            zip(commands.values(), results, strict=True), total=len(commands), desc="recompute", unit="output"
        ):
            compare(folder, manifests[name], name, command, error, account)
            page = command.places.scratch / PAGE
            if args.report and name == PAGE_MANIFEST and page.is_file():
                write_page(args.report, command.read_written(page))
                account.page_written = True
    if args.report and not account.page_written:
        account.see("report", False, PAGE, "cannot be made again, so --report is not written")


def write_page(path, content):
    with replacing(path) as file:
        file.write(content.decode("utf-8"))


def arrange_page(folder, index, manifest, view, again):
    """Places of the page: it shows paths under the output root all manifests of its time and no later ones, and the config.

    So the evidence is put in a folder with the output root's name.
    """
    evidence = view.resolve() / (PurePosixPath(index["root"]).name or "results")
    shown = manifest.get("manifests")
    for name in index["files"]:
        later = name.endswith("manifest.json") and isinstance(shown, list) and name not in shown
        if not later and (folder / name).is_file():
            publish(folder / name, evidence / name)
    if isinstance(config := manifest.get("config"), dict):
        write_json(evidence / START, {"config": config})
    return Places(index["root"], evidence, again)


@dataclass(frozen=True)
class Command:
    """A script's command line; what it writes is compared with the bundle's files of the same names."""

    stage: str
    arguments: list[str]
    places: Places

    def read_written(self, path):
        """The bytes of a file that it has written; paths of the evidence are named as the authors name them."""
        content = path.read_bytes()
        if self.stage == "report":
            content = content.replace(str(self.places.evidence).encode(), self.places.root.rstrip("/").encode())
        return content


def run_command(command, minutes):
    """None, or the last lines of what a stage said when it failed."""
    command.places.scratch.mkdir(parents=True)
    script = SCRIPTS / f"{command.stage}.py"
    try:
        done = subprocess.run(
            [sys.executable, str(script), *command.arguments],
            cwd=command.places.scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=minutes * 60,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {minutes} minutes (--minutes)"
    except OSError as error:  # more options than a command line holds
        return str(error)
    return None if done.returncode == 0 else "\n".join(done.stderr.strip().splitlines()[-3:])


def compare(folder, manifest, name, command, error, account):
    other = manifest.get("code_digest") != code_digest(str(SCRIPTS / f"{command.stage}.py"))
    note = " (made by other code than this checkout's)" if other else ""
    if error:
        account.see(command.stage, False, name, f"cannot be made again{note}: {error}")
        return
    for path in sorted(command.places.scratch.rglob("*")):
        relative = path.relative_to(command.places.scratch).as_posix()
        if path.is_file() and not path.name.endswith("manifest.json"):
            packed = folder / relative
            same = packed.is_file() and packed.read_bytes() == command.read_written(path)
            account.see(command.stage, same, relative, f"comes out differently{note}")
            account.made_again.add(relative)


def print_account(account):
    for what, count in account.matched.items():
        print(f"matches      {what}: {count}")
    for what, count in sorted(account.unchecked.items()):
        print(f"not checked  {what}: {count}")
    for line in account.mismatches:
        print(f"MISMATCH     {line}")
    print(f"{account.matched.total()} checks match, {len(account.mismatches)} do not")


if __name__ == "__main__":
    cli.run(main)
