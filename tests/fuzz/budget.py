"""Examples for as long as there is time: hypothesis stops at a number of them, a fuzz test at a number of seconds."""

from __future__ import annotations

import os
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import tuples

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

__all__ = ["explore", "run"]

SECONDS = "BERTPORT_FUZZ_SECONDS"
"""The environment variable with the seconds of each fuzz test."""
DEFAULT = "20"
"""Seconds without it."""
SEED = "BERTPORT_FUZZ_SEED"
"""The environment variable with the first seed, to repeat a run; the time without it."""
ROUND = 100
"""Examples before hypothesis begins anew, from another seed."""


def explore(check: Callable[..., None], *strategies: SearchStrategy[Any]) -> int:
    """Call `check` with drawn values until the time is over; print and return how often.

    A failure is shrunk and raised as hypothesis does it, however long that takes.
    """
    end = time.monotonic() + float(os.environ.get(SECONDS, DEFAULT))
    examples, failed = 0, False

    @given(tuples(*strategies))
    def example(values: tuple[Any, ...]) -> None:
        nonlocal examples, failed
        if time.monotonic() >= end and not failed:
            return
        examples += 1
        try:
            check(*values)
        except BaseException:
            failed = True
            raise

    run(example)
    print(f"{examples} examples")  # noqa: T201 — pytest shows it with -s or -rP
    return examples


def run(test: Callable[[], None], among: int = 1) -> None:
    """Run a property, made by `given`, with new seeds for its share of the time of a target that several try."""
    end = time.monotonic() + float(os.environ.get(SECONDS, DEFAULT)) / among
    bounded = settings(
        max_examples=ROUND, deadline=None, database=None, print_blob=False, suppress_health_check=list(HealthCheck)
    )(test)
    for number in count(int(os.environ.get(SEED, time.time_ns() // 1_000_000_000))):
        try:
            seed(number)(bounded)()
        except BaseException as error:
            error.add_note(f"{SEED}={number} repeats it")
            raise
        if time.monotonic() >= end:
            return
