"""Put all results in one table: one row per model, pool, setting, seed, evaluation language, task and metric.

Example:
  python scripts/summary.py --root results/demo --runs results/demo/runs.jsonl --contrast dpo multi base --judged \\
      --fidelity --output results/demo/summary.csv

`delta` is value - baseline_value over the same prompts; where lower is better (column `better`) it is
baseline_value - value. So a positive delta always means better. `delta_low` and `delta_high` are its 95 % interval over
prompts. The row with the language `all` is the mean over languages; it is missing, and listed under `not_pooled` in the
manifest, where one of the languages has no value. Rows with the seed `all` are means over a setting's training seeds,
with an interval for other seeds and prompts. The mean over a group of tasks is a row of its own, and `suite` names the
group in the rows of its tasks; exclude these from a mean over tasks. The columns are defined in
scripts/croco/results/table.py, the methods in docs/statistics.md.
"""

from collections import defaultdict
from pathlib import Path

from croco import cli
from croco.errors import InputError
from croco.results.measured import WITHOUT_BASELINE, compare_rewards, expect_languages, mean, read_results
from croco.results.metrics import HIGHER, LOWER, better
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
from croco.results.table import ALL, ARENA, BY_REWARDS, COLUMNS, FIDELITY, Row, name_run, read_cells, write_summary
from croco.runs import BASE, add_contrast_option, add_run_options, find_last, read_runs

CHANCE = "chance"


def main():
    args = parse_arguments()
    runs = read_runs(args.runs)
    if missing := sorted({run.model for run in runs} - {run.model for run in runs if run.is_base}):
        raise InputError(
            f"no base, the untuned policy, of {', '.join(missing)}",
            "let the workflow write it: snakemake RESULTS/runs.jsonl",
            args.runs,
        )
    gaps, not_pooled = [], []
    measured = [read_results(args, run, runs, gaps) for run in runs]
    bases = {each.run.model: each for each in measured if each.run.is_base}
    for each in measured:
        compare_rewards(args, each, bases[each.run.model])
    expect_languages(measured)
    table = [row for each in measured for row in summarise(each, bases[each.run.model], not_pooled)]
    table += contrast_rows(args, measured, not_pooled)
    fill_tests(table)
    table += replicate_rows(runs, table, not_pooled)
    adjust(args, runs, table)
    imported = read_cells(args.imported) if args.imported else []
    write_summary(args.output, [Row(**{name: cells[name] for name in COLUMNS}) for cells in table], imported)
    inputs = {"runs": args.runs, **{str(path): path for each in measured for path in each.files}}
    manifest = args.output.with_suffix(".manifest.json")
    facts = {"rows": len(table), "imported": len(imported), "gaps": gaps, "not_pooled": not_pooled}
    cli.write_manifest(manifest, __file__, args, inputs, **facts)


def parse_arguments():
    parser = cli.parser(__doc__)
    add_run_options(parser)
    add_contrast_option(parser)
    parser.add_argument("--judged", action="store_true", help="the run has pairwise verdicts (arena/)")
    parser.add_argument("--fidelity", action="store_true", help="the run has measures of its answers (fidelity/)")
    parser.add_argument("--imported", type=Path, help="rows of other harnesses, in the columns of summary.csv")
    parser.add_argument("--partial", action="store_true", help="missing files are listed as gaps and are not an error")
    parser.add_argument("--output", type=Path, required=True, help="summary.csv to write")
    return parser.parse_args()


def summarise(measured, base, not_pooled):
    """The rows of one run, each language by itself and then all of them together; then those of groups of tasks."""
    for (task, metric), by_language in sorted(measured.results.items()):
        others, name = measured.against.get((task, metric)), CHANCE if metric == "reward_judge_agreement" else BASE
        if measured is base or metric in WITHOUT_BASELINE:
            others, name = None, None
        elif others is None:
            others = base.results.get((task, metric), {})
        parts = {code: [(values, others and others.get(code))] for code, values in by_language.items()}
        if others is not None:
            parts = {code: part for code, part in parts.items() if code in others}
        expected = measured.expected.get((task, metric), [])
        yield from compare(measured, task, metric, parts, name, expected, not_pooled)
    for (group, metric), tasks in measured.groups.items():
        name, parts = None if measured is base else BASE, {}
        for code, members in tasks.items():
            sides = [[side.documents[task, metric].get(code) for task in members] for side in (measured, base)]
            if all(values is not None for side in sides for values in side):
                parts[code] = list(zip(sides[0], sides[1] if name else [None] * len(members), strict=True))
        yield from compare(measured, group, metric, parts, name, list(tasks), not_pooled)


def compare(measured, task, metric, parts, baseline, expected, not_pooled):
    """The rows of one metric: the languages in the run's order, then the mean over them, if no expected one is missing.

    ``parts`` are {language: [(values, baseline's values or None), one per task of the group]}.
    """
    pairs, run = {}, measured.run
    for language in (code for code in run.evaluated if code in parts):
        sides = [
            pair(run, task, baseline, ours, ours if theirs is None else theirs) for ours, theirs in parts[language]
        ]
        if all(ours for ours, _ in sides):
            pairs[language] = sides
    for language, sides in pairs.items():
        yield row(measured, language, task, metric, baseline, {language: sides})
    if missing := [code for code in expected if code not in pairs]:
        leave_out(not_pooled, run.name, task, metric, baseline, languages=missing)
    elif pairs:
        yield row(measured, ALL, task, metric, baseline, pairs)


def leave_out(not_pooled, run, task, metric, baseline, **missing):
    not_pooled.append({"run": run, "task": task, "metric": metric, "baseline": baseline, "missing": missing})


def pair(run, task, baseline, values, others):
    """Two {prompt: [value]} of the same prompts, without prompts that lack a value in either."""
    if values.keys() != others.keys() or any(len(values[prompt]) != len(others[prompt]) for prompt in values):
        raise InputError(
            f"{run.part} and {baseline} do not share all prompts of {task}", "evaluate both on the same prompts"
        )
    ours, theirs = {}, {}
    for prompt, of_prompt in values.items():
        known = [both for both in zip(of_prompt, others[prompt], strict=True) if None not in both]
        if known:
            ours[prompt], theirs[prompt] = (list(side) for side in zip(*known, strict=True))
    return ours, theirs


def row(measured, language, task, metric, baseline, pairs):
    """The cells of one row, and what its tests need; ``pairs`` are {language: [(values, baseline's values), one per task]}."""
    values = pool(pairs, 0)
    lower = (task, metric) in measured.lower
    cells = dict.fromkeys(COLUMNS) | {
        **name_run(measured.run, by_rewards=metric in BY_REWARDS),
        "eval_language": language,
        "languages": ",".join(pairs),
        "task": task,
        "suite": name_suite(measured, pairs, task),
        "metric": metric,
        "better": better(metric) if task in (ARENA, FIDELITY) else LOWER if lower else HIGHER,
        "value": mean(values.values()),
        "n": len(values),
    }
    if baseline is None:
        return cells
    others, sign = pool(pairs, 1), -1 if cells["better"] == LOWER else 1
    low, high = find_range(pairs, baseline == CHANCE or (baseline == BASE and metric.startswith("win_rate")))
    return cells | {
        "baseline": baseline,
        "baseline_value": mean(others.values()),
        "delta": sign * (cells["value"] - mean(others.values())),
        "differences": {prompt: sign * (value - others[prompt]) for prompt, value in values.items()},
        "range": (low, high) if sign == 1 else (-high, -low),
    }


def pool(pairs, side):
    """One value per prompt of the mean over languages of the means over tasks of their means: see over_groups."""
    of_languages = [over_groups([found[side] for found in tasks]) for tasks in pairs.values()]
    return over_groups([{prompt: [value] for prompt, value in values.items()} for values in of_languages])


def find_range(pairs, of_chance):
    """(lowest, highest) that a difference can be: values are in [0, 1], or in the range of both sides' values."""
    sides = [side for tasks in pairs.values() for both in tasks for side in both]
    seen = [value for side in sides for values in side.values() for value in values]
    lowest, highest = min(0, *seen), max(1, *seen)
    return (lowest - 0.5, highest - 0.5) if of_chance else (lowest - highest, highest - lowest)


def name_suite(measured, pairs, task):
    """The group of a task in these languages, or None if the group has no row."""
    names = {measured.suites[code].get(task) for code in pairs} - {None, task}
    return next((name for name in sorted(names) if any(name == group for group, _ in measured.groups)), None)


def contrast_rows(args, measured, not_pooled):
    """Declared comparisons with another setting than the base, per seed: the difference of the two win rates."""
    last = {(each.run.model, each.run.pool, each.run.arm, each.run.replicate): each for each in measured}
    for setting, pool, versus in args.contrast:
        if versus == BASE:
            continue
        for model in dict.fromkeys(each.run.model for each in measured):
            for replicate in dict.fromkeys(each.run.replicate for each in measured):
                sides = [last.get((model, pool, name, replicate)) for name in (setting, versus)]
                if None in sides:
                    continue
                ours, theirs = (side.results[ARENA, "win_rate"] for side in sides)
                parts = {code: [(ours[code], theirs[code])] for code in ours if code in theirs}
                one, other = (side.run for side in sides)
                shared = [code for code in one.evaluated if code in other.evaluated]
                rows = compare(sides[0], ARENA, "win_rate", parts, other.setting, shared, not_pooled)
                yield from (cells for cells in rows if cells["eval_language"] == ALL)


def fill_tests(table):
    """Fills in interval, p and detectable effect, of all rows at once."""
    tested = [cells for cells in table if "differences" in cells]
    columns, ranges = [list(cells["differences"].values()) for cells in tested], [cells["range"] for cells in tested]
    for cells, column, (low, high), p in zip(
        tested, columns, intervals(columns, ranges=ranges), p_values(columns), strict=True
    ):
        fill(cells, {"se": standard_error(column), "low": low, "high": high, "p": p, "mde": detectable(column)})


def fill(cells, found):
    """Fills in a row's tests; a rate that is compared with chance has the interval of its delta, half a unit higher."""
    of_rate = cells["baseline"] == CHANCE or (cells["baseline"] == BASE and cells["metric"].startswith("win_rate"))
    for side in ("low", "high"):
        cells[f"delta_{side}"] = found[side]
        cells[f"value_{side}"] = found[side] + 0.5 if of_rate and found[side] is not None else None
    cells |= {name: found[name] for name in ("se", "p", "mde")}


def list_seeds(runs, model, pool, number, arm, baseline):
    """The seeds of a setting's replicates; with another setting as baseline, those that both have."""
    seeds = defaultdict(dict)
    for run in runs:
        if (run.model, run.pool) == (model, pool) and (run.arm != arm or run.round == number):
            seeds[run.arm][str(run.replicate)] = None
    return [seed for seed in seeds[arm] if baseline not in seeds or seed in seeds[baseline]]


def replicate_rows(runs, table, not_pooled):
    """A row with the seed `all` for each that exists with several training seeds, if all of them have it."""
    arms = defaultdict(list)
    for cells in table:
        ending = f".s{cells['seed']}"
        arm = tuple((cells[name] or "").removesuffix(ending) for name in ("setting", "baseline"))
        same = [cells[name] for name in ("model", "pool", "round", "eval_language", "task", "metric")]
        arms[*same, *arm].append(cells)
    for (model, pool, number, language, task, metric, setting, baseline), of_seeds in arms.items():
        seeds = list_seeds(runs, model, pool, number, setting, baseline)
        if len(seeds) < 2:
            continue
        if missing := [seed for seed in seeds if seed not in {cells["seed"] for cells in of_seeds}]:
            if language == ALL:
                part = setting if number == 1 else f"{setting}/round{number}"
                leave_out(not_pooled, f"{model}/{pool}/{part}", task, metric, baseline or None, seeds=missing)
            continue
        cells = dict.fromkeys(COLUMNS) | of_seeds[0] | {"setting": setting, "seed": ALL, "baseline": baseline or None}
        cells |= {"value": mean([one["value"] for one in of_seeds]), "n": max(one["n"] for one in of_seeds)}
        if baseline:
            cells |= {name: mean([one[name] for one in of_seeds]) for name in ("baseline_value", "delta")}
            lows, highs = zip(*(one["range"] for one in of_seeds), strict=True)
            found = replicates(align([one["differences"] for one in of_seeds]), min(lows), max(highs))
            fill(cells, found or dict.fromkeys(("se", "low", "high", "p", "mde")))
        yield cells


def adjust(args, runs, table):
    """Adjusts the p values of the declared contrasts together, and of all other rows; only the last round counts.

    The contrasts are a family of their own once for the first seed and once over all.
    """
    declared = {
        (model, pool, setting, find_last(runs, model, pool, setting).round, versus)
        for setting, pool, versus in args.contrast
        for model in dict.fromkeys(run.model for run in runs if (run.pool, run.setting) == (pool, setting))
    }
    pooled = [
        cells
        for cells in table
        if tuple(cells[name] for name in ("model", "pool", "setting", "round", "baseline")) in declared
        and (cells["task"], cells["metric"], cells["eval_language"]) == (ARENA, "win_rate", ALL)
    ]
    over_seeds = [cells for cells in pooled if cells["seed"] == ALL]
    single = [cells for cells in pooled if cells["seed"] != ALL]
    several = [
        names
        for model, pool, setting, number, versus in declared
        if len(list_seeds(runs, *(names := (model, pool, number, setting, versus)))) > 1
    ]
    for family, asked in ((single, declared), (over_seeds, several)):
        # A contrast without a result, or without a p, counts in the family, too.
        missing = len(asked) - len(family) if args.judged else 0
        adjusted = holm([1.0 if cells["p"] is None else cells["p"] for cells in family] + [1.0] * missing)
        for cells, p in zip(family, adjusted, strict=False):
            cells["p_adjusted"] = None if cells["p"] is None else p
    of_contrasts = {id(cells) for cells in pooled}
    others = [cells for cells in table if id(cells) not in of_contrasts]
    for cells, q in zip(others, benjamini_hochberg([cells["p"] for cells in others]), strict=True):
        cells["q"] = q


if __name__ == "__main__":
    cli.run(main)
