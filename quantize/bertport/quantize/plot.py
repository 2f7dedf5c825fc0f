"""The table of layers as a bar chart in SVG, for the bundle's card."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Collection

    from bertport.quantize.search.sensitivity import Layers

__all__ = ["bars"]

WIDTH, LABEL, ROW, TOP = 760, 300, 18, 44
STYLE = 'font-family="sans-serif" font-size="12" role="img"'
ORDINARY, HIGHER = "#8a8f98", "#c2410c"


def bars(layers: Layers, higher: Collection[str]) -> str:
    """Draw what each layer costs in 8 bits; those left in higher precision stand out.

    The figures stand beside the bars, so that nothing hangs on colour alone.
    """
    most = max([row.kl_increase for row in layers.rows] + [1e-12])
    room = WIDTH - LABEL - 170
    height = TOP + ROW * len(layers.rows) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" {STYLE}>',
        f"<title>KL that each layer costs in 8 bits; {layers.kl_increase:.5f} nats with all of them</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        (
            f'<text x="8" y="18">KL in nats that a layer costs, of {layers.kl_increase:.5f} with all in 8 bits; '
            "beside it, ms that 8 bits save</text>"
        ),
        f'<text x="8" y="34" fill="{HIGHER}">left in higher precision: {len(higher)} of {len(layers.rows)}</text>',
    ]
    for index, row in enumerate(layers.rows):
        middle = TOP + ROW * index + 12
        colour = HIGHER if row.name in higher else ORDINARY
        length = max(0.0, row.kl_increase) / most * room
        lines += [
            f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(row.name)}</text>',
            f'<rect x="{LABEL}" y="{middle - 10}" width="{length:.1f}" height="12" fill="{colour}"/>',
            f'<text x="{LABEL + length + 6:.1f}" y="{middle}">{row.kl_increase:.5f}, {row.saved_ms:.2f} ms</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
