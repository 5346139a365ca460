"""Section "Open-ended answers": win rates against the base, declared contrasts, and the spread over training seeds."""

from typing import TYPE_CHECKING, Any

from croco.report import plots
from croco.report.contrasts import contrasts_over_seeds
from croco.report.elements import BASE, Figure, Section, Table, figure, prefer_all_seeds, table, table_of
from croco.report.estimates import in_words, list_estimates, of_metric, say_unpooled, table_estimates
from croco.report.looks import Look, list_looks
from croco.report.page import Page
from croco.report.units import PERCENT, POINTS, find_change_unit, find_unit
from croco.results.findings import NULL_MARGIN

if TYPE_CHECKING:
    import pandas as pd

INTRO = "Tuned answers against the base's answers to the same prompts, judged {orders}; ties count a half, so 50 % is no change."
WIN_RATE = "Win rate against the base"
WINS = {
    "win_rate": "all verdicts",
    "win_rate_single_order": "single order",
    "win_rate_strict": "strict language",
    "win_rate_lc": "length-controlled",
    "win_rate_glm": "length and position (GLM)",
}


def show(page: Page) -> Section:
    """The section: win rates with intervals, by language, and counted in other ways."""
    summary = page.summary
    lines = list_estimates(summary, "arena", "win_rate", "value")
    say_unpooled("open-ended", summary[summary["task"] == "arena"], page.gaps)
    figures = []
    if lines:
        looks = list_looks(page)
        figures = [
            show_win_rates(lines, looks, page.languages),
            show_languages(summary, looks),
            *show_variants(page, looks),
        ]
    elif page.asked.judged:
        page.gaps.say("open-ended", "win rates: summary.csv has none", "snakemake --cores 2")
    content = {
        "contrasts": page.contrasts,
        "seeds": seed_table(summary) if lines else None,
        "seed_contrasts": contrasts_over_seeds(summary, page.declared, page.claims),
        "null_margin": POINTS.text(NULL_MARGIN),
        "points": POINTS,
        "of_paper": page.findings is not None,
    }
    intro = INTRO.format(orders=page.orders) if lines or page.asked.judged else None
    return Section(intro=intro, figures=figures, empty="No judge was asked for.", content=content)


def show_win_rates(lines: list[dict[str, Any]], looks: dict[str, Look], languages: list[str]) -> Figure:
    """A forest plot of win rates; ``lines`` as list_estimates returns them, ``languages`` all of the page."""
    return figure(
        "win-rates",
        [(None, plots.plot_forest(lines, 0.5, WIN_RATE, looks, PERCENT, languages))],
        f"Dots with intervals: win rate of each run against the base. {in_words(lines, 0.5, PERCENT)}",
        "Each large mark is over all languages of a run, with its 95 % interval. The main arm is filled. Coloured marks are single languages, and small crosses are training seeds. 50 % is no change.",
        table_estimates("Win rates against the base, languages pooled", lines, "win rate", PERCENT, POINTS),
    )


def show_languages(summary: "pd.DataFrame", looks: dict[str, Look]) -> Figure:
    """Win rates by evaluation language."""
    import pandas as pd

    wins = of_metric(summary, "arena", "win_rate")
    order = wins["run"].unique()
    wins = prefer_all_seeds(wins).drop_duplicates(["run", "eval_language"])
    grid = wins.pivot(index="run", columns="eval_language", values="value")
    codes = [code for code in wins["eval_language"].unique() if code != "all"]
    grid = grid.loc[order, [*codes, "all"]]
    cells = [
        {"y": run, "x": code, "value": round(float(value), 6)}
        for run, line in grid.iterrows()
        for code, value in line.items()
        if not pd.isna(value)
    ]
    heat_map = plots.plot_cells(
        cells,
        "Evaluation language; cells: win rate (%)",
        None,
        looks,
        middle=0.5,
        label=".1f",
        unit=PERCENT,
        value_title="win rate",
        spans=[*codes, "all"],
    )
    return figure(
        "wins-by-language",
        [(None, heat_map)],
        "Heat map: win rate of each run in each evaluated language.",
        'Win rates by evaluation language; "all" is over all languages of a run. The heat map shows the mean over replicates if the summary has it, else the first.',
        table(
            "Win rates by language",
            ["run", *grid.columns],
            [[run, *map(PERCENT.show, line)] for run, line in grid.iterrows()],
        ),
        broad=True,
    )


def show_variants(page: Page, looks: dict[str, Look]) -> list[Figure]:
    """Other ways to count a win, and how far the judge can be trusted."""
    import pandas as pd

    summary = page.summary
    pooled = summary[(summary["task"] == "arena") & (summary["eval_language"] == "all")]
    pooled = pooled[pooled["baseline"].isin(["base", "chance"]) | pooled["baseline"].isna()]
    pooled = prefer_all_seeds(pooled)
    dots: list[dict[str, Any]] = []
    numbers: dict[str, dict[str, Any]] = {}
    for metric, name in {**WINS, "position_consistency": "position consistency", "unparseable": "unparseable", "reward_judge_agreement": "agrees with the reward"}.items():  # fmt: skip
        for row in pooled[pooled["metric"] == metric].drop_duplicates("run").itertuples():
            if row.pool == BASE[0] or pd.isna(row.value):
                continue
            numbers.setdefault(row.run, {"run": row.run})[name] = PERCENT.show(row.value)
            if metric in WINS:
                dots.append({"name": row.run, "series": name, "value": row.value})
    if len({dot["series"] for dot in dots}) < 2:
        page.gaps.say(
            "open-ended",
            "win rates in a single order, with strict language and length-controlled; position consistency; unparseable verdicts",
            "snakemake --cores 2 --forcerun summarise",
        )
        return []
    return [
        figure(
            "variants",
            [(None, plots.plot_dots(dots, WIN_RATE, looks, PERCENT, 0.5, ("arm", "counted")))],
            "Dots: the win rate of each run, counted in several ways.",
            "The same verdicts, counted in other ways: one order per prompt as in the paper's code; an answer in the wrong language loses; win rate at equal length.",
            table_of(
                "Ways to count a win, and the judge itself",
                list(numbers.values()),
                "Position consistency: share of verdicts that stay the same if the two answers change places. Unparseable: share of replies without a readable verdict; the means exclude them.",
            ),
        )
    ]


def seed_table(summary: "pd.DataFrame") -> Table | None:
    """Every arm over its training seeds, one row per measure: mean, standard deviation, range; None if no arm has several."""
    pooled = summary[
        (summary["eval_language"] == "all") & (summary["baseline"] == "base") & (summary["metric"] != "quality")
    ]
    pooled = pooled[pooled["seed"] != "all"]
    measure = (pooled["task"].where(pooled["task"] != "arena", "") + " " + pooled["metric"]).str.strip()
    pooled = pooled.assign(measure=measure)
    spread = pooled.groupby(["measure", "run"], sort=False)["value"].agg(["count", "mean", "std", "min", "max"])
    spread = spread[spread["count"] > 1].reset_index()
    if spread.empty:
        return None
    spread = spread.sort_values("measure", key=lambda names: names != "win_rate", kind="stable")
    return table(
        "Every arm over its training seeds",
        ["measure", "arm", "seeds", "mean", "sd over seeds", "lowest", "highest"],
        [show_spread(*line) for line in spread.itertuples(index=False)],
    )


def show_spread(measure: str, arm: str, seeds: int, mean: float, sd: float, low: float, high: float) -> list:
    """A row of the table of training seeds, in the unit of its measure."""
    metric = measure.split(" ")[-1]
    unit, change = find_unit(metric), find_change_unit(metric)
    return [measure, arm, int(seeds), unit.show(mean), change.show(sd), unit.show(low), unit.show(high)]
