"""Documentation of a bundle's quantized variants: a section of its card, and tables of layers with their plots."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from bertport.measure.quality.heads import HEADS, HIDDEN, measured_rows
from bertport.runtime.bundle import cards
from bertport.runtime.bundle.changes import listed, rewrite_card
from bertport.runtime.bundle.select import CPU, suits
from bertport.runtime.bundle.task_metrics import HEADINGS, labelled_metrics
from bertport.runtime.providers.table import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from bertport.measure.quality.rows import Limit
    from bertport.quantize.search.sensitivity import Layers
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Manifest, Variant

__all__ = ["bars", "layers_file", "quantized_section", "refresh_card", "section", "with_section", "write_layers"]

BEGIN, END = "<!-- quantized variants: begin -->", "<!-- quantized variants: end -->"
WIDTH, LABEL, ROW, TOP = 760, 300, 18, 44
STYLE = 'font-family="sans-serif" font-size="12" role="img"'
ORDINARY, HIGHER = "#8a8f98", "#c2410c"


def refresh_card(bundle: Bundle) -> None:
    """Rewrite the section in README.md to say what the manifest says now."""
    rewrite_card(bundle.path, lambda old, manifest: with_section(old, section(manifest)))


def with_section(card: str, text: str) -> str:
    """Return a card with the section in place of the old one, or at its end."""
    return cards.with_section(card, text, begin=BEGIN, end=END)


def quantized_section(manifest: Manifest) -> str:
    """Return the section with its marks, for a card that is written anew; empty where nothing is quantized."""
    if not any(_has_row(variant) for variant in manifest.variants.values()):
        return ""
    return with_section("", section(manifest)).strip("\n")


def section(manifest: Manifest) -> str:
    """Return the table of quantized variants, and for each the plot of its layers where there is one."""
    heading = (
        "## Quantized variants\n\nMeasured against the fp32 variant on the machine named, on held-out text; intervals "
        "and the rest are in manifest.json.\n"
    )
    limits = _columns(manifest)
    columns = ["variant", "size", *(limit.meaning for limit in limits), "speed-up", "measured on"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    plots, notes = [], []
    for name, variant in manifest.variants.items():
        record = variant.fidelity or {}
        if not _has_row(variant):
            continue
        speed = ", ".join(f"{ratio['speedup']:.2f}x at {shape}" for shape, ratio in record["speed"].items())
        slower = " (slower than fp32)" if record.get("slower_than_reference") else ""
        provider = str(record.get("provider", CPU))
        elsewhere = f", on {provider}" if provider != CPU else ""
        if provider in PROVIDERS and not suits(variant.requires, provider):  # a later version may know others
            elsewhere = f", on {provider}, which it is not made for"
        cells = [
            name,
            "fp32's files"
            if record["size"].get("further_bytes") == 0
            else f"{record['size']['of_reference']:.3f} of fp32",
            *(_cell(record["accuracy"], limit) for limit in limits),
            f"{speed or 'not timed'}{slower}",
            f"{record['machine']['instruction_set']}{elsewhere}",
        ]
        lines.append(f"| {' | '.join(map(cards.prose, cells))} |")
        if missing := record.get("not_measured"):
            notes.append(f"\nNot measured in {cards.prose(name)}: {', '.join(map(cards.prose, missing))}.")
        plot = listed(manifest, _plot_file(name))
        if plot is not None:
            plots.append(f"\n![What each layer costs in {cards.prose(name)}]({quote(plot)})")
    return "\n".join([heading, *lines, *notes, *_on_labelled_data(manifest), *plots])


def _has_row(variant: Variant) -> bool:
    """Return whether a variant was measured by this program: what another one recorded has no row."""
    return {"accuracy", "machine", "size", "speed"} <= (variant.fidelity or {}).keys()


def _on_labelled_data(manifest: Manifest) -> list[str]:
    """Return the table of what variants lose on labelled data; nothing where none was measured on any."""
    rows = [metric.cells() for metric in labelled_metrics(manifest)]
    if not rows:
        return []
    lines = [f"| {' | '.join(map(cards.prose, cells))} |" for cells in (HEADINGS, *rows)]
    return [
        "\nOn labelled data, none of which was calibrated on:\n",
        lines[0],
        f"|{'---|' * len(HEADINGS)}",
        *lines[1:],
    ]


def _columns(manifest: Manifest) -> list[Limit]:
    """Return the figures that the table shows: what a budget can bound of the heads, or else of the hidden states."""
    heads = [HEADS[name] for name in measured_rows(manifest.heads) if HEADS[name].limits] or [HEADS[HIDDEN]]
    return [limit for head in heads for limit in head.limits]


def _cell(accuracy: Mapping[str, Any], limit: Limit) -> str:
    """Return one figure, with the number of samples where it is a share of them."""
    head, key = limit.path
    figures = accuracy.get(head)
    figure = figures and figures.get(key)
    if not figure or figure["value"] is None:  # no such head, or nothing that the figure is of
        return "-"
    return f"{figure['value']:{limit.fine}}" + (f" of {figure['count']:,}" if limit.counts else "")


def layers_file(name: str) -> str:
    """Return the path inside the bundle of a variant's table of layers."""
    return f"quantization/{name}.json"


def _plot_file(name: str) -> str:
    """Return the path inside the bundle of the plot of that table."""
    return f"quantization/{name}.svg"


def write_layers(layers: Layers, higher: Sequence[str], name: str, directory: Path) -> dict[str, Path]:
    """Write a variant's table of layers and its plot; return where they are, by path inside the bundle."""
    table, plot = directory / f"{name}.json", directory / f"{name}.svg"
    table.write_text(
        json.dumps(layers.to_json() | {"higher_precision": list(higher)}, indent=1) + "\n", encoding="utf-8"
    )
    plot.write_text(bars(layers, higher), encoding="utf-8")
    return {layers_file(name): table, _plot_file(name): plot}


def bars(layers: Layers, higher: Collection[str]) -> str:
    """Draw what each layer costs in 8 bits; those left in higher precision stand out.

    The figures stand beside the bars, so that nothing hangs on colour alone.
    """
    most = max([layer.kl_increase for layer in layers.rows] + [1e-12])
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
    for index, layer in enumerate(layers.rows):
        middle = TOP + ROW * index + 12
        colour = HIGHER if layer.name in higher else ORDINARY
        length = max(0.0, layer.kl_increase) / most * room
        lines += [
            f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(layer.name)}</text>',
            f'<rect x="{LABEL}" y="{middle - 10}" width="{length:.1f}" height="12" fill="{colour}"/>',
            f'<text x="{LABEL + length + 6:.1f}" y="{middle}">{layer.kl_increase:.5f}, {layer.saved_ms:.2f} ms</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
