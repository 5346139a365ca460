"""The report's plots: Vega-Lite specifications by Altair, drawn in the page by its own copy of Vega and here as SVG.

Colours are CSS variables, ``var(--name)``, of scripts/templates/report.css. The page replaces them by the colours of its
theme, and ``to_svg`` by the light ones. A specification is as wide as its place in the page. Altair takes long to import:
only the functions that draw do it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

STEP = 20  # pixels per line of a plot with one line per run
SERIES = [f"var(--series-{i})" for i in range(1, 11)]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TEXT = {
    "labelColor": "var(--dim)",
    "titleColor": "var(--dim)",
    "titleFontWeight": "normal",
    "labelFontSize": 12,
    "titleFontSize": 12,
}
CONFIG = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        **TEXT,
        "labelLimit": 230,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "titlePadding": 8,
        "labelPadding": 6,
    },
    "axisQuantitative": {"tickCount": 6, "labelSeparation": 8},
    "legend": {**TEXT, "symbolStrokeWidth": 2, "symbolSize": 80, "labelLimit": 260, "columns": 4},
    "header": TEXT,
    "text": {"color": "var(--ink)"},
    "range": {"category": SERIES},
}


def finish(chart: Any, height: int) -> dict:
    """The specification of a chart, as a dict."""
    chart = chart.properties(width="container", height=height)
    spec = chart.to_dict()
    spec.pop("$schema")
    return {**spec, "autosize": {"type": "fit-x", "contains": "padding"}, "config": CONFIG}


def read_palette(css: str) -> dict[str, str]:
    """{variable: colour of the light theme} of a style sheet with lines ``--name: light-dark(#..., #...)``."""
    return dict(re.findall(r"--([\w-]+): light-dark\((#\w+),", css))


def to_svg(spec: dict | None, palette: dict[str, str], width: int = 620) -> str:
    """A specification as a stand-alone SVG in the light theme; without one, an SVG that says so."""
    import vl_convert

    if spec is None:
        spec = finish(_chart([{"text": "Nothing was measured."}]).mark_text().encode(text="text:N"), 40)
    text = re.sub(r"var\(--([\w-]+)\)", lambda found: palette[found[1]], json.dumps({**spec, "width": width}))
    return vl_convert.vegalite_to_svg({**json.loads(text), "background": "white"})


def read_library() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default


def _chart(rows: Sequence[dict]) -> "alt.Chart":
    import altair as alt

    return alt.Chart(alt.Data(values=rows))


def _lines(names: Iterable[str]) -> "alt.Y":
    """The y channel with one line per name, in the given order."""
    import altair as alt

    return alt.Y("name:N", sort=list(names), title=None, axis=alt.Axis(domain=False, ticks=False, grid=False))


def plot_stacks(rows: Sequence[dict], title: str) -> dict:
    """Stacked bars, one line per name.

    Args:
        rows: [{"name", "part", "count", "kind": "kept" | "lost"}]; parts stack in their order.
    """
    import altair as alt

    names, parts = (list(dict.fromkeys(row[key] for row in rows)) for key in ("name", "part"))
    kinds = {row["part"]: row["kind"] for row in rows}
    lost = iter([f"var(--series-{i})" for i in (2, 4, 5, 6, 7, 8, 9, 10)] * len(parts))
    kept = iter(["var(--good)", "var(--series-1)", "var(--series-3)"] * len(parts))
    colors = [next(kept if kinds[part] == "kept" else lost) for part in parts]
    ordered = [{**row, "order": parts.index(row["part"])} for row in rows]
    chart = (
        _chart(ordered)
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X("sum(count):Q", title=title, axis=alt.Axis(tickMinStep=1)),
            y=_lines(names),
            color=alt.Color(
                "part:N", title=None, scale=alt.Scale(domain=parts, range=colors), legend=alt.Legend(orient="top")
            ),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("name:N", title="where"),
                alt.Tooltip("part:N", title="outcome"),
                alt.Tooltip("count:Q", format=","),
            ],
        )
    )
    return finish(chart, (STEP + 2) * len(names))


def plot_histogram(panels: dict[str, list[tuple[float, float, float]]], title: str, rule: float | None = None) -> dict:
    """Overlaid histograms that are scaled to the same area.

    Args:
        panels: {series: [(from, to, density)]}; the series ``all`` is filled.
        rule: x of a dashed line, or None.
    """
    import altair as alt

    colors = {"all": "var(--fill)", "chosen": "var(--good)", "rejected": "var(--bad)"}
    rows = [
        {"series": series, "from": low, "to": high, "density": density}
        for series, bins in panels.items()
        for low, high, density in bins
    ]
    base = _chart(rows).encode(
        x=alt.X("from:Q", title=title, scale=alt.Scale(nice=False)),
        y=alt.Y("density:Q", title=None, axis=None),
        color=alt.Color(
            "series:N",
            title=None,
            scale=alt.Scale(domain=list(panels), range=[colors[series] for series in panels]),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=[
            alt.Tooltip("series:N"),
            alt.Tooltip("from:Q", format=".2f"),
            alt.Tooltip("to:Q", format=".2f"),
            alt.Tooltip("density:Q", format=".3f"),
        ],
    )
    layers = [base.transform_filter("datum.series != 'all'").mark_line(interpolate="step-after", strokeWidth=2)]
    if "all" in panels:
        layers.insert(0, base.transform_filter("datum.series == 'all'").mark_area(interpolate="step-after"))
    if rule is not None:
        layers.append(
            _chart([{"x": rule}]).mark_rule(strokeDash=[4, 4], color="var(--dim)").encode(x=alt.X("x:Q", title=title))
        )
    return finish(alt.layer(*layers), 130)


def plot_cells(
    rows: Sequence[dict],
    x_title: str | None,
    y_title: str | None,
    middle: float | None = None,
    label: str = ".2f",
    names: str | None = None,
    spans: list[str] | None = None,
) -> dict:
    """A heat map with its numbers in the cells.

    Args:
        rows: [{"x", "y", "value"}], and with ``names`` a "name"; the page shows one name at a time.
        middle: value without colour, with a different hue on each side; None for one hue from 0 on.
        label: d3 format of the numbers.
        names: {name shown first}, for the page's selection ``name``.
        spans: order of x, if it differs from that of y.
    """
    import altair as alt

    ys = list(dict.fromkeys(row["y"] for row in rows))
    xs = spans or list(dict.fromkeys(row["x"] for row in rows))
    top = max((abs(row["value"] - (middle or 0)) for row in rows), default=0) or 1
    if middle is None:
        scale = alt.Scale(domain=[0, top], range=["var(--page)", "var(--soft)"], interpolate="rgb")
    else:
        scale = alt.Scale(
            domain=[middle - top, middle, middle + top],
            range=["var(--bad-soft)", "var(--page)", "var(--good-soft)"],
            interpolate="rgb",
        )
    base = _chart(rows)
    if names is not None:
        base = base.transform_filter("datum.name == shown")
    axis = {"domain": False, "ticks": False, "grid": False}
    base = base.encode(
        x=alt.X("x:N", sort=xs, title=x_title, axis=alt.Axis(orient="top", labelAngle=0, **axis)),
        y=alt.Y("y:N", sort=ys, title=y_title, axis=alt.Axis(**axis)),
        tooltip=[
            alt.Tooltip("y:N", title=y_title or "line"),
            alt.Tooltip("x:N", title=x_title or "column"),
            alt.Tooltip("value:Q", format=label),
        ],
    )
    cells = base.mark_rect(stroke="var(--page)", strokeWidth=2).encode(
        color=alt.Color("value:Q", scale=scale, legend=None)
    )
    text = base.mark_text(fontSize=11.5).encode(text=alt.Text("value:Q", format=label))
    chart = alt.layer(cells, text)
    if names is not None:
        chart = chart.add_params(alt.param(name="shown", value=names))
    return finish(chart, (STEP + 6) * len(ys))


def plot_forest(rows: Sequence[dict], reference: float, title: str) -> dict:
    """Estimates with intervals, one line per run; single languages are small marks, other seeds circles.

    Args:
        rows: [{"name", "value", "low", "high", "languages": {language: value}, "others": [value]}]; low, high may be
            None.
        reference: x of the dashed line.
    """
    import altair as alt

    names = [row["name"] for row in rows]
    estimates = [{key: row[key] for key in ("name", "value", "low", "high")} for row in rows]
    single = [
        {"name": row["name"], "language": code, "value": value}
        for row in rows
        for code, value in row["languages"].items()
    ]
    others = [{"name": row["name"], "value": value} for row in rows for value in row["others"]]
    x, y = alt.X("value:Q", title=title, scale=alt.Scale(zero=False)), _lines(names)
    number = alt.Tooltip("value:Q", format=".3f")
    layers = [_chart([{"value": reference}]).mark_rule(strokeDash=[4, 4], color="var(--dim)").encode(x=x)]
    if single:
        layers.append(
            _chart(single)
            .mark_tick(thickness=2, size=11)
            .encode(
                x=x,
                y=y,
                tooltip=["name:N", "language:N", number],
                color=alt.Color(
                    "language:N",
                    title="single languages",
                    scale=alt.Scale(range=SERIES),
                    legend=alt.Legend(orient="top"),
                ),
            )
        )
    if others:
        layers.append(
            _chart(others)
            .mark_point(size=28, color="var(--accent)", opacity=0.9, strokeWidth=1)
            .encode(x=x, y=y, tooltip=["name:N", number])
        )
    bars = [row for row in estimates if row["low"] is not None]
    tooltip = ["name:N", number, alt.Tooltip("low:Q", format=".3f"), alt.Tooltip("high:Q", format=".3f")]
    if bars:
        layers.append(
            _chart(bars)
            .mark_rule(strokeWidth=2.5, color="var(--accent)")
            .encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, tooltip=tooltip)
        )
    layers.append(
        _chart(estimates)
        .mark_point(filled=True, size=70, color="var(--accent)", opacity=1)
        .encode(x=x, y=y, tooltip=tooltip)
    )
    return finish(alt.layer(*layers), STEP * len(names))


def plot_dots(rows: Sequence[dict], title: str, reference: float | None = None, label: str = "measure") -> dict:
    """Several values per line, distinguished by colour: [{"name", "series", "value", "low" and "high" where known}]."""
    import altair as alt

    names, series = (list(dict.fromkeys(row[key] for row in rows)) for key in ("name", "series"))
    x, y = alt.X("value:Q", title=title, scale=alt.Scale(zero=False)), _lines(names)
    color = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=series, range=SERIES),
        legend=alt.Legend(orient="top"),
    )
    shift = alt.YOffset("series:N", scale=alt.Scale(domain=series))
    tooltip = ["name:N", alt.Tooltip("series:N", title=label), alt.Tooltip("value:Q", format=".3f")]
    layers = []
    if reference is not None:
        layers.append(_chart([{"value": reference}]).mark_rule(strokeDash=[4, 4], color="var(--dim)").encode(x=x))
    bars = [row for row in rows if row.get("low") is not None]
    if bars:
        layers.append(
            _chart(bars)
            .mark_rule(strokeWidth=1.5)
            .encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, yOffset=shift, color=color, tooltip=tooltip)
        )
    layers.append(
        _chart(rows)
        .mark_point(filled=True, size=46, opacity=1)
        .encode(x=x, y=y, yOffset=shift, color=color, tooltip=tooltip)
    )
    return finish(alt.layer(*layers), max(STEP, 8 * len(series)) * len(names))


def plot_curves(rows: Sequence[dict], title: str, zero: bool = False) -> dict:
    """Lines over optimizer steps: [{"name", "step", "value"}]; the page's selection ``shown`` brings one forward."""
    import altair as alt

    names = list(dict.fromkeys(row["name"] for row in rows))
    colors = [SERIES[i % len(SERIES)] for i in range(len(names))]
    legend = alt.Legend(orient="bottom", columns=2) if len(names) <= 8 else None
    lines = (
        _chart(rows)
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("step:Q", title="optimizer step", axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=zero)),
            color=alt.Color("name:N", title=None, scale=alt.Scale(domain=names, range=colors), legend=legend),
            opacity=alt.condition("shown == '' || datum.name == shown", alt.value(0.95), alt.value(0.1)),
            tooltip=["name:N", "step:Q", alt.Tooltip("value:Q", format=".4g", title=title)],
        )
        .add_params(alt.param(name="shown", value=""))
    )
    return finish(lines, 220)


def plot_scatter(
    rows: Sequence[dict], x_title: str, y_title: str, x_reference: float = 0, y_reference: float = 0.5
) -> dict:
    """Points with a name and a series: [{"name", "series", "x", "y"}], and dashed lines at the references."""
    import altair as alt

    points = (
        _chart(rows)
        .mark_point(filled=True, size=50, opacity=0.8)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False)),
            color=alt.Color("series:N", title=None, scale=alt.Scale(range=SERIES), legend=alt.Legend(orient="top")),
            tooltip=["name:N", "series:N", alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("y:Q", format=".3f")],
        )
    )
    dashed = {"strokeDash": [4, 4], "color": "var(--dim)"}
    vertical = _chart([{"x": x_reference}]).mark_rule(**dashed).encode(x="x:Q")
    horizontal = _chart([{"y": y_reference}]).mark_rule(**dashed).encode(y="y:Q")
    return finish(alt.layer(vertical, horizontal, points), 300)


def plot_bars(rows: Sequence[dict], title: str) -> dict:
    """One bar per name: [{"name", "value"}]."""
    import altair as alt

    names = [row["name"] for row in rows]
    chart = (
        _chart(rows)
        .mark_bar(color="var(--accent)", height={"band": 0.66})
        .encode(
            x=alt.X("value:Q", title=title),
            y=_lines(names),
            tooltip=["name:N", alt.Tooltip("value:Q", format=",.4g", title=title)],
        )
    )
    return finish(chart, STEP * len(names))
