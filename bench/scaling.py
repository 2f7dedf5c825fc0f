"""What more machines would do: from the cost of a token, of a part and of a row, as `bertport batch` measures them.

    python -m bench.scaling           [--rows 500]    measures, and writes docs/data/scaling.json and the page
    python -m bench.scaling page      [--check]       writes docs/research/scaling.md of it, or only compares

`bertport batch` answers texts of the evaluation sample on one thread: alone, and then two such processes beside each
other, since cores that share their memory are slower when both are busy. What a part costs is looked for with texts of
four words, one to a part and all in one: the same texts by the same process, so that what the two differ by is the
parts'. All of it is done several times, in turn. CPU seconds and not those of the clock are counted, so that other work
on the machine changes them less. What a part costs Ray's driver is taken from docs/data/batch-driver.json, where it is
there. What more machines would do is arithmetic, and the page says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.batch.page import data as batch_data
from bench.checkout import ROOT, check_files, number, provenance, read_data, wrapped, write_files
from bertport.batch.runner import PART_ROWS
from bertport.compare.evaluate.output import write_output
from bertport.measure.text import read_texts, sample_path
from bertport.runtime import load

DATA = ROOT / "docs" / "data" / "scaling.json"
PAGE = ROOT / "docs" / "research" / "scaling.md"
BUNDLE = ROOT / "models" / "default"
TASKS: dict[str, tuple[str, ...]] = {
    "fill-mask": ("fill-mask",),
    "features": ("features", "--parameter", "pooling=mean"),
    "features of tokens": ("features",),
}
"""By name on the page, the task and its options: what the default model is for, a vector for each text, and the widest
rows there are, a vector for each token."""
ROUNDS = 3
BESIDE = 2
"""Processes at once, where they are looked at beside each other."""
SMALL_PARTS = 400
"""Parts, and their rows, where the cost of a part is looked for."""
SMALL_WORDS = 4
"""Words of a row there."""
COLUMNS = (
    "default model",
    "tokens a row",
    "tokens a second and core, alone",
    "with another core busy",
    "CPU ms a part",
    "CPU s of a start",
    "bytes a row",
)
KEPT = ("parts", "rows", "tokens", "seconds", "cpu_seconds")
"""What is kept of a run's summary."""
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
ROWS = 1e8
"""Rows whose time is reckoned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What Ray's driver spends, in CPU seconds; the defaults are assumptions, for where nothing was measured."""

    part_seconds: float = 0.01
    """CPU seconds of a part."""
    share: float = 0.05
    """Share of a core that waiting for the workers takes."""
    start_seconds: float = 0.0
    """CPU seconds before the first part."""

    @classmethod
    def of(cls, measured: dict[str, Any]) -> Driver:
        """Return what `bench.batch driver` measured."""
        return cls(
            part_seconds=measured["part_seconds"],
            share=measured["share_of_a_core"],
            start_seconds=measured["start_seconds"],
        )


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

    def seconds(self, nodes: int, driver: Driver) -> tuple[float, str]:
        """Return how long `ROWS` rows take on so many nodes, and what it is that takes so long.

        Args:
            nodes: nodes of `CORES` cores.
            driver: what Ray's driver, which has one core, spends.
        """
        parts = math.ceil(ROWS / PART_ROWS)
        waves = math.ceil(parts / (nodes * CORES))  # each core makes whole parts
        limits = {
            "cores" if waves > 1 else "one part a core": self.start_seconds + waves * PART_ROWS / self.rows_a_core,
            "storage": ROWS * self.row_bytes / STORE_BYTES,
            "driver": (driver.start_seconds + parts * driver.part_seconds) / (1 - driver.share),
        }
        limit = max(limits, key=lambda name: limits[name])
        return limits[limit], limit


def run(task: str, rows: Path, outputs: list[Path], part_rows: int) -> list[dict[str, Any]]:
    """Run `bertport batch` on one thread, once for each output and all at once, and return what each run cost."""
    command = [sys.executable, "-m", "bertport.runtime", "batch", str(BUNDLE), *TASKS[task]]
    command += [str(rows), "--part-rows", str(part_rows), "--threads", "1", "--streams", "1"]
    started = []
    try:
        for output in outputs:
            with _said(output).open("wb") as said:
                started.append(subprocess.Popen([*command, "--output", str(output)], stdout=said, stderr=said))
        return [_cost(process, output) for process, output in zip(started, outputs, strict=True)]
    finally:
        for process in started:
            if process.returncode is None:  # another one failed
                process.kill()
                process.wait()


def _said(output: Path) -> Path:
    """Return the file of what a run prints."""
    return output.with_name(f"{output.name}.said")


def _cost(process: subprocess.Popen[bytes], output: Path) -> dict[str, Any]:
    """Wait for a run, and return what it cost.

    Raises:
        SystemExit: with what it printed, where it fails.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = _said(output).read_text(encoding="utf-8", errors="replace").strip()
        sys.exit(f"bertport batch ended with {process.returncode}: {said or 'it said nothing'}")
    summary: dict[str, Any] = json.loads((output / "_bertport" / "summary.json").read_text(encoding="utf-8"))
    size = sum(each.stat().st_size for each in output.glob("*.parquet"))
    return {name: summary[name] for name in KEPT} | {
        "bytes": size,
        "process_cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def measure(count: int) -> None:
    """Measure each task, and write the data."""
    sample = [each.text for each in read_texts(sample_path("evaluation"))]
    texts = list(itertools.islice(itertools.cycle(sample), count))
    short = [" ".join(text.split()[:SMALL_WORDS]) for text in itertools.islice(itertools.cycle(sample), SMALL_PARTS)]
    variant = load(BUNDLE, threads=1).describe()["variant"]  # what a run takes that is told none
    found: dict[str, Any] = {"variant": variant, "rows": count, "rounds": ROUNDS, "load": [os.getloadavg()[0]]}
    with tempfile.TemporaryDirectory() as directory:
        inputs = {}
        for task in TASKS:
            found[task] = {"alone": [], "beside": [], "one part": [], "a row a part": []}
            for name, lines in (("texts", texts), ("short", short)):
                inputs[task, name] = _rows(Path(directory) / f"{task}-{name}.jsonl".replace(" ", "-"), task, lines)
            found[task]["input_bytes"] = inputs[task, "texts"].stat().st_size
        for turn, task in itertools.product(range(ROUNDS), TASKS):
            for name, rows, processes, part_rows in (
                ("alone", "texts", 1, count),
                ("beside", "texts", BESIDE, count),
                ("one part", "short", 1, SMALL_PARTS),
                ("a row a part", "short", 1, 1),
            ):
                place = Path(directory) / f"{task}-{name}-{turn}".replace(" ", "-")
                outputs = [place / str(process) for process in range(processes)]
                place.mkdir()
                runs = run(task, inputs[task, rows], outputs, part_rows)
                found[task][name] += runs
                print(f"{task}, {name}:", *(f"{each['process_cpu_seconds']:.1f} s" for each in runs), flush=True)
    found["load"].append(os.getloadavg()[0])
    write_output(DATA, json.dumps(provenance() | found, indent=1) + "\n")


def _rows(path: Path, task: str, texts: list[str]) -> Path:
    """Write texts as rows of a task."""
    lines = (f"{text.rstrip('.')} [MASK]." if task == "fill-mask" else text for text in texts)
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


def part_seconds(found: dict[str, Any]) -> list[float]:
    """Return what a part costs in CPU seconds, in each round."""
    return [
        (many["cpu_seconds"]["workers"] - few["cpu_seconds"]["workers"]) / (many["parts"] - few["parts"])
        for few, many in zip(found["one part"], found["a row a part"], strict=True)
    ]


def first_seconds(found: dict[str, Any]) -> float:
    """Return what the first part costs more, in CPU seconds: reading it imports Arrow, which is of a start.

    It is all the reading of a few hundred lines of four words, which takes next to nothing itself.
    """
    return float(statistics.median(each["cpu_seconds"]["reading"] for each in found["one part"]))


def row_seconds(found: dict[str, Any], name: str) -> list[float]:
    """Return what a row costs in CPU seconds, in each run of a name, without its share of the parts and the start."""
    part, first = max(0.0, statistics.median(part_seconds(found))), first_seconds(found)
    return [(each["cpu_seconds"]["workers"] - first - part * each["parts"]) / each["rows"] for each in found[name]]


def cost_of(found: dict[str, Any]) -> Cost:
    """Return what a task costs where every core of a machine has work: the medians of what was measured."""
    first = found["beside"][0]
    return Cost(
        tokens=first["tokens"] / first["rows"],
        row_seconds=statistics.median(row_seconds(found, "beside")),
        part_seconds=max(0.0, statistics.median(part_seconds(found))),
        start_seconds=first_seconds(found)
        + statistics.median(each["process_cpu_seconds"] - each["cpu_seconds"]["workers"] for each in found["beside"]),
        row_bytes=(found["input_bytes"] + first["bytes"]) / first["rows"],
    )


def page(data: dict[str, Any], spent: dict[str, Any] | None) -> str:
    """Return the page.

    Args:
        data: what this program measured.
        spent: what `bench.batch driver` measured, if it ran.
    """
    costs = {task: cost_of(data[task]) for task in TASKS}
    driver = Driver.of(spent) if spent else Driver()
    source = " ([measured](batch.md#the-driver) with two workers)" if spent else ""
    driver_from = (
        f"Ray's driver is {'taken' if spent else 'assumed'} to spend {1e3 * driver.part_seconds:.0f} ms of CPU on a "
        f"part, and {100 * driver.share:.0f}% of its one core on waiting{source}"
    )
    first, last = data["load"]
    lines = [
        "# Past this machine",
        "",
        *wrapped(
            "What more machines would do, by calculation: nothing here was run on more than one. `python -m "
            f"bench.scaling` measured {data['rows']:,} texts {data['rounds']} times by the default model's "
            f"`{data['variant']}`, which `bertport batch` takes there unasked, on one thread of "
            f"{data['machine']['cpu']} ({data['machine']['instruction_set']}, {data['machine']['physical_cores']} "
            f"cores; {data['date'][:10]}, commit {data['commit'][:9]}, load average {first:.1f} before and {last:.1f} "
            "after; [the data](../data/scaling.json)), and wrote this page. [Batches](batch.md) has what was run."
        ),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for task, cost in costs.items():
        rates = {name: [cost.tokens / each for each in row_seconds(data[task], name)] for name in ("alone", "beside")}
        parts = [1e3 * each for each in part_seconds(data[task])]
        lines.append(
            f"| {task} | {cost.tokens:.1f} | {_spread(rates['alone'], ',.0f')} | {_spread(rates['beside'], ',.0f')} | "
            f"{_spread(parts, '.1f')} | {cost.start_seconds:.1f} | {cost.row_bytes:,.0f} |"
        )
    share = max(cost.part_seconds / PART_ROWS / cost.row_seconds for cost in costs.values())
    lines += [
        "",
        *wrapped(
            "Medians, and in brackets the smallest and the largest of the runs. Seconds are CPU time: other work on "
            "the machine lengthens it too, but less than elapsed time. The cost of a part "
            f"is the extra CPU time of writing the same {SMALL_WORDS}-word texts into {SMALL_PARTS} parts instead of "
            f"one, divided by {SMALL_PARTS - 1}: at {PART_ROWS:,} rows a part, the default, it adds at most "
            f"{100 * share:.2g}% to the cost of a row. Bytes are those of the JSON lines and of the Parquet that is "
            "written, with the text in it. Features are a vector for each text (`-p pooling=mean`); features of tokens "
            "are a vector for each token, as `bertport batch` writes them by default."
        ),
        "",
        "## Machines",
        "",
        *wrapped(
            f"Nodes of {CORES} cores and {ROWS:,.0f} rows in parts of {PART_ROWS:,}. Assumed: each of {CORES} busy "
            f"cores is as fast as each of the {BESIDE} here, and shared storage reads and writes "
            f"{STORE_BYTES / 1e9:.1f} GB a second. {driver_from}; what Ray's other processes on the head spend was not "
            "measured."
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
            "parts, less than one for a core. Use smaller parts there (`--part-rows`), as far as the driver's time for "
            "each part allows, or more rows."
        ),
        "",
        "## Money",
        "",
        *wrapped(
            f"Assumed: ${DOLLARS:.4f} a core-hour. An m7g.large of Amazon EC2, with two Arm cores, was listed at "
            f"${MACHINE_DOLLARS} an hour in us-east-1, on demand, on 17 June 2026 ([source]({PRICE})). Its cores were "
            "not measured: use your own price and rate instead; the cost is proportional."
        ),
        "",
        "| task | core-hours a million texts | cost of them |",
        "|---|---:|---:|",
    ]
    for task, cost in costs.items():
        hours = 1e6 / cost.rows_a_core / 3600
        lines.append(f"| {task} | {hours:.2f} | ${hours * DOLLARS:.3f} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float], form: str) -> str:
    """Return the median of values, and their range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def main(arguments: list[str] | None = None) -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "page"], default="measure")
    parser.add_argument("--rows", type=number, default=500)
    parser.add_argument("--check", action="store_true", help="of page: only compare")
    given = parser.parse_args(arguments)
    if given.what == "measure":
        measure(given.rows)
    spent = batch_data("driver")
    text = page(read_data(DATA, "bench.scaling"), read_data(spent, "bench.batch driver") if spent.exists() else None)
    if given.check:
        check_files({PAGE: text}, "bench.scaling page")
    else:
        write_files({PAGE: text})


if __name__ == "__main__":
    main()
