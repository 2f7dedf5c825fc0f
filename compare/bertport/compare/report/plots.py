"""The plots of the report, drawn by matplotlib as SVG that takes the page's text colour and no fonts along.

What a plot shows is in a table beside it too, and rows differ by marker and label as well as by colour.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bertport.compare.report.formatting import MB, capitalized
from bertport.compare.report.metrics import POINTS, in_points, main_metric, more_is_better
from bertport.compare.report.tables import headline_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bertport.compare.measurements import LayerTable
    from bertport.compare.report.document import Report, Row
    from bertport.measure.quality.rows import Column, Head
    from bertport.measure.statistics import Estimate

__all__ = ["Plot", "plots"]

INK = "#010203"
"""Stands for the page's text colour until the SVG is finished."""
COLOURS = ("#2f7fc1", "#c8590f", "#12946f", "#b04f9e", "#94800f", "#cf4258", "#6f7bd6", "#4f8f92")
"""Each has a contrast of at least 3 to 1 with white and with the page's dark background (WCAG 2.2, 1.4.11)."""
ABOVE_ONE = 1.0001
"""Limit above every share, however it is rounded: ticks from it on get no label."""
LONGEST = 40
"""Characters of a file's name in a plot."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
SETTINGS: dict[str, object] = {
    "svg.hashsalt": "bertport",  # or the names inside differ from one drawing to the next
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a name may hold "$", and the tables write it as it is
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot."""

    section: str
    """Key of the section it belongs to."""
    title: str
    """Its heading."""
    caption: str
    """Sentences on how to read it."""
    description: str
    """Description of what it shows, for readers who do not see it."""
    svg: str
    """An `<svg>` element."""
    below: bool = False
    """Whether it stands below the tables of its section."""


def plots(report: Report) -> list[Plot]:
    """Draw every plot that the report has figures for."""
    import matplotlib as mpl

    figures = [*_labelled_figures(report), *_head_figures(report)]
    with mpl.rc_context(mpl.RcParams(SETTINGS)):
        drawn = [_pareto(report, plotted) for plotted in figures]
        drawn += [_lengths(report), _sizes(report)]
        drawn += [
            _layers(bundle.label, variant, table)
            for bundle in report.bundles
            for variant, table in bundle.sensitivity.items()
        ]
    return [plot for plot in drawn if plot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plotted:
    """A figure that is plotted against latency."""

    name: str
    """Name for people."""
    caption: str
    """Sentences on how to read the plot."""
    read: Callable[[Row], Estimate | None]
    """Takes it out of a row; None where it was not measured."""
    write: Callable[[float], str]
    """Returns a value for the description."""
    tick: Callable[[float, float], str]
    """Returns a value at its axis."""
    axis: str = ""
    """Label of its axis; empty for the name."""
    exact: bool = False
    """Whether the reference's is no estimate: it agrees with itself."""
    bound: float | None = None
    """The bound of the accuracy budget on it."""


def _labelled_figures(report: Report) -> Iterator[Plotted]:
    """Yield the main metric on labelled data."""
    metric = main_metric(report)
    if metric is None or report.data is None or not more_is_better(metric):
        return
    file = report.data.name
    file = file if len(file) <= LONGEST else f"{file[: LONGEST - 3]}..."
    yield Plotted(
        name=f"{capitalized(metric)} on {file}",
        axis=f"{metric}, points",
        caption=f"Up is better, left is faster; 95% intervals on {report.data.examples:,} examples. Variants answer "
        "the same ones, so the table of differences tells them apart better than these intervals do.",
        read=lambda row: row.metric(metric),
        write=lambda value: f"{in_points(value)} points",
        tick=lambda value, _: f"{value * POINTS:.1f}" if value < ABOVE_ONE else "",
    )


def _head_figures(report: Report) -> Iterator[Plotted]:
    """Yield the figures that stand for heads, of those that mean something for every bundle."""
    for head, column in headline_columns(report):
        if column.labelled and not all(bundle.trained for bundle in report.bundles):
            continue
        bound = _bound(report, head, column)
        form = ".2%" if column.form.endswith("%") else column.form
        yield Plotted(
            name=capitalized(column.title) + ("" if column.labelled else " with fp32"),
            caption=f"Up is {'better' if bound is None else 'nearer'}, left is faster; 95% intervals.",
            read=partial(_estimate, head, column),
            write=partial(_written, form),
            tick=_tick(column),
            exact=not column.labelled,
            bound=bound,
        )


def _written(form: str, value: float) -> str:
    return f"{value:{form}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Colour and marker of a row, the same in every plot."""

    colour: str
    """Colour of its marks and lines."""
    marker: str
    """Marker of its points."""


def _looks(report: Report) -> dict[str, Look]:
    """Return the look of each row, by name."""
    return {
        row.name: Look(colour=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)])
        for number, row in enumerate(report.rows)
    }


def _pareto(report: Report, plotted: Plotted) -> Plot | None:
    """Draw a figure of quality against latency; a row without the figure is a line at its latency."""
    latencies = [(row, row.speed.single_stream.times.p90) for row in report.rows if row.speed.single_stream]
    points = [(row, latency, plotted.read(row)) for row, latency in latencies]
    shown = [(row, latency, quality) for row, latency, quality in points if quality and math.isfinite(quality.value)]
    if not shown:
        return None
    name = plotted.name
    figure, axes = _figure(4.6)
    looks = _looks(report)
    for row, latency, quality in shown:
        x, y = 1e3 * latency.value, quality.value
        exact = row.reference and plotted.exact
        axes.errorbar(
            x,
            y,
            xerr=[[1e3 * arm] for arm in _arms(latency)],
            yerr=None if exact else [[arm] for arm in _arms(quality)],
            color=looks[row.name].colour,
            marker=looks[row.name].marker,
            markersize=9,
            capsize=3,
            linewidth=1.2,
            label=_label(row.name),
        )
    front = _front([(latency.value, quality.value) for _, latency, quality in shown])
    if len(front) > 1:
        axes.plot(
            [1e3 * x for x, _ in front],
            [y for _, y in front],
            color=INK,
            alpha=0.5,
            linestyle=":",
            label="Pareto front",
        )
    if plotted.bound is not None:
        axes.axhline(plotted.bound, color=INK, linewidth=1, label="accuracy budget")
    for row, latency, missing in points:
        if not missing:
            axes.axvline(
                1e3 * latency.value,
                color=looks[row.name].colour,
                linestyle="--",
                label=_label(f"{row.name} (speed only)"),
            )
    axes.set_xlabel("SingleStream p90, ms (left is faster)")
    axes.set_ylabel(plotted.axis or name)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(plotted.tick)
    _legend(figure)
    names = ", ".join(
        f"{row.name} {1e3 * latency.value:.3g} ms and {plotted.write(quality.value)}" for row, latency, quality in shown
    )
    return Plot(
        section="summary",
        title=f"{name} against latency",
        caption=plotted.caption,
        description=f"Scatter plot: {names}. The tables hold the same figures.",
        svg=_svg(figure, f"pareto-{name}", f"{name} against latency"),
    )


def _arms(estimate: Estimate) -> tuple[float, float]:
    """Return how far an interval reaches below and above its figure; 0 for an end that is not known."""
    return max(0.0, estimate.value - estimate.low), max(0.0, estimate.high - estimate.value)


def _tick(column: Column) -> Callable[[float, float], str]:
    """Return what writes a value at its axis; no share is above 1."""
    if not column.form.endswith("%"):
        return lambda value, _: f"{value:{column.form}}"
    return lambda value, _: f"{value:.1%}" if value < ABOVE_ONE else ""


def _estimate(head: Head, column: Column, row: Row) -> Estimate | None:
    figures = row.head(head.name)
    return figures.estimate(column.key) if figures else None


def _bound(report: Report, head: Head, column: Column) -> float | None:
    """Return the bound of the accuracy budget on a figure; None where it has none."""
    names = [limit.name for limit in head.limits if limit.path == (head.name, column.key)]
    return next((report.settings.budget[name] for name in names if name in report.settings.budget), None)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, by latency."""
    best, front = float("-inf"), []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if y > best:
            front.append((x, y))
            best = y
    return front


def _lengths(report: Report) -> Plot | None:
    lines: dict[str, list[tuple[int, Estimate]]] = {}
    for row in report.rows:
        rates = [(shape.length, shape.tokens_per_second) for shape in row.speed.shapes.values() if shape.rows == 1]
        if rates:
            lines[row.name] = sorted(rates, key=lambda rate: rate[0])
    if not lines:
        return None
    figure, axes = _figure(4.2)
    looks = _looks(report)
    for name, shapes in lines.items():
        look = looks[name]
        x = [length for length, _ in shapes]
        y = [rate.value for _, rate in shapes]
        below, above = zip(*(_arms(rate) for _, rate in shapes), strict=True)
        axes.errorbar(x, y, yerr=[below, above], color=look.colour, marker=look.marker, capsize=3, label=_label(name))
    axes.set_xscale("log", base=2)
    ticks = sorted({length for shapes in lines.values() for length, _ in shapes})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens in the text")
    axes.set_ylabel("tokens a second")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _legend(figure)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{rate.value:,.0f} at {length} tokens" for length, rate in shapes)
        for name, shapes in lines.items()
    )
    return Plot(
        section="speed",
        title="Throughput by length",
        caption="The graph alone, one text at a time; 95% intervals.",
        description=f"Lines, in tokens a second. {said}.",
        svg=_svg(figure, "lengths", "Throughput by length"),
    )


def _sizes(report: Report) -> Plot | None:
    sizes = {row.name: row.size_bytes / MB for row in report.rows if row.size_bytes and not row.failed}
    if not sizes:
        return None
    figure, axes = _figure(0.9 + 0.42 * len(sizes))
    looks = _looks(report)
    bars = axes.barh(list(sizes), list(sizes.values()), color=[looks[name].colour for name in sizes], height=0.6)
    axes.bar_label(bars, labels=[f"{size:,.1f} MB" for size in sizes.values()], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.grid(visible=False)
    axes.set_xlabel("MB of graph and weights")
    return Plot(
        section="summary",
        title="Size",
        caption="Graph and weights; a file that two variants share counts for each.",
        description="Bars: " + ", ".join(f"{name} {size:,.1f} MB" for name, size in sizes.items()) + ".",
        svg=_svg(figure, "sizes", "Size"),
        below=True,
    )


def _layers(label: str, variant: str, table: LayerTable) -> Plot | None:
    rows = table.costliest()[:30]
    if not rows:
        return None
    higher = table.higher_precision or ()
    figure, axes = _figure(1.1 + 0.26 * len(rows))
    names = [f"{layer.name}{' (higher precision)' if layer.name in higher else ''}" for layer in rows]
    colours = [COLOURS[1] if layer.name in higher else COLOURS[0] for layer in rows]
    axes.barh(names, [max(0.0, layer.damage) for layer in rows], color=colours, height=0.7)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=9)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("KL that the layer costs when it alone is in low precision, nats")
    return Plot(
        section="sensitivity",
        title=f"{label}: {variant}",
        caption=f"The {len(rows)} layers that cost most, the costliest first. The table holds all of them.",
        description=f"Bars: {rows[0].name} {rows[0].damage:.5f} nats, and less.",
        svg=_svg(figure, f"layers-{label}-{variant}", f"{label}: {variant}"),
    )


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, height), layout="constrained")
    return figure, figure.add_subplot()


def _label(name: str) -> str:
    """Return the label of a row's marks: from the legend matplotlib leaves out what begins with an underscore."""
    return f" {name}"


def _legend(figure: Figure) -> None:
    """Put the legend below the plot, with names as they are."""
    for text in figure.legend(loc="outside lower center", ncols=2).get_texts():
        text.set_text(text.get_text().removeprefix(" "))


def _svg(figure: Figure, name: str, title: str) -> str:
    """Turn a figure into an element for the page: names of its own, the page's text colour, and no size."""
    out = io.StringIO()
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=empty)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    prefix = re.sub(r"\W+", "-", name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = text.replace(INK, "currentColor")
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1).replace('height="', 'data-height="', 1)
    # Last, so that nothing in the label is taken for a pattern.
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
