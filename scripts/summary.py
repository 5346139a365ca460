"""Put all results in one table: a row for each model, pool, setting, evaluation language, task and metric.

Example:
  python scripts/summary.py --root results/demo --run mini untuned base 1 - - en,de \\
      --run mini multi dpo 1 english 64 en,de --contrast dpo multi base --judged --output summary.csv

`delta` is value - baseline_value over the same prompts, with a 95 % paired bootstrap interval over prompts (of the
value itself for win rates); the row `all` takes each prompt's mean over languages first. `p` is of a paired
permutation test, `p_adjusted` (Holm) belongs to the declared contrasts alone.
"""

from collections import defaultdict
from pathlib import Path

import pandas as pd

from croco import cli
from croco.digests import derive_seed
from croco.records import InputError, replacing, rows
from croco.runs import add_run_options, find_last, read_runs
from croco.statistics import holm, paired_interval, paired_p

COLUMNS = [
    "model",
    "language",
    "setting",
    "seed",
    "round",
    "reward_model",
    "pool_size",
    "eval_language",
    "task",
    "metric",
    "value",
    "n",
    "baseline",
    "baseline_value",
    "delta",
    "ci_low",
    "ci_high",
    "p",
    "p_adjusted",
]
RUN = ["MODEL", "POOL", "SETTING", "SEED", "REWARD_MODEL", "POOL_SIZE", "LANGUAGES"]
BASE = ("untuned", "base")


def main():
    args = parse_arguments()
    runs = read_runs(args, RUN)
    for run in runs:
        read_results(args, run)
    table = [row for run in runs for row in summarise(run, find_last(runs, run["model"], *BASE))]
    table += contrast_rows(args, runs)
    adjust(args, runs, table)
    write_csv(args.output, table)
    inputs = {str(path): path for run in runs for path in run["files"]}
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, inputs, rows=len(table))


def parse_arguments():
    parser = cli.parser(__doc__)
    add_run_options(parser, RUN)
    parser.add_argument("--judged", action="store_true", help="the run has pairwise verdicts (arena/)")
    parser.add_argument("--output", type=Path, required=True, help="summary.csv to write")
    return parser.parse_args()


def read_results(args, run):
    """Adds a run's results, {(task, metric): {language: {prompt: value}}}, its base's quality, and the files read."""
    results = run["results"] = defaultdict(dict)
    run["files"] = []
    for language in run["languages"]:
        run["files"].append(run["folder"] / "eval" / f"{language}.samples.jsonl")
        for sample in rows(run["files"][-1]):
            prompt = sample["doc_hash"] if sample["prompt_id"] is None else str(sample["prompt_id"])
            for metric in sample.keys() - {"task", "prompt_id", "doc_hash", "target", "response"}:
                results[sample["task"], metric].setdefault(language, {})[prompt] = sample[metric]
        if args.judged and (run["pool"], run["setting"]) != BASE:
            run["files"].append(run["folder"] / "arena" / f"{language}.jsonl")
            judged = [line for line in rows(run["files"][-1]) if line["score"] is not None]
            if not judged:  # no verdict of the language can be read
                continue
            results["arena", "win_rate"][language] = {line["prompt_id"]: line["score"] for line in judged}
            if judged[0]["quality"] is None:  # a model's verdicts have none
                continue
            results["arena", "quality"][language] = {line["prompt_id"]: line["quality"] for line in judged}
            run.setdefault("base_quality", {})[language] = {
                line["prompt_id"]: line["baseline_quality"] for line in judged
            }


def summarise(run, base):
    """The rows of one run, each language by itself and then all of them together."""
    for (task, metric), by_language in sorted(run["results"].items()):
        if run is base:
            others, name = None, None
        elif metric == "win_rate":
            others, name = {language: dict.fromkeys(values, 0.5) for language, values in by_language.items()}, "base"
        elif metric == "quality":
            others, name = run["base_quality"], "base"
        else:
            others, name = base["results"][task, metric], "base"
        for language in by_language:
            yield row(run, language, task, metric, by_language[language], name, others and others[language])
        yield row(
            run, "all", task, metric, over_languages(by_language), name, others and over_languages(others, by_language)
        )


def over_languages(by_language, only=None):
    """Each prompt's mean over the languages; documents without an id count as prompts of their own."""
    values = defaultdict(list)
    for language in only or by_language:
        for prompt, value in by_language[language].items():
            values[prompt].append(value)
    return {prompt: sum(some) / len(some) for prompt, some in values.items()}


def row(run, language, task, metric, values, baseline, others):
    """One line of the table; ``values`` and ``others`` are {prompt: value}, paired by prompt."""
    value = sum(values.values()) / len(values)
    cells = dict.fromkeys(COLUMNS) | {
        "model": run["model"],
        "language": run["pool"],
        "setting": run["setting"],
        "seed": run["seed"],
        "round": run["round"],
        "reward_model": None if run["reward_model"] == "-" else run["reward_model"],
        "pool_size": None if run["pool_size"] == "-" else run["pool_size"],
        "eval_language": language,
        "task": task,
        "metric": metric,
        "value": value,
        "n": len(values),
    }
    if baseline is None:
        return cells
    if values.keys() - others.keys():
        raise InputError(
            f"{run['setting']} and {baseline} do not share all prompts of {task}", "evaluate both on the same prompts"
        )
    differences = [values[prompt] - others[prompt] for prompt in sorted(values)]
    seed = derive_seed("bootstrap", run["model"], run["pool"], run["part"], baseline, language, task, metric)
    low, high = paired_interval(differences, seed)
    shift = 0.5 if metric == "win_rate" and baseline == "base" else 0.0
    return cells | {
        "baseline": baseline,
        "baseline_value": sum(others[prompt] for prompt in values) / len(values),
        "delta": sum(differences) / len(differences),
        "ci_low": None if low is None else low + shift,
        "ci_high": None if high is None else high + shift,
        "p": paired_p(differences, seed),
    }


def contrast_rows(args, runs):
    """Declared comparisons with another setting than the base: the difference of the two win rates against it."""
    for setting, pool, versus in args.contrast:
        if versus == "base":
            continue
        for model in dict.fromkeys(run["model"] for run in runs):
            run, other = (find_last(runs, model, pool, name) for name in (setting, versus))
            ours, theirs = (over_languages(r["results"]["arena", "win_rate"], run["languages"]) for r in (run, other))
            yield row(run, "all", "arena", "win_rate", ours, versus, theirs)


def adjust(args, runs, table):
    """Adjusts the p values of the declared contrasts together; of several rounds the last one counts."""
    declared = {
        (model, pool, setting, find_last(runs, model, pool, setting)["round"], versus)
        for setting, pool, versus in args.contrast
        for model in dict.fromkeys(run["model"] for run in runs)
    }
    family = [
        cells
        for cells in table
        if tuple(cells[name] for name in ("model", "language", "setting", "round", "baseline")) in declared
        and (cells["task"], cells["metric"], cells["eval_language"]) == ("arena", "win_rate", "all")
    ]
    for cells, p in zip(family, holm([cells["p"] for cells in family]), strict=True):
        cells["p_adjusted"] = p


def write_csv(path, table):
    with replacing(path) as file:
        pd.DataFrame(table, columns=COLUMNS).to_csv(file, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    cli.run(main)
