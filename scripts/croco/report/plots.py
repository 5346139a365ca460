"""The report's plots: Vega-Lite specifications by Altair, drawn in the page by its own copy of Vega and here as SVG.

Colours are CSS variables, ``var(--name)``, of scripts/templates/report.css. The page replaces them by the colours of its
theme, and ``to_svg`` by the light ones. A specification is as wide as its place in the page. Altair takes long to import:
only the functions that draw do it.
"""

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from croco.digests import versions
from croco.files import replacing
from croco.report.units import PLAIN, Unit

if TYPE_CHECKING:
    import altair as alt

    from croco.report.looks import Look

STEP = 20  # pixels per line of a plot with one line per run
SERIES = [f"var(--series-{i})" for i in range(1, 11)]
MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right", "triangle-left"]
WIDTH = 620  # pixels, of a chart outside the page
MARKS = 8  # markers on a curve
# Pixels in a legend: of a symbol with the space around it, and of a character, which on average is narrower.
SYMBOL_WIDTH, CHARACTER_WIDTH = 34, 7
CHARACTER_SHARE = 0.56  # width of a character of a name, in sizes of its font
NAMES_AT_MOST = 0.5  # of a plot's width, as on a phone in report.js
CELL_WIDTH = 30  # pixels of a cell of a heat map, at least
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
    "legend": {**TEXT, "symbolStrokeWidth": 2, "symbolSize": 80},
    "header": TEXT,
    "text": {"color": "var(--ink)"},
    "range": {"category": SERIES},
}


def finish(chart: Any, height: int) -> dict:
    """The specification of a chart, as a dict; its parameter ``space`` is the width of its place, set by the page."""
    chart = chart.properties(width="container", height=height)
    spec = chart.to_dict(validate=False)  # which takes longer than all else on the page; a test validates
    spec.pop("$schema")
    params = [*spec.get("params", ()), {"name": "space", "value": WIDTH}]
    return {**spec, "params": params, "autosize": {"type": "fit-x", "contains": "padding"}, "config": CONFIG}


def read_palette(style: Path) -> dict[str, str]:
    """{variable: colour of the light theme} of a style sheet with lines ``--name: light-dark(#..., #...)``."""
    return dict(re.findall(r"--([\w-]+): light-dark\((#\w+),", style.read_text(encoding="utf-8")))


def draw_text(text: str) -> dict:
    """The specification of a sentence in place of a chart."""
    return finish(_chart([{"text": text}]).mark_text().encode(text="text:N"), 40)


def to_svg(spec: dict, palette: Mapping[str, str], width: int = WIDTH) -> str:
    """A specification as a stand-alone SVG in the light theme."""
    import vl_convert

    text = re.sub(r"var\(--([\w-]+)\)", lambda found: palette[found[1]], json.dumps({**spec, "width": width}))
    return vl_convert.vegalite_to_svg({**json.loads(text), "background": "white"})


def read_library() -> str:
    """Vega, Vega-Lite and vega-embed as one script that sets ``window.vegaEmbed``.

    Bundling them takes half of the time of a page, so the script is kept beside the compiled module.
    """
    import vl_convert

    version = versions("vl-convert-python")["vl-convert-python"]
    kept = Path(importlib.util.cache_from_source(__file__)).with_name(f"vega-{version}.js")
    with suppress(OSError):
        return kept.read_bytes().decode("utf-8")
    library = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    with suppress(OSError), replacing(kept) as file:  # a folder that cannot be written only costs time
        file.write(library)
    return library


def _chart(rows: Sequence[dict]) -> "alt.Chart":
    import altair as alt

    return alt.Chart(alt.Data(values=rows))


def _legend(labels: Iterable[str], orient: str = "top", **options: Any) -> "alt.Legend":
    """A legend in as many columns as the chart is wide enough for, so that only a label that is wider than the chart is cut."""
    import altair as alt

    column = SYMBOL_WIDTH + CHARACTER_WIDTH * max(map(len, labels), default=0)
    # A part of the width is left of the legend, with the labels of an axis: up to half on a phone, see report.js.
    columns = alt.ExprRef(f"max(1, floor((space < 480 ? 0.45 : 0.7) * space / {column}))")
    return alt.Legend(orient=orient, columns=columns, labelLimit=alt.ExprRef("space - 100"), **options)


def _is_main(looks: Mapping[str, "Look"], of: str) -> str:
    """A Vega expression: whether the name ``of`` is a main arm's."""
    return f"indexof({json.dumps([name for name, look in looks.items() if look.is_main])}, {of}) >= 0"


def _show_names(names: Sequence[str], looks: Mapping[str, "Look"]) -> dict[str, Any]:
    """Options of an axis of names: those of main arms are bold, and long ones are smaller on a phone.

    Names take up to half of the chart's width; longer ones are cut in the middle, because they differ at their ends.
    """
    import altair as alt

    fitting = NAMES_AT_MOST / CHARACTER_SHARE / max(map(len, names), default=1)
    test = _is_main(looks, "datum.value")
    size = f"(space < 480 ? clamp(floor(space * {fitting:.4f}), 8, 12) : 12)"
    room = f"floor({NAMES_AT_MOST} * space / ({CHARACTER_SHARE} * {size}))"
    start, end = (f"{way}(({room} - 1) / 2)" for way in ("ceil", "floor"))
    cut = f"slice(datum.label, 0, {start}) + '\u2026' + slice(datum.label, length(datum.label) - {end})"
    return {
        "labelExpr": f"length(datum.label) > {room} ? {cut} : datum.label",
        # Some characters are wider than most.
        "labelLimit": alt.ExprRef(f"{NAMES_AT_MOST} * space + (space < 480 ? 0 : 30)"),
        "labelFontWeight": {"condition": {"test": test, "value": "bold"}, "value": "normal"},
        "labelColor": {"condition": {"test": test, "value": "var(--ink)"}, "value": "var(--dim)"},
        "labelFontSize": alt.ExprRef(size),
    }


def _lines(names: Iterable[str], looks: Mapping[str, "Look"]) -> "alt.Y":
    """The y channel with one line per name, in the given order."""
    import altair as alt

    names = list(names)
    axis = alt.Axis(domain=False, ticks=False, grid=False, **_show_names(names, looks))
    return alt.Y("name:N", sort=names, title=None, axis=axis)


def _shapes(names: Iterable[str], looks: Mapping[str, "Look"]) -> "alt.Shape":
    """The shape channel: each run's own marker, without a legend where the lines have the runs' names."""
    import altair as alt

    domain = list(names)
    return alt.Shape("name:N", scale=alt.Scale(domain=domain, range=_list_shapes(domain, looks)), legend=None)


def _list_shapes(names: Iterable[str], looks: Mapping[str, "Look"]) -> list[str]:
    """The marker of each name; one that is no run of the run table has a circle."""
    return [looks[name].shape if name in looks else "circle" for name in names]


def _color_languages(field: str, title: str, shown: Iterable[str], languages: Sequence[str]) -> Any:
    """The colour channel: each language's own in all charts, or one colour if there are more languages than colours."""
    import altair as alt

    if len(languages) > len(SERIES):
        return alt.value(SERIES[0])
    found = set(shown)
    colors = {code: color for code, color in zip(languages, SERIES, strict=False) if code in found}
    scale = alt.Scale(domain=list(colors), range=list(colors.values()))
    return alt.Color(field, title=title, scale=scale, legend=_legend(colors))


def _fills(looks: Mapping[str, "Look"], color: str) -> Any:
    """The fill of a marker: ``color`` in a main arm, the page's own in the others."""
    import altair as alt

    return alt.condition(_is_main(looks, "datum.name"), alt.value(color), alt.value("var(--page)"))


def _rule(x: float, title: str | None = None) -> "alt.Chart":
    """A dashed vertical line; ``title`` is that of the chart's x axis."""
    import altair as alt

    channel = alt.X("x:Q", title=title) if title else alt.X("x:Q")
    tooltip = alt.Tooltip("x:Q", title="reference", format=".4~g")
    return _chart([{"x": x}]).mark_rule(strokeDash=[4, 4], color="var(--dim)").encode(x=channel, tooltip=tooltip)


def _interval(format: str) -> list["alt.Tooltip"]:
    import altair as alt

    return [
        alt.Tooltip("low:Q", title="95 % from", format=format),
        alt.Tooltip("high:Q", title="95 % to", format=format),
    ]


def find_common_length(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The length of all bars if they are equal, so that a chart would show nothing; else None.

    Args:
        rows: as in `plot_bars`.
    """
    lengths = {row["value"] for row in rows}
    return lengths.pop() if len(lengths) == 1 else None


def plot_losses(rows: Sequence[dict], title: str, looks: Mapping[str, "Look"]) -> dict:
    """What was lost by reason, as stacked bars, one line per name; beside what was kept, few losses could not be seen.

    Args:
        rows: [{"name", "part", "count", "kind": "kept" | "lost"}]; parts stack in their order.
    """
    import altair as alt

    names = list(dict.fromkeys(row["name"] for row in rows))
    parts = list(dict.fromkeys(row["part"] for row in rows if row["kind"] == "lost"))
    colors = [f"var(--series-{i})" for i in (2, 4, 5, 6, 7, 8, 9, 10)] * len(parts)
    sums, lengths = Counter[str](), Counter[str]()
    for row in rows:
        sums[row["name"]] += row["count"]
        lengths[row["name"]] += row["count"] if row["kind"] == "lost" else 0
    lost = [
        {**row, "order": parts.index(row["part"]), "of": sums[row["name"]]} for row in rows if row["kind"] == "lost"
    ]
    whole = alt.Axis(tickCount=max(1, min(6, max(lengths.values()))), tickMinStep=1)
    color = alt.Scale(domain=parts, range=colors[: len(parts)])
    chart = (
        _chart(lost)
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X("sum(count):Q", title=title, axis=whole),
            y=_lines(names, looks).scale(domain=names),
            color=alt.Color("part:N", title=None, scale=color, legend=_legend(parts)),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("name:N", title="where"),
                alt.Tooltip("part:N", title="reason"),
                alt.Tooltip("count:Q", format=","),
                alt.Tooltip("of:Q", format=","),
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
    axis = alt.Axis(labels=False, ticks=False, grid=False, domain=False)
    x = alt.X("from:Q", title=title, scale=alt.Scale(nice=False))
    base = _chart(rows).encode(
        x=x,
        y=alt.Y("density:Q", title="Density", axis=axis),
        color=alt.Color(
            "series:N",
            title=None,
            scale=alt.Scale(domain=list(panels), range=[colors[series] for series in panels]),
            legend=_legend(panels),
        ),
    )
    lines = base.transform_filter("datum.series != 'all'").mark_line(interpolate="step-after", strokeWidth=2)
    dashes = {"all": [1, 0], "chosen": [1, 0], "rejected": [5, 2]}
    scale = alt.Scale(domain=list(panels), range=[dashes[series] for series in panels])
    layers = [lines.encode(strokeDash=alt.StrokeDash("series:N", title=None, scale=scale))]
    if "all" in panels:
        layers.insert(0, base.transform_filter("datum.series == 'all'").mark_area(interpolate="step-after"))
    if rule is not None:
        layers.append(_rule(rule, title))
    layers.append(_hover_bins(panels, x))
    return finish(alt.layer(*layers), 130)


def _hover_bins(panels: Mapping[str, Sequence[tuple[float, float, float]]], x: "alt.X") -> "alt.Chart":
    """An invisible bar over each bin, with the tooltip of all series: a line has one tooltip for all its points."""
    import altair as alt

    top = max(height for bins in panels.values() for _, _, height in bins)
    rows: dict[tuple[float, float], dict[str, float]] = {}
    for series, bins in panels.items():
        for low, high, height in bins:
            rows.setdefault((low, high), {"from": low, "to": high, "top": top})[series] = height
    shown = [alt.Tooltip(f"{series}:Q", title=f"density, {series}", format=".3f") for series in panels]
    ends = [alt.Tooltip("from:Q", format=".2f"), alt.Tooltip("to:Q", format=".2f")]
    bars = _chart(list(rows.values())).mark_bar(opacity=0, binSpacing=0)
    return bars.encode(x=x, x2="to:Q", y=alt.Y("top:Q", title="Density"), tooltip=[*ends, *shown])


def plot_cells(
    rows: Sequence[dict],
    x_title: str,
    y_title: str | None,
    looks: Mapping[str, "Look"],
    middle: float | None = None,
    label: str = ".2f",
    unit: Unit = PLAIN,
    value_title: str = "value",
    names: str | None = None,
    spans: list[str] | None = None,
) -> dict:
    """A heat map with its numbers in the cells; the page keeps it ``usermeta.least_width`` pixels wide.

    Args:
        rows: [{"x", "y", "value"}], and with ``names`` a "name"; the page shows one name at a time.
        middle: value without colour, with a different hue on each side; None for one hue from 0 on.
        label: format of the numbers, in the unit.
        value_title: what the numbers are, for their tooltip.
        names: {name shown first}, for the page's selection ``name``.
        spans: order of x, if it differs from that of y.
    """
    import altair as alt

    rows = [{**row, "value": unit.scale(row["value"])} for row in rows]
    # As text, because JavaScript rounds halves otherwise than the tables of the page.
    rows = [{**row, "number": format(row["value"], label)} for row in rows]
    middle = unit.scale(middle)
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
        y=alt.Y("y:N", sort=ys, title=y_title, axis=alt.Axis(**axis, **_show_names(ys, looks))),
        tooltip=[
            alt.Tooltip("y:N", title=y_title or "arm"),
            alt.Tooltip("x:N", title=x_title),
            alt.Tooltip("number:N", title=unit.title(value_title)),
        ],
    )
    cells = base.mark_rect(stroke="var(--page)", strokeWidth=2).encode(
        color=alt.Color("value:Q", scale=scale, legend=None)
    )
    text = base.mark_text(fontSize=11.5).encode(text=alt.Text("number:N"))
    chart = alt.layer(cells, text)
    if names is not None:
        chart = chart.add_params(alt.param(name="shown", value=names))
    # Narrower, the numbers of neighbouring cells and the names above them would overlap.
    texts = [*(row["number"] for row in rows), *xs]
    cell = max(CELL_WIDTH, CHARACTER_WIDTH * max(map(len, texts), default=0) + 4)
    least = cell * len(xs) + CHARACTER_WIDTH * max(map(len, ys), default=0) + 2 * SYMBOL_WIDTH
    return {**finish(chart, (STEP + 6) * len(ys)), "usermeta": {"least_width": least}}


def plot_forest(
    rows: Sequence[dict],
    reference: float,
    title: str,
    looks: Mapping[str, "Look"],
    unit: Unit = PLAIN,
    languages: Sequence[str] = (),
) -> dict:
    """Estimates with intervals, one line per run; single languages are small marks, other seeds small crosses.

    Args:
        rows: [{"name", "value", "low", "high", "languages": {language: value}, "others": [value]}]; low, high may be
            None.
        reference: x of the dashed line.
        languages: all of the page, in its order.
    """
    import altair as alt

    names = [row["name"] for row in rows]
    estimates = [
        {"name": row["name"], **{key: unit.scale(row[key]) for key in ("value", "low", "high")}} for row in rows
    ]
    single = [
        {"name": row["name"], "language": code, "value": unit.scale(value)}
        for row in rows
        for code, value in row["languages"].items()
    ]
    others = [{"name": row["name"], "value": unit.scale(value)} for row in rows for value in row["others"]]
    title = unit.title(title)
    x, y = alt.X("value:Q", title=title, scale=alt.Scale(zero=False)), _lines(names, looks)
    arm, format = alt.Tooltip("name:N", title="arm"), f".{unit.digits}f"
    value = alt.Tooltip("value:Q", title=title, format=format)
    layers = [_rule(reference * unit.factor, title)]
    if single:
        layers.append(
            _chart(single)
            .mark_tick(thickness=2, size=11)
            .encode(
                x=x,
                y=y,
                tooltip=[arm, alt.Tooltip("language:N"), value],
                color=_color_languages(
                    "language:N", "single languages", (row["language"] for row in single), languages
                ),
            )
        )
    if others:
        of_seed = alt.Tooltip("value:Q", title=f"{title}, one training seed", format=format)
        layers.append(
            _chart(others)
            .mark_point(shape="cross", filled=True, size=32, color="var(--accent)", opacity=0.9)
            .encode(x=x, y=y, tooltip=[arm, of_seed])
        )
    bars = [row for row in estimates if row["low"] is not None]
    tooltip = [arm, value, *_interval(format)]
    if bars:
        width = alt.condition(_is_main(looks, "datum.name"), alt.value(4), alt.value(1.5))
        layers.append(
            _chart(bars)
            .mark_rule(color="var(--accent)")
            .encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, strokeWidth=width, tooltip=tooltip)
        )
    layers.append(
        _chart(estimates)
        .mark_point(size=70, color="var(--accent)", opacity=1)
        .encode(x=x, y=y, shape=_shapes(names, looks), fill=_fills(looks, "var(--accent)"), tooltip=tooltip)
    )
    return finish(alt.layer(*layers).resolve_scale(shape="independent"), STEP * len(names))


def plot_dots(
    rows: Sequence[dict],
    title: str,
    looks: Mapping[str, "Look"],
    unit: Unit = PLAIN,
    reference: float | None = None,
    labels: tuple[str, str] = ("arm", "measure"),
) -> dict:
    """Several values per line, distinguished by colour and marker.

    Args:
        rows: [{"name", "series", "value", "low" and "high" where known}].
        labels: what a name is and what a series is, for the tooltips.
    """
    import altair as alt

    rows = [{**row, **{key: unit.scale(row[key]) for key in ("value", "low", "high") if key in row}} for row in rows]
    title = unit.title(title)

    names, series = (list(dict.fromkeys(row[key] for row in rows)) for key in ("name", "series"))
    x, y = alt.X("value:Q", title=title, scale=alt.Scale(zero=False)), _lines(names, looks)
    color = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=series, range=SERIES),
        legend=_legend(series),
    )
    shift = alt.YOffset("series:N", scale=alt.Scale(domain=series))
    shapes = alt.Shape("series:N", title=None, scale=alt.Scale(domain=series, range=MARKERS))
    format = f".{unit.digits}f"
    tooltip = [alt.Tooltip(f"{key}:N", title=text) for key, text in zip(("name", "series"), labels, strict=True)]
    tooltip.append(alt.Tooltip("value:Q", title=title, format=format))
    layers = []
    if reference is not None:
        layers.append(_rule(reference * unit.factor, title))
    bars = [row for row in rows if row.get("low") is not None]
    if bars:
        layers.append(
            _chart(bars)
            .mark_rule(strokeWidth=1.5)
            .encode(
                x=alt.X("low:Q", title=title),
                x2="high:Q",
                y=y,
                yOffset=shift,
                color=color,
                tooltip=[*tooltip, *_interval(format)],
            )
        )
    layers.append(
        _chart(rows)
        .mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=y,
            yOffset=shift,
            color=color,
            shape=shapes,
            size=alt.condition(_is_main(looks, "datum.name"), alt.value(80), alt.value(40)),
            tooltip=[*tooltip, *(_interval(format) if bars else [])],
        )
    )
    return finish(alt.layer(*layers), max(STEP, 8 * len(series)) * len(names))


def plot_curves(
    rows: Sequence[dict], title: str, y_title: str, looks: Mapping[str, "Look"], zero: bool = False
) -> dict:
    """Lines over training steps: [{"name", "step", "value"}]; the page's selection ``shown`` brings one forward."""
    import altair as alt

    names = list(dict.fromkeys(row["name"] for row in rows))
    shown = [looks[name] for name in names]
    # The legend shows the lines, with their dashes; the markers on them would hide these.
    legend = _legend(names, "bottom", symbolType="stroke", symbolSize=400) if len(names) <= 8 else None
    colors = alt.Scale(domain=names, range=[look.color for look in shown])
    dashes = alt.Scale(domain=names, range=[list(look.dash) for look in shown])
    shapes = alt.Scale(domain=names, range=[look.shape for look in shown])
    color = alt.Color("name:N", title=None, legend=legend, scale=colors)
    base = _chart(mark_some(rows)).encode(
        x=alt.X("step:Q", title="Training step", axis=alt.Axis(grid=False)),
        y=alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=zero)),
        color=color,
    )
    opacity = alt.condition("shown == '' || datum.name == shown", alt.value(0.95), alt.value(0.1))
    is_main = _is_main(looks, "datum.name")
    lines = base.mark_line().encode(
        strokeDash=alt.StrokeDash("name:N", title=None, legend=legend, scale=dashes),
        opacity=opacity,
        strokeWidth=alt.condition(is_main, alt.value(3), alt.value(1.3)),
    )
    markers = base.transform_filter("datum.marked").mark_point(size=45, strokeWidth=1.4).encode(
        shape=alt.Shape("name:N", legend=None, scale=shapes),
        opacity=opacity,
        fill=alt.condition(is_main, color, alt.value("var(--page)")),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("name:N", title="arm"),
        alt.Tooltip("step:Q", title="training step"),
        alt.Tooltip("value:Q", format=".4g", title=title),
    ]
    # A line has one tooltip for all its points, so that each point has an invisible mark of its own.
    hover = base.mark_point(filled=True, size=60, opacity=0).encode(tooltip=tooltip)
    chart = alt.layer(lines, markers, hover).resolve_legend(shape="independent")
    return finish(chart.add_params(alt.param(name="shown", value="")), 220)


def mark_some(rows: Sequence[dict]) -> list[dict]:
    """The points of curves, each with ``marked``: about MARKS of each curve get a marker, the same share apart."""
    by_name: dict[str, list[dict]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    marked = []
    for i, points in enumerate(by_name.values()):
        every = max(1, len(points) // MARKS)
        # Curves that coincide have their markers side by side.
        start = i * every // max(1, len(by_name))
        marked += [{**point, "marked": j % every == start} for j, point in enumerate(points)]
    return marked


def plot_scatter(
    rows: Sequence[dict],
    x_title: str,
    y_title: str,
    looks: Mapping[str, "Look"],
    y_unit: Unit = PLAIN,
    references: tuple[float, float] = (0, 0.5),
    languages: Sequence[str] = (),
) -> dict:
    """Points of runs, distinguished by marker, and of languages, distinguished by colour, with dashed reference lines.

    Args:
        rows: [{"name", "series": language, "x", "y"}].
        languages: all of the page, in its order.
        references: x and y of the dashed lines.
    """
    import altair as alt

    rows = [{**row, "y": y_unit.scale(row["y"])} for row in rows]
    names = list(dict.fromkeys(row["name"] for row in rows))
    y_title = y_unit.title(y_title)
    colors = _color_languages("series:N", "language", (row["series"] for row in rows), languages)
    shapes = alt.Shape(
        "name:N",
        title="arm",
        scale=alt.Scale(domain=names, range=_list_shapes(names, looks)),
        legend=_legend(names) if len(names) <= 8 else None,
    )
    is_main = _is_main(looks, "datum.name")
    points = (
        _chart(rows)
        .mark_point(opacity=0.9, strokeWidth=1.5)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False)),
            color=colors,
            shape=shapes,
            # With another colour, the legend of the markers would show no outline.
            fill=alt.condition(is_main, colors, alt.value("transparent")),
            size=alt.condition(is_main, alt.value(90), alt.value(50)),
            tooltip=[
                alt.Tooltip("name:N", title="arm"),
                alt.Tooltip("series:N", title="language"),
                alt.Tooltip("x:Q", title=x_title, format=".3f"),
                alt.Tooltip("y:Q", title=y_title, format=f".{y_unit.digits}f"),
            ],
        )
    )
    x_reference, y_reference = references
    dashed = {"strokeDash": [4, 4], "color": "var(--dim)"}
    horizontal = _chart([{"y": y_reference * y_unit.factor}]).mark_rule(**dashed).encode(y=alt.Y("y:Q", title=y_title))
    return finish(alt.layer(_rule(x_reference, x_title), horizontal, points), 300)


def plot_bars(rows: Sequence[dict], title: str) -> dict:
    """One bar per name: [{"name", "value"}]."""
    import altair as alt

    names = [row["name"] for row in rows]
    chart = (
        _chart(rows)
        .mark_bar(color="var(--accent)", height={"band": 0.66})
        .encode(
            x=alt.X("value:Q", title=title),
            y=_lines(names, {}),
            tooltip=[alt.Tooltip("name:N", title="stage"), alt.Tooltip("value:Q", format=",.4g", title=title)],
        )
    )
    return finish(chart, STEP * len(names))
