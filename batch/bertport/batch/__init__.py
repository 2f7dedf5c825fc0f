"""Batch: files of many rows answered by a bundle, on one machine or on a cluster of Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertport.batch.runner import run

__all__ = ["run"]


def __getattr__(name: str) -> object:
    """Import the interface when it is first asked for: the command line's help needs none of its packages."""
    if name in __all__:
        from bertport.batch import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
