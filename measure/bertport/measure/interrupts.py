"""Interruptions and a lack of memory, each told in a sentence: Ctrl-C and SIGTERM alike, in time to tidy up."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bertport.runtime.errors import BertportError
from bertport.runtime.session import NO_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["InterruptionError", "OutOfMemoryError", "explained", "stoppable"]


class InterruptionError(BertportError):
    """The user, or the system, stopped it."""

    exit_code = 130


class OutOfMemoryError(BertportError, MemoryError):
    """The machine has not enough memory."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def explained(*, interrupted: str, out_of_memory: str) -> Iterator[None]:
    """Turn an interruption, or a lack of memory, into an error.

    Args:
        interrupted: The error's sentence for an interruption: what state the work is left in.
        out_of_memory: The error's sentence for a lack of memory: what the work takes, and what to do.

    Raises:
        InterruptionError: for KeyboardInterrupt.
        OutOfMemoryError: for MemoryError, and for errors of ONNX Runtime that stand for it.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptionError(interrupted) from None
    except Exception as error:
        if not _is_memory(error):
            raise
        raise OutOfMemoryError(out_of_memory) from error


def _is_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False
