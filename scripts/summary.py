"""Put all results in one table: a row for each model, pool, setting, seed, evaluation language, task and metric.

Example:
  python scripts/summary.py --root results/demo --run mini untuned base 1 - - en,de \\
      --run mini multi dpo 1 english 64 en,de --contrast dpo multi base --judged --fidelity english \\
      --output summary.csv

`delta` is value - baseline_value over the same prompts, of a task's metric of which less is better (perplexity, ter)
baseline_value - value, so that more is better; with a 95 % interval over prompts (of the value itself for win
rates); the row `all` is the mean over languages. Rows with the seed `all` are means over a setting's training seeds, with
an interval for other seeds and prompts. `languages` are those that a row is the mean over: the row `all` is left out, and
told under `not_pooled` in the manifest, where one of them has no value. The mean over a group of tasks is a row of its
own, and `suite` names the group in the rows of its tasks: in a mean over tasks, leave these out. `p` is of a paired test, `p_adjusted` (Holm) belongs to the declared contrasts
alone, `q` (false discovery rate) to all other rows, `mde` is the effect found in 80 % of repetitions. See
docs/statistics.md.
"""

import csv
import json
from collections import defaultdict
from pathlib import Path

import pandas as pd

from croco import cli
from croco.errors import InputError
from croco.records import Score, Verdict, read_lines, read_records, replacing, rows
from croco.results import win_rates
from croco.results.metrics import better
from croco.results.statistics import (
    align,
    benjamini_hochberg,
    detectable,
    holm,
    intervals,
    over_groups,
    p_values,
    replicates,
    standard_error,
)
from croco.runs import COLUMNS, RUN, add_run_options, find_last, identify, read_runs

BASE = ("untuned", "base")
ALL = "all"
# What an arena file says of a prompt, and what is computed from its verdicts.
SCORES = {"win_rate": "score", "win_rate_single_order": "score_single_order", "win_rate_strict": "score_strict"}
FROM_VERDICTS = {
    "win_rate_lc": win_rates.length_controlled,
    "win_rate_glm": win_rates.adjusted,
    "position_consistency": win_rates.position_consistency,
    "unparseable": win_rates.unparseable,
}
WITHOUT_BASELINE = ("position_consistency", "unparseable")


def main():
    args = parse_arguments()
    runs = read_runs(args, RUN)
    gaps, not_pooled = [], []
    for run in runs:
        read_results(args, run, runs, gaps)
    for run in runs:
        compare_rewards(args, run, find_last(runs, run["model"], *BASE))
    expect_languages(runs)
    table = [row for run in runs for row in summarise(run, find_last(runs, run["model"], *BASE), not_pooled)]
    table += contrast_rows(args, runs, not_pooled)
    fill_tests(table)
    table += replicate_rows(runs, table, not_pooled)
    adjust(args, runs, table)
    imported = read_imported(args.imported) if args.imported else []
    write_csv(args.output, table, imported)
    inputs = {str(path): path for run in runs for path in run["files"]}
    manifest = args.output.with_suffix(".manifest.json")
    facts = {"rows": len(table), "imported": len(imported), "gaps": gaps, "not_pooled": not_pooled}
    cli.write_manifest(manifest, __file__, args, inputs, **facts)


def parse_arguments():
    parser = cli.parser(__doc__)
    add_run_options(parser, RUN)
    parser.add_argument("--judged", action="store_true", help="the run has pairwise verdicts (arena/)")
    parser.add_argument(
        "--fidelity",
        metavar="REWARD",
        help="the answers were measured without a judge (fidelity/); the reward model of runs that name none",
    )
    parser.add_argument("--imported", type=Path, help="rows of other harnesses, in the columns of summary.csv")
    parser.add_argument("--partial", action="store_true", help="missing files are listed as gaps, and are no error")
    parser.add_argument("--output", type=Path, required=True, help="summary.csv to write")
    return parser.parse_args()


def read_results(args, run, runs, gaps):
    """Adds a run's results, {(task, metric): {language: {prompt: [value or None]}}}, what it is compared with, files.

    ``against`` has the same form: the base's values as the run's own files hold them.
    """
    run["files"], run["results"], run["against"], run["rewards"] = [], defaultdict(dict), defaultdict(dict), {}
    run["lower"] = set()  # (task, metric) of which less is better
    run["documents"] = defaultdict(dict)  # {(task, metric): {language: {doc_hash: [value or None]}}} for groups
    run["suites"] = defaultdict(dict)  # {language: {task: its group's name}}
    tuned = (run["pool"], run["setting"]) != BASE
    for language in run["languages"]:
        read = [("eval", f"eval/{language}.json", read_suites), ("eval", f"eval/{language}.samples.jsonl", read_tasks)]
        if args.judged and tuned:
            read.append(("arena", f"arena/{language}.jsonl", read_arena))
        if args.fidelity:
            read.append(("fidelity", f"fidelity/{language}.jsonl", read_fidelity))
            read += [
                ("rewards", f"fidelity/{reward}/{language}.jsonl", read_rewards)
                for reward in list_rewards(args, run, runs)
            ]
        for what, name, reader in read:
            path = run["folder"] / name
            if args.partial and not path.is_file():
                part = f"{run['model']}/{run['pool']}/{run['part']}"
                gap = {"run": part, "language": language, "what": what}
                gaps += [gap] if gap not in gaps else []
                continue
            run["files"].append(path)
            reader(run, language, path)


def list_rewards(args, run, runs):
    """The reward models that scored a run's answers: its own; of the base those of all runs."""
    if (run["pool"], run["setting"]) != BASE:
        return [own_reward(args, run)]
    tuned = [other for other in runs if other["model"] == run["model"] and other is not run]
    return sorted({own_reward(args, other) for other in tuned})


def own_reward(args, run):
    return args.fidelity if run["reward_model"] == "-" else run["reward_model"]


def read_suites(run, language, path):
    """Which tasks form a group: an lm-eval group's, and own ones over the same documents (see name_variants)."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            f"no results of structured tasks: no such file or no JSON ({error})", "evaluate again", path
        ) from error
    run["suites"][language] = {task: found["suite"] for task, found in results.items() if "suite" in found}


def read_tasks(run, language, path):
    for sample in rows(path):
        prompt = sample["doc_hash"] if sample["prompt_id"] is None else str(sample["prompt_id"])
        run["lower"] |= {(sample["task"], metric) for metric in sample.get("lower_is_better", [])}
        for metric in sorted(sample.keys() - {"task", "prompt_id", "doc_hash", "target", "response"}):
            if isinstance(sample[metric], int | float | None):
                for key, name in (("results", prompt), ("documents", sample["doc_hash"])):
                    of_task = run[key][sample["task"], metric].setdefault(language, {})
                    of_task.setdefault(name, []).append(sample[metric])
    name_variants(run, language)


def name_variants(run, language):
    """Own tasks that have the same documents, such as variants of a prompt, form a group with their joined names."""
    same = defaultdict(dict)
    for (task, _), by_language in sorted(run["documents"].items()):
        if language in by_language and task not in run["suites"][language]:
            same[frozenset(by_language[language])][task] = None
    for tasks in same.values():
        if len(tasks) > 1:
            run["suites"][language] |= dict.fromkeys(tasks, "+".join(tasks))


def read_arena(run, language, path):
    lines = [line for _, line in read_records(path, Verdict)]
    judged = {metric: {line["prompt_id"]: line[name] for line in lines} for metric, name in SCORES.items()}
    judged |= {metric: measure(lines) for metric, measure in FROM_VERDICTS.items()}
    judged["quality"] = {line["prompt_id"]: line["quality"] for line in lines}
    chance = {line["prompt_id"]: 0.5 for line in lines}
    for metric, values in judged.items():
        keep(run["results"]["arena", metric], language, values)
        if metric == "quality":
            others = {line["prompt_id"]: line["baseline_quality"] for line in lines}
            keep(run["against"]["arena", metric], language, others)
        elif metric not in WITHOUT_BASELINE:
            keep(run["against"]["arena", metric], language, {prompt: chance[prompt] for prompt in values})


def read_fidelity(run, language, path):
    """A prompt's measures are means over its samples; what cannot be determined leaves them."""
    found = defaultdict(dict)
    for line in rows(path):
        known = [code == language for code in line["languages"] if code is not None]
        found["language_fidelity"][line["prompt_id"]] = mean(known)
        for metric in ("truncated", "n_tokens", "n_chars", "repetition", "distinct_2"):
            found[metric][line["prompt_id"]] = mean(line[metric])
        found["self_similarity"][line["prompt_id"]] = line["self_similarity"]
    for metric, values in found.items():
        keep(run["results"]["fidelity", metric], language, values)
        run["lower"] |= {("fidelity", metric)} if better(metric) == "lower" else set()


def read_rewards(run, language, path):
    """A prompt's mean reward, by reward model; compare_rewards puts them in the results."""
    values = {line["prompt_id"]: mean(line["rewards"]) for _, line in read_records(path, Score)}
    keep(run["rewards"].setdefault(path.parent.name, {}), language, values)


def keep(results, language, values):
    """Adds {prompt: value} of a language; none where no prompt has a value."""
    if any(value is not None for value in values.values()):
        results[language] = {prompt: [value] for prompt, value in values.items()}


def mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def compare_rewards(args, run, base):
    """Adds the rewards by the run's reward model, the base's by the same, and how often they and the judge agree."""
    if not args.fidelity:
        return
    reward = own_reward(args, run)
    ours, theirs = run["rewards"].get(reward, {}), base["rewards"].get(reward, {})
    run["results"]["fidelity", "reward"] = ours
    if run is base:
        return
    run["against"]["fidelity", "reward"] = {language: theirs[language] for language in ours if language in theirs}
    for language in ours.keys() & theirs.keys() & run["results"]["arena", "win_rate"].keys():
        agreed = {}
        for prompt, [score] in run["results"]["arena", "win_rate"][language].items():
            rewards = ours[language][prompt] + theirs[language][prompt]
            if None not in (score, *rewards) and score != 0.5 and rewards[0] != rewards[1]:
                agreed[prompt] = float((score > 0.5) == (rewards[0] > rewards[1]))
        keep(run["results"]["arena", "reward_judge_agreement"], language, agreed)
        keep(run["against"]["arena", "reward_judge_agreement"], language, dict.fromkeys(agreed, 0.5))


def expect_languages(runs):
    """Adds {(task, metric): languages} that a mean over a run's languages consists of.

    All of the run's for its answers, whatever file or value is missing; those that the task has in some run for others.
    """
    known, suites = defaultdict(set), defaultdict(dict)
    for run in runs:
        for code, groups in run["suites"].items():
            suites[code] |= groups
        for measured, by_language in run["results"].items():
            known[measured] |= by_language.keys()
    for run in runs:
        # Where a run lacks a language, its groups there are those of other runs, and so the language is missing in them.
        run["suites"] = defaultdict(dict, {code: suites[code] | run["suites"][code] for code in run["languages"]})
        run["expected"] = {
            (task, metric): [code for code in run["languages"] if task in ("arena", "fidelity") or code in languages]
            for (task, metric), languages in known.items()
            if languages
        }
        run["groups"] = list_groups(run)


def summarise(run, base, not_pooled):
    """The rows of one run, each language by itself and then all of them together; then those of groups of tasks."""
    for (task, metric), by_language in sorted(run["results"].items()):
        others, name = run["against"].get((task, metric)), "chance" if metric == "reward_judge_agreement" else "base"
        if run is base or metric in WITHOUT_BASELINE:
            others, name = None, None
        elif others is None:
            others = base["results"].get((task, metric), {})
        parts = {code: [(values, others and others.get(code))] for code, values in by_language.items()}
        if others is not None:
            parts = {code: part for code, part in parts.items() if code in others}
        yield from compare(run, task, metric, parts, name, run["expected"].get((task, metric), []), not_pooled)
    for (group, metric), tasks in run["groups"].items():
        name, parts = None if run is base else "base", {}
        for code, members in tasks.items():
            sides = [[side["documents"][task, metric].get(code) for task in members] for side in (run, base)]
            if all(values is not None for side in sides for values in side):
                parts[code] = list(zip(sides[0], sides[1] if name else [None] * len(members), strict=True))
        yield from compare(run, group, metric, parts, name, list(tasks), not_pooled)


def list_groups(run):
    """{(group, metric): {language: [task]}} of groups of several tasks, in the run's order of languages."""
    groups = defaultdict(lambda: defaultdict(list))
    for (task, metric), languages in sorted(run["expected"].items()):
        for code in languages:
            if task in run["suites"][code]:
                groups[run["suites"][code][task], metric][code].append(task)
                run["lower"] |= {(run["suites"][code][task], metric)} if (task, metric) in run["lower"] else set()
    several = {key for key, tasks in groups.items() if any(len(members) > 1 for members in tasks.values())}
    return {key: groups[key] for key in sorted(several)}


def compare(run, task, metric, parts, name, expected, not_pooled):
    """The rows of one metric: the languages in the run's order, then the mean over them, if no expected one is missing.

    ``parts`` are {language: [(values, baseline's values or None), one a task of the group]}.
    """
    pairs = {}
    for language in (code for code in run["languages"] if code in parts):
        found = [pair(run, task, name, ours, ours if theirs is None else theirs) for ours, theirs in parts[language]]
        if all(ours for ours, _ in found):
            pairs[language] = found
    for language, found in pairs.items():
        yield row(run, language, task, metric, name, {language: found})
    if missing := [code for code in expected if code not in pairs]:
        leave_out(not_pooled, run, task, metric, name, languages=missing)
    elif pairs:
        yield row(run, ALL, task, metric, name, pairs)


def leave_out(not_pooled, run, task, metric, baseline, **missing):
    names = {"run": f"{run['model']}/{run['pool']}/{run['part']}", "task": task, "metric": metric, "baseline": baseline}
    not_pooled.append({**names, "missing": missing})


def pair(run, task, baseline, values, others):
    """Two {prompt: [value]} of the same prompts, without the rows of which one has no value."""
    if values.keys() != others.keys() or any(len(values[prompt]) != len(others[prompt]) for prompt in values):
        raise InputError(
            f"{run['part']} and {baseline} do not share all prompts of {task}", "evaluate both on the same prompts"
        )
    ours, theirs = {}, {}
    for prompt, some in values.items():
        known = [both for both in zip(some, others[prompt], strict=True) if None not in both]
        if known:
            ours[prompt], theirs[prompt] = (list(side) for side in zip(*known, strict=True))
    return ours, theirs


def row(run, language, task, metric, baseline, pairs):
    """One line of the table; ``pairs`` are {language: [(values, baseline's values), one a task]}, each {prompt: [value]}."""
    values = pool(pairs, 0)
    cells = dict.fromkeys(COLUMNS) | {
        **identify(run),
        "eval_language": language,
        "languages": ",".join(pairs),
        "task": task,
        "suite": name_suite(run, pairs, task),
        "metric": metric,
        "value": mean(values.values()),
        "n": len(values),
        "values": values,
    }
    if baseline is None:
        return cells
    others, sign = pool(pairs, 1), -1 if (task, metric) in run["lower"] else 1
    low, high = find_range(pairs, baseline == "chance" or (baseline == "base" and metric.startswith("win_rate")))
    return cells | {
        "baseline": baseline,
        "baseline_value": mean(others.values()),
        "delta": sign * (cells["value"] - mean(others.values())),
        "differences": {prompt: sign * (value - others[prompt]) for prompt, value in values.items()},
        "range": (low, high) if sign == 1 else (-high, -low),
    }


def pool(pairs, side):
    """One value a prompt of the mean over languages of the means over tasks of their means: see over_groups."""
    of_languages = [over_groups([found[side] for found in tasks]) for tasks in pairs.values()]
    return over_groups([{prompt: [value] for prompt, value in values.items()} for values in of_languages])


def find_range(pairs, of_chance):
    """(lowest, highest) that a difference can be: values lie in [0, 1], or as far beyond as those of both sides do."""
    sides = [side for tasks in pairs.values() for both in tasks for side in both]
    seen = [value for side in sides for values in side.values() for value in values]
    lowest, highest = min(0, *seen), max(1, *seen)
    return (lowest - 0.5, highest - 0.5) if of_chance else (lowest - highest, highest - lowest)


def name_suite(run, pairs, task):
    """The group that a task is part of in these languages, if it has a row of some metric; None for others."""
    names = {run["suites"][code].get(task) for code in pairs} - {None, task}
    return next((name for name in sorted(names) if any(name == group for group, _ in run["groups"])), None)


def contrast_rows(args, runs, not_pooled):
    """Declared comparisons with another setting than the base, of each seed: the difference of the two win rates."""
    for setting, pool, versus in args.contrast:
        if versus == "base":
            continue
        for model in dict.fromkeys(run["model"] for run in runs):
            for seed in dict.fromkeys(run["seed"] for run in runs):
                names = [name if seed == "1" else f"{name}.s{seed}" for name in (setting, versus)]
                if any((run["model"], run["pool"], run["setting"]) == (model, pool, names[0]) for run in runs) and any(
                    (run["model"], run["pool"], run["setting"]) == (model, pool, names[1]) for run in runs
                ):
                    run, other = (find_last(runs, model, pool, name) for name in names)
                    ours, theirs = (some["results"]["arena", "win_rate"] for some in (run, other))
                    parts = {code: [(ours[code], theirs[code])] for code in ours if code in theirs}
                    shared = [code for code in run["languages"] if code in other["languages"]]
                    found = compare(run, "arena", "win_rate", parts, names[1], shared, not_pooled)
                    yield from (cells for cells in found if cells["eval_language"] == ALL)


def fill_tests(table):
    """Fills in interval, p and detectable effect, of all rows at once."""
    tested = [cells for cells in table if "differences" in cells]
    columns, ranges = [list(cells["differences"].values()) for cells in tested], [cells["range"] for cells in tested]
    for cells, column, (low, high), p in zip(
        tested, columns, intervals(columns, ranges=ranges), p_values(columns), strict=True
    ):
        fill(cells, {"se": standard_error(column), "low": low, "high": high, "p": p, "mde": detectable(column)})


def fill(cells, found):
    """The interval of a win rate against the base is of the rate, others are of the difference."""
    shift = 0.5 if cells["metric"].startswith("win_rate") and cells["baseline"] == "base" else 0.0
    for name in ("low", "high"):
        cells[f"ci_{name}"] = None if found[name] is None else found[name] + shift
    cells |= {name: found[name] for name in ("se", "p", "mde")}


def list_seeds(runs, model, pool, number, setting, baseline):
    """The seeds of a setting's replicates; with another setting as baseline, those that both have."""
    seeds = defaultdict(dict)
    for run in runs:
        if (run["model"], run["pool"]) == (model, pool):
            name = run["setting"].removesuffix(f".s{run['seed']}")
            if name != setting or run["round"] == number:
                seeds[name][run["seed"]] = None
    return [seed for seed in seeds[setting] if baseline not in seeds or seed in seeds[baseline]]


def replicate_rows(runs, table, not_pooled):
    """A row with the seed `all` for each that exists with several training seeds, if all of them have it."""
    arms = defaultdict(list)
    for cells in table:
        ending = f".s{cells['seed']}"
        arm = tuple((cells[name] or "").removesuffix(ending) for name in ("setting", "baseline"))
        same = [cells[name] for name in ("model", "language", "round", "eval_language", "task", "metric")]
        arms[*same, *arm].append(cells)
    for (model, pool, number, language, task, metric, setting, baseline), some in arms.items():
        seeds = list_seeds(runs, model, pool, number, setting, baseline)
        if len(seeds) < 2:
            continue
        if missing := [seed for seed in seeds if seed not in {one["seed"] for one in some}]:
            if language == ALL:
                arm = {"model": model, "pool": pool, "part": setting if number == 1 else f"{setting}/round{number}"}
                leave_out(not_pooled, arm, task, metric, baseline or None, seeds=missing)
            continue
        cells = dict.fromkeys(COLUMNS) | some[0] | {"setting": setting, "seed": ALL, "baseline": baseline or None}
        cells |= {"value": mean([one["value"] for one in some]), "n": max(one["n"] for one in some)}
        if baseline:
            cells |= {name: mean([one[name] for one in some]) for name in ("baseline_value", "delta")}
            lows, highs = zip(*(one["range"] for one in some), strict=True)
            found = replicates(align([one["differences"] for one in some]), min(lows), max(highs))
            fill(cells, found or dict.fromkeys(("se", "low", "high", "p", "mde")))
        yield cells


def adjust(args, runs, table):
    """Adjusts the p values of the declared contrasts together, and of all other rows; of several rounds the last counts.

    The contrasts are a family of their own once for the first seed and once over all.
    """
    declared = {
        (model, pool, setting, find_last(runs, model, pool, setting)["round"], versus)
        for setting, pool, versus in args.contrast
        for model in dict.fromkeys(run["model"] for run in runs if (run["pool"], run["setting"]) == (pool, setting))
    }
    pooled = [
        cells
        for cells in table
        if tuple(cells[name] for name in ("model", "language", "setting", "round", "baseline")) in declared
        and (cells["task"], cells["metric"], cells["eval_language"]) == ("arena", "win_rate", ALL)
    ]
    over_seeds = [cells for cells in pooled if cells["seed"] == ALL]
    single = [cells for cells in pooled if cells["seed"] != ALL]
    several = [
        names
        for model, pool, setting, number, versus in declared
        if len(list_seeds(runs, *(names := (model, pool, number, setting, versus)))) > 1
    ]
    for family, asked in ((single, declared), (over_seeds, several)):
        # A contrast without a result is one of the family, too.
        missing = len(asked) - len(family) if args.judged else 0
        adjusted = holm([cells["p"] for cells in family] + [1.0] * missing)
        for cells, p in zip(family, adjusted, strict=False):
            cells["p_adjusted"] = p
    of_contrasts = {id(cells) for cells in pooled}
    others = [cells for cells in table if id(cells) not in of_contrasts]
    for cells, q in zip(others, benjamini_hochberg([cells["p"] for cells in others]), strict=True):
        cells["q"] = q


def read_imported(path):
    """The rows of another table as text; raises InputError where its columns are not those of summary.csv."""
    lines = csv.DictReader(text for _, text in read_lines(path))
    if list(lines.fieldnames or ()) != COLUMNS:
        wrong = set(COLUMNS) ^ set(lines.fieldnames or ())
        raise InputError(
            f"other columns than those of summary.csv: {', '.join(sorted(wrong)) or 'their order'}",
            f"write these columns: {','.join(COLUMNS)}",
            path,
            1,
        )
    return list(lines)


def write_csv(path, table, imported):
    with replacing(path) as file:
        pd.DataFrame(table, columns=COLUMNS).to_csv(file, index=False, float_format="%.6g", lineterminator="\n")
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(imported)


if __name__ == "__main__":
    cli.run(main)
