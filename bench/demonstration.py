"""The demonstration of models/demonstration.py, run from the start of its process to its end: seconds and figures.

    python -m bench.demonstration --corpus train.jsonl.xz [--rounds 3] [--check]

Each round is a process of its own; the machine must be idle otherwise, whose lock the demonstration itself takes while
it times INT8. Writes docs/data/demonstration.json and the measured part of models/README.md; with `--check` nothing is
measured, and the exit code is 1 where that part is not what the data say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.checkout import ROOT, check_section, number, origin, provenance, read_data, wrapped, write_section

PROGRAM = "bench.demonstration"
DEMONSTRATION = ROOT / "models" / "demonstration.py"
DATA = ROOT / "docs" / "data" / "demonstration.json"
PAGE = ROOT / "models" / "README.md"
MADE = "exporting the encoder with both heads: "
"""Beginning of what the demonstration says once the bundle of encoder and classifier is there."""


def run(corpus: Path, output: Path, *options: str) -> dict[str, Any]:
    """Run the demonstration once; return the seconds from the start of its process, and what it wrote about itself.

    Raises:
        RuntimeError: where it fails, with the end of what it said.
    """
    figures, made = output.with_suffix(".json"), None
    command = [sys.executable, str(DEMONSTRATION), "--corpus", str(corpus), "--output", str(output)]
    said = []
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--figures", str(figures), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None  # noqa: S101 — asked for above; for the type checker
        for line in process.stderr:
            said.append(line)
            if line.startswith(MADE):
                made = time.perf_counter() - began
    if process.returncode or made is None:
        raise RuntimeError(f"the demonstration failed: {''.join(said).strip()[-2000:]}")
    return {
        "bundle_seconds": made,
        "process_seconds": time.perf_counter() - began,
        **json.loads(figures.read_text(encoding="utf-8")),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of several runs: the seconds of each, and what the first found."""
    one = runs[0]
    reference, *others = one["evaluation"]["variants"]
    [comparison] = one["evaluation"]["comparisons"]
    return {
        "bundle_seconds": [each["bundle_seconds"] for each in runs],
        "process_seconds": [each["process_seconds"] for each in runs],
        "stages": {name: [each["seconds"][name] for each in runs] for name in one["seconds"]},
        "examples": one["evaluation"]["data"]["examples"],
        "most_frequent": one["most_frequent"],
        "accuracy": {each["name"]: each["figures"]["metrics"]["accuracy"] for each in (reference, *others)},
        "difference": comparison["differences"]["accuracy"],
    }


def section(data: dict[str, Any]) -> str:
    """Return the measured part of the page."""
    bundle, whole = (median(data[name]) for name in ("bundle_seconds", "process_seconds"))
    (name, reference), (other, _) = data["accuracy"].items()
    alike = data["difference"]["agreement"]
    machine = data["machine"]
    text = (
        f"On {machine['usable_cores']:g} cores of an {machine['cpu']} ({machine['instruction_set']}) the bundle of "
        f"encoder and classifier is there {bundle:.0f} seconds after the start, and INT8, quantized and measured, "
        f"after {whole:.0f} (medians of {len(data['process_seconds'])} runs). Of "
        f"{data['examples']} held-out passages {name} places {reference['value']:.1%} "
        f"({100 * reference['low']:.1f} to {100 * reference['high']:.1f}) in the right book (always naming the most "
        f"frequent book: {data['most_frequent']:.1%}); {other} gives the same answer for {alike['value']:.1%}. Written "
        f"by `python -m {PROGRAM}` ({origin(data)}; [figures](../docs/data/demonstration.json))."
    )
    return "\n".join(wrapped(text)) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the demonstration and write its figures, or compare the page with them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="text with textbooks, as models/demonstration.py reads it")
    parser.add_argument("--rounds", type=number, default=3)
    parser.add_argument("--check", action="store_true", help="compare page and data; measure nothing")
    given = parser.parse_args(arguments)
    if given.check:
        check_section(PAGE, section(read_data(DATA, PROGRAM)), PROGRAM)
        return
    if given.corpus is None:
        parser.error("name the corpus with --corpus")
    with tempfile.TemporaryDirectory() as scratch:
        runs = [run(given.corpus, Path(scratch) / f"{turn}") for turn in range(given.rounds)]
    data = {**provenance(), **summary(runs)}
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_section(PAGE, section(data))
    print(section(data))


if __name__ == "__main__":
    main()
