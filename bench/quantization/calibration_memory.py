"""Memory that calibration takes, from few samples to many.

    python -m bench.quantization.calibration_memory [--bundle DIR] [--samples N]... [--rounds 3]

Each number of samples is calibrated on in fresh processes, which report the largest resident set that the kernel saw.
Writes docs/data/calibration-memory.json and the table of docs/research/quantization.md. Nothing is timed, so it may run
on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.checkout import ROOT, origin, provenance
from bench.quantization.page import write_table
from bertport.runtime.bundle.default import default_bundle

DATA = ROOT / "docs" / "data" / "calibration-memory.json"
SAMPLES = (32, 64, 128, 256, 512, 1024)
MIB = 2**20
WORK = """
import json, sys
from pathlib import Path
from bertport.quantize.calibration.observe import histograms, read_calibration
from bertport.quantize.graph.fusion import load_plain
from bertport.quantize.graph.rewrite import linears
from bertport.runtime.bundle.directory import Bundle
def peak_memory():
    status = Path("/proc/self/status")
    if status.exists():  # not getrusage: Linux starts its peak at what the parent had
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
bundle = Bundle.open(sys.argv[1])
text = read_calibration(bundle, samples=int(sys.argv[2]))
plain = load_plain(bundle.file(bundle.manifest.variants["fp32"].file))
found = histograms(plain, {layer.source for layer in linears(plain)}, text, lambda *_: None)
print(json.dumps({
    "samples": len(text.samples),
    "tokens": text.tokens,
    "values": sum(each.total for each in found.values()),
    "tensors": len(found),
    "histogram_bytes": sum(each.nbytes for each in found.values()),
    "peak": peak_memory(),
}))
"""


def run(bundle: Path, samples: int) -> dict[str, Any]:
    """Calibrate in a fresh process; return its report."""
    command = [sys.executable, "-c", WORK, str(bundle), str(samples)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def measure(bundle: Path, counts: list[int], rounds: int) -> dict[str, Any]:
    """Run each number of samples some times, in turns."""
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for done in range(rounds):
        for count in counts:
            runs[count].append(run(bundle, count))
            print(f"round {done + 1} of {rounds}: {count} samples", file=sys.stderr, flush=True)
    rows = [of_one[0] | {"peak": median(one_run["peak"] for one_run in of_one)} for of_one in runs.values()]
    return {
        **provenance(),
        "bundle": json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["name"],
        "rounds": rounds,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    lines = [
        (
            f"{result['bundle']}, {result['rows'][0]['tensors']} activations; largest resident set of a fresh process "
            f"that reads the bundle and calibrates, median of {result['rounds']}. Kept as float32, the values would "
            f"take what the third column says. {result['machine']['cpu']}; {origin(result)}."
        ),
        "",
        "| samples | tokens | values seen | histograms | largest resident set |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['samples']:,} | {row['tokens']:,} | {4 * row['values'] / MIB:,.0f} MiB | "
        f"{row['histogram_bytes'] / MIB:.1f} MiB | {row['peak'] / MIB:,.0f} MiB |"
        for row in result["rows"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the figures and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the embedded default when not given")
    parser.add_argument("--samples", type=int, action="append", help=f"may be repeated; {SAMPLES} when not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--print", action="store_true", help="print the table, and write nothing")
    given = parser.parse_args()
    if (given.bundle or given.samples) and not given.print:
        parser.error("--bundle and --samples measure something else than the page has: add --print")
    result = measure((given.bundle or default_bundle()).resolve(), given.samples or list(SAMPLES), given.rounds)
    if given.print:
        print(table(result))
        return
    DATA.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    write_table("calibration-memory", table(result))


if __name__ == "__main__":
    main()
