"""Manifests that state a head, for the post-processing of its tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import HeadEntry
from bertport.runtime.heads import HEADS

if TYPE_CHECKING:
    from pathlib import Path

    from bertport.runtime.bundle.manifest import Manifest


def stating(bundle: Path, head: str, **facts: Any) -> Manifest:
    """Return the manifest of a bundle with this one head.

    Args:
        bundle: its directory.
        head: name of the head.
        facts: fields of its `HeadEntry`.
    """
    entry = HeadEntry(output=HEADS[head].output, axes=HEADS[head].axes, **facts)
    return replace(Bundle.open(bundle).manifest, heads={head: entry})
