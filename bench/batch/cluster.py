"""Nodes of Ray on this machine, each a process with CPUs of its own, and the rows that they answer."""

from __future__ import annotations

import json
import lzma
import os
import random
import signal
import subprocess
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["LONGEST_PAUSE", "QUIET", "SAMPLE", "STORE", "killed_again_and_again", "nodes", "sentences", "started_here"]

STORE = 200 << 20
"""Bytes of a node's object store."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
"""Environment variables of Ray and its processes."""
WORDS = range(5, 60)
"""Words of a sentence."""
SAMPLE = ROOT / "data" / "evaluation.txt"
"""Text of the rows where no other is given."""
SEED = 0
"""Of the choice of sentences from a text with more of them than rows."""
LONGEST_PAUSE = 0.8
"""Seconds between a worker's start and its death, at most."""
TRIES = 4
"""Attempts to start a node."""
START = 120.0
"""Seconds in which a worker has to start."""


@contextmanager
def nodes(*cpus: int) -> Iterator[Any]:
    """Start a head without CPUs and a node for each number of them; yields Ray's `Cluster`, which has an `address`."""
    os.environ.update(QUIET)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    cluster = _started(lambda: Cluster(initialize_head=True, head_node_args=head))
    try:
        for count in cpus:
            _started(partial(cluster.add_node, num_cpus=count, object_store_memory=STORE))
        yield cluster
    finally:
        cluster.shutdown()


def _started(start: Callable[[], Any]) -> Any:  # noqa: ANN401 — Ray's own
    """Start a node; again where a busy machine took longer than the 30 seconds that Ray waits."""
    for attempt in range(TRIES):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == TRIES - 1:
                raise
    raise AssertionError


def sentences(path: Path, count: int, words: int | None = None, text: Path = SAMPLE) -> Path:
    """Write so many rows of JSON lines: sentences of a text with a mask behind them.

    They are a sample of the text's, or all of them again and again where it has fewer.

    Args:
        path: the file.
        count: rows.
        words: of each sentence so many words, from its first; None for all.
        text: plain text, or sections of a corpus as JSON lines {"id", "paragraphs"}, plain or .xz.
    """
    pieces = [
        piece.strip()
        for paragraph in _paragraphs(text)
        for piece in paragraph.split(". ")
        if len(piece.split()) in WORDS
    ]
    if len(pieces) > count:
        pieces = random.Random(SEED).sample(pieces, count)  # noqa: S311 — which sentences: nothing to keep secret
    pieces = [" ".join(piece.split(" ")[:words]) for piece in pieces]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"id": number, "text": f"{pieces[number % len(pieces)]} [MASK]."}) + "\n")
    return path


def _paragraphs(text: Path) -> Iterator[str]:
    """Yield the paragraphs of a text, plain or a corpus."""
    with lzma.open(text, "rt", encoding="utf-8") if text.suffix == ".xz" else text.open(encoding="utf-8") as lines:
        for line in lines:
            if ".jsonl" in text.suffixes:
                yield from json.loads(line)["paragraphs"]
            else:
                yield line


def actors() -> list[int]:
    """Return the processes of a batch's actors, on any of the nodes that this process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        number = int(path.parent.name)
        if line.startswith(b"ray::") and b"Answering" in line and started_here(number):
            found.append(number)
    return found


def started_here(number: int) -> bool:
    """Return whether a process descends from this one."""
    try:
        while number > 1 and number != os.getpid():
            stat = Path("/proc", str(number), "stat").read_text(encoding="utf-8")
            number = int(stat.rpartition(")")[2].split()[1])
    except OSError:
        return False
    return number == os.getpid()


def killed_again_and_again(
    command: Sequence[str], *, workers: int = 10, drivers: int = 2, seed: int = 7
) -> tuple[list[dict[str, Any]], str]:
    """Run a command of Ray's engine; kill (SIGKILL) workers and the driver at seeded moments, and let it end at last.

    Returns:
        Who was killed and when, and what the last run of the command printed.

    Raises:
        RuntimeError: where the last run of the command fails.
    """
    chance, began = random.Random(seed), time.monotonic()  # noqa: S311 — no secret
    deaths: list[dict[str, Any]] = []
    order = ["worker"] * workers
    for share in range(1, drivers + 1):
        order.insert(share * workers // (drivers + 1) + share - 1, "driver")
    environment = {**os.environ, **QUIET}
    while True:
        pipe = subprocess.PIPE
        driver = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
        while order and driver.poll() is None:
            end = time.monotonic() + START
            while not actors() and driver.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, LONGEST_PAUSE))
            there = actors()
            if driver.poll() is not None or not there:
                continue
            kind = order.pop(0)
            os.kill(driver.pid if kind == "driver" else chance.choice(there), signal.SIGKILL)
            deaths.append({"kind": kind, "seconds": round(time.monotonic() - began, 1)})
            if kind == "driver":
                break
        stdout, stderr = driver.communicate()
        if driver.returncode == 0:
            return deaths, stdout
        if driver.returncode != -signal.SIGKILL:
            raise RuntimeError(stderr)
