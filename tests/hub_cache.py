"""The layout in which huggingface_hub keeps what it fetches: files that are links to blobs of their repository."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COMMIT", "in_hub_cache"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_hub_cache(bundle: Path, cache: Path, *, name: str = "acme/tiny", links: bool = True, below: str = "") -> Path:
    """Give a bundle as `snapshot_download` leaves it, in `below` of the repository; copies on systems without links."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    for directory in (repository / "refs", snapshot, blobs):
        directory.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for path in sorted(each for each in bundle.rglob("*") if each.is_file()):
        content, target = path.read_bytes(), snapshot / below / path.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        if links:
            blob = blobs / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            target.symlink_to(os.path.relpath(blob, target.parent))
        else:
            target.write_bytes(content)
    return snapshot / below
