"""Default bundle: package data in an installed wheel, `models/default` in a checkout."""

from __future__ import annotations

from pathlib import Path

from bertport.runtime.bundle.directory import MANIFEST
from bertport.runtime.errors import PathError

__all__ = ["default_bundle"]

AREA = Path(__file__).resolve().parents[1]
PLACES = (AREA / "default", AREA.parents[2] / "models" / "default")
"""Places, in order: a wheel has the bundle in this area; in a checkout this is runtime/bertport/runtime."""


def default_bundle(places: tuple[Path, ...] | None = None) -> Path:
    """Return the directory of the embedded default bundle.

    Raises:
        PathError: when this installation has none.
    """
    places = PLACES if places is None else places
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise PathError(
        f"no default bundle is embedded here (looked in {', '.join(map(str, places))}): "
        "install a released wheel, or name a bundle with load(PATH) or -m BUNDLE"
    )
