"""Rate of `bertport evaluate`, beside `Model.predict` on the same texts, and the memory that it takes.

    python -m bench.labelled_rate    [--texts 10000] [--rounds 5] [--quick]

The model is a classifier of three labels on the default encoder, seeded and untrained, since times do not depend on
values. Both sides are processes of their own that are timed from start to end, in turns, while the machine's lock is
held. `bertport evaluate` reads and checks a file of JSON lines, has both variants answer it, and computes all metrics,
intervals and tests. The other side reads the texts and has `Model.predict` answer them by the same variants. Memory is
the largest resident set of `bertport evaluate`, for two lengths of the file. Where fp32 answers 250 texts a second and
INT8 500, it takes 15 minutes. Writes docs/data/labelled-rate.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.checkout import ROOT, provenance
from bench.serving import heads
from bertport.measure.machine import machine_lock
from bertport.measure.statistics import median_ratio
from bertport.measure.text import read_texts, sample_path

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = Path("data") / "labelled-rate.json"
TASK = "text-classification"
BAR = 0.9
"""The share of `Model.predict`'s rate that is asked for."""
MOST_WORDS = 30
"""Words of a text, at most; the least is 3. Sentences have as many."""
GROWTH = 4
"""Factor by which the longer of the two files whose memory is measured is longer."""
WARM_UP = 50
"""Texts of the first run of each side, which is not timed: it compiles modules and reads files into the cache."""

PREDICT = """
import json, sys
from bertport.runtime import load
task, path, bundle, *variants = sys.argv[1:]
with open(path, encoding="utf-8") as lines:
    texts = [json.loads(line)["text"] for line in lines]
for variant in variants:
    for _ in load(bundle, variant=variant).predict(task, texts):
        pass
"""
EVALUATE = """
import sys
from bertport.measure.speed.worker import peak_bytes
from bertport.runtime.cli import main
task, path, bundle, reference, *others = sys.argv[1:]
chosen = [option for variant in others for option in ("--variant", variant)]
try:
    main(["evaluate", bundle, "--data", path, "--task", task, "--against", reference, *chosen])
finally:
    print(peak_bytes())
"""
SIDES = {"predict": PREDICT, "evaluate": EVALUATE}
"""The programs that are timed, by name; they take the task, the file, the bundle and the variants."""


def texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of the evaluation sample: runs of its words."""
    words = " ".join(text.text for text in read_texts(sample_path("evaluation"))).split()
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, MOST_WORDS, size=count, endpoint=True).tolist()
    begins = rng.integers(len(words) - MOST_WORDS, size=count).tolist()
    return [" ".join(words[begin : begin + length]) for begin, length in zip(begins, lengths, strict=True)]


def write(path: Path, count: int) -> Path:
    """Write texts with labels as JSON lines and return the path."""
    labels = heads.LABELS
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts(count)):
            file.write(json.dumps({"text": text, "label": labels[number % len(labels)]}) + "\n")
    return path


def run(side: str, bundle: Path, variants: Sequence[str], path: Path) -> tuple[float, str]:
    """Return the seconds that the process of a side takes, and the last line that it prints.

    Raises:
        RuntimeError: with what it wrote, when it fails.
    """
    command = [sys.executable, "-c", SIDES[side], TASK, str(path), str(bundle), *variants]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{side} failed: {done.stderr.strip()[-2000:]}")
    return seconds, (done.stdout.splitlines() or [""])[-1]


def measure(bundle: Path, variants: Sequence[str], place: Path, count: int, rounds: int) -> dict[str, Any]:
    """Return both sides' rates in answers a second, how many times `predict`'s the other one's is, and its memory.

    Args:
        bundle: The bundle.
        variants: The variants that answer, the reference first.
        place: A directory for the files.
        count: Texts of the file that is timed.
        rounds: Runs of each side.
    """
    warm, short, longer = (write(place / f"{size}.jsonl", size) for size in (WARM_UP, count, GROWTH * count))
    for side in SIDES:
        run(side, bundle, variants, warm)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    peaks = []
    for number in range(rounds):
        for side in list(SIDES)[:: 1 if number % 2 else -1]:  # neither is always the one after the other
            taken, printed = run(side, bundle, variants, short)
            seconds[side].append(taken)
            if side == "evaluate":
                peaks.append(int(printed))
    predict, evaluate = (np.array(seconds[side])[:, None] for side in SIDES)
    answers = len(variants) * count
    return {
        "variants": list(variants),
        **{
            side: {"seconds": of_side, "answers_per_second": answers / float(np.median(of_side))}
            for side, of_side in seconds.items()
        },
        "share": asdict(median_ratio(predict, evaluate)),
        "peak_bytes": {
            f"{count:,}": max(peaks),
            f"{GROWTH * count:,}": int(run("evaluate", bundle, variants, longer)[1]),
        },
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    share, (less, more) = figures["share"], figures["peak_bytes"].items()
    return (
        f"{' and '.join(figures['variants'])}: {figures['evaluate']['answers_per_second']:,.0f} answers/s by bertport "
        f"evaluate, {figures['predict']['answers_per_second']:,.0f} by Model.predict: {share['value']:.3f} of it "
        f"({share['low']:.3f} to {share['high']:.3f}), {'met' if share['value'] >= BAR else 'missed'}; "
        f"peak {less[1] / 1e6:,.0f} MB for {less[0]} texts, {more[1] / 1e6:,.0f} MB for {more[0]}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tiny model and few texts: to see that it works")
    parser.add_argument("--output", type=Path, help="where the figures are written: docs, or out/bench/quick")
    given = parser.parse_args(arguments)
    count, rounds = (200, 2) if given.quick else (given.texts, given.rounds)
    output = given.output or ROOT / ("out/bench/quick" if given.quick else "docs")
    _, bundle = heads.prepare(heads.SERVED[0], tiny=given.quick)  # before the lock: quantizing waits for it
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if given.quick else machine_lock():
        figures = measure(bundle, heads.VARIANTS[::-1], Path(scratch), count, rounds)
    data = {**provenance(), "texts": count, "rounds": rounds, "bar": BAR, **figures}
    (output / DATA).parent.mkdir(parents=True, exist_ok=True)
    (output / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
