"""The sections of the report page that show summary.csv and findings.json, and the overview."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from croco.records import rows
from croco.report import plots
from croco.report.elements import (
    BASE,
    figure,
    full_name,
    interval,
    label,
    name_arm,
    number,
    prefer_all_seeds,
    sentence,
    table,
    table_of,
)
from croco.results.statistics import FEWEST

WINS = {
    "win_rate": "both orders",
    "win_rate_single_order": "single order",
    "win_rate_strict": "strict language",
    "win_rate_lc": "length-controlled",
    "win_rate_glm": "length and position (GLM)",
}
FIDELITY = {
    "language_fidelity": "answers in the prompt's language",
    "truncated": "truncated answers",
    "n_tokens": "tokens an answer",
    "n_chars": "characters an answer",
    "repetition": "repetition",
    "distinct_2": "distinct 2-grams",
    "self_similarity": "similarity of a prompt's samples",
    "reward": "reward of the own reward model",
}


def list_facts(runs, ledgers):
    """[(what, value)] of what was run."""
    tuned = list(
        dict.fromkeys((run["model"], run["pool"], run["setting"].removesuffix(f".s{run['seed']}")) for run in runs)
    )
    seeds = {run["seed"] for run in runs}
    prompts = max((ledger["prompts"] for ledger in ledgers.values()), default=None)
    return [
        (name, value)
        for name, value in (
            ("policies", ", ".join(dict.fromkeys(run["model"] for run in runs))),
            ("reward models", ", ".join(dict.fromkeys(run["reward_model"] for run in runs))),
            ("trained in", ", ".join(dict.fromkeys(code for run in runs for code in run["languages"]))),
            ("evaluated in", ", ".join(dict.fromkeys(code for run in runs for code in run["evaluated"]))),
            ("settings by pool", len(tuned)),
            ("tuned runs", len(runs)),
            ("training seeds", len(seeds)),
            ("training prompts", prompts),
        )
        if value
    ]


def write_headlines(findings, contrasts):
    """[{mark, text, estimate, kind: for | against | open}]: plain sentences on what came out.

    A finding that was tested in one pool has no headline for the pools in which it was not.
    """
    if findings is not None:
        tested = {(row["claim"], row["model"]) for row in findings["findings"] if row["verdict"] != "not tested"}
        kinds = {"supported": "for", "not supported": "against"}
        return [
            {
                "mark": f"{row['id']} · {row['verdict']}",
                "text": sentence(row["claim"]),
                "estimate": f"{row['contrast']}{' (' + row['model'] + ')' if row.get('model') else ''}: "
                + (f"{row['estimate']:+.3f}{interval(row['low'], row['high'])}" if row["estimate"] is not None else row["why"]),
                "kind": kinds.get(row["verdict"], "open"),
            }
            for row in findings["findings"]
            if row["verdict"] != "not tested" or (row["claim"], row["model"]) not in tested
        ]  # fmt: skip
    marks = {True: "as the paper reports", False: "not as the paper reports", None: "cannot tell"}
    kinds = {True: "for", False: "against", None: "open"}
    return [
        {
            "mark": marks[row["agrees"]] if row["of_paper"] else "not in the paper",
            "text": sentence(row["claim"] if row["of_paper"] else f"{row['what']}: {row['verdict']}"),
            "estimate": f"{row['what']} ({row['model']}): {row['measure']} {row['value']:.3f}{interval(row['low'], row['high'])}",
            "kind": kinds[row["agrees"]],
        }
        for row in contrasts
    ]


def read_summary(path):
    """summary.csv with the columns that the page needs, `arm` and `run`; empty where there is none."""
    columns = {
        "model": str, "language": str, "setting": str, "seed": str, "round": int, "eval_language": str, "task": str,
        "suite": str, "metric": str, "value": float, "n": float, "baseline": str, "baseline_value": float, "delta": float,
        "ci_low": float, "ci_high": float, "p": float, "p_adjusted": float, "q": float, "mde": float,
    }  # fmt: skip
    if path is None or not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in {**columns, "arm": str, "run": str}.items()})
    summary = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"seed": str, "language": str, "eval_language": str})  # fmt: skip
    for name in columns.keys() - set(summary.columns):
        summary[name] = np.nan
    summary["round"] = summary["round"].fillna(1).astype(int)
    arms = zip(summary["setting"], summary["seed"], summary["round"], strict=True)
    summary["arm"] = [name_arm(*row) for row in arms]
    several = summary["model"].nunique() > 1
    summary["run"] = (summary["model"] + "/" if several else "") + summary["language"] + "/" + summary["arm"]
    return summary


def of_metric(summary, task, metric):
    """The rows of one metric against the base."""
    return summary[(summary["task"] == task) & (summary["metric"] == metric) & (summary["baseline"] == "base")]


def say_direction(summary, task, metric):
    """A clause for metrics of which less is better, whose positive changes are falls; empty for others."""
    rows = of_metric(summary, task, metric)
    less = ((rows["value"] - rows["baseline_value"]) * rows["delta"] < 0).any()
    return "; less is better, positive means less" if less else ""


def list_estimates(summary, task, metric, column):
    """[{name, value, tuned, low, high, n, p, q, mde, languages, others}], a line an arm.

    Over several seeds the row `all` stands for an arm where there is one, else the first seed's, with the others' beside.
    """
    lines = []
    for name, group in of_metric(summary, task, metric).groupby("run", sort=False):
        pooled, single = (group[(group["eval_language"] == "all") == is_pooled] for is_pooled in (True, False))
        pooled = prefer_all_seeds(pooled)
        if pooled.empty or pd.isna(pooled.iloc[0][column]):
            continue
        first, each = pooled.iloc[0], pooled[pooled["seed"] != "all"]
        languages = single[single["seed"] == first["seed"]].set_index("eval_language")[column].dropna().to_dict()
        others = each[column].dropna().tolist()
        lines.append(
            {
                "name": name,
                "value": float(first[column]),
                "tuned": number(first["value"]),
                "low": number(first["ci_low"]),
                "high": number(first["ci_high"]),
                "n": number(first["n"]),
                "baseline": number(first["baseline_value"]),
                **{key: number(first[key]) for key in ("p", "p_adjusted", "q", "mde")},
                "languages": languages if len(languages) > 1 else {},
                "others": (others if first["seed"] == "all" else others[1:]) if len(others) > 1 else [],
            }
        )
    return lines


def say_unpooled(section, rows, gaps):
    """Names the runs that have values of single languages and no mean over them, since a language is missing."""
    keys = ["task", "metric", "run"]
    pooled = rows.loc[rows["eval_language"] == "all", keys].drop_duplicates()
    found = rows[keys].drop_duplicates().merge(pooled, how="left", indicator=True)
    for (task, metric), some in found[found["_merge"] == "left_only"].groupby(["task", "metric"], sort=False):
        what = f"{metric} of {task} over all languages, of {', '.join(some['run'])}: a language has no value"
        gaps.say(section, what, "snakemake --cores 2 --forcerun summarise")


def table_estimates(caption, lines, value="value"):
    return table(
        caption,
        ["run", value, "95 % from", "to", "n", "p", "p, adjusted", "q", "detectable (mde)", "other seeds"],
        [
            [
                line["name"], line["value"], line["low"], line["high"], line["n"] and int(line["n"]), line["p"],
                line["p_adjusted"], line["q"], line["mde"], ", ".join(f"{other:.3f}" for other in line["others"]) or None,
            ]
            for line in lines
        ],
    )  # fmt: skip


def in_words(lines, reference):
    """A sentence on a forest plot: which intervals lie clear of the reference."""
    lines = [line for line in lines if (line["n"] or 0) >= FEWEST]
    above = [line["name"] for line in lines if line["low"] is not None and line["low"] > reference]
    below = [line["name"] for line in lines if line["high"] is not None and line["high"] < reference]
    parts = [f"{len(lines)} runs with {FEWEST} prompts or more"]
    parts += [f"{len(names)} clearly {word} {reference:g} ({', '.join(names)})" for word, names in (("above", above), ("below", below)) if names]  # fmt: skip
    return "; ".join(parts) + "."


def show_wins(summary, gaps, judged):
    """The open-ended part: win rates, the other ways to count them, languages, consistency."""
    lines = list_estimates(summary, "arena", "win_rate", "value")
    say_unpooled("open-ended", summary[summary["task"] == "arena"], gaps)
    if not lines:
        if judged:
            gaps.say("open-ended", "win rates: summary.csv has none", "snakemake --cores 2")
        return {"figures": [], "judged": judged}
    figures = [
        figure(
            "win-rates",
            [(None, plots.plot_forest(lines, 0.5, "win rate against the base"))],
            f"Dots with intervals: win rate of each run against the base. {in_words(lines, 0.5)}",
            "Each dot pools a run's languages, with its 95 % interval; the coloured marks are single languages, the circles training seeds. 0.5 is no change.",
            table_estimates("Win rates against the base, languages pooled", lines, "win rate"),
        )
    ]
    wins = of_metric(summary, "arena", "win_rate")
    order = wins["run"].unique()
    wins = prefer_all_seeds(wins[wins["seed"].isin(["1", "all"])]).drop_duplicates(["run", "eval_language"])
    grid = wins.pivot(index="run", columns="eval_language", values="value")
    codes = [code for code in wins["eval_language"].unique() if code != "all"]
    grid = grid.loc[order, [*codes, "all"]]
    cells = [
        {"y": run, "x": code, "value": round(float(value), 6)}
        for run, line in grid.iterrows()
        for code, value in line.items()
        if not pd.isna(value)
    ]
    figures.append(
        figure(
            "wins-by-language",
            [(None, plots.plot_cells(cells, "evaluated in", None, middle=0.5, spans=[*codes, "all"]))],
            "Heat map: win rate of each run in each evaluated language.",
            "Win rates by evaluation language; all pools a run's languages. Of replicates the mean, where the summary has it, else the first.",
            table(
                "Win rates by language",
                ["run", *grid.columns],
                [[run, *map(number, line)] for run, line in grid.iterrows()],
            ),
            broad=True,
        )
    )
    figures += show_variants(summary, gaps)
    return {"figures": figures, "judged": judged, "seeds": seed_table(summary)}


def show_variants(summary, gaps):
    """Other ways to count a win, and how far the judge can be trusted."""
    pooled = summary[(summary["task"] == "arena") & (summary["eval_language"] == "all") & summary["seed"].isin(["1", "all"])]  # fmt: skip
    pooled = pooled[pooled["baseline"].isin(["base"]) | pooled["baseline"].isna()]
    pooled = prefer_all_seeds(pooled)
    dots, numbers = [], {}
    for metric, name in {**WINS, "position_consistency": "position consistency", "unparseable": "unparseable", "reward_judge_agreement": "agrees with the reward"}.items():  # fmt: skip
        for row in pooled[pooled["metric"] == metric].drop_duplicates("run").itertuples():
            if row.language == BASE[0] or pd.isna(row.value):
                continue
            numbers.setdefault(row.run, {"run": row.run})[name] = row.value
            if metric in WINS:
                dots.append({"name": row.run, "series": name, "value": row.value})
    if len({dot["series"] for dot in dots}) < 2:
        gaps.say(
            "open-ended",
            "win rates in a single order, with strict language and length-controlled; position consistency; unparseable verdicts",
            "snakemake --cores 2 --forcerun summarise",
        )
        return []
    return [
        figure(
            "variants",
            [(None, plots.plot_dots(dots, "win rate against the base", 0.5, "counted"))],
            "Dots: the win rate of each run, counted in several ways.",
            "The same verdicts, counted in other ways: one order a prompt as in the paper's code; an answer in the wrong language loses; what would be left at equal length.",
            table_of(
                "Ways to count a win, and the judge itself",
                list(numbers.values()),
                "Position consistency: share of verdicts that stay when the two answers change places. Unparseable: share of replies in which no verdict could be read; they leave the mean.",
            ),
        )
    ]


def seed_table(summary):
    """Every arm over its training seeds, a row a measure: mean, standard deviation, range; None without any."""
    pooled = summary[
        (summary["eval_language"] == "all") & (summary["baseline"] == "base") & (summary["metric"] != "quality")
    ]
    pooled = pooled[pooled["seed"] != "all"]
    measure = (pooled["task"].where(pooled["task"] != "arena", "") + " " + pooled["metric"]).str.strip()
    pooled = pooled.assign(measure=measure)
    found = pooled.groupby(["measure", "run"], sort=False)["value"].agg(["count", "mean", "std", "min", "max"])
    found = found[found["count"] > 1].reset_index()
    if found.empty:
        return None
    found = found.sort_values("measure", key=lambda names: names != "win_rate", kind="stable")
    return table(
        "Every arm over its training seeds",
        ["measure", "arm", "seeds", "mean", "sd over seeds", "lowest", "highest"],
        found.values.tolist(),
    )


def find_base(lines):
    """The base's value over the most languages: single languages have their own."""
    return max(lines, key=lambda line: len(line["languages"]))["baseline"]


def show_structured(summary, gaps, samples):
    """A forest plot for each structured task and metric."""
    tasks = summary[~summary["task"].isin(["arena", "fidelity"]) & summary["baseline"].notna()]
    say_unpooled("structured", tasks, gaps)
    figures = []
    for task, metric in tasks[["task", "metric"]].drop_duplicates().itertuples(index=False):
        lines = list_estimates(summary, task, metric, "delta")
        if not lines:
            continue
        before = find_base(lines)
        note = f" The base has {before:.3f}, languages pooled." if before is not None else ""
        direction = say_direction(summary, task, metric)
        figures.append(
            figure(
                f"task-{len(figures)}",
                [(None, plots.plot_forest(lines, 0, f"change of {label(metric)}"))],
                f"Dots with intervals: change of {metric} on {task} from the base. {in_words(lines, 0)}",
                f"{label(metric).capitalize()} on {task}: change from the base, with its 95 % interval{direction}; coloured marks are single languages, circles training seeds.{note}",
                table_estimates(f"{metric} on {task}: change from the base{direction}", lines, "change"),
            )
        )
    if not figures and samples:
        gaps.say("structured", "results of structured tasks in summary.csv", "snakemake --cores 2")
    return {"figures": figures}


def show_fidelity(root, first, summary, gaps, asked):
    """Language, length, repetition and variety of the answers, before and after, and reward against judge."""
    if not asked:
        return {"figures": []}
    say_unpooled("fidelity", summary[summary["task"] == "fidelity"], gaps)
    charts, numbers = [], []
    for metric, title in FIDELITY.items():
        lines = list_estimates(summary, "fidelity", metric, "delta")
        if not lines:
            continue
        before, direction = find_base(lines), say_direction(summary, "fidelity", metric)
        charts.append(
            (
                title + (f" (base {before:.3g}{direction})" if before is not None else ""),
                plots.plot_forest([{**line, "languages": {}} for line in lines], 0, "change from the base"),
            )
        )
        numbers += [
            [f"{title}{direction}", line["name"], line["baseline"], line["tuned"], line["value"], line["low"], line["high"], line["q"]]
            for line in lines
        ]  # fmt: skip
    figures = []
    if charts:
        figures.append(
            figure(
                "fidelity-changes",
                charts,
                f"Dots with intervals: change from the base of {', '.join(title for title, _ in charts)}.",
                "What tuning did to the answers themselves, beside winning. Languages pooled; 95 % intervals; 0 is the base, and what is right of it is better or, of lengths, longer.",
                table(
                    "Answers before and after",
                    ["measure", "run", "base", "tuned", "change", "95 % from", "to", "q"],
                    numbers,
                ),
            )
        )
    figures += show_confusion(root, first, gaps)
    figures += show_reward_and_judge(summary)
    if not charts and not figures:
        gaps.say("fidelity", "the measures of the answers in summary.csv", "snakemake --cores 2 --forcerun summarise")
    return {"figures": figures}


def show_confusion(root, first, gaps):
    """In which language answers to prompts of each language are, of the base and the runs, one at a time."""
    from croco.text.measures import NONE, count_languages

    bases = [
        {"model": model, "pool": BASE[0], "setting": BASE[1], "seed": "1", "round": 1, "folder": root / model / BASE[0] / BASE[1]}
        for model in dict.fromkeys(run["model"] for run in first)
    ]  # fmt: skip
    for base in bases:
        base["evaluated"] = list(dict.fromkeys(code for run in first if run["model"] == base["model"] for code in run["evaluated"]))  # fmt: skip
    counts = {}
    for run in [*bases, *first]:
        for code in run["evaluated"]:
            path = run["folder"] / "fidelity" / f"{code}.jsonl"
            if not gaps.has("fidelity", path, "languages, lengths and repetition of the answers"):
                continue
            found = count_languages(rows(path)).get(code, {})
            counts.setdefault(full_name(run), {})[code] = Counter(found)
    counts = {name: found for name, found in counts.items() if any(map(sum_of, found.values()))}
    if not counts:
        return []
    every = Counter()
    for found in counts.values():
        for of_code in found.values():
            every.update(of_code)
    asked = list(dict.fromkeys(code for found in counts.values() for code in found))
    columns = asked + sorted(every.keys() - {*asked}, key=lambda code: (code == NONE, code))
    cells = [
        {"name": name, "y": code, "x": column, "value": round(of_code[column] / sum_of(of_code), 4)}
        for name, found in counts.items()
        for code, of_code in found.items()
        for column in columns
        if sum_of(of_code)
    ]
    return [
        figure(
            "confusion",
            [(None, plots.plot_cells(cells, "language of the answer", "language of the prompt", names=next(iter(counts)), spans=columns))],
            "Confusion matrix: share of answers in each language, by the language of the prompt, one run at a time.",
            "Right language? Shares of the answers to the prompts of a line; the diagonal is what was asked for, none what is too short to tell.",
            table(
                "Languages of the answers (counts)",
                ["run", "prompt in", *columns],
                [[name, code, *(of_code[column] for column in columns)] for name, found in counts.items() for code, of_code in found.items()],
            ),
            {"label": "Run", "names": list(counts)},
            broad=True,
        )
    ]  # fmt: skip


def sum_of(counts):
    return sum(counts.values())


def show_reward_and_judge(summary):
    """Points: the change of the reward against the win rate, a point a run and language."""
    keys = ["run", "eval_language", "seed"]
    reward = of_metric(summary, "fidelity", "reward").set_index(keys)["delta"]
    wins = of_metric(summary, "arena", "win_rate").set_index(keys)["value"]
    both = pd.concat([reward, wins], axis=1).dropna().reset_index()
    both = both[(both["eval_language"] != "all") & both["seed"].isin(["1", "all"])]
    both = prefer_all_seeds(both).drop_duplicates(keys[:2])
    if both.empty:
        return []
    points = [
        {"name": run, "series": code, "x": round(delta, 6), "y": round(value, 6)}
        for run, code, _, delta, value in both.itertuples(index=False)
    ]
    return [
        figure(
            "reward-judge",
            [(None, plots.plot_scatter(points, "change of the reward from the base", "win rate against the base"))],
            "Points: the change of the reward and the win rate, one a run and language.",
            "Reward against judge: where the reward rises and the win rate does not, the reward model was served and not the reader.",
            table("Reward and win rate", ["run", "language", "change of the reward", "win rate"],
                  [[point["name"], point["series"], point["x"], point["y"]] for point in points]),
        )
    ]  # fmt: skip


def tell_contamination(found):
    """{told, unchecked, clean} of contamination.json: which training prompts stand among what is evaluated; or None."""
    if found is None:
        return None
    told, clean = [], True
    for code, total in found["languages"].items():
        clean = clean and not total["exact_left_in"]
        if total["ngram_13"]:
            shared = f"{code}: of {total['prompts']} {total['exact']} exact, {total['ngram_13'] - total['exact']} more with 13 words in common"
            told.append(shared + (f", {total['removed']} taken out" if total["removed"] else ""))
    prompts = sum(total["prompts"] for total in found["languages"].values())
    sources = dict.fromkeys(name for total in found["languages"].values() for name in total["sources"])
    none = (
        f"none of {prompts} ({', '.join(found['languages'])}) stands among {', '.join(sources)}, exact or by 13 words"
    )
    return {"told": told or [none], "unchecked": found["unchecked"], "clean": clean}


def list_contamination(found):
    """Rows of the page's table: training prompts and evaluated ones, by language and source."""
    return [
        {
            "language": code,
            "training prompts": total["prompts"],
            "taken out": total["removed"],
            "among": name,
            "of": source["evaluated"],
            **{
                f"{kind}, {what}": source[kind][what]
                for kind in ("exact", "ngram_13")
                for what in ("prompts", "evaluated")
            },
        }
        for code, total in found["languages"].items()
        for name, source in total["sources"].items()
    ]


def show_findings(findings, tables, comparability, contamination, gaps):
    """The paper's findings with this run's verdicts, training prompts among what is evaluated, and the paper's tables."""
    shown = {"findings": [], "tables": []}
    if findings is None:
        gaps.say("findings", "findings.json, the paper's findings F1 to F6", "snakemake --cores 2 --forcerun summarise")
    else:
        shown["findings"] = findings["findings"]
    if contamination:
        shown["tables"].append(table_of("Training prompts among what is evaluated", list_contamination(contamination)))
    for path in sorted(Path(tables).glob("*.csv")) if tables else []:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
        if frame.empty:
            continue
        lines = frame.astype(object).where(frame.notna(), None).values.tolist()
        shown["tables"].append(table(f"In the paper's shape: {label(path.stem)}", list(frame.columns), lines))
    if comparability:
        shown["tables"].append(table_of("What may be compared with the paper", comparability))
    return shown
