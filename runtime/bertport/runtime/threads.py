"""Threads and streams: how many of each a session is opened with."""

from __future__ import annotations

import math
import os
from contextlib import suppress

from bertport.runtime.errors import UsageError
from bertport.runtime.providers.cpu import cpu, usable_cores

__all__ = ["intra_op_threads", "streams_for"]

MOST_THREADS = 1024
"""More than any machine's cores; with 100,000 ONNX Runtime was still starting them after a minute."""
MOST_STREAMS = 4
"""Cores up to which each has a batch of its own by default. With more, the texts of a long batch on one core would
wait long; nothing above two cores was measured."""


def streams_for(threads: int | None, streams: int | None) -> tuple[int, int]:
    """Return how many batches run at once, and how many threads their session is opened with.

    A session's threads help any of its runs that has work for them, and each run uses its caller's thread besides: the
    session has so many that all together they are as many as there are cores.

    Args:
        threads: threads of the CPU; None for one per physical core that this process may use.
        streams: batches at once; None for one per thread where these are no more than `MOST_STREAMS`, or else 1.

    Raises:
        UsageError: for a number that cannot be.
    """
    cores = intra_op_threads(threads) or min(cpu().physical_cores, max(1, int(usable_cores())))
    if streams is None:
        streams = cores if cores <= MOST_STREAMS else 1
    if not isinstance(streams, int) or isinstance(streams, bool) or not 1 <= streams <= cores:
        raise UsageError(
            f"streams is {streams!r} and each takes at least one of {cores} threads: "
            f"give a number from 1 to {cores}, or more threads"
        )
    return streams, cores - streams + 1


def intra_op_threads(asked: int | None) -> int | None:
    """Return the threads within an operator; None leaves one per physical core to ONNX Runtime.

    Raises:
        UsageError: for a number that cannot be.
    """
    if asked is not None:
        if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
            raise UsageError(f"threads is a number from 1 up, not {asked!r}")
        if asked > MOST_THREADS:
            raise UsageError(
                f"threads is {asked} and this machine has {_processors()} cores: ask for {MOST_THREADS} at most"
            )
        return asked
    # ONNX Runtime's own choice, one thread per physical core, pinned, is best and ends when a number is set; but it
    # does not see a container's quota, and more threads than that wait for each other.
    cores = usable_cores()
    return max(1, math.ceil(cores)) if cores < _processors() else None


def _processors() -> int:
    """Return the processors of this machine, whatever PYTHON_CPU_COUNT makes of `os.cpu_count` from Python 3.13 on."""
    with suppress(AttributeError, OSError, ValueError):  # Windows has no such function
        return max(1, os.sysconf("SC_NPROCESSORS_ONLN"))
    return os.cpu_count() or 1
