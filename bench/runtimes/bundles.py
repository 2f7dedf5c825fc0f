"""The bundles that runtimes are tried on: the default model, and tiny ones of every family and head."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.plugins.bundles import DEFAULT, HEADS, PLACE, bundles_of
from bertport.runtime.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["DEFAULT", "bundles"]

RECIPES = ("int8-dynamic", "int8-static")
"""Of every bundle."""
MORE = {
    DEFAULT: ("int8-static-cpu", "int8-weight-only", "int4-weight-only"),
    "tiny bert": ("int8-static-cpu", "int8-weight-only", "int4-weight-only"),
}
"""Of some bundles: which operators a runtime has does not depend on the family."""
REPLACED = {"tiny electra, replaced tokens": "ElectraForPreTraining"}
EMBEDDER = "small embedder"
"""The default model with a mean over its tokens, as `docs/small_models.py` writes it."""


def bundles(only: Collection[str] | None = None) -> dict[str, Path]:
    """Return the bundles by what a table calls them; those that are not there yet are made, in minutes.

    Args:
        only: the bundles to return; None for all.

    Raises:
        UnknownNameError: for a bundle that there is not.
    """
    from bertport.export.checkpoint.families import FAMILIES
    from bertport.runtime.heads import MLM

    classes = {DEFAULT: "", **{f"tiny bert, {head}": name for head, name in HEADS.items()}}
    for name, family in FAMILIES.items():
        pretrained = MLM in family.classes.get("ForPreTraining", ())
        classes[f"tiny {name}"] = f"{family.class_prefix}{'ForPreTraining' if pretrained else 'ForMaskedLM'}"
    classes |= REPLACED
    for title in only or ():
        if title not in {*classes, EMBEDDER}:
            raise UnknownNameError("bundle", title, (*classes, EMBEDDER))
    made: dict[str, Path] = {}
    for title in classes:
        made |= bundles_of({title: classes[title]}, (*RECIPES, *MORE.get(title, ())), only)
    if only is None or EMBEDDER in only:
        made[EMBEDDER] = _embedder(PLACE / "bundles" / "small-embedder")
    return made


def _embedder(place: Path) -> Path:
    """Return the directory of a bundle whose head makes one vector of a text; it is made where it is not there."""
    from docs.small_models import embedder

    from bertport.export import export

    if not (place / "manifest.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        with tempfile.TemporaryDirectory() as directory:
            embedder(Path(directory) / "embedder")
            export(Path(directory) / "embedder", place)
    return place
