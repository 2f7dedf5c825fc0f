"""What cannot be foreseen, in a sentence: an interruption, and a machine without enough memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bertport.measure.interrupts import InterruptionError
from bertport.runtime.errors import BertportError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["OutOfMemoryError", "explained"]

SIGNS = ("bad_alloc", "Failed to allocate memory")
"""What ONNX Runtime's messages say when memory ran out."""


class OutOfMemoryError(BertportError, MemoryError):
    """The machine has not enough memory."""


@contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an interruption or a lack of memory into an error with a sentence; `path` is the bundle's."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptionError(
            f"interrupted: what was not finished is not in the bundle at {path}, which is as it was before it"
        ) from None
    except Exception as error:
        if not _is_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory while quantizing {path}, which is as it was: it takes about five times the fp32 graph's "
            "size; free some memory, or use a larger machine"
        ) from error


def _is_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS):
            return True
        error = error.__cause__
    return False
