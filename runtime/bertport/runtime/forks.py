"""Processes that were forked from one with open sessions: ONNX Runtime's threads, and what they held, stay behind.

A run in such a process may wait for ever for a lock that a thread held at the fork. Freeing a session joins its
threads, which crashes there, or hangs. So a run is refused, and no session is freed: a process that loads models of its
own, or ends, goes on as usual.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakSet

from bertport.runtime.errors import ProviderError

__all__ = ["keep_in_forks", "refuse_forked"]

_sessions: WeakSet[Any] = WeakSet()


def keep_in_forks(session: Any) -> None:  # noqa: ANN401 — ONNX Runtime is not typed
    """Keep a session from being freed in processes that are forked from this one."""
    _register()
    _sessions.add(session)


def refuse_forked(process: int) -> None:
    """Refuse what a model is asked in a process that was forked since its graph was opened.

    Args:
        process: id of the process that opened it.

    Raises:
        ProviderError: in any other process.
    """
    if process != os.getpid():
        raise ProviderError(
            f"a model of process {process} was asked in process {os.getpid()}, which was forked from it without ONNX "
            "Runtime's threads: load the model in each process, or start processes by spawn"
        )


@cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):  # not on Windows, which forks nothing
        os.register_at_fork(after_in_child=_keep)


def _keep() -> None:
    with suppress(ImportError):
        import ctypes

        for session in _sessions:
            # A reference that nobody drops: one in a module would go at the interpreter's end, and the session with it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
