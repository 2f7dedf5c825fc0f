"""What more machines would do: from the cost of a token, of a part and of a row, as `bertport batch` measures them.

    python -m bench.scaling           [--rows 4000]   measures, and writes docs/data/scaling.json and the page
    python -m bench.scaling page      [--check]       writes docs/research/scaling.md of it, or only compares

`bertport batch` answers texts of the evaluation sample with one thread, in many small parts and in few; what the two
differ by in CPU seconds is the cost of a part, as far as one run of each can show it, and what their process spent
beside the parts is the cost of a start. CPU seconds and not those of the clock are counted, so that other work on the
machine changes them less. What a part costs Ray's driver is taken from docs/data/batch-many.json, where it is there.
What more machines would do is arithmetic, and the page says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.batch.page import data as batch_data
from bench.checkout import ROOT, check_files, number, provenance, read_data, wrapped, write_files
from bertport.batch.runner import PART_ROWS
from bertport.measure.text import read_texts, sample_path

DATA = ROOT / "docs" / "data" / "scaling.json"
PAGE = ROOT / "docs" / "research" / "scaling.md"
TASKS = ("fill-mask", "features")
"""Features are the widest rows, fill-mask is what the default model is for."""
SMALL_PARTS = 40
"""Parts that the work is cut into where the cost of a part is looked for."""
NODES = (1, 10, 100, 1000)
CORES = 16
"""Cores of a node in the page's arithmetic."""
MACHINE_DOLLARS, MACHINE_CORES = 0.0816, 2
"""An assumption: the list price of an hour of a rented machine, and its cores."""
PRICE = "https://www.factualminds.com/blog/amazon-ec2-on-demand-pricing-instance-families-2026/"
"""Where it was read."""
DOLLARS = MACHINE_DOLLARS / MACHINE_CORES
STORE_BYTES = 100e9 / 8
"""An assumption: bytes a second that shared storage takes and gives, 100 Gbit/s."""
DRIVER_PART = 0.01
"""An assumption where nothing was measured: seconds that the driver takes for a part."""
ROWS = 1e8
"""Rows whose time is reckoned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a task costs, in CPU seconds and bytes."""

    tokens: float
    """Tokens of a row, padding left out."""
    row_seconds: float
    """CPU seconds of a row: reading, answering and writing it."""
    part_seconds: float
    """CPU seconds of a part beside its rows."""
    start_seconds: float
    """CPU seconds of a worker's start: its imports and its bundle."""
    row_bytes: float
    """Bytes of a row's input and answer, as they are stored."""

    @property
    def rows_a_core(self) -> float:
        """Rows that a core answers in a second, in parts of the default size."""
        return 1 / (self.row_seconds + self.part_seconds / PART_ROWS)

    def seconds(self, nodes: int, driver_part: float) -> tuple[float, str]:
        """Return how long `ROWS` rows take on so many nodes, and what it is that takes so long.

        Args:
            nodes: nodes of `CORES` cores.
            driver_part: seconds that the driver takes for a part.
        """
        parts = math.ceil(ROWS / PART_ROWS)
        waves = math.ceil(parts / (nodes * CORES))  # each core makes whole parts
        limits = {
            "cores" if waves > 1 else "one part a core": self.start_seconds + waves * PART_ROWS / self.rows_a_core,
            "storage": ROWS * self.row_bytes / STORE_BYTES,
            "driver": parts * driver_part,
        }
        limit = max(limits, key=lambda name: limits[name])
        return limits[limit], limit


def run(task: str, rows: Path, output: Path, part_rows: int) -> dict[str, Any]:
    """Run `bertport batch` on one thread, and return its summary."""
    command = [sys.executable, "-m", "bertport.runtime", "batch", str(ROOT / "models" / "default"), task, str(rows)]
    command += ["--output", str(output), "--part-rows", str(part_rows), "--threads", "1", "--streams", "1"]
    before = _spent()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"bertport batch ended with {done.returncode}: {done.stderr.strip() or 'it said nothing'}")
    process = _spent() - before
    summary: dict[str, Any] = json.loads((output / "_bertport" / "summary.json").read_text(encoding="utf-8"))
    size = sum(each.stat().st_size for each in output.glob("*.parquet"))
    return summary | {"bytes": size, "process_cpu_seconds": process}


def _spent() -> float:
    """Return the CPU seconds of the processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(count: int) -> None:
    """Measure each task, and write the data."""
    sample = [each.text for each in read_texts(sample_path("evaluation"))]
    texts = list(itertools.islice(itertools.cycle(sample), count))
    found: dict[str, Any] = {"rows": count, "load": [os.getloadavg()[0]]}
    with tempfile.TemporaryDirectory() as directory:
        for task in TASKS:
            place = Path(directory) / task
            place.mkdir()
            rows = place / "rows.jsonl"
            lines = (f"{text.rstrip('.')} [MASK]." if task == "fill-mask" else text for text in texts)
            rows.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
            whole = run(task, rows, place / "whole", count)
            cut = run(task, rows, place / "cut", max(1, count // SMALL_PARTS))
            if cut["parts"] <= whole["parts"]:
                sys.exit(f"{count:,} rows make {cut['parts']} parts at most, too few to compare: give more (--rows)")
            found[task] = {"input_bytes": rows.stat().st_size, "whole": whole, "cut": cut}
    found["load"].append(os.getloadavg()[0])
    DATA.write_text(json.dumps(provenance() | found, indent=1) + "\n", encoding="utf-8")


def part_difference(found: dict[str, Any]) -> float:
    """Return by how many CPU seconds a part the run in many parts and that in few differ; noise makes it negative."""
    whole, cut = found["whole"], found["cut"]
    return float((cut["cpu_seconds"]["workers"] - whole["cpu_seconds"]["workers"]) / (cut["parts"] - whole["parts"]))


def cost_of(found: dict[str, Any], count: int) -> Cost:
    """Return what a task costs, from a run in few parts and one in many."""
    whole = found["whole"]
    part = max(0.0, part_difference(found))
    return Cost(
        tokens=whole["tokens"] / count,
        row_seconds=(whole["cpu_seconds"]["workers"] - part * whole["parts"]) / count,
        part_seconds=part,
        start_seconds=whole["process_cpu_seconds"] - whole["cpu_seconds"]["workers"],
        row_bytes=(found["input_bytes"] + whole["bytes"]) / count,
    )


def page(data: dict[str, Any], many: dict[str, Any] | None) -> str:
    """Return the page.

    Args:
        data: what this program measured.
        many: what `bench.batch many` did, if it ran.
    """
    costs = {task: cost_of(data[task], data["rows"]) for task in TASKS}
    few, many_parts = (data[TASKS[0]][name]["parts"] for name in ("whole", "cut"))
    driver = DRIVER_PART if many is None else many["cpu_seconds"]["driver"] / many["parts"]
    driver_from = (
        f"The driver is assumed to spend {1e3 * driver:.0f} ms on a part"
        if many is None
        else f"The driver spent {1e3 * driver:.0f} ms of CPU on a part of [{many['rows']:,} rows]"
        "(../data/batch-many.json), its start among them"
    )
    first, last = data["load"]
    lines = [
        "# Past this machine",
        "",
        *wrapped(
            "What more machines would do, by arithmetic: nothing here was run on more than one. `python -m "
            f"bench.scaling` measured {data['rows']:,} texts in {few} parts and in {many_parts}, on one thread of "
            f"{data['machine']['cpu']} ({data['machine']['instruction_set']}; {data['date'][:10]}, commit "
            f"{data['commit'][:9]}, load average {first:.1f} before and {last:.1f} after; "
            "[the data](../data/scaling.json)), and wrote this page. [Batches](batch.md) are what was run."
        ),
        "",
        "| default model | tokens a row | tokens a core and second | CPU ms a part | CPU s of a start | bytes a row |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {task} | {cost.tokens:.1f} | {cost.tokens * cost.rows_a_core:,.0f} | {1e3 * cost.part_seconds:,.0f} | "
        f"{cost.start_seconds:.1f} | {cost.row_bytes:,.0f} |"
        for task, cost in costs.items()
    ]
    lines += [
        "",
        *wrapped(
            "Seconds are those of the CPU: other work on the machine lengthens them too, but less than those of the "
            "clock. Bytes are those of the JSON lines and of the Parquet that is written, the text carried along."
        ),
        "",
        *wrapped(_of_a_part(data, costs)),
        "",
        "## Machines",
        "",
        *wrapped(
            f"Nodes of {CORES} such cores and {ROWS:,.0f} rows in parts of {PART_ROWS:,}. Assumed: cores are as fast "
            f"beside each other as alone, and shared storage gives and takes {STORE_BYTES / 1e9:.1f} GB a second. "
            f"{driver_from}; what Ray's other processes on the head spend was not measured."
        ),
        "",
        "| task | nodes | time | rows a second | storage, GB a second | parts a second | the limit |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for task, cost in costs.items():
        for nodes in NODES:
            seconds, limit = cost.seconds(nodes, driver)
            rate = ROWS / seconds
            lines.append(
                f"| {task} | {nodes:,} | {_duration(seconds)} | {rate:,.0f} | {rate * cost.row_bytes / 1e9:.3f} | "
                f"{rate / PART_ROWS:.2f} | {limit} |"
            )
    lines += [
        "",
        *wrapped(
            f"Parts are whole: at {NODES[-1] * CORES:,} cores, {ROWS:,.0f} rows are {math.ceil(ROWS / PART_ROWS):,} "
            "parts, less than one for a core. Take smaller ones there (`--part-rows`), as far as the driver's "
            "milliseconds allow, or more rows."
        ),
        "",
        "## Money",
        "",
        *wrapped(
            f"Assumed: ${DOLLARS:.4f} a core-hour. An m7g.large of Amazon EC2, with two Arm cores, was listed at "
            f"${MACHINE_DOLLARS} an hour in us-east-1, on demand, on 17 June 2026 ([source]({PRICE})). Its cores were "
            "not measured: put your own price and rate in their place, the cost is in proportion."
        ),
        "",
        "| task | core-hours a million texts | cost of them |",
        "|---|---:|---:|",
    ]
    for task, cost in costs.items():
        hours = 1e6 / cost.rows_a_core / 3600
        lines.append(f"| {task} | {hours:.2f} | ${hours * DOLLARS:.3f} |")
    return "\n".join(lines) + "\n"


def _of_a_part(data: dict[str, Any], costs: dict[str, Cost]) -> str:
    """Return how far the cost of a part is known, and what it changes."""
    share = max(cost.part_seconds / PART_ROWS / cost.row_seconds for cost in costs.values())
    differences = {task: part_difference(data[task]) for task in TASKS}
    noise = "".join(
        f" {task} took {-1e3 * each:,.0f} ms a part less in many parts, which no part can cost: 0 stands for it, and "
        "what any task is said to cost may be as far off."
        for task, each in differences.items()
        if each < 0
    )
    return (
        "What a part costs is what one run in many parts took longer than one in few, and two runs of the same parts "
        f"differ, too.{noise} It matters little: in parts of {PART_ROWS:,} rows it adds {100 * share:.2g}% to what a "
        "row costs, at most."
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def main(arguments: list[str] | None = None) -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "page"], default="measure")
    parser.add_argument("--rows", type=number, default=4000)
    parser.add_argument("--check", action="store_true", help="of page: only compare")
    given = parser.parse_args(arguments)
    if given.what == "measure":
        measure(given.rows)
    many = batch_data("many")
    text = page(read_data(DATA, "bench.scaling"), read_data(many, "bench.batch many") if many.exists() else None)
    if given.check:
        check_files({PAGE: text}, "bench.scaling page")
    else:
        write_files({PAGE: text})


if __name__ == "__main__":
    main()
