"""A class of CPU's history as one SVG: ratios of speed, agreement and size over the entries, light and dark.

It is drawn by hand, since its colours follow the reader's scheme (`prefers-color-scheme`), which a picture on a page
can know of no other way; it has its own ground, so that it can be read on any.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Panel", "Point", "Series", "draw"]

WIDTH, LEFT, RIGHT, TOP, GAP, BOTTOM = 760, 56, 150, 34, 44, 52
"""Width of the picture, the room beside and above the panels, between them and below them, in pixels."""
STYLE = """
.ground{fill:#fff}.text{fill:#1f2328;font:12px system-ui,sans-serif}.title{font-weight:600}.quiet{fill:#59636e}
.grid{stroke:#d9dee3;stroke-width:1}
.s0{--c:#1f6feb}.s1{--c:#b35900}.s2{--c:#1a7f4b}.s3{--c:#8250df}.s4{--c:#bf3989}
.line{stroke:var(--c);fill:none;stroke-width:2}.mark{fill:var(--c)}.name{fill:var(--c)}.span{stroke:var(--c);opacity:.55}
@media (prefers-color-scheme:dark){.ground{fill:#131416}.text{fill:#e6e8ea}.quiet{fill:#9aa4ae}.grid{stroke:#33383e}
.s0{--c:#6cb0ff}.s1{--c:#f0a05a}.s2{--c:#56c98c}.s3{--c:#c4a1ff}.s4{--c:#f778ba}
.name{fill:var(--c)}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One figure of an entry."""

    at: int
    """Number of the entry, the oldest 0."""
    value: float
    """The figure."""
    low: float | None = None
    """Lower end of its interval; None where there is none."""
    high: float | None = None
    """Upper end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a panel."""

    name: str
    """Label at its end."""
    points: tuple[Point, ...]
    """Its figures; entries without one have no point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One figure over the entries."""

    title: str
    """Name of the figure, with its unit."""
    series: tuple[Series, ...]
    """Its lines, each with a figure at least."""
    height: int = 110
    """Pixels."""
    form: str = "{:g}"
    """Format of the numbers at its axis."""


def draw(title: str, ticks: Sequence[str], panels: Sequence[Panel]) -> str:
    """Return panels over the same entries as an SVG document.

    Args:
        title: What a screen reader says.
        ticks: A name for each entry, the oldest first.
        panels: From the top down.
    """
    shown = [panel for panel in panels if any(series.points for series in panel.series)]
    height = TOP + sum(panel.height + GAP for panel in shown) - GAP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        f'width="{WIDTH}" height="{height}" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
    ]
    top = TOP
    for panel in shown:
        parts += _panel(panel, top, len(ticks))
        top += panel.height + GAP
    bottom = top - GAP
    for at, tick in enumerate(ticks):
        x, y = _across(at, len(ticks)), bottom + 18
        parts += [
            f'<text class="text quiet" text-anchor="middle" x="{x:.1f}" y="{y + 14 * row}">{escape(word)}</text>'
            for row, word in enumerate(tick.split())
        ]
    return "\n".join([*parts, "</svg>", ""])


def _across(at: int, count: int) -> float:
    inner = WIDTH - LEFT - RIGHT
    return LEFT + inner * (at + 0.5) / count


def _panel(panel: Panel, top: int, count: int) -> list[str]:
    """Return a panel's elements: its title, its axis, and each series with its name at its end."""
    points = [point for series in panel.series for point in series.points]
    most = max(point.value if point.high is None else point.high for point in points)
    least = min(point.value if point.low is None else point.low for point in points)
    lines = _axis(least, most)
    low, high = lines[0], lines[-1]

    def down(value: float) -> float:
        return top + panel.height * (1 - (value - low) / (high - low))

    parts = [f'<text class="text title" x="{LEFT}" y="{top - 12}">{escape(panel.title)}</text>']
    for line in lines:
        y, label = down(line), panel.form.format(line)
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="text quiet" text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{label}</text>',
        ]
    ends = _apart([(down(series.points[-1].value), number) for number, series in enumerate(panel.series)])
    for number, series in enumerate(panel.series):
        places = [(_across(point.at, count), down(point.value)) for point in series.points]
        path = " ".join(f"{'L' if at else 'M'}{x:.1f} {y:.1f}" for at, (x, y) in enumerate(places))
        parts.append(f'<g class="s{number}"><path class="line" d="{path}"/>')
        for point, (x, y) in zip(series.points, places, strict=True):
            if point.low is not None and point.high is not None:
                ys = f'y1="{down(point.low):.1f}" y2="{down(point.high):.1f}"'
                parts.append(f'<line class="span" stroke-width="6" x1="{x:.1f}" x2="{x:.1f}" {ys}/>')
            parts.append(_mark(number, x, y))
        last = f"{series.name} {panel.form.format(series.points[-1].value)}"
        parts.append(
            f'<text class="text name" x="{WIDTH - RIGHT + 10}" y="{ends[number] + 4:.1f}">{escape(last)}</text></g>'
        )
    return parts


def _mark(number: int, x: float, y: float) -> str:
    """Return a mark whose form differs between series as its colour does."""
    if number % 4 == 0:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if number % 4 == 1:
        return f'<rect class="mark" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    turned = 45 if number % 4 == 2 else 0  # noqa: PLR2004 — the third form is a rhombus, the fourth a bar
    size = 8 if turned else 5
    return (
        f'<rect class="mark" x="{x - 4:.1f}" y="{y - size / 2:.1f}" width="8" height="{size}"'
        f' transform="rotate({turned} {x:.1f} {y:.1f})"/>'
    )


def _apart(ends: list[tuple[float, int]], least: float = 15) -> dict[int, float]:
    """Return where names stand, by number: at their lines' ends, moved down where two would overlap."""
    placed: dict[int, float] = {}
    before = float("-inf")
    for y, number in sorted(ends):
        before = max(y, before + least)
        placed[number] = before
    return placed


def _axis(least: float, most: float) -> list[float]:
    """Return three to seven round numbers that begin at or below the least and end at or above the most."""
    span = max(most - least, abs(most) * 0.02, 1e-9)
    step = 10.0**-12
    for exponent in range(-12, 13):
        for factor in (1, 2, 5):
            step = factor * 10.0**exponent
            if span / step <= 4:  # noqa: PLR2004 — four steps and what rounding adds
                first = int(least // step)
                last = max(first + 1, -int(-most // step))
                return [round(number * step, 12) for number in range(first, last + 1)]
    return [least, most]
