"""The report's plots, as SVG text."""

import io
import math

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

ALL, CHOSEN, REJECTED, ACCENT = "#b8c0cc", "#1b9e77", "#d95f02", "#3b5b92"
STYLES = ("-", "--", ":", "-.")
plt.rcParams.update(
    {
        "svg.hashsalt": "croco",  # element ids that do not depend on chance
        "svg.fonttype": "path",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "figure.facecolor": "white",
        "axes.prop_cycle": matplotlib.cycler(color=matplotlib.colormaps["tab10"].colors),
    }
)


def to_svg(figure):
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def plot_rewards(panels):
    """Histograms of rewards, one panel a language.

    Args:
        panels: {title: (all rewards, chosen's, rejected's)}, each a list of numbers.
    """
    columns = min(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.3 * columns, 2.3 * lines), squeeze=False, sharex=True)
    values = [value for rewards, *_ in panels.values() for value in rewards]
    bins = np.linspace(min(values), max(values), 41) if values and min(values) < max(values) else 10
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, (rewards, chosen, rejected)) in zip(axes.flat, panels.items(), strict=False):
        axis.hist(rewards, bins, density=True, color=ALL, label="all responses")
        for some, color, label in ((chosen, CHOSEN, "chosen"), (rejected, REJECTED, "rejected")):
            if some:
                axis.hist(some, bins, density=True, histtype="step", linewidth=1.6, color=color, label=label)
        axis.set_title(f"{title}  ({len(chosen)} chosen, {len(rejected)} rejected)", fontsize=8.5)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.tick_params(labelbottom=True)
    figure.supxlabel("reward (raw logit)", fontsize=9)
    handles = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="upper center", ncol=3, frameon=False, bbox_to_anchor=(0.5, 1.06)
    )
    figure.tight_layout()
    return to_svg(figure)


def plot_training(curves):
    """Training curves.

    Args:
        curves: {run: {"dpo_loss" | "margin" | "drift" | "sft_loss": (steps, values)}}.
    """
    titles = {
        "dpo_loss": "DPO loss",
        "margin": "reward margin, chosen - rejected",
        "drift": "drift of chosen log-probability (nats)",
        "sft_loss": "SFT loss",
    }
    figure, axes = plt.subplots(2, 2, figsize=(10, 5.4))
    axes = axes.flat
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        for i, (run, metrics) in enumerate(curves.items()):
            if kind in metrics:
                axis.plot(*metrics[kind], label=run, color=f"C{i % 10}", linestyle=STYLES[i // 10 % 4], linewidth=1.2)
        axis.set_title(title)
        axis.set_xlabel("optimizer step")
    axes[1].axhline(0, color="#999", linewidth=0.6)
    axes[2].axhline(0, color="#999", linewidth=0.6)
    handles = {}
    for axis in axes:
        handles.update({label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)})
    figure.legend(
        handles.values(), handles.keys(), loc="upper center", ncol=5, frameon=False, bbox_to_anchor=(0.5, 0.0)
    )
    figure.tight_layout()
    return to_svg(figure)


def plot_languages(separations):
    """How often each language is chosen over each, a square a run; None without runs.

    Args:
        separations: {run: {"pairs": {chosen language: {rejected language: count}}, "accuracy": share}}.
    """
    if not separations:
        return None
    codes = sorted(
        {code for found in separations.values() for row, cells in found["pairs"].items() for code in [row, *cells]}
    )
    columns = min(len(separations), 5)
    lines = math.ceil(len(separations) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(2.1 * columns, 2.6 * lines), squeeze=False, sharex=True, sharey=True
    )
    for axis in axes.flat[len(separations) :]:
        axis.axis("off")
    for axis, (name, found) in zip(axes.flat, separations.items(), strict=False):
        counts = [[found["pairs"].get(chosen, {}).get(rejected, 0) for rejected in codes] for chosen in codes]
        axis.imshow(counts, cmap="Blues", vmin=0)
        for y, row in enumerate(counts):
            for x, count in enumerate(row):
                if count:
                    dark = count > max(map(max, counts)) / 2
                    axis.text(x, y, count, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
        axis.set_title(f"{name}\n{found['accuracy']:.0%} told by language", fontsize=7.5)
        axis.set_xticks(range(len(codes)), codes, fontsize=7)
        axis.set_yticks(range(len(codes)), codes, fontsize=7)
        axis.tick_params(length=0, labelbottom=True)
    figure.supxlabel("rejected", fontsize=9)
    figure.supylabel("chosen", fontsize=9)
    figure.tight_layout()
    return to_svg(figure)


def plot_forest(rows, reference, label):
    """Estimates with intervals, a line a run; single languages are small marks beside the pooled estimate.

    Args:
        rows: [(name, pooled value, low, high, {language: value}, values of other seeds)]; low and high may be None.
        reference: x of the dashed line; label: of the x axis.
    """
    languages = sorted({language for *_, values, _ in rows for language in values})
    figure, axis = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.3))
    for i, language in enumerate(languages):
        points = [(values[language], y) for y, (*_, values, _) in enumerate(rows) if language in values]
        axis.plot(
            *zip(*points, strict=True), "|", color=f"C{i % 10}", markersize=9, markeredgewidth=1.6, label=language
        )
    for y, (_, value, low, high, _, others) in enumerate(rows):
        axis.plot(others, [y] * len(others), "o", color=ACCENT, markersize=4, fillstyle="none", markeredgewidth=0.8)
        if low is not None:
            axis.plot([low, high], [y, y], color=ACCENT, linewidth=2.2, solid_capstyle="butt")
        axis.plot(value, y, "o", color=ACCENT, markersize=6)
    axis.axvline(reference, color="#888", linestyle="--", linewidth=0.9)
    axis.set_yticks(range(len(rows)), [row[0] for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.7)
    axis.set_xlabel(label)
    if languages:
        axis.legend(
            title="single languages",
            fontsize=8,
            title_fontsize=8,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1, 1),
        )
    figure.tight_layout()
    return to_svg(figure)
