"""The paper's findings, and whether a run's summary shows them."""

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from croco.results.statistics import FEWEST
from croco.results.table import ALL, ARENA, FIDELITY, rank_seed
from croco.runs import BASE, OTHER_POLICY, OWN, Arm

if TYPE_CHECKING:
    import pandas as pd

# The facts of its row (croco.runs.Arm) that make a setting an arm of the paper, whatever its name.
METHOD, NULL, REFERENCES, BEST, OFF_POLICY, ONLINE = "method", "null", "references", "best", "off_policy", "online"
PAIRS = {"objective": "dpo", "target": "pair", "rejected": "mean-2sd", "responses": OWN}
ROLES = {
    METHOD: PAIRS,
    NULL: {**PAIRS, "rejected": "random"},
    REFERENCES: {"objective": "sft", "target": "reference"},
    BEST: {"objective": "sft", "target": "best", "responses": OWN},
    OFF_POLICY: {**PAIRS, "responses": OTHER_POLICY},
    ONLINE: {"objective": "online_dpo", "target": "prompts"},
}
# The paper's results for these comparisons of win rates (findings F2, F4, F5), and what a null control must show.
PAPER = {
    (METHOD, BASE): ("higher", "preference tuning on own responses improves on the base"),
    (METHOD, OFF_POLICY): ("higher", "another model's responses reduce the gain"),
    (METHOD, BEST): ("higher", "pairs beat fine-tuning on the best response"),
    (METHOD, REFERENCES): ("higher", "pairs beat fine-tuning on references"),
    (METHOD, ONLINE): ("not lower", "sampling online is not better than offline pairs"),
    (NULL, BASE): ("equal", "pairs drawn whatever their rewards change nothing (null control)"),
}
# Changes of win rates and other shares within this margin count as no change.
NULL_MARGIN = 0.05
# (finding, role, what it is compared with, measure, expectation, claim)
WINS, TASKS, LOW_RESOURCE = "win rate", "structured tasks", "win rate in low-resource languages"
FINDINGS = [
    ("F2", METHOD, BASE, WINS, *PAPER[METHOD, BASE]),
    ("F2", METHOD, BASE, TASKS, "not lower", "preference tuning does not lower structured tasks"),
    ("F3", REFERENCES, BASE, TASKS, "lower", "fine-tuning on references forgets"),
    ("F3", METHOD, BASE, TASKS, "not lower", "preference tuning does not forget"),
    ("F4", METHOD, OFF_POLICY, WINS, *PAPER[METHOD, OFF_POLICY]),
    ("F5", METHOD, ONLINE, WINS, *PAPER[METHOD, ONLINE]),
    ("F6", METHOD, BASE, LOW_RESOURCE, "higher", "low-resource languages gain, too"),
]
REWARDS_RANK = "the reward model ranks usefully in most languages"
# Metrics that must not be averaged with accuracies, even if all their values happen to be between 0 and 1.
UNSCALED = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bits_per_character", "loss", "nll")
MONOLINGUAL = "monolingual"
NOT_TESTED = "not tested"
NO_RESULTS = "there are no results yet: run the workflow to its end"
NEEDS_ALL = "a mean needs all languages: finish these"


def compare_with_paper(low: float, high: float, expected: str | None, prompts: int = FEWEST) -> dict:
    """{verdict, agrees}: whether an interval of a difference, by its signs, agrees with what the paper reports."""
    if prompts < FEWEST:
        return {"verdict": f"inconclusive: too few prompts (under {FEWEST})", "agrees": None}
    shows = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
    if expected is None:
        return {"verdict": shows, "agrees": None}
    if expected == "equal" and low >= -NULL_MARGIN and high <= NULL_MARGIN:
        return {"verdict": f"appears: within {100 * NULL_MARGIN:g} points of no change", "agrees": True}
    if expected == "not lower" and shows != "lower":
        seen = low >= -NULL_MARGIN
        return {
            "verdict": f"appears: not lower by more than {100 * NULL_MARGIN:g} points" if seen else "inconclusive",
            "agrees": seen or None,
        }
    if shows == expected or (shows, expected) == ("higher", "not lower"):
        return {"verdict": "appears", "agrees": True}
    if shows in ("higher", "lower"):
        return {"verdict": f"does NOT appear: {shows}", "agrees": False}
    return {"verdict": "inconclusive", "agrees": None}


def check_findings(
    summary: "pd.DataFrame",
    audits: dict[str, dict],
    low_resource: Collection[str],
    arms: list[Arm],
    models: Iterable[str],
) -> list[dict]:
    """The paper's findings F1 to F6 on one summary, a dict for each finding, model and pool.

    Args:
        summary: rows of summary.csv, all as read by croco.results.table.
        audits: {reward model: contents of audit/REWARD.json}.
        low_resource: codes of the low-resource languages.
        arms: croco.runs.Arm of every tuned setting.
        models: names of all policies; one without rows has every finding as not tested.
    """
    summary = mark_counted(summary)
    found = [judge_rewards(name, audit["languages"]) for name, audit in audits.items()]
    summary = summary[~find_imported(summary)]
    places = list_places(arms)
    for model in models:
        of_model = summary[summary["model"] == model]
        agreements = judge_agreement(of_model, model, arms, places)
        found += [entry for entry in agreements if entry["n"] or not audits]
        for name, role, versus, measure, expected, claim in FINDINGS:
            for place in places:
                entries = check_place(of_model, arms, place, role, versus, measure, expected, low_resource)
                found += [{"id": name, "claim": claim, "model": model, **entry} for entry in entries]
    return sorted(found, key=lambda entry: entry["id"])


def list_claims(arms: list[Arm]) -> list[dict]:
    """What the paper reports of comparing two settings: [{setting, versus, expected, claim}].

    Of the settings with a role, those that differ in more than it takes are variants that the paper does not have.
    """
    settings = {role: [arm.setting for arm in find_plainest(arm for arm in arms if plays(arm, role))] for role in ROLES}
    return [
        {"setting": setting, "versus": other, "expected": expected, "claim": claim}
        for (role, versus), (expected, claim) in PAPER.items()
        for setting in settings[role]
        for other in ([BASE] if versus == BASE else settings[versus])
    ]


def mark_counted(summary: "pd.DataFrame") -> "pd.DataFrame":
    """Adds `counted`: which rows count in a mean over structured tasks.

    A group counts instead of its members, and a metric only if all its values are shares between 0 and 1. Results of
    other harnesses do not count.
    """
    share = ~summary["metric"].isin(UNSCALED)
    for name in ("value", "baseline_value"):
        share &= summary[name].isna() | summary[name].between(0, 1)
    share = share.groupby([summary["task"], summary["metric"]]).transform("all").astype(bool)
    structured = ~summary["task"].isin([ARENA, FIDELITY]) & ~find_imported(summary)
    return summary.assign(counted=share & structured & summary["suite"].isna())


def find_imported(summary: "pd.DataFrame") -> "pd.Series":
    """Which rows are results of other harnesses, whose tasks have a slash in their names."""
    return summary["task"].str.contains("/", na=False).astype(bool)


def list_places(arms: list[Arm]) -> list[str]:
    """The pools that arms are tuned on: `monolingual` for all pools of one language, and each other pool by its name."""
    pools = {pool: codes["trained"] for arm in arms for pool, codes in arm.pools.items()}
    several = [pool for pool, codes in pools.items() if codes != [pool]]
    if len(several) < len(pools):
        return [MONOLINGUAL, *several]
    return several


def plays(arm: Arm, role: str) -> bool:
    """Whether a setting has all facts that ROLES lists for a role."""
    return all(getattr(arm, fact) == value for fact, value in ROLES[role].items())


def find_arms(arms: list[Arm], role: str, place: str) -> list[Arm]:
    """The plainest arms of a role in a place."""
    return find_plainest(arm for arm in arms if plays(arm, role) and arm.list_pools(place, MONOLINGUAL))


def find_plainest(arms: Iterable[Arm]) -> list[Arm]:
    """The arms with the fewest options that differ from the config's defaults; several if equal."""
    fitting = list(arms)
    least = min((len(arm.varies) for arm in fitting), default=None)
    return [arm for arm in fitting if len(arm.varies) == least]


def find_differing(arm: Arm, other: Arm) -> list[str]:
    """Facts besides those of their roles in which two arms differ; only facts that both kinds of target have."""
    pairs = arm.target == other.target
    keys = (
        [*arm.varies, *other.varies] if pairs else [key for key in other.varies if key in ("hygiene", "reward_model")]
    )
    return [key for key in dict.fromkeys(keys) if arm.varies.get(key) != other.varies.get(key)]


def find_partner(summary: "pd.DataFrame", arms: list[Arm], arm: Arm, role: str, place: str) -> Arm | None:
    """The arm of a role that differs least from ``arm``, or the first compared one of several equal ones; or None."""
    fitting = [other for other in arms if plays(other, role) and other.list_pools(place, MONOLINGUAL)]
    compared = set(summary.loc[summary["arm"] == arm.setting, "versus"])
    return min(
        fitting,
        key=lambda other: (len(find_differing(arm, other)), other.setting not in compared),
        default=None,
    )


def choose(rows: "pd.DataFrame", seed: str | None = None) -> "pd.DataFrame":
    """The rows of the last round, of one seed; by default those over all seeds where there are any, else the first seed's."""
    rows = rows[rows["round"] == rows["round"].max()]
    if seed is None:
        seed = min(rows["seed"], key=rank_seed, default=ALL)
    return rows[rows["seed"] == seed]


def find_rows(
    summary: "pd.DataFrame",
    arm: Arm,
    place: str,
    versus: str,
    measure: str,
    low_resource: Collection[str],
    only: set[str] | None = None,
) -> "pd.DataFrame":
    """The rows of the summary that a measure of an arm consists of; all seeds and rounds.

    ``only`` are the languages to which pools of one language are restricted.
    """
    pools = arm.list_pools(place, MONOLINGUAL)
    rows = summary[(summary["arm"] == arm.setting) & (summary["versus"] == versus) & summary["pool"].isin(pools)]
    rows = rows[rows["counted"]] if measure == TASKS else rows[(rows["task"] == ARENA) & (rows["metric"] == "win_rate")]
    if place == MONOLINGUAL:
        rows = rows[rows["pool"].isin(pools if only is None else only)]
        own = rows["eval_language"] == rows["pool"]
        # Contrasts may have no rows of single languages. With one language the row over all is the same.
        single = [pool for pool in pools if arm.pools[pool]["evaluated"] == [pool]]
        rows = rows[own if own.any() else (rows["eval_language"] == ALL) & rows["pool"].isin(single)]
        return rows[rows["eval_language"].isin(low_resource)] if measure == LOW_RESOURCE else rows
    if measure == LOW_RESOURCE:
        return rows[rows["eval_language"].isin(low_resource) & rows["eval_language"].isin(arm.pools[place]["trained"])]
    return rows[rows["eval_language"] == ALL]


def list_expected(arm: Arm, place: str, measure: str, low_resource: Collection[str]) -> list[str]:
    """The languages that a measure should have."""
    pools = arm.list_pools(place, MONOLINGUAL)
    if measure == LOW_RESOURCE:
        return [
            code
            for code in dict.fromkeys(code for pool in pools for code in arm.pools[pool]["trained"])
            if code in low_resource
        ]
    return pools if place == MONOLINGUAL else arm.pools[place]["evaluated"]


def list_present(summary: "pd.DataFrame", arm: Arm, place: str, measure: str) -> set[tuple[str, str]]:
    """{(task, language)} of an arm's comparisons with the base; the task of win rates is arena."""
    rows = summary[summary["arm"] == arm.setting]
    rows = rows[rows["pool"].isin(arm.list_pools(place, MONOLINGUAL)) & (rows["versus"] == BASE)]
    rows = choose(rows[rows["counted"] if measure == TASKS else rows["metric"] == "win_rate"])
    if place == MONOLINGUAL:
        rows = rows[rows["eval_language"] == rows["pool"]]
    return set(zip(rows["task"], rows["eval_language"], strict=True)) - {(ARENA, ALL)}


def list_gaps(
    summary: "pd.DataFrame", arms: Iterable[Arm], place: str, measure: str, expected: Collection[str]
) -> dict[str, list[str]]:
    """{setting: missing languages and tasks} of those that one of the compared arms should have."""
    wanted = {(ARENA, code) for code in expected}
    if measure == TASKS:
        tasks = summary[summary["counted"] & summary["eval_language"].isin(expected)]
        wanted = set(zip(tasks["task"], tasks["eval_language"], strict=True))
    gaps = {}
    for arm in arms:
        missing = sorted(wanted - list_present(summary, arm, place, measure))
        if missing:
            gaps[arm.setting] = [code if measure != TASKS else f"{task} in {code}" for task, code in missing]
    return gaps


def measure_change(rows: "pd.DataFrame") -> dict | None:
    """{estimate, low, high, n}: the mean change over languages and tasks, for rows returned by choose.

    Metrics of a task are averaged first. Languages and metrics are treated as perfectly correlated: half the interval's
    width is the mean of theirs. Tasks share no prompts and are treated as independent: half the width is the root mean
    square of theirs, divided by the root of their number. ``n`` is that of the part with the fewest prompts. None
    without rows.
    """
    if rows.empty:
        return None
    parts = []
    for _, task in rows.groupby("task", sort=True):
        widths = [(row.delta - low, high - row.delta) for row in task.itertuples() for low, high in [bounds(row)]]
        parts.append((task["delta"].mean(), *(sum(side) / len(widths) for side in zip(*widths, strict=True))))
    estimate = sum(part[0] for part in parts) / len(parts)
    below, above = (math.sqrt(sum(part[i] ** 2 for part in parts)) / len(parts) for i in (1, 2))
    return {"estimate": estimate, "low": estimate - below, "high": estimate + above, "n": int(rows["n"].min())}


def bounds(row: Any) -> tuple[float, float]:
    """The interval of a row's delta; infinite if it has none."""
    import pandas as pd

    return (-math.inf, math.inf) if pd.isna(row.delta_low) else (row.delta_low, row.delta_high)


def check_place(
    summary: "pd.DataFrame",
    arms: list[Arm],
    place: str,
    role: str,
    versus: str,
    measure: str,
    expected: str,
    low_resource: Collection[str],
) -> list[dict]:
    """A finding in one place, one entry per arm with the role."""
    entries = []
    for arm in find_arms(arms, role, place):
        other = None if versus == BASE else find_partner(summary, arms, arm, versus, place)
        if versus != BASE and other is None:
            entries.append(not_tested(f"{place}/{arm.setting}", versus, measure, explain_lack(versus, place)))
        else:
            entries.append(check_finding(summary, arms, place, arm, other, measure, expected, low_resource))
    return entries or [not_tested(f"{place}/{role}", versus, measure, explain_lack(role, place))]


def check_finding(
    summary: "pd.DataFrame",
    arms: list[Arm],
    place: str,
    arm: Arm,
    other: Arm | None,
    measure: str,
    expected: str,
    low_resource: Collection[str],
) -> dict:
    """One comparison in one place: estimate, interval, null control, noise between seeds, and the verdict with its reason.

    ``other`` is the arm that it is compared with, or None for the base.
    """
    import pandas as pd

    versus, where = other.setting if other else BASE, f"{place}/{arm.setting}"
    wanted = list_expected(arm, place, measure, low_resource)
    if not wanted:
        return not_tested(where, versus, measure, explain_low_resource(place, low_resource))
    rows = find_rows(summary, arm, place, versus, measure, low_resource)
    found = measure_change(choose(rows))
    control = find_partner(summary, arms, arm, NULL, place) if (versus, expected) == (BASE, "higher") else None
    gaps = list_gaps(summary, [each for each in (arm, other, control) if each], place, measure, wanted)
    lacking = {name: lacks for name, lacks in gaps.items() if control is None or name != control.setting}
    if found is None or lacking:
        missing = "; ".join([*say_gaps(lacking), NEEDS_ALL])
        if found is None:
            missing = explain_missing(summary, arm, place, versus, measure, lacking)
        return {**not_tested(where, versus, measure, missing), "gaps": lacking}
    seeds = [measure_change(choose(rows, seed)) for seed in sorted(set(rows["seed"]) - {ALL})]
    changes = pd.Series([change["estimate"] for change in seeds if change])
    null = None
    # A mean over other languages is not a control.
    if control and not gaps:
        null = measure_change(
            choose(find_rows(summary, control, place, BASE, measure, low_resource, set(rows["pool"])))
        )
    verdict, why = decide(found, expected, control, null)
    if (versus, expected) == (BASE, "higher") and null is None:
        why.append("there is no null control (rejected: random) in the same languages")
    if other and (differing := find_differing(arm, other)):
        why.append(f"the two differ in {', '.join(differing)} as well")
    why += say_gaps(gaps)
    if measure == TASKS and (left_out := name_unscaled(summary, arm)):
        why.append(f"excluded, because they are not shares between 0 and 1: {left_out}")
    if len(changes) < 2:
        why.append("one training seed, so the noise between trainings is not included: give the setting more `seeds`")
    return {
        "contrast": f"{where} - {versus}",
        "measure": measure,
        **{name: finite(found[name]) for name in ("estimate", "low", "high")},
        "null": null and {name: finite(null[name]) for name in ("estimate", "low", "high")},
        "replicate_noise": float(changes.std()) if len(changes) > 1 else None,
        "n": found["n"],
        "gaps": gaps,
        "verdict": verdict,
        "why": "; ".join(why),
    }


def decide(found: dict, expected: str, control: Arm | None, null: dict | None) -> tuple[str, list[str]]:
    """(verdict, reasons) by the interval of a change, as measure_change gives it, and that of the null control."""
    compared = compare_with_paper(found["low"], found["high"], expected, found["n"])
    verdict = {True: "supported", False: "not supported", None: "inconclusive"}[compared["agrees"]]
    interval = f"{say_points(found['estimate'])} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
    why = [compared["verdict"], f"expected {expected}, found {interval}"]
    if verdict == "supported" and control and null and null["estimate"] >= found["estimate"]:
        why.append(f"the null control {control.setting} changes as much ({say_points(null['estimate'])})")
        return "inconclusive", why
    return verdict, why


def say_points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f} points"


def say_gaps(gaps: dict[str, list[str]]) -> list[str]:
    """One clause per setting that lacks results; ``gaps`` as list_gaps returns them."""
    return [f"{setting} has no results for {', '.join(missing)}" for setting, missing in gaps.items()]


def name_unscaled(summary: "pd.DataFrame", arm: Arm) -> str:
    """The metrics of an arm's structured tasks that are excluded from means, as text: "metric of task, ..."."""
    rows = summary[~summary["task"].isin([ARENA, FIDELITY]) & summary["suite"].isna() & ~summary["counted"]]
    rows = rows[rows["arm"] == arm.setting]
    return ", ".join(dict.fromkeys(f"{row.metric} of {row.task}" for row in rows.itertuples()))


def finite(value: float) -> float | None:
    """The value as a float, or None where it is infinite or nan, which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def explain_lack(role: str, place: str) -> str:
    """The remedy for a missing arm: which setting to add to the config."""
    facts = {**ROLES[role]}
    own = facts.pop("responses", OWN) == OWN
    shown = ", ".join(f"{name}: {value}" for name, value in facts.items()) + ("" if own else ", responses: POLICY")
    return f"no setting with the pool {place} has {shown}: add {{name: NAME, {shown}, pools: [{place}]}}"


def explain_low_resource(place: str, low_resource: Collection[str]) -> str:
    """Why a place has no low-resource language, and what to do about it."""
    lack = "no pool of one language" if place == MONOLINGUAL else f"the pool {place}"
    if not low_resource:
        return "the config has no low-resource language: add one of config/languages.tsv (resource low) to languages"
    verb = "is of a low-resource language" if place == MONOLINGUAL else "has no low-resource language"
    return f"{lack} {verb} ({', '.join(low_resource)}): it is tuned on others"


def explain_missing(
    summary: "pd.DataFrame", arm: Arm, place: str, versus: str, measure: str, gaps: dict[str, list[str]]
) -> str:
    """Why a summary has no row for a finding, and what to do about it; ``gaps`` as list_gaps returns them."""
    if summary.empty:
        return NO_RESULTS
    if measure == TASKS and summary["task"].isin([ARENA, FIDELITY]).all():
        return "there are no structured tasks: name some under evaluation.tasks"
    if measure == TASKS and not summary["counted"].any():
        return f"no metric is a share between 0 and 1 ({name_unscaled(summary, arm)}): name tasks that have one"
    if measure != TASKS and not (summary["metric"] == "win_rate").any():
        return "there are no verdicts: name a judge under evaluation.judge"
    pool = "LANGUAGE" if place == MONOLINGUAL else place
    if versus != BASE:
        why = f"the two are not compared: add {{setting: {arm.setting}, pool: {pool}, versus: {versus}}} to contrasts"
    elif gaps:
        why = NEEDS_ALL
    else:
        why = "the summary has no such row: run the workflow to its end"
    return "; ".join([*say_gaps(gaps), why])


def not_tested(setting: str, versus: str, measure: str, why: str) -> dict:
    """The entry of a finding that could not be tested, with the keys that check_finding returns."""
    empty = dict.fromkeys(("estimate", "low", "high", "null", "replicate_noise", "n"))
    return {
        "contrast": f"{setting} - {versus}",
        "measure": measure,
        **empty,
        "gaps": {},
        "verdict": NOT_TESTED,
        "why": why,
    }


def judge_rewards(name: str, languages: dict[str, dict]) -> dict:
    """F1 from a reward model's audit: whether it is fit in most languages."""
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


def judge_agreement(summary: "pd.DataFrame", model: str, arms: list[Arm], places: list[str]) -> list[dict]:
    """F1 from the results: in how many languages rewards and verdicts on the method's answers agree beyond chance."""
    lack = (
        "neither an audit nor rewards of judged answers: run the target audit, or set evaluation.fidelity and a judge"
    )
    if summary.empty:
        lack = NO_RESULTS
    summary = summary[summary["metric"] == "reward_judge_agreement"]
    measure = "share of languages in which rewards agree with verdicts beyond chance"
    entries = []
    for place in places:
        for arm in find_arms(arms, METHOD, place):
            rows = summary[(summary["arm"] == arm.setting) & summary["pool"].isin(arm.list_pools(place, MONOLINGUAL))]
            own = rows["eval_language"] == rows["pool"]
            rows = choose(rows[own if place == MONOLINGUAL else rows["eval_language"] != ALL])
            if rows.empty:
                continue
            enough = rows[rows["n"] >= FEWEST]
            intervals = {row.eval_language: bounds(row) for row in enough.itertuples()}
            above = [code for code, (low, _) in intervals.items() if low > 0]
            below = [code for code, (_, high) in intervals.items() if high < 0]
            few = [code for code in rows["eval_language"] if code not in intervals]
            missing = [code for code in list_expected(arm, place, WINS, ()) if code not in {*intervals, *few}]
            why = f"beyond chance: {', '.join(above) or 'none'}; below it: {', '.join(below) or 'none'}"
            why += f"; too few prompts (under {FEWEST}) in {', '.join(few)}" if few else ""
            entries.append(
                majority(len(above), len(below), len(intervals) + len(few) + len(missing))
                | {
                    "model": model,
                    "contrast": f"rewards - verdicts, {place}/{arm.setting}",
                    "measure": measure,
                    "n": int(rows["n"].sum()),
                    "gaps": {arm.setting: missing} if missing else {},
                    "why": why + (f"; no agreement is known in {', '.join(missing)}" if missing else ""),
                }
            )
    lacking = not_tested("rewards", "verdicts", measure, lack)
    return entries or [{"id": "F1", "claim": REWARDS_RANK, "model": model, **lacking}]


def majority(good: int, bad: int, number: int) -> dict:
    """A verdict from the share of languages."""
    verdict = "supported" if 2 * good > number else "not supported" if 2 * bad > number else "inconclusive"
    empty = dict.fromkeys(("low", "high", "null", "replicate_noise"))
    return {"id": "F1", "claim": REWARDS_RANK, "estimate": good / number, **empty, "gaps": {}, "verdict": verdict}


TABLES = {
    "win_rate": lambda rows: (
        (rows["task"] == ARENA) & rows["metric"].str.startswith("win_rate") & (rows["versus"] == BASE)
    ),
    "structured": lambda rows: ~rows["task"].isin([ARENA, FIDELITY]),
    "fidelity": lambda rows: rows["task"] == FIDELITY,
}


def shape_table(summary: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """The rows of one table in the paper's shape: models x settings x measures, one column per language, then the mean.

    Values are over all seeds if there are such rows of the task and metric, else those of the first seed. Models tuned on
    one language share one row, each in its own language. A row has no mean if it lacks a language. `suite` names a task's
    group: the group has its own row, and a mean over tasks counts it once.
    """
    import pandas as pd

    rows = summary[TABLES[name](summary)]
    rows = rows[rows["versus"].isna() | (rows["versus"] == BASE)]
    codes = [code for code in summary["eval_language"].unique() if code != ALL]
    keys = ["model", "setting", "round", "trained_on", "task", "suite", "metric"]
    lines: dict[tuple, dict[str, float]] = {}
    # Each metric by itself: one of another harness may lack the rows over all seeds that the others have.
    for _, of_metric in rows.groupby(["model", "pool", "arm", "round", "task", "metric"], sort=False):
        for row in choose(of_metric).itertuples():
            single = row.pool in codes
            if single and row.eval_language != row.pool:
                continue
            suite = "" if pd.isna(row.suite) else row.suite
            trained_on = MONOLINGUAL if single else "" if row.pool == "untuned" else row.pool
            line = lines.setdefault((row.model, row.arm, row.round, trained_on, row.task, suite, row.metric), {})
            line["mean" if row.eval_language == ALL else row.eval_language] = row.value
    # The languages of a measure: those that any setting has it in.
    expected: dict[tuple, set[str]] = {}
    for (model, _, _, trained_on, *measure), line in lines.items():
        if trained_on == MONOLINGUAL:
            expected.setdefault((model, *measure), set()).update(line)
    for (model, _, _, trained_on, *measure), line in lines.items():
        if trained_on == MONOLINGUAL and line.keys() == expected[(model, *measure)]:
            line["mean"] = sum(line.values()) / len(line)
    table = pd.DataFrame([dict(zip(keys, key, strict=True)) | line for key, line in lines.items()])
    return table.reindex(columns=[*keys, *codes, "mean"])
