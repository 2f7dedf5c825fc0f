"""Stopping a long command: Ctrl-C and SIGTERM alike, in time to tidy up or to write what there is."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bertport.runtime.errors import BertportError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["InterruptionError", "stoppable"]


class InterruptionError(BertportError):
    """The user, or the system, stopped it."""

    exit_code = 130


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
