"""The sections of the report page on the data, the rewards and the training."""

from collections import defaultdict

import numpy as np
import pandas as pd

from croco.records import rows
from croco.report import plots
from croco.report.elements import figure, full_name, label, read_json, reasons, table, table_of, total

STEPS = 200
TRAINING = {
    "dpo_loss": "DPO loss",
    "margin": "reward margin, chosen - rejected",
    "drift": "drift of the chosen log-probability (nats)",
    "sft_loss": "SFT loss",
    "online_loss": "online DPO loss",
}


def read_ledgers(runs, gaps):
    """{folder: ledger} of the runs that have one; a run without is a gap."""
    return {
        run["folder"]: read_json(run["folder"] / "ledger.json")
        for run in runs
        if gaps.has("data", run["folder"] / "ledger.json", "ledgers, what each run's pairs were made of")
    }


def show_data(first, ledgers):
    prompts, responses, table_prompts, table_responses = [], [], [], []
    for run in first:
        name, ledger = full_name(run), ledgers.get(run["folder"])
        if ledger is None:
            continue
        formed = "prompts with a pair" if ledger["target"] == "pair" else "prompts with a training text"
        prompts.append({"name": name, "part": formed, "count": ledger["formed"], "kind": "kept"})
        for reason, count in ledger["no_pair"].items():
            prompts.append({"name": name, "part": label(reason), "count": count, "kind": "lost"})
        table_prompts.append(
            {
                "run": name,
                "prompts": ledger["prompts"],
                "formed": ledger["formed"],
                "not formed": reasons([ledger["no_pair"]]),
                "languages": ", ".join(f"{code} {count}" for code, count in ledger["formed_by_language"].items()),
                "rejected is the minimum": ledger.get("rejected_is_minimum"),
                "advice": ledger.get("advice"),
            }
        )
        for code, counts in ledger["languages"].items():
            lost = {**counts.get("skipped", {})}
            table_responses.append(
                {
                    "run": name,
                    "language": code,
                    "prompts": counts["prompts"],
                    "skipped prompts": reasons([lost]),
                    "responses": counts.get("responses"),
                    "left out": reasons([counts.get("left_out", {})]),
                    "eligible": counts.get("eligible"),
                    "duplicates": counts.get("duplicates"),
                    "chosen": counts.get("chosen"),
                    "rejected": counts.get("rejected"),
                }
            )
    seen = set()
    for run in first:
        ledger = ledgers.get(run["folder"])
        for code, counts in ledger["languages"].items() if ledger else ():
            name = f"{run['responses']}, {code}"
            if not counts.get("responses") or (name, str(counts.get("left_out")), counts["responses"]) in seen:
                continue
            seen.add((name, str(counts.get("left_out")), counts["responses"]))
            name = name if name not in {row["name"] for row in responses} else f"{name} ({full_name(run)})"
            responses.append({"name": name, "part": "eligible responses", "count": counts["eligible"], "kind": "kept"})
            for reason, count in counts["left_out"].items():
                responses.append({"name": name, "part": label(reason), "count": count, "kind": "lost"})
    figures = []
    if responses:
        figures.append(
            figure(
                "responses",
                [(None, plots.plot_stacks(responses, "responses"))],
                f"Bars: of each policy and language how many responses stay in the pools and how many leave them, by reason. {total(responses)}",
                "Responses of each policy and language, and what left the pools before mean and standard deviation, by reason; a second line of a language is of a run with another pool size or hygiene.",
                table_of("Responses by run and language", table_responses),
            )
        )
    if prompts:
        figures.append(
            figure(
                "prompts",
                [(None, plots.plot_stacks(prompts, "prompts"))],
                f"Bars: of each run how many prompts became training data, and how many did not, by reason. {total(prompts)}",
                "From prompts to what a run is tuned on, every difference by its reason; of replicates the first.",
                table_of(
                    "Ledger: prompts by run",
                    table_prompts,
                    "“rejected is the minimum”: where this share is near 1, mean - 2 sd chose as the rule min would have.",
                ),
            )
        )
    return {"figures": figures}


def show_rewards(root, first, ledgers, gaps):
    figures, tables = [], []
    for group in pair_runs(first):
        panels = reward_panels(root, group, gaps)
        if not panels:
            continue
        pool = group[0]["pool"] if len(group[0]["languages"]) > 1 else "one pool a language"
        title = f"{group[0]['model']}, {pool}, {group[0]['setting']}"
        lines = [
            [code, kind, len(values), *describe(values)]
            for code, panel in panels.items()
            for kind, values in panel.items()
            if kind != "sd from the pool's mean"
        ]
        charts = []
        edges = bins([value for panel in panels.values() for value in panel["all"]])
        for code, panel in panels.items():
            kinds = {kind: panel[kind] for kind in ("all", "chosen", "rejected") if panel[kind]}
            chart = plots.plot_histogram({kind: density(values, edges) for kind, values in kinds.items()}, "reward")
            charts.append((f"{code}: {len(panel['chosen'])} chosen, {len(panel['rejected'])} rejected", chart))
        figures.append(
            figure(
                f"rewards-{len(figures)}",
                charts,
                f"Histograms of rewards a language, of all responses, of the chosen and of the rejected ones: {title}.",
                f"{title}. Raw logits of {group[0]['reward_model']}, all responses counted; each distribution is scaled to the same area.",
                table(
                    f"Rewards: {title}",
                    ["language", "responses", "n", "mean", "sd", "lowest", "median", "highest"],
                    lines,
                ),
            )
        )
        places = {kind: [z for panel in panels.values() for z in panel["sd from the pool's mean"][kind]] for kind in ("chosen", "rejected")}  # fmt: skip
        if all(places.values()):
            edges = bins([value for values in places.values() for value in values])
            densities = {kind: density(values, edges) for kind, values in places.items()}
            figures.append(
                figure(
                    f"places-{len(figures)}",
                    [(None, plots.plot_histogram(densities, "standard deviations from the pool's mean", -2))],
                    f"Histogram: where the chosen and the rejected response fall in their pool: {title}.",
                    f"{title}. Where chosen and rejected fall in their own pool; the dashed line is mean - 2 sd, the target of the rejected.",
                    table(
                        f"Place in the pool: {title}",
                        ["responses", "n", "mean", "sd", "lowest", "median", "highest"],
                        [[kind, len(values), *describe(values)] for kind, values in places.items()],
                    ),
                )
            )
    tables += show_separation(first, ledgers, figures)
    show_audit(root, first, gaps, figures)
    return {"figures": figures, "tables": tables}


def pair_runs(runs):
    """For each pool of a model the first setting that is tuned on pairs of its own responses."""
    shown = {}
    for run in runs:
        if (run["folder"] / "pairs.jsonl").is_file() and run["responses"] == run["model"]:
            shown.setdefault((run["model"], len(run["languages"]) > 1 and run["pool"]), []).append(run)
    return [[run for run in group if run["setting"] == group[0]["setting"]] for group in shown.values()]


def reward_panels(root, runs, gaps):
    """{language: {all, chosen, rejected: rewards, sd from the pool's mean: {chosen, rejected}}} of these runs."""
    panels = {}
    for run in runs:
        pairs = list(rows(run["folder"] / "pairs.jsonl"))
        for language in run["languages"]:
            path = root / run["responses"] / language / "scores" / f"{run['reward_model']}.jsonl"
            if not gaps.has("rewards", path, "rewards of all responses"):
                continue
            panel = panels[language] = {
                "all": [reward for line in rows(path) for reward in line["rewards"] if reward is not None],
                "sd from the pool's mean": {},
            }
            for kind in ("chosen", "rejected"):
                some = [pair for pair in pairs if pair[f"{kind}_language"] == language]
                panel[kind] = [pair[f"{kind}_reward"] for pair in some]
                panel["sd from the pool's mean"][kind] = [
                    (pair[f"{kind}_reward"] - pair["pool_mean"]) / pair["pool_std"]
                    for pair in some
                    if pair.get("pool_std")
                ]
    return {language: panel for language, panel in panels.items() if panel["all"]}


def describe(values):
    if not values:
        return [None] * 5
    return [float(f(values)) for f in (np.mean, np.std, np.min, np.median, np.max)]


def bins(values):
    low, high = min(values), max(values)
    return np.linspace(low, high, 41) if low < high else np.linspace(low - 0.5, low + 0.5, 4)


def density(values, edges):
    """[(from, to, density)] of a histogram."""
    heights, _ = np.histogram(values, edges, density=True)
    return [
        (round(float(low), 5), round(float(high), 5), round(float(height), 5))
        for low, high, height in zip(edges, edges[1:], heights, strict=False)
    ]


def show_separation(first, ledgers, figures):
    """What the languages of a pair alone tell, a heat map a run; returns the table."""
    found = {full_name(run): ledgers[run["folder"]].get("separation") for run in first if run["folder"] in ledgers}
    found = {name: separation for name, separation in found.items() if separation}
    if not found:
        return []
    codes = list(
        dict.fromkeys(code for one in found.values() for row, cells in one["pairs"].items() for code in [row, *cells])
    )
    cells = [
        {"name": name, "y": chosen, "x": rejected, "value": one["pairs"].get(chosen, {}).get(rejected, 0)}
        for name, one in found.items()
        for chosen in codes
        for rejected in codes
    ]
    numbers = [
        {
            "run": name,
            "pairs": sum(count for row in one["pairs"].values() for count in row.values()),
            "in one language": one["same_language"],
            "told by their languages": one["accuracy"],
            "by chance below (95 %)": one["chance_95"],
            "told with the prompt's": one["accuracy_with_prompt"],
            "by chance below": one["chance_95_with_prompt"],
        }
        for name, one in found.items()
    ]
    first_name = next(iter(found))
    figures.append(
        figure(
            "languages",
            [(None, plots.plot_cells(cells, "rejected", "chosen", label=".0f", names=first_name))],
            "Heat map: number of pairs by the languages of the chosen and of the rejected response, one run at a time.",
            "Number of pairs by the languages of chosen and rejected.",
            table(
                "Pairs by languages",
                ["run", "chosen", *codes],
                [
                    [name, chosen, *(one["pairs"].get(chosen, {}).get(rejected, 0) for rejected in codes)]
                    for name, one in found.items()
                    for chosen in codes
                ],
            ),
            {"label": "Run", "names": list(found)},
        )
    )
    return [{**table_of("What the languages alone tell", numbers), "id": "separation"}]


def show_audit(root, first, gaps, figures):
    rewards = list(dict.fromkeys(run["reward_model"] for run in first))
    audits = [read_json(root / "audit" / f"{reward}.json") for reward in rewards if (root / "audit" / f"{reward}.json").is_file()]  # fmt: skip
    if not audits:
        gaps.say("rewards", "the audit of the reward models", "snakemake --cores 2 audit")
        return
    dots, lines = [], []
    for audit in audits:
        for code, found in audit["languages"].items():
            name = f"{audit['reward_model']}, {code}"
            for check in found["checks"]:
                one = found["checks"][check]
                if one["accuracy"] is not None:
                    dots.append({"name": name, "series": label(check), "value": one["accuracy"], "low": one["ci_low"], "high": one["ci_high"]})  # fmt: skip
            lines.append(
                {
                    "reward model": audit["reward_model"],
                    "language": code,
                    "verdict": found["verdict"],
                    "n": found["n"],
                    **{label(check): one["accuracy"] for check, one in found["checks"].items()},
                    "mean": found["reward_mean"],
                    "sd": found["reward_sd"],
                    "correlation with length": found["length_correlation"],
                    "remedy": found["remedy"],
                }
            )
    if not dots:
        return
    figures.append(
        figure(
            "audit",
            [
                (
                    None,
                    plots.plot_dots(
                        dots, "share of comparisons where the reward prefers the better text", 0.5, "check"
                    ),
                )
            ],
            "Dots with intervals: how often the reward model prefers a good text to a spoiled one, by language and kind of damage. "
            + " ".join(
                f"{line['reward model']} in {line['language']}: {line['verdict'] or 'cannot tell'}." for line in lines
            ),
            "The reward audit: does the reward model prefer a good answer to the same one spoiled? 0.5 is a coin.",
            table_of("Reward audit", lines),
        )
    )


def show_training(first, gaps):
    curves, numbers = defaultdict(list), []
    for run in first:
        folder = run["folder"] / "checkpoint"
        if not gaps.has("training", folder / "manifest.json", "trainings"):
            continue
        manifest = read_json(folder / "manifest.json")
        metrics = (
            pd.DataFrame(rows(folder / "metrics.jsonl"))
            if gaps.has("training", folder / "metrics.jsonl", "training metrics")
            else pd.DataFrame()
        )
        shown = read_curves(metrics, manifest["options"])
        for kind, (steps, values) in shown.items():
            keep = sorted({*np.linspace(0, len(steps) - 1, STEPS).astype(int)} if len(steps) > STEPS else range(len(steps)))  # fmt: skip
            curves[kind] += [
                {"name": full_name(run), "step": int(steps[i]), "value": round(float(values[i]), 6)} for i in keep
            ]
        counts = manifest.get("counts", {})
        ends = {TRAINING[kind]: float(values[-1]) for kind, (_, values) in shown.items()}
        numbers.append(
            {
                "run": full_name(run),
                "objective": manifest["options"]["objective"],
                "steps": counts.get("steps"),
                "rows": counts.get("rows"),
                "trained": counts.get("trained"),
                "dropped": reasons([counts.get("dropped") or {}]),
                "token mismatches": counts.get("token_mismatches"),
                "padding": manifest.get("padding_share"),
                "tokens a second": manifest.get("tokens_per_second"),
                **ends,
            }
        )
    if not numbers:
        return {"figures": []}
    names = list(dict.fromkeys(row["name"] for some in curves.values() for row in some))
    charts = [
        (title, plots.plot_curves(curves[kind], title, zero=kind in ("margin", "drift")))
        for kind, title in TRAINING.items()
        if curves[kind]
    ]
    text = f"Lines: training of {len(names)} runs over optimizer steps: {', '.join(title for title, _ in charts)}."
    caption = (
        "A chosen log-probability that falls far while the margin grows is a warning: the model then learns to make both "
        f"answers unlikely. Of replicates the first; at most {STEPS} evenly spaced steps of each run are drawn."
    )
    return {
        "figures": [
            figure("curves", charts, text, caption, table_of("Trainings, with the last step's values", numbers),
                   {"label": "Bring one run forward", "names": names, "none": "all runs"})
        ]
    }  # fmt: skip


def read_curves(metrics, options):
    """{kind: (steps, values)} of a training's metrics."""
    if metrics.empty or "loss" not in metrics:
        return {}
    metrics = metrics[metrics["loss"].notna()]
    steps, objective = metrics["step"].to_numpy(), options["objective"]
    curves = {f"{'online' if objective == 'online_dpo' else objective}_loss": (steps, metrics["loss"].to_numpy())}
    if "rewards_chosen" in metrics:
        curves["margin"] = (steps, metrics["rewards_margins"].to_numpy())
        # DPO's reward is beta x (log-probability under the policy - under the reference).
        curves["drift"] = (steps, metrics["rewards_chosen"].to_numpy() / options["beta"])
    return {
        kind: (at[np.isfinite(values)], values[np.isfinite(values)])
        for kind, (at, values) in curves.items()
        if np.isfinite(values).any()
    }
