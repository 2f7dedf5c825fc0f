"""Processes that were forked from one with open sessions: ONNX Runtime's threads, and what they held, stay behind.

A run in such a process may wait for ever for a lock that a thread held at the fork. Freeing a session joins its
threads, which crashes there, or hangs. So a run is refused (`Graph.refuse_forked`), and no session is freed: a process
that loads models of its own, or ends, goes on as usual.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakSet

__all__ = ["keep_in_forks"]

_sessions: WeakSet[Any] = WeakSet()


def keep_in_forks(session: Any) -> None:  # noqa: ANN401 — ONNX Runtime is not typed
    """Keep a session from being freed in processes that are forked from this one."""
    _register()
    _sessions.add(session)


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
