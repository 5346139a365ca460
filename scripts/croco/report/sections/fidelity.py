"""Section "Fidelity of the answers": language, length, repetition and variety before and after, and reward against judge."""

from collections import Counter
from typing import TYPE_CHECKING

from markupsafe import Markup

from croco.records import rows
from croco.report import plots
from croco.report.elements import Figure, Section, figure, prefer_all_seeds, table
from croco.report.estimates import find_base, list_estimates, of_metric, say_direction, say_unpooled
from croco.report.looks import Look, list_looks
from croco.report.page import Page
from croco.report.units import PERCENT, find_change_unit, find_unit
from croco.results.metrics import ANSWER_METRICS, REWARD
from croco.text.measures import NONE, count_languages

if TYPE_CHECKING:
    import pandas as pd

INTRO = (
    "Are the answers in the right language, whole, of sensible length and varied, before and after? A win rate alone does "
    "not say."
)
NOT_ASKED = Markup("The config does not ask for it (<code>evaluation.fidelity</code>).")
MEASURES = {metric.name: metric.title for metric in (*ANSWER_METRICS, REWARD)}


def show(page: Page) -> Section:
    """The section: languages and other measures of the answers, without a judge."""
    if not page.asked.fidelity:
        return Section(intro=INTRO, empty=NOT_ASKED)
    summary = page.summary
    say_unpooled("fidelity", summary[summary["task"] == "fidelity"], page.gaps)
    looks = list_looks(page)
    figures = [*show_changes(summary, looks), *show_confusion(page), *show_reward_and_judge(page, looks)]
    if not figures:
        page.gaps.say(
            "fidelity", "the measures of the answers in summary.csv", "snakemake --cores 2 --forcerun summarise"
        )
    return Section(intro=INTRO, figures=figures, empty=NOT_ASKED)


def show_changes(summary: "pd.DataFrame", looks: dict[str, Look]) -> list[Figure]:
    """The change of each measure of the answers from the base."""
    charts, numbers = [], []
    for metric, title in MEASURES.items():
        lines = list_estimates(summary, "fidelity", metric, "delta")
        if not lines:
            continue
        unit, change = find_unit(metric), find_change_unit(metric)
        before, direction = find_base(lines), say_direction(summary, "fidelity", metric)
        notes = [f"base {unit.write(before)}"] if before is not None else []
        notes += [direction.removeprefix("; ")] if direction else []
        charts.append(
            (
                f"{title} ({'; '.join(notes)})" if notes else title,
                plots.plot_forest([{**line, "languages": {}} for line in lines], 0, "Change", looks, change),
            )
        )
        numbers += [
            [
                f"{title}{direction}",
                line["name"],
                unit.show(line["baseline"]),
                unit.show(line["tuned"]),
                *(change.show(line[key]) for key in ("value", "low", "high")),
                line["q"],
            ]
            for line in lines
        ]
    if not charts:
        return []
    return [
        figure(
            "fidelity-changes",
            charts,
            f"Dots with intervals: change from the base of {', '.join(title for title, _ in charts)}.",
            "How tuning changed the answers, apart from winning. Languages are pooled, with 95 % intervals. 0 is the base; right of it is better, and for lengths longer.",
            table(
                "Answers before and after",
                ["measure", "run", "base", "tuned", "change", "95 % from", "to", "q"],
                numbers,
            ),
        )
    ]


def show_confusion(page: Page) -> list[Figure]:
    """The languages of the answers by the language of the prompts, for the base or one run at a time."""
    counts = count_answers(page)
    if not counts:
        return []
    asked = list(dict.fromkeys(code for by_prompt in counts.values() for code in by_prompt))
    answered = {code for by_prompt in counts.values() for answers in by_prompt.values() for code in answers}
    columns = asked + sorted(answered - {*asked}, key=lambda code: (code == NONE, code))
    cells = [
        {"name": name, "y": code, "x": column, "value": round(answers[column] / answers.total(), 4)}
        for name, by_prompt in counts.items()
        for code, answers in by_prompt.items()
        for column in columns
        if answers.total()
    ]
    heat_map = plots.plot_cells(
        cells,
        "Language of the answer; cells: share of the answers (%)",
        "Language of the prompt",
        {},
        label=".0f",
        unit=PERCENT,
        value_title="share of the answers",
        names=next(iter(counts)),
        spans=columns,
    )
    lines = [
        [name, code, *(answers[column] for column in columns)]
        for name, by_prompt in counts.items()
        for code, answers in by_prompt.items()
    ]
    return [
        figure(
            "confusion",
            [(None, heat_map)],
            "Confusion matrix: share of answers in each language, by the language of the prompt, one run at a time.",
            'Are answers in the right language? Each line shows shares of the answers to its prompts, in per cent. The diagonal is the prompt\'s language; "none" is too short to identify.',
            table("Languages of the answers (counts)", ["run", "prompt in", *columns], lines),
            {"label": "Run", "names": list(counts)},
            broad=True,
        )
    ]


def count_answers(page: Page) -> dict[str, dict[str, Counter]]:
    """{run: {language of the prompts: answers by their language}} of the base and the runs that have any answer."""
    counts: dict[str, dict[str, Counter]] = {}
    for run in [*page.bases, *page.first]:
        for code in run.evaluated:
            path = run.folder / "fidelity" / f"{code}.jsonl"
            if page.gaps.has("fidelity", path, "languages, lengths and repetition of the answers"):
                counts.setdefault(run.name, {})[code] = Counter(count_languages(rows(path)).get(code, {}))
    return {name: by_prompt for name, by_prompt in counts.items() if any(map(Counter.total, by_prompt.values()))}


def show_reward_and_judge(page: Page, looks: dict[str, Look]) -> list[Figure]:
    """Points: the change of the reward against the win rate, one point per run and language."""
    import pandas as pd

    summary, keys = page.summary, ["run", "eval_language", "seed"]
    reward = of_metric(summary, "fidelity", "reward").set_index(keys)["delta"]
    wins = of_metric(summary, "arena", "win_rate").set_index(keys)["value"]
    both = pd.concat([reward, wins], axis=1).dropna().reset_index()
    both = prefer_all_seeds(both[both["eval_language"] != "all"]).drop_duplicates(keys[:2])
    if both.empty:
        return []
    points = [
        {"name": run, "series": code, "x": round(delta, 6), "y": round(value, 6)}
        for run, code, _, delta, value in both.itertuples(index=False)
    ]
    chart = plots.plot_scatter(
        points,
        "Change of the reward from the base (logits)",
        "Win rate against the base",
        looks,
        PERCENT,
        languages=page.languages,
    )
    return [
        figure(
            "reward-judge",
            [(None, chart)],
            "Points: the change of the reward and the win rate, one point per run and language.",
            "Reward against judge: if the reward rises and the win rate does not, tuning exploited the reward model instead of improving the answers.",
            table("Reward and win rate", ["run", "language", "change of the reward", "win rate"],
                  [[point["name"], point["series"], point["x"], PERCENT.show(point["y"])] for point in points]),
        )
    ]  # fmt: skip
