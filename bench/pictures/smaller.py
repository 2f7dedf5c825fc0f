"""Screenshots as small PNG files: pages have few colours, so that a palette holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MOST_BYTES", "make_smaller"]

MOST_BYTES = 150_000
"""Bytes of a picture of the documentation, at most."""
COLOURS = (256, 128, 64)
"""Colours of a palette, the most first."""


def make_smaller(picture: Path) -> int:
    """Write a PNG anew with the most colours of a palette that keep it small; return its bytes.

    Raises:
        ValueError: when the smallest palette leaves more than `MOST_BYTES`.
    """
    from PIL import Image

    with Image.open(picture) as opened:
        full = opened.convert("RGB")
    for colours in COLOURS:
        full.quantize(colours, dither=Image.Dither.NONE).save(picture, optimize=True)
        size = picture.stat().st_size
        if size <= MOST_BYTES:
            return size
    raise ValueError(f"{picture.name} has {size:,} bytes, and {MOST_BYTES:,} is the most: show less of the page")
