"""Import paths of the release before: for one release they lead to where a name is now, and warn."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["moved"]


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's `__getattr__` that takes names from the modules that hold them now.

    Each use warns (DeprecationWarning) with the import to write in its place.

    Args:
        module: name of the old module.
        names: the module that holds each name now.
    """

    def __getattr__(name: str) -> object:  # noqa: N807 — what it is for
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} has moved, and this path goes in the next release: "
            f"write `from {names[name]} import {name}`",
            DeprecationWarning,
            stacklevel=2,
        )
        value: object = getattr(importlib.import_module(names[name]), name)
        return value

    return __getattr__
