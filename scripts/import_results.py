"""Put results of other harnesses in a table with the columns of summary.csv.

Example:
  python scripts/import_results.py --import euroeval euroeval_benchmark_results.jsonl euroeval --root results/paper \\
      --runs results/paper/runs.jsonl --policy eurollm utter-project/EuroLLM-9B-Instruct-2512 \\
      --output results/paper/imported.csv

A result belongs to a policy, by its name or path, or to a tuned run: by MODEL/POOL/SETTING, the path of its checkpoint
or of its release, or its release's name on the hub (--release). Results of any other model are an error, and so are
those of another revision: the part after an @ must be the policy's (--revision) or the release's own (NAME@REVISION),
or main if they have none. Tasks are called NAME/TASK.

euroeval: JSON Lines of EuroEval 15 to 18. Its values are in percent and become shares, except bits per character. Its
`_se` is half of a 95 % interval: 1.96 times the standard error over its resampled test sets, whose number is n. `delta`
is the difference to the untuned policy's result in the same file, positive if better; its interval is that of two
independent values. A metric of which neither higher nor lower is better (bias_ambig) has none. Results that no run
evaluates (other languages, speed) and metrics that these versions lack are excluded and counted.
csv: a table with some of summary.csv's columns, each cell checked for what its column holds.
"""

import csv
import json
import math
import os
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.evaluation.directions import HIGHER, LOWER
from croco.files import replacing
from croco.records import load_json, read_jsonl, read_lines
from croco.results.metrics import better
from croco.results.table import BY_REWARDS, COLUMNS, name_run
from croco.runs import BASE, UNTUNED, add_run_options, read_runs
from croco.spreadsheets import guard_row, unguard_row

NEEDED = ("model", "pool", "setting", "eval_language", "task", "metric", "value")
# What the columns hold; the others are names.
WHOLE = ("round", "pool_size", "n")
SHARES = ("p", "p_adjusted", "q")
NUMBERS = (
    "value",
    "baseline_value",
    "delta",
    "se",
    "value_low",
    "value_high",
    "delta_low",
    "delta_high",
    "mde",
    *SHARES,
)
DIGITS, DECIMAL = r"[0-9]+", r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
NOT_PERCENT = ("bits_per_character",)
# The metrics of EuroEval 15 to 18, and which way each is better; bias_ambig has a sign, and 0 is best.
EUROEVAL = dict.fromkeys(
    (
        *("mcc", "accuracy", "macro_f1", "micro_f1", "micro_f1_no_misc", "f1", "em", "exact_match", "math_accuracy"),
        *("chr_f2", "chr_f3", "chr_f4", "chr_f2pp", "chr_f3pp", "chr_f4pp", "rouge_l", "bertscore", "meteor", "sari"),
        *("instruction_accuracy", "tool_calling_accuracy", "fluency", "model_graded_fact", "european_values"),
        *("puzzle_level_accuracy", "cell_wise_accuracy", "best_permuted_cell_wise_accuracy"),
        *("accuracy_ambig", "bias_adjusted_accuracy_ambig"),
    ),
    HIGHER,
) | {"hallucination_rate": LOWER, "bits_per_character": LOWER, "bias_ambig": None}
# What EuroEval cannot know of a single test set: its `_se`, or the ends of the interval that it is computed from.
UNKNOWN = re.compile(r'("(?:test_[^"\\]*_se|lower|upper)"\s*:\s*)NaN\b')
NORWEGIAN = {"nb": "no", "nn": "no"}


def main():
    args = parse_arguments()
    runs = read_runs(args.runs)
    known = list_names(args, runs)
    table, counts = [], {}
    for name, path, form in args.imports:
        left_out = Counter()
        read = read_euroeval if form == "euroeval" else read_table
        found = list(read(Path(path), name, known, left_out))
        refuse_twins(found, path)
        if form == "euroeval":
            compare(found, path)
        table += found
        counts[name] = {"rows": len(found), "left out": left_out}
    with replacing(args.output) as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(guard_row({key: format_cell(value) for key, value in row.items()}) for row in table)
    inputs = {name: path for name, path, _ in args.imports}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, counts=counts)


def parse_arguments():
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--import",
        dest="imports",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "PATH", "FORMAT"),
        help="results, with the prefix of their tasks; FORMAT is euroeval or csv",
    )
    add_run_options(parser)
    parser.add_argument("--policy", nargs=2, action="append", default=[], metavar=("NAME", "PATH"), help="a policy")
    parser.add_argument(
        "--revision", nargs=2, action="append", default=[], metavar=("NAME", "REVISION"), help="a policy's revision"
    )
    parser.add_argument(
        "--release", nargs=2, action="append", default=[], metavar=("RUN", "NAME"), help="a run's name on the hub"
    )
    parser.add_argument("--output", type=Path, required=True, help="imported.csv to write")
    args = parser.parse_args()
    if unknown := [form for *_, form in args.imports if form not in ("euroeval", "csv")]:
        parser.error(f"--import: unknown format {unknown[0]}")
    names = [name for name, *_ in args.imports]
    if twice := [name for name in names if names.count(name) > 1]:
        parser.error(f"--import: {twice[0]} twice; join the files, or give each its own name")
    return args


def list_names(args, runs):
    """{what another harness may call a model: {name: run}}, several runs where policies share a path."""
    paths, revisions, releases = dict(args.policy), dict(args.revision), dict(args.release)
    known = defaultdict(dict)
    for run in runs:
        release = args.root / "release" / run.name
        called = [run.name, args.root / run.name / "checkpoint", release, release / "model"]
        if run.is_base:
            called = [run.name, run.model, paths.get(run.model)]
        called = [str(text) for text in (*called, releases.get(run.name)) if text]
        revision = revisions.get(run.model, "main") if run.is_base else "main"
        for text in [*called, *(f"{text}@{revision}" for text in called if "@" not in text)]:
            for name in {text, os.path.abspath(text)}:
                known[name][run.name] = run
    return known


def find_run(model, known, path, line):
    """The run of a model's name, with its revision or without."""
    found = known.get(model) or known.get(os.path.abspath(model)) or refuse_model(model, known, path, line)
    if len(found) > 1:
        names = ", ".join(run.model for run in found.values())
        remedy = "name the policy in the file, or its path with @REVISION where the revisions differ"
        raise InputError(f"{model} is the path of several policies: {names}", remedy, path, line, "model")
    return next(iter(found.values()))


def refuse_model(model, known, path, line):
    raise InputError(
        f"the result is of {model}, which is not a model of this run",
        "give results of the config's policies, in their revision, and of its runs only: "
        f"{', '.join(sorted(name for name in known if not os.path.isabs(name)))}",
        path,
        line,
        "model",
    )


def find_run_of_row(row, known, path, line):
    """The run of a row in summary.csv's columns, where rounds of a setting differ in `round`; without one the last."""
    runs = {name: run for found in known.values() for name, run in found.items()}.values()
    named = tuple(row[name] for name in ("model", "pool", "setting"))
    rounds = [run for run in runs if (run.model, run.pool, run.setting) == named]
    if not rounds:
        refuse_model("/".join(named), known, path, line)
    last = max(rounds, key=lambda run: run.round)
    return next((run for run in rounds if str(run.round) == row.get("round")), last)


def read_euroeval(path, name, known, left_out):
    """Yields the rows of EuroEval's results, each with its own standard error under `error`."""
    # Up to version 17 each record begins with a line break.
    for line, record in read_jsonl(path, blank_lines=True, load=load_result):
        if "schema_version" in record:
            record = read_every_eval_ever(record, path, line)
        results = record.get("results")
        total = results.get("total") if isinstance(results, dict) else None
        languages = record.get(
            "languages", record.get("dataset_languages")
        )  # the first since version 16.12, the second before
        for field, value, kind in (
            ("model", record.get("model"), str),
            ("dataset", record.get("dataset"), str),
            ("task", record.get("task"), str),
            ("languages", languages, list),
            ("results.total", total, dict),
        ):
            if not isinstance(value, kind):
                raise InputError("missing, or of the wrong type", "give EuroEval's own JSON Lines", path, line, field)
        run = find_run(record["model"], known, path, line)
        raw = results.get("raw") or []
        task = f"{name}/{record['dataset']}{'-val' * bool(record.get('validation_split'))}"
        task += "-zero-shot" * (record.get("few_shot") is False)
        languages = {name for code in map(str, languages) for name in (code, NORWEGIAN.get(code, code))}
        if record["task"] == "speed" or not languages & set(run.evaluated):
            left_out["speed" if record["task"] == "speed" else "language not evaluated"] += 1
            continue
        tested = [key for key in total if key.startswith("test_") and not key.endswith("_se")]
        if not tested:
            left_out["no test result"] += 1
        for key in tested:
            value, metric = total[key], key.removeprefix("test_")
            if metric not in EUROEVAL:
                left_out[f"unknown metric {metric}"] += 1
                continue
            se = total.get(f"{key}_se")
            if not all(is_finite(number) for number in (value, se or 0)):
                left_out["not a number"] += 1
                continue
            unit = 1 if metric in NOT_PERCENT else 100
            if unit == 100 and abs(value) > 100:
                raise InputError(f"{value} is no percentage", "give EuroEval's own JSON Lines", path, line, key)
            for language in sorted(languages & set(run.evaluated)):
                yield {
                    **name_run(run),
                    "eval_language": language,
                    "task": task,
                    "metric": metric,
                    "better": EUROEVAL[metric],
                    "value": value / unit,
                    "n": len(raw.get("test", []) if isinstance(raw, dict) else raw) or None,
                    "error": None if se is None else se / 1.96 / unit,
                }


def load_result(text):
    """As load_json, but a standard error that is NaN becomes null; NaN elsewhere is no JSON."""
    return load_json(UNKNOWN.sub(r"\1null", text))


def read_every_eval_ever(record, path, line):
    """A record of EuroEval 17 and later (schema 0.2 of Every Eval Ever) in the form of those before."""
    try:
        library = record["eval_library"]
        details = library["additional_details"]
        total = {}
        for result in record["evaluation_results"]:
            name, scores = result["evaluation_name"], result["score_details"]
            total[name] = scores["score"]
            interval = (scores.get("uncertainty") or {}).get("confidence_interval")
            if interval and None not in (interval["lower"], interval["upper"]):
                if interval["confidence_level"] != 0.95:
                    raise InputError("not a 95 % interval", "give EuroEval's own", path, line, "confidence_level")
                total[f"{name}_se"] = (interval["upper"] - interval["lower"]) / 2
        read = {
            "model": record["model_info"]["name"],
            "dataset": record["evaluation_results"][0]["source_data"]["dataset_name"],
            "task": details["task"],
            "languages": json.loads(details["languages"]),
            "results": {"total": total, "raw": json.loads(details.get("raw_results") or "[]")},
            **{key: {"true": True, "false": False}.get(details.get(key)) for key in ("few_shot", "validation_split")},
        }
        harness = library["name"]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"no record of EuroEval in the schema of Every Eval Ever ({type(error).__name__}: {error})",
            "give EuroEval's own JSON Lines",
            path,
            line,
        ) from error
    if str(harness).lower() != "euroeval":
        raise InputError(f"a record of {harness}", "give EuroEval's own JSON Lines", path, line, "eval_library.name")
    return read


def is_finite(value):
    most = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


def compare(found, path):
    """Adds the difference to the untuned policy's result; warns where there is none in the file."""
    base = {
        tuple(row[key] for key in ("model", "eval_language", "task", "metric")): row
        for row in found
        if (row["pool"], row["setting"]) == (UNTUNED, BASE)
    }
    alone = Counter()
    for row in found:
        other = base.get(tuple(row[key] for key in ("model", "eval_language", "task", "metric")))
        alone[row["model"]] += other is None
        if other is None or other is row or row["better"] is None:
            continue
        sign = -1 if row["better"] == LOWER else 1
        row |= {"baseline": "base", "baseline_value": other["value"], "delta": sign * (row["value"] - other["value"])}
        if None not in (row["error"], other["error"]):
            row["se"] = math.hypot(row["error"], other["error"])
            half = 1.96 * row["se"]
            row |= {"delta_low": row["delta"] - half, "delta_high": row["delta"] + half}
    for model, count in (+alone).items():
        print(
            f"warning: {path}: {count} results of models tuned from {model} have no difference, because {model}'s own "
            "results on the same tasks are not in the file; if another file has them, join the two with cat",
            file=sys.stderr,
        )


def read_table(path, name, known, left_out):
    """Yields the rows of a CSV in summary.csv's columns."""
    reader = csv.DictReader((text + "\n" for _, text in read_lines(path)), strict=True)
    try:
        header = list(reader.fieldnames or [])
        missing, unknown = [c for c in NEEDED if c not in header], [c for c in header if c not in COLUMNS]
        twice = [c for c in header if header.count(c) > 1]
        if missing or unknown or twice:
            raise InputError(
                f"no column {missing[0]}"
                if missing
                else f"unknown column {unknown[0]}"
                if unknown
                else f"{twice[0]} twice",
                f"the columns are those of summary.csv; needed are {', '.join(NEEDED)}",
                path,
                1,
            )
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"not {len(header)} fields", "fix the row", path, reader.line_num)
            row = unguard_row(row)
            check_cells(row, path, reader.line_num)
            run = find_run_of_row(row, known, path, reader.line_num)
            names = name_run(run, by_rewards=row["metric"] in BY_REWARDS)
            for column in ("seed", "round", "reward_model", "pool_size"):
                cell, own = row.get(column), names[column]
                if cell and cell != str(own) and (column, cell) != ("seed", "all"):
                    raise InputError(f"{cell!r} where the run has {own}", "correct it", path, reader.line_num, column)
            if row["eval_language"] not in (*run.evaluated, "all"):
                left_out["language not evaluated"] += 1
                continue
            given = {key: value for key, value in row.items() if value}
            direction = None if "better" in row else better(row["metric"])
            yield {**name_run(run), "better": direction, **given, "task": f"{name}/{row['task']}"}
    except csv.Error as error:
        raise InputError(f"broken CSV ({error})", "quote as RFC 4180 says", path, reader.line_num) from error


def check_cells(row, path, line):
    """Raises InputError for a cell that is not what its column holds; all but the needed ones may be empty."""
    for name, cell in row.items():
        field = {"path": path, "line": line, "field": name}
        if not cell:
            if name in NEEDED:
                raise InputError("empty", "fill in the cell", **field)
            continue
        if name in WHOLE or name in NUMBERS:
            if not re.fullmatch(DIGITS if name in WHOLE else DECIMAL, cell, re.ASCII):
                kind = "not a whole number" if name in WHOLE else "not a number"
                raise InputError(f"{cell!r} is {kind}", "write a finite number, its decimals behind a point", **field)
            if not math.isfinite(float(cell)):
                raise InputError(f"{cell!r} is too large", "write a finite number", **field)
        if name in SHARES and not 0 <= float(cell) <= 1:
            raise InputError(f"{cell} is no share of 1", "write a p value as a number from 0 to 1", **field)
        if name in ("se", "mde") and float(cell) < 0:
            raise InputError(f"{cell} is below 0", "write a standard error or an effect's size, without sign", **field)
        if name not in (*WHOLE, *NUMBERS) and (cell != cell.strip() or not cell.isprintable()):
            raise InputError(f"{cell!r} has spaces around it or invisible characters", "fix the cell", **field)
    for name in ("value", "delta"):
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        if bool(low) != bool(high) or (low and float(low) > float(high)):
            raise InputError("no interval", "give both ends, the lower one first", path, line, f"{name}_low")
    if row.get("better") not in (None, "", HIGHER, LOWER):
        raise InputError(f"{row['better']!r} is no direction", f"write {HIGHER} or {LOWER}", path, line, "better")
    if row.get("delta") and not row.get("baseline"):
        raise InputError("empty beside a delta", "name what the result is compared with", path, line, "baseline")
    if row.get("delta") and row.get("baseline_value"):
        difference = float(row["value"]) - float(row["baseline_value"])
        wanted = -difference if (row.get("better") or better(row["metric"])) == LOWER else difference
        if not math.isclose(float(row["delta"]), wanted, rel_tol=1e-3, abs_tol=2e-5):
            raise InputError(
                f"{row['delta']} is not the difference of value and baseline_value, {wanted:.6g}",
                "give value - baseline_value, or the other way round for a metric where lower is better",
                path,
                line,
                "delta",
            )


def refuse_twins(found, path):
    seen = set()
    for row in found:
        key = tuple(str(row.get(name)) for name in (*NEEDED[:-1], "seed", "round", "baseline"))
        if key in seen:
            raise InputError(
                f"two results of {row['model']}/{row['pool']}/{row['setting']} for {row['task']}, {row['metric']}",
                "keep one of them",
                path,
            )
        seen.add(key)


def format_cell(value):
    return f"{value:.6g}" if isinstance(value, float) else value


if __name__ == "__main__":
    cli.run(main)
