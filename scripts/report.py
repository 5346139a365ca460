"""Write the report page: one HTML file with tables and plots, made from result files only; it opens offline.

Example:
  python scripts/report.py --root results/demo --run mini multi dpo 1 mini english en,de \\
      --summary results/demo/summary.csv --template scripts/report.html.j2 --output results/demo/report.html

Beside the page it writes win_rates.svg, the plot of win rates by itself.
"""

import json
from pathlib import Path

import jinja2
import pandas as pd

from croco import cli
from croco.findings import NULL_MARGIN, PAPER, compare_with_paper
from croco.plots import plot_forest, plot_languages, plot_rewards, plot_training
from croco.records import replacing, rows
from croco.runs import add_run_options, read_runs

RUN = ["MODEL", "POOL", "SETTING", "SEED", "RESPONSES", "REWARD_MODEL", "LANGUAGES"]


def main():
    args = parse_arguments()
    runs = read_runs(args, RUN)
    for run in runs:
        run["ledger"] = json.loads((run["folder"] / "ledger.json").read_text(encoding="utf-8"))
    summary = pd.read_csv(args.summary, keep_default_na=False, na_values=[""], dtype={"seed": str})
    summary = summary[summary["seed"] != "all"].astype({"seed": int})  # this page has each seed by itself
    summary["arm"] = [name_arm(*row) for row in zip(summary["setting"], summary["seed"], summary["round"], strict=True)]
    first = [run for run in runs if run["seed"] == "1"]
    models = list(dict.fromkeys(run["model"] for run in runs))
    separated = [run for run in first if run["ledger"].get("separation")]
    win_rates = forest(summary, "win_rate", "value", 0.5, "win rate against the base (ties half), 95 % interval")
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(args.template.parent), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template(args.template.name)
    html = page.render(
        title=args.root.name,
        miniature=args.miniature,
        null_margin=NULL_MARGIN,
        contrasts=read_contrasts(summary, args.contrast),
        win_rates=win_rates,
        win_table=win_table(summary),
        seeds=seed_table(summary),
        seed_contrasts=contrasts_over_seeds(summary, args.contrast),
        separation=[separation_row(run) for run in separated],
        languages=plot_languages({name_run(run): run["ledger"]["separation"] for run in separated}),
        tasks=task_plots(summary),
        rewards=[
            (title, plot_rewards(panels))
            for run in pair_runs(first)
            for title, panels in [reward_panels(args.root, run)]
        ],
        training=[
            (model, plot_training(read_curves([run for run in first if run["model"] == model]))) for model in models
        ],
        ledger=[ledger_row(run) for run in first],
        provenance=json.loads(args.summary.with_suffix(".manifest.json").read_text(encoding="utf-8")),
    )
    with replacing(args.output) as file:
        file.write(html)
    with replacing(args.output.with_name("win_rates.svg")) as file:
        file.write(win_rates or "<svg xmlns='http://www.w3.org/2000/svg'/>")
    cli.write_manifest(args.output.with_suffix(".manifest.json"), __file__, args, {"summary": args.summary})


def parse_arguments():
    parser = cli.parser(__doc__)
    add_run_options(parser, RUN)
    parser.add_argument("--summary", type=Path, required=True, help="summary.csv")
    parser.add_argument("--template", type=Path, required=True, help="Jinja template of the page")
    parser.add_argument("--miniature", action="store_true", help="say what the miniature may and may not claim")
    parser.add_argument("--output", type=Path, required=True, help="report.html to write")
    return parser.parse_args()


def name_arm(setting, seed, number):
    """A setting without its replicate's number, with its round where there are several."""
    name = setting.removesuffix(f".s{seed}")
    return name if number == 1 else f"{name} (round {number})"


def name_run(run):
    return f"{run['pool']}/{name_arm(run['setting'], run['seed'], run['round'])}"


def read_contrasts(summary, declared):
    """The declared contrasts, each with what the paper reports and whether this run shows it."""
    pooled = summary[(summary["metric"] == "win_rate") & (summary["eval_language"] == "all")]
    contrasts = []
    for setting, pool, versus in declared:
        chosen = pooled[(pooled["setting"] == setting) & (pooled["language"] == pool) & (pooled["baseline"] == versus)]
        for row in chosen[chosen["round"] == chosen["round"].max()].itertuples():
            middle = 0.5 if versus == "base" else 0.0
            value = row.value if versus == "base" else row.delta
            # No interval: nothing varies between the two, so the estimate stands for it; or there is one prompt alone.
            blank = (value, value) if row.n > 1 else (-float("inf"), float("inf"))
            low, high = (
                b if pd.isna(bound) else bound for b, bound in zip(blank, (row.ci_low, row.ci_high), strict=True)
            )
            expected, claim = PAPER.get(
                (setting.split(".")[0], versus.split(".")[0]), (None, "not a finding of the paper")
            )
            contrasts.append(
                {
                    "model": row.model,
                    "what": f"{pool}/{setting} against {versus}",
                    "measure": "win rate" if versus == "base" else "difference of win rates",
                    "value": value,
                    "low": low,
                    "high": high,
                    "p": None if pd.isna(row.p_adjusted) else row.p_adjusted,
                    "claim": claim,
                    **compare_with_paper(low - middle, high - middle, expected),
                }
            )
    return contrasts


def forest(summary, metric, column, reference, label, task="arena"):
    """A forest plot of one metric against the base, an arm a line, or None where it was not measured."""
    of_metric = summary[(summary["metric"] == metric) & (summary["task"] == task) & (summary["baseline"] == "base")]
    lines = []
    for (model, pool, arm), group in of_metric.groupby(["model", "language", "arm"], sort=False):
        pooled, single = (group[(group["eval_language"] == "all") == is_pooled] for is_pooled in (True, False))
        first = pooled.iloc[0]
        single = single[single["seed"] == first["seed"]].set_index("eval_language")[column].to_dict()
        low, high = (None if pd.isna(value) else value for value in (first["ci_low"], first["ci_high"]))
        name = f"{pool}/{arm}" if summary["model"].nunique() == 1 else f"{model}/{pool}/{arm}"
        others = pooled[column].tolist()[1:]
        lines.append((name, first[column], low, high, single if len(single) > 1 else {}, others))
    return plot_forest(lines, reference, label) if lines else None


def task_plots(summary):
    tasks = summary[~summary["task"].isin(["arena", "fidelity"]) & summary["baseline"].notna()]
    return [
        (
            task,
            metric,
            forest(summary, metric, "delta", 0, f"{metric} on {task}: change from the base, 95 % interval", task),
        )
        for task, metric in tasks[["task", "metric"]].drop_duplicates().itertuples(index=False)
    ]


def win_table(summary):
    """Win rates as a table, runs by evaluation language, as HTML."""
    wins = summary[(summary["metric"] == "win_rate") & (summary["baseline"] == "base")]
    if wins.empty:
        return None
    wins = wins[wins["seed"] == 1]
    wins = wins.assign(run=wins["model"] + "/" + wins["language"] + "/" + wins["arm"])
    table = wins.pivot(index="run", columns="eval_language", values="value")
    languages = [language for language in wins["eval_language"].unique() if language != "all"]
    table = table.loc[wins["run"].unique(), [*languages, "all"]]
    table.index.name = table.columns.name = None
    return table.to_html(float_format="{:.3f}".format, na_rep="", border=0)


def seed_table(summary):
    """Every arm over its training seeds, a row a measure: mean, standard deviation, range, as HTML; None without any."""
    pooled = summary[
        (summary["eval_language"] == "all") & (summary["baseline"] == "base") & (summary["metric"] != "quality")
    ]
    measure = (pooled["task"].where(pooled["task"] != "arena", "") + " " + pooled["metric"]).str.strip()
    pooled = pooled.assign(measure=measure, arm=pooled["language"] + "/" + pooled["arm"])
    table = pooled.groupby(["measure", "model", "arm"], sort=False)["value"].agg(["count", "mean", "std", "min", "max"])
    table = table[table["count"] > 1].reset_index()
    table = table.sort_values("measure", key=lambda names: names != "win_rate", kind="stable")
    names = {"count": "seeds", "std": "sd over seeds", "min": "lowest", "max": "highest"}
    if table.empty:
        return None
    return table.rename(columns=names).to_html(float_format="{:.3f}".format, na_rep="", border=0, index=False)


def contrasts_over_seeds(summary, declared):
    """Declared contrasts once more, paired by training seed: how many seeds show what the paper reports."""
    pooled = summary[
        (summary["metric"] == "win_rate") & (summary["eval_language"] == "all") & (summary["baseline"] == "base")
    ]

    def by_seed(model, pool, setting):
        arm = pooled[(pooled["model"] == model) & (pooled["language"] == pool)]
        arm = arm[
            [name.removesuffix(f".s{seed}") == setting for name, seed in zip(arm["setting"], arm["seed"], strict=True)]
        ]
        return arm[arm["round"] == arm["round"].max()].set_index("seed")["value"]

    table = []
    for setting, pool, versus in declared:
        for model in pooled["model"].unique():
            ours = by_seed(model, pool, setting)
            differences = (ours - (0.5 if versus == "base" else by_seed(model, pool, versus))).dropna()
            if len(differences) < 2:
                continue
            expected, _ = PAPER.get((setting, versus), (None, None))
            as_reported = {
                "higher": differences > 0,
                "not lower": differences >= 0,
                "equal": differences.abs() <= NULL_MARGIN,
            }.get(expected)
            table.append(
                {
                    "model": model,
                    "what": f"{pool}/{setting} - {versus if versus != 'base' else '.5'}",
                    "mean": differences.mean(),
                    "sd": differences.std(),
                    "each": ", ".join(f"{value:+.3f}" for value in differences),
                    "agree": None if as_reported is None else f"{as_reported.sum()} of {len(differences)}",
                }
            )
    return table


def separation_row(run):
    found = run["ledger"]["separation"]
    return {
        "run": f"{run['model']}/{name_run(run)}",
        "pairs": sum(count for row in found["pairs"].values() for count in row.values()),
        "in one language": found["same_language"],
        "told by their languages": found["accuracy"],
        "by chance below (95 %)": found["chance_95"],
        "told with the prompt's": found["accuracy_with_prompt"],
        "by chance below": found["chance_95_with_prompt"],
    }


def pair_runs(runs):
    """For each pool of a model the first setting that is tuned on pairs of its own responses."""
    shown = {}
    for run in runs:
        if run["ledger"]["target"] == "pair" and run["responses"] == run["model"]:
            shown.setdefault((run["model"], len(run["languages"]) > 1 and run["pool"]), []).append(run)
    return [[run for run in group if run["setting"] == group[0]["setting"]] for group in shown.values()]


def reward_panels(root, runs):
    """Rewards of all responses a language, and where the chosen and rejected ones of these runs fall."""
    panels = {}
    for run in runs:
        pairs = list(rows(run["folder"] / "pairs.jsonl"))
        for language in run["languages"]:
            scores = rows(root / run["responses"] / language / "scores" / f"{run['reward_model']}.jsonl")
            panels[language] = (
                [reward for line in scores for reward in line["rewards"] if reward is not None],
                [pair["chosen_reward"] for pair in pairs if pair["chosen_language"] == language],
                [pair["rejected_reward"] for pair in pairs if pair["rejected_language"] == language],
            )
    pool = runs[0]["pool"] if len(runs[0]["languages"]) > 1 else "one pool a language"
    return f"{runs[0]['model']}, {pool}, {runs[0]['setting']}", panels


def read_curves(runs):
    curves = {}
    for run in runs:
        metrics = pd.DataFrame(rows(run["folder"] / "checkpoint" / "metrics.jsonl"))
        metrics = metrics[metrics["loss"].notna()]
        options = json.loads((run["folder"] / "checkpoint" / "manifest.json").read_text(encoding="utf-8"))["options"]
        if "rewards_chosen" not in metrics:
            curve = {"sft_loss": (metrics["step"], metrics["loss"])}
        else:
            curve = {"dpo_loss": (metrics["step"], metrics["loss"])}
            curve["margin"] = (metrics["step"], metrics["rewards_margins"])
            # DPO's reward is beta x (log-probability under the policy - under the reference).
            curve["drift"] = (metrics["step"], metrics["rewards_chosen"] / options["beta"])
        curves[name_run(run)] = curve
    return curves


def ledger_row(run):
    ledger, languages = run["ledger"], run["ledger"]["languages"]

    def total(name):
        return sum(counts[name] for counts in languages.values())

    def reasons(parts):
        merged = {}
        for part in parts:
            for reason, count in part.items():
                merged[reason] = merged.get(reason, 0) + count
        return ", ".join(f"{reason} {count}" for reason, count in merged.items()) or "none"

    return {
        "run": f"{run['model']}/{name_run(run)}",
        "prompts": ledger["prompts"],
        "formed": ledger["formed"],
        "not formed": reasons([ledger["no_pair"]]),
        "responses": total("responses"),
        "left out": reasons(counts["left_out"] for counts in languages.values()),
        "duplicates": total("duplicates"),
        "rejected is the minimum": ledger.get("rejected_is_minimum"),
        "languages": ", ".join(f"{language} {count}" for language, count in ledger["formed_by_language"].items()),
    }


if __name__ == "__main__":
    cli.run(main)
