"""Cost of a second model in a process: memory, and time while the other is idle or busy.

    python -m bench.performance.second_session [BUNDLE] [--seconds 3] [--json]

Prints a table, or one line of JSON (a process of bench.performance). Runs in one process, since that is the question;
the machine's lock is held.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from statistics import median

from bertport.measure.machine import machine_lock
from bertport.measure.speed.worker import peak_bytes
from bertport.runtime import load

TEXT = "The old man opened the door and looked out into the [MASK] street, where the rain was still falling."
MIB = 2**20


def milliseconds(model: object, seconds: float) -> float:
    """Return the median time of one text, asked one after the other."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not took:
        began = time.perf_counter()
        model.fill_mask(TEXT)  # type: ignore[attr-defined]  # a Model
        took.append(1e3 * (time.perf_counter() - began))
    return median(took)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    with machine_lock():
        models = [load(given.bundle, provider="cpu")]
        milliseconds(models[0], 0.5)
        rows.append(("one model", milliseconds(models[0], given.seconds), peak_bytes() / MIB))
        models.append(load(given.bundle, provider="cpu"))
        milliseconds(models[1], 0.5)
        rows.append(("two, the other idle", milliseconds(models[0], given.seconds), peak_bytes() / MIB))
        done = threading.Event()

        def keep_busy() -> None:
            while not done.is_set():
                models[1].fill_mask(TEXT)

        other = threading.Thread(target=keep_busy)
        other.start()
        rows.append(("two, the other busy", milliseconds(models[0], given.seconds), peak_bytes() / MIB))
        done.set()
        other.join()
        other_thread = threading.Thread(target=lambda: milliseconds(models[0], given.seconds))
        other_thread.start()
        rows.append(("one, asked by two threads", milliseconds(models[0], given.seconds), peak_bytes() / MIB))
        other_thread.join()
    if given.json:
        print(json.dumps([{"case": name, "ms": took, "peak_mib": memory} for name, took, memory in rows]))
        return
    print("| | ms for a text | peak MiB |\n|---|---:|---:|")
    for name, took, memory in rows:
        print(f"| {name} | {took:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
