"""Put results of other harnesses in a table with the columns of summary.csv.

Example:
  python scripts/import_results.py --import euroeval euroeval_benchmark_results.jsonl euroeval --root results/paper \\
      --policy eurollm utter-project/EuroLLM-9B-Instruct-2512 --run eurollm untuned base 1 - - en,de \\
      --run eurollm multi dpo 1 skywork 64 en,de --output results/paper/imported.csv

A result belongs to a policy, by its name or path, or to a tuned run: by MODEL/POOL/SETTING, the path of its checkpoint
or of its release, or its release's name on the hub (--release). Results of any other model are an error. Tasks are
called NAME/TASK.

euroeval: EuroEval's JSON Lines. Its values are percent, here shares; its `_se` is half of a 95 % interval, 1.96 times
the standard error over its resampled test sets, whose number is n. `delta` is against the same policy's imported
result, its interval that of two independent values. What no run evaluates (languages, speed) is counted and left out.
csv: a table with some of summary.csv's columns, taken as it is.
"""

import csv
import math
import os
from collections import Counter
from pathlib import Path

from croco import cli
from croco.records import InputError, read_jsonl, replacing
from croco.runs import COLUMNS, RUN, add_run_options, identify, read_runs

NEEDED = ("model", "language", "setting", "eval_language", "task", "metric", "value")
NORWEGIAN = {"nb": "no", "nn": "no"}


def main():
    args = parse_arguments()
    runs = read_runs(args, RUN)
    known = list_names(args, runs)
    table, counts = [], {}
    for name, path, form in args.imports:
        left_out = Counter()
        read = read_euroeval if form == "euroeval" else read_table
        found = list(read(Path(path), name, known, left_out))
        refuse_twins(found, path)
        if form == "euroeval":
            compare(found)
        table += found
        counts[name] = {"rows": len(found), "left out": left_out}
    with replacing(args.output) as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: format_cell(value) for key, value in row.items()} for row in table)
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
    add_run_options(parser, RUN)
    parser.add_argument("--policy", nargs=2, action="append", default=[], metavar=("NAME", "PATH"), help="a policy")
    parser.add_argument(
        "--release", nargs=2, action="append", default=[], metavar=("RUN", "NAME"), help="a run's name on the hub"
    )
    parser.add_argument("--output", type=Path, required=True, help="imported.csv to write")
    args = parser.parse_args()
    if unknown := [form for *_, form in args.imports if form not in ("euroeval", "csv")]:
        parser.error(f"--import: unknown format {unknown[0]}")
    return args


def list_names(args, runs):
    """{what another harness may call a model: run}."""
    paths, releases, known = dict(args.policy), dict(args.release), {}
    for run in runs:
        name = f"{run['model']}/{run['pool']}/{run['part']}"
        called = [name, run["folder"] / "checkpoint", args.root / "release" / name]
        if (run["pool"], run["part"]) == ("untuned", "base"):
            called = [name, run["model"], paths.get(run["model"])]
        for text in filter(None, [*called, releases.get(name)]):
            known[str(text)] = known[os.path.abspath(text)] = run
    return known


def find_run(model, known, path, line):
    """The run of a model's name; a commit behind an @ is no part of it."""
    name = model.split("@")[0].rstrip("/")
    run = known.get(name) or known.get(os.path.abspath(name))
    if run is None:
        raise InputError(
            f"the result is of {model}, which is no model of this run",
            "give results of the config's policies and runs only: "
            f"{', '.join(sorted(name for name in known if not os.path.isabs(name)))}",
            path,
            line,
            "model",
        )
    return run


def read_euroeval(path, name, known, left_out):
    """Yields the rows of EuroEval's results, each with its own standard error under `error`."""
    for line, record in read_jsonl(path):
        total = (record.get("results") or {}).get("total") if isinstance(record.get("results"), dict) else None
        for field, kind in (("model", str), ("dataset", str), ("task", str), ("dataset_languages", list)):
            if not isinstance(record.get(field), kind):
                raise InputError("missing, or of the wrong type", "give EuroEval's own JSON Lines", path, line, field)
        if not isinstance(total, dict):
            raise InputError("missing", "give EuroEval's own JSON Lines", path, line, "results.total")
        run = find_run(record["model"], known, path, line)
        raw = record["results"].get("raw") or []
        task = f"{name}/{record['dataset']}{'-val' * bool(record.get('validation_split'))}"
        task += "-zero-shot" * (record.get("few_shot") is False)
        languages = {NORWEGIAN.get(code, code) for code in record["dataset_languages"]}
        if record["task"] == "speed" or not languages & set(run["languages"]):
            left_out["speed" if record["task"] == "speed" else "language not evaluated"] += 1
            continue
        for key, value in total.items():
            if not key.startswith("test_") or key.endswith("_se"):
                continue
            se = total.get(f"{key}_se")
            if not all(isinstance(number, int | float) and math.isfinite(number) for number in (value, se or 0)):
                left_out["not a number"] += 1
                continue
            for language in sorted(languages & set(run["languages"])):
                yield {
                    **identify(run),
                    "eval_language": language,
                    "task": task,
                    "metric": key.removeprefix("test_"),
                    "value": value / 100,
                    "n": len(raw.get("test", []) if isinstance(raw, dict) else raw) or None,
                    "error": None if se is None else se / 1.96 / 100,
                }


def compare(found):
    """Adds the difference to the untuned policy's result, where there is one."""
    base = {
        tuple(row[key] for key in ("model", "eval_language", "task", "metric")): row
        for row in found
        if (row["language"], row["setting"]) == ("untuned", "base")
    }
    for row in found:
        other = base.get(tuple(row[key] for key in ("model", "eval_language", "task", "metric")))
        if other is None or other is row:
            continue
        row |= {"baseline": "base", "baseline_value": other["value"], "delta": row["value"] - other["value"]}
        if None not in (row["error"], other["error"]):
            row["se"] = math.hypot(row["error"], other["error"])
            half = 1.96 * row["se"]
            row |= {"ci_low": row["delta"] - half, "ci_high": row["delta"] + half}


def read_table(path, name, known, left_out):
    """Yields the rows of a CSV in summary.csv's columns."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        header = reader.fieldnames or []
        missing, unknown = [c for c in NEEDED if c not in header], [c for c in header if c not in COLUMNS]
        if missing or unknown:
            raise InputError(
                f"no column {missing[0]}" if missing else f"unknown column {unknown[0]}",
                f"the columns are those of summary.csv; needed are {', '.join(NEEDED)}",
                path,
                1,
            )
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"not {len(header)} fields", "mend the row", path, reader.line_num)
            run = find_run(f"{row['model']}/{row['language']}/{row['setting']}", known, path, reader.line_num)
            if row["eval_language"] not in (*run["languages"], "all"):
                left_out["language not evaluated"] += 1
                continue
            try:
                finite = math.isfinite(float(row["value"]))
            except ValueError:
                finite = False
            if not finite:
                raise InputError("the value is no number", "write a decimal number", path, reader.line_num, "value")
            given = {key: value for key, value in row.items() if value}
            yield {**identify(run), **given, "task": f"{name}/{row['task']}"}


def refuse_twins(found, path):
    seen = set()
    for row in found:
        key = tuple(str(row.get(name)) for name in (*NEEDED[:-1], "seed", "round", "baseline"))
        if key in seen:
            raise InputError(
                f"two results of {row['model']}/{row['language']}/{row['setting']} for {row['task']}, {row['metric']}",
                "keep one of them",
                path,
            )
        seen.add(key)


def format_cell(value):
    return f"{value:.6g}" if isinstance(value, float) else value


if __name__ == "__main__":
    cli.run(main)
