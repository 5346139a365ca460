"""What the paper reports of its comparisons, and whether a run's summary shows it."""

import math

import pandas as pd

from croco.statistics import FEWEST

# What the paper reports of these comparisons of win rates (its findings F2, F4, F5), and what a null must show.
PAPER = {
    ("dpo", "base"): ("higher", "preference tuning on own responses improves on the base"),
    ("dpo", "dpo_off_policy"): ("higher", "another model's responses reduce the gain"),
    ("dpo", "max_r"): ("higher", "pairs beat fine-tuning on the best response"),
    ("dpo", "sft"): ("higher", "pairs beat fine-tuning on references"),
    ("dpo", "dpo_online"): ("not lower", "sampling online is not better than offline pairs"),
    ("dpo_random", "base"): ("equal", "pairs drawn whatever their rewards change nothing (null control)"),
}
# Changes within this margin count as none, of win rates and of other shares.
NULL_MARGIN = 0.05
NULL = "dpo_random"
# (finding, setting, with what it is compared, measure, what is expected, claim)
WINS, TASKS, LOW_RESOURCE = "win rate", "structured tasks", "win rate in low-resource languages"
FINDINGS = [
    ("F2", "dpo", "base", WINS, *PAPER["dpo", "base"]),
    ("F2", "dpo", "base", TASKS, "not lower", "preference tuning does not lower structured tasks"),
    ("F3", "sft", "base", TASKS, "lower", "fine-tuning on references forgets"),
    ("F3", "dpo", "base", TASKS, "not lower", "preference tuning does not forget"),
    ("F4", "dpo", "dpo_off_policy", WINS, *PAPER["dpo", "dpo_off_policy"]),
    ("F5", "dpo", "dpo_online", WINS, *PAPER["dpo", "dpo_online"]),
    ("F6", "dpo", "base", LOW_RESOURCE, "higher", "low-resource languages gain, too"),
]
REWARDS_RANK = "the reward model ranks usefully in most languages"
# Rows of the config without which a finding cannot be tested.
SETTINGS = {
    "dpo": "{name: dpo, objective: dpo, target: pair, rejected: mean-2sd, pools: [POOL]}",
    "sft": "{name: sft, objective: sft, target: reference, pools: [POOL]}",
    "dpo_off_policy": "{name: dpo_off_policy, objective: dpo, target: pair, rejected: mean-2sd, responses: OTHER_POLICY, pools: [POOL]}",
    "dpo_online": "{name: dpo_online, objective: online_dpo, target: prompts, pools: [POOL]}",
}
MONOLINGUAL, ALL = "monolingual", "all"


def compare_with_paper(low, high, expected, prompts=FEWEST):
    """{verdict, agrees}: whether an interval of a difference, by its signs, agrees with what the paper reports."""
    if prompts < FEWEST:
        return {"verdict": f"cannot tell: too few prompts (under {FEWEST})", "agrees": None}
    shows = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
    if expected is None:
        return {"verdict": shows, "agrees": None}
    if expected == "equal" and low >= -NULL_MARGIN and high <= NULL_MARGIN:
        return {"verdict": f"appears: within {NULL_MARGIN} of no change", "agrees": True}
    if expected == "not lower" and shows != "lower":
        seen = low >= -NULL_MARGIN
        return {
            "verdict": f"appears: not lower by more than {NULL_MARGIN}" if seen else "cannot tell",
            "agrees": seen or None,
        }
    if shows == expected or (shows, expected) == ("higher", "not lower"):
        return {"verdict": "appears", "agrees": True}
    if shows in ("higher", "lower"):
        return {"verdict": f"does NOT appear: {shows}", "agrees": False}
    return {"verdict": "cannot tell", "agrees": None}


def check_findings(summary, audits, low_resource):
    """The paper's findings F1 to F6 on one summary, a dict for each finding, model and pool.

    Args:
        summary: rows of summary.csv, all as read by read_summary.
        audits: {reward model: contents of audit/REWARD.json}.
        low_resource: codes of the low-resource languages.
    """
    found = [judge_rewards(name, audit["languages"]) for name, audit in audits.items()]
    summary = summary[~summary["task"].str.contains("/", na=False)]  # of other harnesses
    for model in summary["model"].unique():
        of_model = summary[summary["model"] == model]
        agreement = judge_agreement(of_model, model)
        if agreement["n"] or not audits:
            found.append(agreement)
        for name, setting, versus, measure, expected, claim in FINDINGS:
            places = list_places(of_model, setting)
            entries = [
                check_finding(of_model, place, setting, versus, measure, expected, low_resource) for place in places
            ] or [cannot_tell(setting, versus, measure, f"there is no setting {setting}: add {SETTINGS[setting]}")]
            found += [{"id": name, "claim": claim, "model": model, **entry} for entry in entries]
    return sorted(found, key=lambda entry: entry["id"])


def read_summary(path):
    """summary.csv with the columns `arm` and `versus`: setting and baseline without the replicates' numbers."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"seed": str})
    for name, source in (("arm", "setting"), ("versus", "baseline")):
        table[name] = [
            value.removesuffix(f".s{seed}") if isinstance(value, str) else value
            for value, seed in zip(table[source], table["seed"], strict=True)
        ]
    return table


def list_places(summary, setting):
    """Where a setting is tuned: `monolingual` for pools of one language, which bear its code, and the other pools."""
    pools = summary.loc[summary["arm"] == setting, "language"].unique()
    codes = set(summary["eval_language"])
    return [MONOLINGUAL] * bool(codes & set(pools)) + [pool for pool in pools if pool not in codes]


def choose(rows, seed=None):
    """The rows of the last round, of one seed; by default those over all seeds where there are several."""
    rows = rows[rows["round"] == rows["round"].max()]
    if seed is None:
        seed = ALL if (rows["seed"] == ALL).any() else "1"
    return rows[rows["seed"] == seed]


def find_rows(summary, place, setting, versus, measure, low_resource):
    """The rows of the summary that a measure of a setting consists of; all seeds and rounds."""
    rows = summary[(summary["arm"] == setting) & (summary["versus"] == versus)]
    own = rows["eval_language"] == rows["language"]
    if versus != "base":  # contrasts have no rows of single languages
        own = rows["language"].isin(summary["eval_language"])
    rows = rows[own if place == MONOLINGUAL else rows["language"] == place]
    if measure == TASKS:
        rows = rows[~rows["task"].isin(["arena", "fidelity"]) & rows["suite"].isna()]  # a group counts once
    else:
        rows = rows[(rows["task"] == "arena") & (rows["metric"] == "win_rate")]
    if measure == LOW_RESOURCE:
        return rows[rows["eval_language"].isin(low_resource)]
    return rows if place == MONOLINGUAL and versus == "base" else rows[rows["eval_language"] == ALL]


def measure_change(rows):
    """{estimate, low, high, n}, the mean change over languages and tasks, of rows that choose has chosen.

    Metrics of a task are averaged first. Half the interval's width is the mean of the parts' over languages and
    metrics, as of parts that rise and fall together, and the root of the mean square over tasks, divided by the
    number of tasks' root, since tasks share no prompts. None without rows.
    """
    if rows.empty:
        return None
    parts = []
    for _, task in rows.groupby("task", sort=True):
        widths = [(row.delta - low, high - row.delta) for row in task.itertuples() for low, high in [bounds(row)]]
        parts.append((task["delta"].mean(), *(sum(side) / len(widths) for side in zip(*widths, strict=True))))
    estimate = sum(part[0] for part in parts) / len(parts)
    below, above = (math.sqrt(sum(part[i] ** 2 for part in parts)) / len(parts) for i in (1, 2))
    return {"estimate": estimate, "low": estimate - below, "high": estimate + above, "n": int(rows["n"].max())}


def bounds(row):
    """The interval of a row's delta.

    Without one nothing varies, and the estimate stands for it; or there is one prompt, which shows nothing.
    """
    if pd.isna(row.ci_low):
        return (row.delta, row.delta) if row.n > 1 else (-math.inf, math.inf)
    shift = 0.5 if row.metric.startswith("win_rate") and row.versus == "base" else 0.0
    return row.ci_low - shift, row.ci_high - shift


def check_finding(summary, place, setting, versus, measure, expected, low_resource):
    """One finding in one pool: estimate, interval, null control, noise between seeds, and the verdict with its reason."""
    rows = find_rows(summary, place, setting, versus, measure, low_resource)
    found = measure_change(choose(rows))
    where = f"{place}/{setting}"
    if found is None:
        return cannot_tell(where, versus, measure, explain_missing(summary, place, setting, versus, measure))
    seeds = [measure_change(choose(rows, seed)) for seed in sorted(set(rows["seed"]) - {ALL})]
    changes = pd.Series([change["estimate"] for change in seeds if change])
    null = None
    if versus == "base":
        null = measure_change(choose(find_rows(summary, place, NULL, "base", measure, low_resource)))
    compared = compare_with_paper(found["low"], found["high"], expected, found["n"])
    verdict = {True: "supported", False: "not supported", None: "cannot tell"}[compared["agrees"]]
    why = f"{compared['verdict']}; expected {expected}, found {found['estimate']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    if verdict == "supported" and expected == "higher" and null and null["estimate"] >= found["estimate"]:
        verdict, why = "cannot tell", f"{why}; the null control {NULL} changes as much ({null['estimate']:+.3f})"
    if len(changes) < 2:
        why += "; one training seed, so that the noise between trainings is left out: give the setting more `seeds`"
    return {
        "contrast": f"{where} - {versus}",
        "measure": measure,
        **{name: finite(found[name]) for name in ("estimate", "low", "high")},
        "null": null and {name: finite(null[name]) for name in ("estimate", "low", "high")},
        "replicate_noise": float(changes.std()) if len(changes) > 1 else None,
        "n": found["n"],
        "verdict": verdict,
        "why": why,
    }


def finite(value):
    return float(value) if math.isfinite(value) else None


def explain_missing(summary, place, setting, versus, measure):
    """What to add to the config, where a summary has no row for a finding."""
    if measure == TASKS:
        return "there are no structured tasks: name some under evaluation.tasks"
    if not (summary["metric"] == "win_rate").any():
        return "there are no verdicts: name a judge under evaluation.judge"
    if versus != "base" and place not in list_places(summary, versus):
        return (
            f"there is no setting {versus} with the pool {place}: add {SETTINGS[versus].replace('POOL]', place + ']')}"
        )
    if versus != "base":
        pool = "LANGUAGE" if place == MONOLINGUAL else place
        return f"the two are not compared: add {{setting: {setting}, pool: {pool}, versus: {versus}}} to contrasts"
    if measure == LOW_RESOURCE:
        return (
            "no low-resource language is evaluated: add one of config/languages.tsv (resource low) to languages, and "
            "to the pool or with evaluate: all"
        )
    return "the summary has no such row: run the workflow to its end"


def cannot_tell(setting, versus, measure, why):
    empty = dict.fromkeys(("estimate", "low", "high", "null", "replicate_noise", "n"))
    return {"contrast": f"{setting} - {versus}", "measure": measure, **empty, "verdict": "cannot tell", "why": why}


def judge_rewards(name, languages):
    """F1 by a reward model's audit: whether it is fit for its task in most languages."""
    by_verdict = {
        verdict or "too few comparisons": [code for code, audit in languages.items() if audit["verdict"] == verdict]
        for verdict in ("fit", "weak", "unfit", None)
    }
    return majority(len(by_verdict["fit"]), len(by_verdict["unfit"]), len(languages)) | {
        "model": None,
        "contrast": f"reward model {name}",
        "measure": "share of languages in which the audit finds it fit",
        "n": sum(audit["n"] for audit in languages.values()),
        "why": "; ".join(f"{verdict}: {', '.join(codes)}" for verdict, codes in by_verdict.items() if codes),
    }


def judge_agreement(summary, model):
    """F1 by the results: in how many languages its sign agrees with the verdicts on DPO's answers beyond chance."""
    rows = summary[(summary["metric"] == "reward_judge_agreement") & (summary["arm"] == "dpo")]
    places = list_places(rows, "dpo")
    measure = "share of languages in which rewards agree with verdicts beyond chance"
    missing = (
        "neither an audit nor rewards of judged answers: make the target audit, or set evaluation.fidelity and a judge"
    )
    if not places:
        return {
            "id": "F1",
            "claim": REWARDS_RANK,
            "model": model,
            **cannot_tell("rewards", "verdicts", measure, missing),
        }
    place = places[-1]
    own = rows["eval_language"] == rows["language"]
    rows = choose(rows[own if place == MONOLINGUAL else (rows["language"] == place) & (rows["eval_language"] != ALL)])
    intervals = {row.eval_language: bounds(row) for row in rows.itertuples()}
    above = [code for code, (low, _) in intervals.items() if low > 0]
    below = [code for code, (_, high) in intervals.items() if high < 0]
    return majority(len(above), len(below), len(intervals)) | {
        "model": model,
        "contrast": f"rewards - verdicts, {place}/dpo",
        "measure": measure,
        "n": int(rows["n"].sum()),
        "why": f"beyond chance: {', '.join(above) or 'none'}; below it: {', '.join(below) or 'none'}",
    }


def majority(good, bad, number):
    """A verdict by the share of languages."""
    verdict = "supported" if 2 * good > number else "not supported" if 2 * bad > number else "cannot tell"
    empty = dict.fromkeys(("low", "high", "null", "replicate_noise"))
    return {"id": "F1", "claim": REWARDS_RANK, "estimate": good / number, **empty, "verdict": verdict}


TABLES = {
    "win_rate": lambda row: row["task"] == "arena" and row["metric"].startswith("win_rate") and row["versus"] == "base",
    "structured": lambda row: row["task"] not in ("arena", "fidelity"),
    "fidelity": lambda row: row["task"] == "fidelity",
}


def shape_table(summary, name):
    """The rows of one table in the paper's shape: models x settings x measures, a column a language, then the mean.

    Over all seeds where there are several. Models tuned on one language form one row, each in its own language.
    """
    rows = summary[summary.apply(TABLES[name], axis=1)]
    rows = rows[rows["versus"].isna() | (rows["versus"] == "base")]
    codes = [code for code in summary["eval_language"].unique() if code != ALL]
    keys = ["model", "setting", "round", "trained_on", "task", "metric"]
    lines = {}
    for _, arm in rows.groupby(["model", "language", "arm", "round"], sort=False):
        for row in choose(arm).itertuples():
            single = row.language in codes
            if single and row.eval_language != row.language:
                continue
            trained_on = MONOLINGUAL if single else "" if row.language == "untuned" else row.language
            line = lines.setdefault((row.model, row.arm, row.round, trained_on, row.task, row.metric), {})
            line["mean" if row.eval_language == ALL else row.eval_language] = row.value
    for line in lines.values():
        line.setdefault("mean", sum(line.values()) / len(line))
    table = pd.DataFrame([dict(zip(keys, key, strict=True)) | line for key, line in lines.items()])
    return table.reindex(columns=[*keys, *codes, "mean"])
