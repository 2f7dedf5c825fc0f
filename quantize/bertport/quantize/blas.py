"""numpy's matrix products on one thread each, where this program's own threads keep every core busy.

OpenBLAS has a thread for each core, and all of them spin until the last one has done its part: beside other threads
they take two to three times the processor time, and the others wait for it.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["one_thread"]

NAMES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")
"""Functions that get and set the number, in the builds of OpenBLAS that numpy's wheels have had."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute products on the caller's thread alone; of a numpy without OpenBLAS nothing changes."""
    functions = _functions()
    if functions is None:
        yield
        return
    count, limit = functions
    before = count()
    limit(1)
    try:
        yield
    finally:
        limit(before)


@cache
def _functions() -> tuple[Any, Any] | None:
    """Find what gets and sets the number of threads in the library that numpy's wheel brings."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for library in sorted(folder.glob("*openblas*")):
            try:
                loaded = ctypes.CDLL(str(library))  # the one that numpy has loaded already
            except OSError:
                continue
            for name in NAMES:
                functions = [getattr(loaded, name.format(verb), None) for verb in ("get", "set")]
                if all(functions):
                    return functions[0], functions[1]
    return None
