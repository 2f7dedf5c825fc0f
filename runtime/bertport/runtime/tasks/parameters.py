"""Parameters of tasks: what several of them check alike."""

from __future__ import annotations

from numbers import Integral
from typing import TypeGuard

from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt

__all__ = ["boolean", "is_whole", "whole_number"]


def boolean(name: str, value: object) -> bool:
    """Return a parameter that is True or False.

    Raises:
        UsageError: for anything else.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} is True or False, not {excerpt(value)}")
    return value


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a parameter is a whole number, Python's or one of NumPy's types; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole_number(name: str, value: object, default: int, *, least: int = 1, most: int | None = None) -> int:
    """Return a parameter that is a number, or its default where it is None.

    Raises:
        UsageError: for anything else.
    """
    if value is None:
        return default
    if not is_whole(value) or value < least or (most is not None and value > most):
        bounds = f"from {least} up" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name} is a number {bounds}, not {excerpt(value)}")
    return int(value)
