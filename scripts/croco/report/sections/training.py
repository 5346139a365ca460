"""Section "Training": curves of loss, margin and drift, and the last step's values."""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from croco.objectives import OBJECTIVES
from croco.records import rows
from croco.report import plots
from croco.report.elements import Section, figure, read_json, reasons, table_of
from croco.report.looks import Look, list_looks
from croco.report.page import Page, ReportedRun
from croco.report.units import PERCENT

if TYPE_CHECKING:
    import pandas as pd

STEPS = 200
TRAINING = {
    **{objective.curve: objective.curve for objective in OBJECTIVES.values() if objective.has_pairs},
    "margin": "reward margin, chosen - rejected",
    "drift": "drift of the chosen log-probability (nats)",
    **{objective.curve: objective.curve for objective in OBJECTIVES.values() if not objective.has_pairs},
}

# Titles of the y axes; the others are losses.
AXES = {"margin": "Margin (reward)", "drift": "Drift (nats)"}


def show(page: Page) -> Section:
    """The section: the curves of each training, and a table of its last values."""
    import pandas as pd

    points: defaultdict[str, list[dict]] = defaultdict(list)
    lines = []
    for run in page.first:
        folder = run.folder / "checkpoint"
        if not page.gaps.has("training", folder / "manifest.json", "trainings"):
            continue
        manifest = read_json(folder / "manifest.json")
        metrics = (
            pd.DataFrame(rows(folder / "metrics.jsonl"))
            if page.gaps.has("training", folder / "metrics.jsonl", "training metrics")
            else pd.DataFrame()
        )
        curves = read_curves(metrics, manifest["options"])
        add_points(points, run.name, curves)
        lines.append(describe_training(run, manifest, curves))
    if not lines:
        return Section()
    names = list(dict.fromkeys(point["name"] for kind in points.values() for point in kind))
    charts = draw_curves(points, list_looks(page))
    text = f"Lines: training of {len(names)} runs over training steps: {', '.join(title for title, _ in charts)}."
    caption = (
        "A chosen log-probability that falls far while the margin grows is a warning: the model then learns to make both "
        f"answers unlikely. Of several replicates, the plot shows the first; at most {STEPS} evenly spaced steps of each run are drawn."
    )
    numbers = table_of("Trainings, with the last step's values", lines)
    select = {"label": "Bring one run forward", "names": names, "none": "all runs"}
    return Section(figures=[figure("curves", charts, text, caption, numbers, select)])


def add_points(
    points: defaultdict[str, list[dict]], name: str, curves: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Adds the steps of a training's curves that are drawn to ``points``, {kind: [{name, step, value}]}."""
    for kind, (steps, values) in curves.items():
        points[kind] += [
            {"name": name, "step": int(steps[i]), "value": round(float(values[i]), 6)} for i in choose_steps(len(steps))
        ]


def draw_curves(points: defaultdict[str, list[dict]], looks: Mapping[str, Look]) -> list[tuple[str, dict]]:
    """[(title, specification)] of the kinds of curves that have points; ``looks`` are those of their names."""
    return [
        (title, plots.plot_curves(points[kind], title, AXES.get(kind, "Loss"), looks, zero=kind in AXES))
        for kind, title in TRAINING.items()
        if points[kind]
    ]


def choose_steps(count: int) -> list[int]:
    """At most STEPS evenly spaced positions of a curve with ``count`` points, first and last among them."""
    return sorted({*np.linspace(0, count - 1, STEPS).astype(int)}) if count > STEPS else list(range(count))


def describe_training(
    run: ReportedRun, manifest: dict[str, Any], curves: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    """A row of the table of trainings."""
    counts = manifest.get("counts", {})
    return {
        "run": run.name,
        "objective": manifest["options"]["objective"],
        "steps": counts.get("steps"),
        "rows": counts.get("rows"),
        "trained": counts.get("trained"),
        "dropped": reasons([counts.get("dropped") or {}]),
        "token mismatches": counts.get("token_mismatches"),
        "padding": PERCENT.show(manifest.get("padding_share")),
        "tokens per second": manifest.get("tokens_per_second"),
        **{TRAINING[kind]: float(values[-1]) for kind, (_, values) in curves.items()},
    }


def read_curves(metrics: "pd.DataFrame", options: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{kind: (steps, values)} of a training's metrics, both of shape (steps,)."""
    if metrics.empty or "loss" not in metrics:
        return {}
    metrics = metrics[metrics["loss"].notna()]
    steps, objective = metrics["step"].to_numpy(), options["objective"]
    curves = {OBJECTIVES[objective].curve: (steps, metrics["loss"].to_numpy())}
    if "rewards_chosen" in metrics:
        curves["margin"] = (steps, metrics["rewards_margins"].to_numpy())
        # DPO's reward is beta x (log-probability under the policy - under the reference).
        curves["drift"] = (steps, metrics["rewards_chosen"].to_numpy() / options["beta"])
    return {
        kind: (at[np.isfinite(values)], values[np.isfinite(values)])
        for kind, (at, values) in curves.items()
        if np.isfinite(values).any()
    }
