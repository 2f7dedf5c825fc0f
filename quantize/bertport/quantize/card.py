"""The section of a bundle's card on its quantized variants, rewritten whenever they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.changes import listed, rewrite_card
from bertport.runtime.bundle.select import suits

if TYPE_CHECKING:
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["quantized_section", "refresh_card", "section", "with_section"]

BEGIN, END = "<!-- quantized variants: begin -->", "<!-- quantized variants: end -->"


def refresh_card(bundle: Bundle) -> None:
    """Rewrite the section in README.md to say what the manifest says now."""
    rewrite_card(bundle.path, lambda old, manifest: with_section(old, section(manifest)))


def with_section(card: str, text: str) -> str:
    """Return a card with the section in place of the old one, or at its end."""
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        before, after = card.rstrip("\n") + "\n\n", "\n"
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def quantized_section(manifest: Manifest) -> str:
    """Return the section with its marks, for a card that is written anew; empty where nothing is quantized."""
    if not any(variant.fidelity for variant in manifest.variants.values()):
        return ""
    return with_section("", section(manifest)).strip("\n")


def section(manifest: Manifest) -> str:
    """Return the table of quantized variants, and for each the plot of its layers where there is one."""
    heading = (
        "## Quantized variants\n\nMeasured against the fp32 variant on the machine named, on held-out text; intervals "
        "and the rest are in manifest.json.\n"
    )
    rows = [
        "| variant | size | MLM top-1 agreement | KL | NSP flips | speed-up | measured on |",
        "|---|---|---|---|---|---|---|",
    ]
    plots = []
    for name, variant in manifest.variants.items():
        found = variant.fidelity
        if not found:
            continue
        mlm, nsp = found["accuracy"]["mlm"], found["accuracy"]["nsp"]
        speed = ", ".join(f"{each['speedup']:.2f}x at {shape}" for shape, each in found["speed"].items())
        kl = f"{mlm['kl']['value']:.5f}" if mlm else "-"
        slower = " (slower than fp32)" if found.get("slower_than_reference") else ""
        provider = found.get("provider", "cpu")
        elsewhere = "" if suits(variant.requires, provider) else f", on {provider}, which it is not made for"
        rows.append(
            f"| {name} | {found['size']['of_reference']:.3f} of fp32 | {_percent(mlm, 'top1_agreement')} | "
            f"{kl} | {_percent(nsp, 'flips')} | {speed or 'not timed'}{slower} | "
            f"{found['machine']['instruction_set']}{elsewhere} |"
        )
        plot = listed(manifest, f"quantization/{name}.svg")
        if plot is not None:
            plots.append(f"\n![What each layer costs in {name}]({plot})")
    return "\n".join([heading, *rows, *plots])


def _percent(head: dict[str, Any] | None, figure: str) -> str:
    return f"{head[figure]['value']:.2%} of {head[figure]['count']:,}" if head else "-"
