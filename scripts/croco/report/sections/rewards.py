"""Section "Rewards": rewards of responses, predicting the chosen response from languages alone, and the audit of reward models."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from croco.records import rows
from croco.report import plots
from croco.report.elements import Figure, Section, Table, figure, label, read_json, table, table_of
from croco.report.page import Page, ReportedRun
from croco.report.units import PERCENT

INTRO = "The rewards of the responses, the places of chosen and rejected responses in their pools, and the reward model's audit."
PLACES = "sd from the pool's mean"
KINDS = ("chosen", "rejected")
MEAN_2SD = "mean-2sd"  # a pair rule
MOMENTS = ["n", "mean", "sd", "lowest", "median", "highest"]


def show(page: Page) -> Section:
    """The section; its tables and the figure `languages` show the separation, the figure `audit` the audit."""
    figures = show_distributions(page)
    separation, tables = show_separation(page)
    return Section(intro=INTRO, figures=[*figures, *separation, *show_audit(page)], tables=tables)


def show_distributions(page: Page) -> list[Figure]:
    """Histograms of rewards, and of the places of chosen and rejected responses in their pools, by group of runs."""
    figures: list[Figure] = []
    for runs in group_runs(page.first):
        panels = read_panels(page, runs)
        if not panels:
            continue
        pool = runs[0].pool if len(runs[0].languages) > 1 else "one pool per language"
        title = f"{runs[0].model}, {pool}, {runs[0].setting}"
        figures.append(plot_rewards(f"rewards-{len(figures)}", title, runs[0].reward_model, panels))
        places = {kind: join_values([panel[PLACES][kind] for panel in panels.values()]) for kind in KINDS}
        if all(places.values()):
            rule = (page.ledgers.get(runs[0].folder) or {}).get("rejected")
            figures.append(plot_places(f"places-{len(figures)}", title, places, rule == MEAN_2SD))
    return figures


def group_runs(runs: Sequence[ReportedRun]) -> list[list[ReportedRun]]:
    """For each pool of a model the first setting that is tuned on pairs of its own responses."""
    groups: dict[tuple, list[ReportedRun]] = {}
    for run in runs:
        if (run.folder / "pairs.jsonl").is_file() and run.responses == run.model:
            groups.setdefault((run.model, len(run.languages) > 1 and run.pool), []).append(run)
    return [[run for run in group if run.setting == group[0].setting] for group in groups.values()]


def read_panels(page: Page, runs: Sequence[ReportedRun]) -> dict[str, dict[str, Any]]:
    """{language: {all, chosen, rejected: rewards, PLACES: {chosen, rejected}}} of these runs, as arrays of doubles.

    A list of Python numbers would take four times the memory, and a language can have millions of responses.
    """
    panels: dict[str, dict[str, Any]] = {}
    for run in runs:
        paired = read_paired(run, page.ledgers.get(run.folder))
        for language in run.languages:
            path = page.root / run.responses / language / "scores" / f"{run.reward_model}.jsonl"
            if not page.gaps.has("rewards", path, "rewards of all responses"):
                continue
            rewards = array("d")
            for line in rows(path):
                rewards.extend(reward for reward in line["rewards"] if reward is not None)
            panels[language] = {"all": rewards, **paired[language]}
    return {language: panel for language, panel in panels.items() if panel["all"]}


def read_paired(run: ReportedRun, ledger: dict | None) -> dict[str, dict[str, Any]]:
    """{language: {chosen, rejected: rewards, PLACES: {chosen, rejected}}} of a run's pairs; their texts are not kept.

    The mean and the deviation of a pool are of rewards that are standardised by language where the ledger says so, and
    those of the pairs are raw. Without a ledger no place is known.
    """
    standards = (ledger or {}).get("standardised") or {}
    paired: dict[str, dict[str, Any]] = defaultdict(
        lambda: {**{kind: array("d") for kind in KINDS}, PLACES: {kind: array("d") for kind in KINDS}}
    )
    for pair in rows(run.folder / "pairs.jsonl"):
        for kind in KINDS:
            language, reward = pair[f"{kind}_language"], pair[f"{kind}_reward"]
            panel = paired[language]
            panel[kind].append(reward)
            if ledger and pair.get("pool_std"):
                if language in standards:
                    reward = (reward - standards[language]["mean"]) / (standards[language]["std"] or 1)
                panel[PLACES][kind].append((reward - pair["pool_mean"]) / pair["pool_std"])
    return paired


def join_values(arrays: Sequence[array]) -> array:
    """The values of all arrays in their order."""
    joined = array("d")
    for values in arrays:
        joined.extend(values)
    return joined


def plot_rewards(name: str, title: str, reward_model: str | None, panels: dict[str, dict[str, Any]]) -> Figure:
    """Histograms of raw rewards, one per language; ``panels`` are {language: {kind: rewards}}."""
    lines = [
        [code, kind, len(values), *describe(values)]
        for code, panel in panels.items()
        for kind, values in panel.items()
        if kind != PLACES
    ]
    charts = []
    edges = bins([extreme for panel in panels.values() for extreme in (min(panel["all"]), max(panel["all"]))])
    for code, panel in panels.items():
        kinds = {kind: panel[kind] for kind in ("all", "chosen", "rejected") if panel[kind]}
        chart = plots.plot_histogram(
            {kind: density(values, edges) for kind, values in kinds.items()}, "Reward (logits)"
        )
        charts.append((f"{code}: {len(panel['chosen'])} chosen, {len(panel['rejected'])} rejected", chart))
    return figure(
        name,
        charts,
        f"Histograms of rewards per language: all responses, the chosen and the rejected ones: {title}.",
        f"{title}. Raw logits of {reward_model}, all responses counted; each distribution is scaled to the same area.",
        table(f"Rewards: {title}", ["language", "responses", *MOMENTS], lines),
    )


def plot_places(name: str, title: str, places: dict[str, array], is_mean_2sd: bool) -> Figure:
    """A histogram of standardised rewards.

    Args:
        places: {chosen or rejected: standard deviations from the mean}.
        is_mean_2sd: the pair rule is mean - 2 sd, whose target is drawn.
    """
    edges = bins([extreme for values in places.values() for extreme in (min(values), max(values))])
    densities = {kind: density(values, edges) for kind, values in places.items()}
    target = -2 if is_mean_2sd else None
    said = " The dashed line is mean - 2 sd, the target of the rejected." if is_mean_2sd else ""
    return figure(
        name,
        [(None, plots.plot_histogram(densities, "Distance from the pool's mean (standard deviations)", target))],
        f"Histogram: where the chosen and the rejected response fall in their pool: {title}.",
        f"{title}. Places of chosen and rejected in their own pool.{said}",
        table(
            f"Place in the pool: {title}",
            ["responses", *MOMENTS],
            [[kind, len(values), *describe(values)] for kind, values in places.items()],
        ),
    )


def describe(values: Sequence[float]) -> list[float | None]:
    """Mean, standard deviation, minimum, median and maximum."""
    if not values:
        return [None] * 5
    return [float(f(values)) for f in (np.mean, np.std, np.min, np.median, np.max)]


def bins(values: Sequence[float]) -> np.ndarray:
    """Edges of a histogram that reaches from the lowest to the highest of these values."""
    low, high = min(values), max(values)
    return np.linspace(low, high, 41) if low < high else np.linspace(low - 0.5, low + 0.5, 4)


def density(values: Sequence[float], edges: np.ndarray) -> list[tuple[float, float, float]]:
    """[(from, to, density)] of a histogram."""
    heights, _ = np.histogram(values, edges, density=True)
    return [
        (round(float(low), 5), round(float(high), 5), round(float(height), 5))
        for low, high, height in zip(edges, edges[1:], heights, strict=False)
    ]


def show_separation(page: Page) -> tuple[list[Figure], list[Table]]:
    """How well the languages of a pair predict the chosen response: a heat map per run, and the table."""
    separations = {
        run.name: separation for run in page.first if (separation := page.ledgers.get(run.folder, {}).get("separation"))
    }
    if not separations:
        return [], []
    codes = list(
        dict.fromkeys(
            code
            for separation in separations.values()
            for chosen, counts in separation["pairs"].items()
            for code in [chosen, *counts]
        )
    )
    lines = [
        [name, chosen, *(separation["pairs"].get(chosen, {}).get(rejected, 0) for rejected in codes)]
        for name, separation in separations.items()
        for chosen in codes
    ]
    cells = [
        {"name": name, "y": chosen, "x": rejected, "value": count}
        for name, chosen, *counts in lines
        for rejected, count in zip(codes, counts, strict=True)
    ]
    numbers = [
        {
            "run": name,
            "pairs": sum(count for counts in separation["pairs"].values() for count in counts.values()),
            "in one language": PERCENT.show(separation["same_language"]),
            "predicted from languages": PERCENT.show(separation["accuracy"]),
            "by chance below (95 %)": PERCENT.show(separation["chance_95"]),
            "predicted with the prompt's": PERCENT.show(separation["accuracy_with_prompt"]),
            "by chance below": PERCENT.show(separation["chance_95_with_prompt"]),
        }
        for name, separation in separations.items()
    ]
    heat_map = plots.plot_cells(
        cells,
        "Language of the rejected response",
        "Language of the chosen response",
        {},
        label=".0f",
        value_title="pairs",
        names=next(iter(separations)),
    )
    shown = figure(
        "languages",
        [(None, heat_map)],
        "Heat map: number of pairs by the languages of the chosen and of the rejected response, one run at a time.",
        "Number of pairs by the languages of chosen and rejected.",
        table("Pairs by languages", ["run", "chosen", *codes], lines),
        {"label": "Run", "names": list(separations)},
        broad=True,
    )
    return [shown], [table_of("Chosen responses predicted from languages alone", numbers)]


def show_audit(page: Page) -> list[Figure]:
    """How often each audited reward model prefers a good text to a damaged one."""
    paths = [page.root / "audit" / f"{reward}.json" for reward in dict.fromkeys(run.reward_model for run in page.first)]
    audits = [read_json(path) for path in paths if path.is_file()]
    if not audits:
        page.gaps.say("rewards", "the audit of the reward models", "snakemake --cores 2 audit")
        return []
    dots, lines = [], []
    for audit in audits:
        for code, audited in audit["languages"].items():
            name = f"{audit['reward_model']}, {code}"
            dots += [
                {"name": name, "series": label(check), "value": counts["accuracy"], "low": counts["ci_low"], "high": counts["ci_high"]}
                for check, counts in audited["checks"].items()
                if counts["accuracy"] is not None
            ]  # fmt: skip
            lines.append(
                {
                    "reward model": audit["reward_model"],
                    "language": code,
                    "verdict": audited["verdict"],
                    "n": audited["n"],
                    **{label(check): PERCENT.show(counts["accuracy"]) for check, counts in audited["checks"].items()},
                    "mean": audited["reward_mean"],
                    "sd": audited["reward_sd"],
                    "correlation with length": audited["length_correlation"],
                    "remedy": audited["remedy"],
                }
            )
    if not dots:
        return []
    verdicts = [f"{line['reward model']} in {line['language']}: {line['verdict'] or 'inconclusive'}." for line in lines]
    title = "Comparisons where the reward prefers the better text"
    chart = plots.plot_dots(dots, title, {}, PERCENT, 0.5, ("reward model and language", "check"))
    return [
        figure(
            "audit",
            [(None, chart)],
            "Dots with intervals: how often the reward model prefers a good text to a damaged one, by language and kind of damage. "
            + " ".join(verdicts),
            "The reward audit: does the reward model prefer a good answer to a damaged copy? 50 % is chance.",
            table_of("Reward audit", lines),
        )
    ]
