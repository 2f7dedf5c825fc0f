"""Time int8-dynamic on the CPU and bf16 on OpenVINO by length of text, to see whether one of them suits all lengths.

    python -m bench.intel python -m bench.quantization.lengths [--bundle NAME=PATH ...] [--check]

Each graph runs on one thread, all in one process and in turns, and what counts is the CPU time of a run, which other
work on the machine disturbs little. Needs bertport[cpu,openvino] and a CPU that multiplies bfloat16; `bench.intel`
where Intel did not make it. With `--check`, nothing is measured, and the exit code is 1 where the page is not what the
data say.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bertport.measure.quality.model import open_onnx
from bertport.measure.speed.workload import Shape, random_batch
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "bench.quantization.lengths"
PAGE = ROOT / "docs" / "research" / "quantization.md"
DATA = ROOT / "docs" / "data" / "quantization-lengths.json"
MARK = "lengths"
SHAPES = ((1, 8), (1, 16), (1, 32), (1, 64), (1, 128), (8, 16), (8, 128))
"""Rows and tokens."""
WAYS = {"fp32": ("fp32", "cpu", "fp32"), "int8": ("int8-dynamic", "cpu", "fp32"), "bf16": ("fp32", "openvino", "bf16")}
"""Variant, provider and precision of each."""
SECONDS, FEWEST = 15.0, 5
"""Seconds that a shape is timed for, and runs of each way at least."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Time every way at every shape, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=PATH", help="beside the default model")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.check:
        check_section(PAGE, section(read_data(DATA, PROGRAM)), PROGRAM, MARK)
        return
    bundles = {"the default model": default_bundle()}
    bundles |= {name: Path(path) for name, _, path in (given.partition("=") for given in options.bundle)}
    known = read_data(DATA, PROGRAM)["models"] if DATA.exists() else {}
    if lost := [name for name in known if name not in bundles]:
        parser.error(f"the page has {', '.join(lost)} too: add --bundle NAME=PATH of each")
    data = {**provenance(), "models": {name: measure(path) for name, path in bundles.items()}}
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_section(PAGE, section(data), MARK)
    print(section(data))


def measure(path: Path) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of CPU time of each way, by shape."""
    bundle = Bundle.open(path)
    graphs = {}
    for name, (variant, provider, precision) in WAYS.items():
        with bundle.opening(variant) as file:
            graphs[name] = open_onnx(file, provider=provider, precision=precision, threads=1)
    times: dict[str, dict[str, float]] = {}
    for rows, length in SHAPES:
        batch = random_batch(Shape(rows=rows, length=length, vocabulary=bundle.manifest.architecture.vocab_size))
        spent: dict[str, list[float]] = {name: [] for name in graphs}
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or len(spent["fp32"]) <= FEWEST:
            for name, graph in graphs.items():
                began = time.process_time()
                graph.run(batch, graph.outputs)
                spent[name].append(1e3 * (time.process_time() - began))
        # The first run prepares for the shape.
        times[f"{rows}x{length}"] = {name: statistics.median(runs[1:]) for name, runs in spent.items()}
    return times


def section(data: dict[str, Any]) -> str:
    """Return the table: how many times as fast as fp32 each is, and what the better of the two gains at each shape."""
    lines = [
        "| model | shape | fp32, ms | int8-dynamic | bf16 | bf16 over int8-dynamic |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for model, times in data["models"].items():
        for shape, spent in times.items():
            int8, bf16 = (spent["fp32"] / spent[name] for name in ("int8", "bf16"))
            lines.append(
                f"| {model} | {shape} | {spent['fp32']:.1f} | {int8:.2f}x | {bf16:.2f}x | {bf16 / int8 - 1:+.0%} |"
            )
    machine = data["machine"]
    described = (
        f"Machine: {machine['cpu']}, {machine['instruction_set']}, ONNX Runtime made to report Intel; one thread, CPU "
        f"time; {data['date'][:10]}, commit {data['commit'][:7]}."
    )
    return "\n".join([*lines, "", described, ""])


if __name__ == "__main__":
    main()
