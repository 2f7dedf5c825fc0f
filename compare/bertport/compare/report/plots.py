"""The plots of the report, drawn by matplotlib as SVG that takes the page's text colour and no fonts along.

What a plot shows is in a table beside it too, and rows differ by marker and label as well as by colour.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.compare.report.findings import meaningless

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Plot", "plots"]

INK = "#010203"
"""Stands for the page's text colour until the SVG is finished."""
COLOURS = ("#2f7fc1", "#c8590f", "#12946f", "#b04f9e", "#94800f", "#cf4258", "#6f7bd6", "#4f8f92")
"""Each has a contrast of at least 3 to 1 with white and with the page's dark background (WCAG 2.2, 1.4.11)."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
SETTINGS: Any = {  # matplotlib types its settings by a list of all names
    "svg.hashsalt": "bertport",  # or the names inside differ from one drawing to the next
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "font.family": "sans-serif",
    "font.size": 11,
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
    """How it is to be read."""
    description: str
    """What it shows, for whoever does not see it."""
    svg: str
    """An `<svg>` element."""


def plots(document: Mapping[str, Any]) -> list[Plot]:
    """Draw every plot that the document has figures for."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS):
        found = [draw(document) for draw in (_lengths, _sizes)]
        found[:0] = [_pareto(document, *each) for each in _qualities(document)]
        found += [
            _layers(bundle["label"], variant, table)
            for bundle in document["bundles"]
            for variant, table in bundle["sensitivity"].items()
        ]
    return [each for each in found if each]


def _look(document: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return each row's colour and marker, the same in every plot."""
    return {
        row["name"]: (COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        for number, row in enumerate(document["rows"])
    }


def _qualities(document: Mapping[str, Any]) -> list[tuple[str, str, Callable[[Mapping[str, Any]], Any]]]:
    """Choose the figures of quality that the rows have: accuracy where it means something, and nearness to fp32.

    Each comes with the limit of the accuracy budget that bounds it, and with what reads it from a row.
    """
    choices = [
        ("MLM top-1 accuracy", "", ("mlm", "accuracy_candidate")),
        ("MLM top-1 agreement with fp32", "top1", ("mlm", "top1_agreement")),
        ("Hidden-state cosine with fp32", "cosine", ("hidden", "cosine")),
    ]
    if any(meaningless(document, each["label"]) for each in document["bundles"]):
        del choices[0]
    found: list[tuple[str, str, Callable[[Mapping[str, Any]], Any]]] = [
        (name, limit, lambda row, head=head, figure=figure: ((row["quality"] or {}).get(head) or {}).get(figure))  # type: ignore[misc]
        for name, limit, (head, figure) in choices
        if any((row["quality"] or {}).get(head) for row in document["rows"])
    ]
    return found[:2] if found and found[0][1] != "top1" else found[:1]


def _pareto(
    document: Mapping[str, Any], name: str, limit: str, read: Callable[[Mapping[str, Any]], Any]
) -> Plot | None:
    points = [
        (row, row["speed"]["single_stream"]["p90"], read(row))
        for row in document["rows"]
        if row["speed"]["single_stream"]
    ]
    shown = [each for each in points if each[2] and each[2]["value"] is not None]
    if not shown:
        return None
    figure, axes = _figure(4.6)
    look = _look(document)
    for row, latency, found in shown:
        colour, marker = look[row["name"]]
        x, y = 1e3 * latency["value"], found["value"]
        exact = row["reference"] and not name.endswith("accuracy")  # it agrees with itself
        axes.errorbar(
            x,
            y,
            xerr=[[x - 1e3 * latency["low"]], [1e3 * latency["high"] - x]],
            yerr=None if exact else [[y - found["low"]], [found["high"] - y]],
            color=colour,
            marker=marker,
            markersize=9,
            capsize=3,
            linewidth=1.2,
            label=row["name"],
        )
    front = _front([(latency["value"], found["value"]) for _, latency, found in shown])
    if len(front) > 1:
        axes.plot(
            [1e3 * x for x, _ in front],
            [y for _, y in front],
            color=INK,
            alpha=0.5,
            linestyle=":",
            label="Pareto front",
        )
    bound = document["settings"]["budget"].get(limit)
    if bound is not None:
        axes.axhline(bound, color=INK, linewidth=1, label="accuracy budget")
    for row, latency, found in points:
        if not found:
            axes.axvline(
                1e3 * latency["value"], color=look[row["name"]][0], linestyle="--", label=f"{row['name']} (speed only)"
            )
    axes.set_xlabel("SingleStream p90, ms (left is faster)")
    axes.set_ylabel(name)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}" if value < 1.0001 else "")  # noqa: PLR2004 — a share
    figure.legend(loc="outside lower center", ncols=2)
    names = ", ".join(
        f"{row['name']} {1e3 * latency['value']:.3g} ms and {found['value']:.2%}" for row, latency, found in shown
    )
    return Plot(
        section="summary",
        title=f"{name} against latency",
        caption="Up is nearer, left is faster; 95% intervals."
        if bound is not None
        else "Up is better, left is faster; 95% intervals.",
        description=f"Scatter plot: {names}. The tables hold the same figures.",
        svg=_svg(figure, f"pareto-{name}", f"{name} against latency"),
    )


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, by latency."""
    best, found = float("-inf"), []
    for x, y in sorted(points, key=lambda each: (each[0], -each[1])):
        if y > best:
            found.append((x, y))
            best = y
    return found


def _lengths(document: Mapping[str, Any]) -> Plot | None:
    lines = {}
    for row in document["rows"]:
        shapes = sorted(
            (each["length"], each["tokens_per_second"]) for each in row["speed"]["shapes"].values() if each["rows"] == 1
        )
        if shapes:
            lines[row["name"]] = shapes
    if not lines:
        return None
    figure, axes = _figure(4.2)
    look = _look(document)
    for name, shapes in lines.items():
        colour, marker = look[name]
        x = [length for length, _ in shapes]
        y = [rate["value"] for _, rate in shapes]
        below = [rate["value"] - rate["low"] for _, rate in shapes]
        above = [rate["high"] - rate["value"] for _, rate in shapes]
        axes.errorbar(x, y, yerr=[below, above], color=colour, marker=marker, capsize=3, label=name)
    axes.set_xscale("log", base=2)
    ticks = sorted({length for shapes in lines.values() for length, _ in shapes})
    axes.set_xticks(ticks, [str(each) for each in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens in the text")
    axes.set_ylabel("tokens a second")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.legend(loc="outside lower center", ncols=2)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{rate['value']:,.0f} at {length} tokens" for length, rate in shapes)
        for name, shapes in lines.items()
    )
    return Plot(
        section="speed",
        title="Throughput by length",
        caption="The graph alone, one text at a time; 95% intervals.",
        description=f"Lines, in tokens a second. {said}.",
        svg=_svg(figure, "lengths", "Throughput by length"),
    )


def _sizes(document: Mapping[str, Any]) -> Plot | None:
    rows = [row for row in document["rows"] if row["size_bytes"] and not row["failed"]]
    if not rows:
        return None
    figure, axes = _figure(0.9 + 0.42 * len(rows))
    look = _look(document)
    names = [row["name"] for row in rows]
    sizes = [row["size_bytes"] / 1e6 for row in rows]
    bars = axes.barh(names, sizes, color=[look[name][0] for name in names], height=0.6)
    axes.bar_label(bars, labels=[f"{size:,.1f} MB" for size in sizes], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.grid(visible=False)
    axes.set_xlabel("MB of graph and weights")
    return Plot(
        section="summary",
        title="Size",
        caption="Graph and weights; a file that two variants share counts for each.",
        description="Bars: "
        + ", ".join(f"{name} {size:,.1f} MB" for name, size in zip(names, sizes, strict=True))
        + ".",
        svg=_svg(figure, "sizes", "Size"),
    )


def _layers(label: str, variant: str, table: Mapping[str, Any]) -> Plot | None:
    rows = sorted(table["rows"], key=lambda each: -each["damage"])[:30]
    if not rows:
        return None
    higher = set(table.get("higher_precision", ()))
    figure, axes = _figure(1.1 + 0.26 * len(rows))
    names = [f"{each['name']}{' (higher precision)' if each['name'] in higher else ''}" for each in rows]
    colours = [COLOURS[1] if each["name"] in higher else COLOURS[0] for each in rows]
    axes.barh(names, [max(0.0, each["damage"]) for each in rows], color=colours, height=0.7)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=9)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("KL that the layer costs when it alone is in low precision, nats")
    return Plot(
        section="sensitivity",
        title=f"{label}: {variant}",
        caption=f"The {len(rows)} layers that cost most, the costliest first. The table holds all of them.",
        description=f"Bars: {rows[0]['name']} {rows[0]['damage']:.5f} nats, and less.",
        svg=_svg(figure, f"layers-{variant}", f"{label}: {variant}"),
    )


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any, name: str, title: str) -> str:  # noqa: ANN401 — matplotlib ships no types
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
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', rf'<svg role="img" aria-label="{label}" \1', text, count=1).replace(
        'height="', 'data-height="', 1
    )
