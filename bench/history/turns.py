"""Rows of two checkouts that take turns at the same texts, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.history.entries import BUNDLE, environment
from bertport.measure.machine import awaited, machine_lock
from bertport.measure.statistics import median_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertport.measure.statistics import Estimate

__all__ = ["Answered", "Process", "Row", "take_turns"]

PROGRAM = Path(__file__).with_name("answer.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant of one checkout's bundle, answered by that checkout's runtime."""

    name: str
    """Name of the row."""
    tree: Path
    """Root directory of the checkout."""
    variant: str
    """The variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Times and answers of a row."""

    rounds: tuple[float, ...]
    """Seconds of each round."""
    words: tuple[str, ...]
    """The best word of each text."""

    def faster_than(self, other: Answered) -> Estimate:
        """Estimate how many times as fast it is as another row of the same rounds."""
        return median_ratio([[each] for each in other.rounds], [[each] for each in self.rounds])


class Process:
    """A row's process; a context manager."""

    def __init__(self, row: Row) -> None:
        command = [sys.executable, "-P", str(PROGRAM), str(row.tree / BUNDLE), row.variant]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment(row.tree), text=True, stdin=pipe, stdout=pipe)
        self._name = row.name

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def answer(self, texts: Sequence[str], at_once: int) -> dict[str, Any]:
        """Have texts answered, `at_once` in a call.

        Raises:
            SystemExit: with a sentence, where the process has ended; what it said is above it.
        """
        try:
            self._process.stdin.write(json.dumps({"texts": list(texts), "at_once": at_once}) + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
            line = self._process.stdout.readline()  # type: ignore[union-attr]
        except OSError:
            line = ""
        if not line:
            sys.exit(f"{self._name}: the process that answers ended (exit code {self._process.wait()})")
        answered: dict[str, Any] = json.loads(line)
        return answered


def take_turns(
    rows: Sequence[Row],
    workloads: Mapping[str, tuple[Sequence[str], int]],
    *,
    rounds: int,
    say: Callable[[str], None],
) -> dict[tuple[str, str], Answered]:
    """Have every row answer each workload in each round, in one order and in the next round in the reverse one.

    Args:
        rows: The rows; their names differ.
        workloads: By name, texts and how many of them one call answers.
        rounds: Number of rounds, after one that is not counted.
        say: Called with progress.

    Returns:
        What each row took and said, by its name and the workload's.
    """
    answered = {}
    with machine_lock(lambda: say(awaited())), ExitStack() as stack:
        processes = {row.name: stack.enter_context(Process(row)) for row in rows}
        for workload, (texts, at_once) in workloads.items():
            words = {name: tuple(process.answer(texts, at_once)["words"]) for name, process in processes.items()}
            seconds: dict[str, list[float]] = {name: [] for name in processes}
            for number in range(rounds):
                for name in list(processes) if number % 2 == 0 else reversed(processes):
                    seconds[name].append(processes[name].answer(texts, at_once)["seconds"])
            say(f"{workload}: {rounds} rounds")
            for name in processes:
                answered[name, workload] = Answered(rounds=tuple(seconds[name]), words=words[name])
    return answered
