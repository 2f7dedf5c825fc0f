"""Bundles of tiny checkpoints of other families than BERT, each exported once in a test run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import built_once
from tests.families import TINY, tiny

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def family_bundle(factory: pytest.TempPathFactory, family: str, model_class: str | None = None) -> tuple[Path, Path]:
    """Return the directories of a family's checkpoint and of its bundle; not to be changed.

    Args:
        factory: pytest's.
        family: transformers' model type, a key of `TINY`.
        model_class: one of transformers' classes; the one with most heads when not given.
    """
    from bertport.export import export

    name = model_class or TINY[family].classes[0]
    checkpoint = built_once(factory, f"families/{name}", lambda path: tiny(family, path, model_class=name))
    return checkpoint, built_once(factory, f"bundles/{name}", lambda path: export(checkpoint, path))
