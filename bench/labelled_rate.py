"""Rate of predicting labelled data, beside `Model.predict` on the same texts, and the memory that it takes.

    python -m bench.labelled_rate    [--texts 10000] [--rounds 5] [--quick]

The model is a classifier of three labels on the default encoder, seeded and untrained, since times do not depend on
values. Both ways are timed in turns while the machine's lock is held: `Model.predict` is given a list of texts, and
`predict_labelled` reads them from a file of JSON lines anew. Memory is the largest resident set of a process that reads
and predicts a file, for two lengths of it. Writes docs/data/labelled-rate.json.
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
from bertport.measure.labelled.data import read_labelled
from bertport.measure.labelled.predictions import predict_labelled
from bertport.measure.machine import machine_lock
from bertport.measure.statistics import median_ratio
from bertport.measure.text import read_texts, sample_path
from bertport.runtime import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DATA = Path("data") / "labelled-rate.json"
TASK = "text-classification"
BAR = 0.9
"""The share of `Model.predict`'s rate that is asked for."""
MOST_WORDS = 30
"""Words of a text, at most; the least is 3. Sentences have as many."""
GROWTH = 4
"""Factor by which the longer of the two files whose memory is measured is longer."""

CHILD = """
import json, resource, sys
from bertport.measure.labelled.data import read_labelled
from bertport.measure.labelled.predictions import predict_labelled
from bertport.runtime import load
model = load(sys.argv[1], variant=sys.argv[2], threads=1)
data = read_labelled(sys.argv[3], sys.argv[4], model.bundle.manifest)
predict_labelled(model, data)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


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


def rate(bundle: Path, variant: str, path: Path, rounds: int) -> dict[str, Any]:
    """Return both ways' rates in texts a second, and how many times `Model.predict`'s the other one's is."""
    model = load(bundle, variant=variant)
    data = read_labelled(path, TASK, model.bundle.manifest)
    given = texts(len(data))
    ways: tuple[Callable[[], object], ...] = (
        lambda: list(model.predict(TASK, given)),
        lambda: predict_labelled(model, data),
    )
    for way in ways:
        way()
    seconds = np.array([[_seconds(way) for way in ways] for _ in range(rounds)])
    predict, labelled = seconds.T
    return {
        "predict": {"seconds": predict.tolist(), "texts_per_second": len(data) / float(np.median(predict))},
        "labelled": {"seconds": labelled.tolist(), "texts_per_second": len(data) / float(np.median(labelled))},
        "share": asdict(median_ratio(predict[:, None], labelled[:, None])),
    }


def peak(bundle: Path, variant: str, path: Path) -> int:
    """Return the largest resident set, in bytes, of a process that predicts a file."""
    command = [sys.executable, "-c", CHILD, str(bundle), variant, str(path), TASK]
    return int(subprocess.check_output(command, cwd=ROOT))


def table(variants: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    lines = []
    for name, figures in variants.items():
        share, (less, more) = figures["share"], figures["peak_bytes"].items()
        lines.append(
            f"{name}: {figures['labelled']['texts_per_second']:,.0f} texts/s of labelled data, "
            f"{figures['predict']['texts_per_second']:,.0f} by Model.predict: {share['value']:.3f} of it "
            f"({share['low']:.3f} to {share['high']:.3f}), {'met' if share['value'] >= BAR else 'missed'}; "
            f"peak {less[1] / 1e6:,.0f} MB for {less[0]} texts, {more[1] / 1e6:,.0f} MB for {more[0]}"
        )
    return "\n".join(lines)


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


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
    variants = {}
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if given.quick else machine_lock():
        files = {size: write(Path(scratch) / f"{size}.jsonl", size) for size in (count, GROWTH * count)}
        for variant in heads.VARIANTS:
            figures = rate(bundle, variant, files[count], rounds)
            peaks = {f"{size:,}": peak(bundle, variant, path) for size, path in files.items()}
            variants[variant] = figures | {"peak_bytes": peaks}
    data = {**provenance(), "texts": count, "rounds": rounds, "bar": BAR, "variants": variants}
    (output / DATA).parent.mkdir(parents=True, exist_ok=True)
    (output / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(table(variants))


if __name__ == "__main__":
    main()
