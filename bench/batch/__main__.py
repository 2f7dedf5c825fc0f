"""A batch on one machine and on Ray's nodes on it: rate, memory, and deaths.

    python -m bench.batch rate [--rows 200000]      # local, and Ray with 1 and 2 one-core workers, beside predict
    python -m bench.batch many [--rows 10000000]    # a tiny model: the driver's memory
    python -m bench.batch driver [--rows 100000]    # a tiny model: what the driver spends on a part, and while it waits
    python -m bench.batch kills [--rows 200000]     # a tiny model: ten workers and two drivers killed
    python -m bench.batch page [--check]            # docs/research/batch.md, from what these have written

`rate --text FILE` takes its rows from that text, of at least so many sentences where none is to occur twice.
All but the last run in the environment of `dev.py ray`, and write docs/data/batch-rate.json and so on, or where
`--output` says. Each fails where an answer is not predict's, or a row is missing or doubled (`driver` counts them).
With `--scratch` the files of `many` stay in that folder, and the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.batch import page
from bench.batch.cluster import SAMPLE, killed_again_and_again, nodes, sentences
from bench.checkout import ROOT, number, provenance
from bertport.batch import run
from bertport.measure.speed.worker import peak_bytes
from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle

TINY = ROOT / "tests" / "data" / "bundle-0.1.0"
"""A bundle of a tiny model."""
TASK = "fill-mask"
PARAMETERS: dict[str, Any] = {"top_k": 1}
VECTORS: dict[str, Any] = {"task": "features", "parameters": {"pooling": "cls", "truncation": True}}
"""Task and parameters for the tiny model."""
MANY_WORDS = 4
"""Words of a row where very many are asked: rows are what is looked at, not tokens."""
BAR = 0.85
"""Least rate of two one-core workers of Ray, as a share of that of one process on both cores."""
MOST_DRIVER = 1 << 30
"""Bytes of the driver's resident set, at most."""
SCORES = 1e-5
"""Largest difference of an fp32 score from predict's, whose batches are others: float32's rounding over padded
widths."""


def main(arguments: list[str] | None = None) -> None:
    """Measure what is asked."""
    if (arguments or sys.argv[1:])[:1] == ["child"]:
        child(json.loads((arguments or sys.argv[1:])[1]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*PROGRAMS, "page"))
    parser.add_argument("--rows", type=number)
    parser.add_argument("--variant", default="fp32", help="of rate: variant of the default model")
    parser.add_argument("--text", type=Path, default=SAMPLE, help="of rate: a plain text, or a corpus")
    parser.add_argument("--scratch", type=Path, help="of many: folder of the rows and the answers, which stays")
    parser.add_argument("--output", type=Path, help="file of the figures")
    parser.add_argument("--check", action="store_true", help="of page: only compare")
    given = parser.parse_args(arguments)
    if given.what == "page":
        page.write(check=given.check)
        return
    if given.scratch is not None:
        if given.what != "many":
            parser.error("--scratch goes with many: what the others measure does not go on after an interruption")
        given.scratch.mkdir(parents=True, exist_ok=True)
    if given.text != SAMPLE and (given.what != "rate" or not given.text.is_file()):
        parser.error("--text goes with rate, and names a file")
    more = {"variant": given.variant, "text": given.text} if given.what == "rate" else {}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() if given.scratch is None else nullcontext(given.scratch) as scratch:
        figures = PROGRAMS[given.what](Path(scratch), given.rows, **more)
    load.append(os.getloadavg()[0])
    output = given.output or page.data(given.what)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**provenance(), "load": load, **figures}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in figures.items() if name != "runs"}, indent=1))


def child(settings: dict[str, Any]) -> None:
    """Run a batch and print its summary with this process's own peak of memory."""
    summary = run(**settings)
    print(json.dumps(summary | {"driver_peak_bytes": peak_bytes()}))


def measured(**settings: object) -> dict[str, Any]:
    """Return the summary of a batch in a process of its own."""
    command = [sys.executable, "-m", "bench.batch", "child", json.dumps(settings)]
    figures: dict[str, Any] = json.loads(subprocess.check_output(command, cwd=ROOT).splitlines()[-1])
    return figures


def rate(scratch: Path, rows: int | None, variant: str = "fp32", text: Path = SAMPLE) -> dict[str, Any]:
    """Return the rates of one process on all cores, and of Ray with one and two one-core workers."""
    count = rows or 200_000
    data = sentences(scratch / "in.jsonl", count, text=text)
    asked: dict[str, Any] = {
        "bundle": str(default_bundle()),
        "task": TASK,
        "input": str(data),
        "parameters": PARAMETERS,
    }
    asked |= {"variant": variant, "carry": ["id"]}
    model = load(variant=variant, streams=None)
    texts = [json.loads(line)["text"] for line in data.open(encoding="utf-8")]
    began = time.monotonic()
    expected = list(model.predict(TASK, texts, **PARAMETERS))
    seconds = time.monotonic() - began
    predict = {"seconds": seconds, "rows_per_second": count / seconds}
    del model
    runs = {"local": measured(**asked, output=str(scratch / "local"), engine="local")}
    for workers in (1, 2):
        with nodes(*([1] * workers)) as cluster:
            place = {"engine": "ray", "address": cluster.address, "workers": workers}
            runs[f"ray {workers}"] = measured(**asked, output=str(scratch / f"ray{workers}"), **place)
    rates = {name: count / summary["seconds"] for name, summary in runs.items()}
    # An answer that differs ends the program below.
    print(json.dumps({"predict": predict, "rows_per_second": rates}), flush=True)
    equal = {
        name: compared(scratch / name.replace(" ", ""), expected, range(count)) for name in ("local", "ray 1", "ray 2")
    }
    return {
        "rows": count,
        "text": {"file": text.name, "sha256": sha256(text.read_bytes()).hexdigest(), "sentences": len(set(texts))},
        "variant": variant,
        "predict": predict,
        "rows_per_second": rates,
        "ray_2_of_local": rates["ray 2"] / rates["local"],
        "bar": BAR,
        "equal_to_predict": equal,
        "cpu_seconds": {name: summary["cpu_seconds"] for name, summary in runs.items()},
        "driver_peak_bytes": {name: summary["driver_peak_bytes"] for name, summary in runs.items()},
        "bytes_a_row": data.stat().st_size / count,
        "runs": runs,
    }


def compared(output: Path, expected: list[Any], ids: range) -> dict[str, Any]:
    """Return how an output differs from predict's answers; SystemExit where a row or a word does."""
    import pyarrow.parquet as pq

    table = pq.read_table(output)
    if table.column("id").to_pylist() != list(ids):
        sys.exit(f"{output.name}: rows are missing, doubled or out of order")
    words, scores = table.column("token").to_pylist(), table.column("score").to_pylist()
    differing = [row for row, answer in enumerate(expected) if [each["token"] for each in answer] != words[row]]
    furthest = max(
        abs(each["score"] - score)
        for answer, row in zip(expected, scores, strict=True)
        for each, score in zip(answer, row, strict=True)
    )
    if furthest > SCORES or any(abs(expected[row][0]["score"] - scores[row][0]) > SCORES for row in differing):
        sys.exit(f"{output.name}: an answer is not predict's ({furthest})")
    return {"rows": len(words), "other_word_of_equal_score": len(differing), "furthest_score": furthest}


def many(scratch: Path, rows: int | None) -> dict[str, Any]:
    """Return what the driver holds while very many rows go through a tiny model on two one-core workers."""
    import pyarrow.parquet as pq

    count = rows or 10_000_000
    data = _rows(scratch, count, MANY_WORDS)
    with nodes(1, 1) as cluster:
        summary = measured(
            bundle=str(TINY),
            **VECTORS,
            input=str(data),
            output=str(scratch / "out"),
            carry=["id"],
            engine="ray",
            address=cluster.address,
            part_rows=20_000,
        )
    place = 0
    for path in sorted((scratch / "out").glob("part-*.parquet")):
        ids = pq.read_table(path, columns=["id"]).column("id").to_pylist()
        if ids != list(range(place, place + len(ids))):
            sys.exit(f"{path.name}: rows are missing, doubled or out of order")
        place += len(ids)
    if place != count or summary["rows"] != count or summary["driver_peak_bytes"] > MOST_DRIVER:
        sys.exit(f"{place:,} of {count:,} rows, {summary['driver_peak_bytes']:,} bytes in the driver")
    names = ("rows", "parts", "parts_done_before", "seconds", "driver_peak_bytes", "cpu_seconds", "errors")
    return {name: summary[name] for name in names} | {"most_driver_bytes": MOST_DRIVER}


def driver(scratch: Path, rows: int | None) -> dict[str, Any]:
    """Return what the driver spends in a short run, in one of many more parts, and in one of many more rows."""
    count = rows or 100_000
    asked: dict[str, Any] = {"bundle": str(TINY), **VECTORS, "carry": ["id"], "engine": "ray"}
    runs = {}
    for name, times, part_rows in (("short", 1, count // 5), ("parts", 1, count // 2000), ("rows", 10, count // 5)):
        data = _rows(scratch, times * count, MANY_WORDS)
        with nodes(1, 1) as cluster:
            place = {"address": cluster.address, "output": str(scratch / name), "part_rows": max(1, part_rows)}
            summary = measured(**asked, input=str(data), **place)
        if summary["rows"] != times * count:
            sys.exit(f"{name}: {summary['rows']:,} of {times * count:,} rows")
        runs[name] = {each: summary[each] for each in ("rows", "parts", "seconds", "cpu_seconds", "driver_peak_bytes")}
    return {"runs": runs, **driver_costs(runs)}


def driver_costs(runs: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the CPU seconds of the driver's start, of a second and of a part, of which each run's are made."""
    import numpy as np

    spent = [run["cpu_seconds"]["driver"] for run in runs.values()]
    of = [[1.0, run["seconds"], run["parts"]] for run in runs.values()]
    start, second, part = np.linalg.solve(np.array(of), np.array(spent)).tolist()
    return {"start_seconds": start, "share_of_a_core": second, "part_seconds": part}


def kills(scratch: Path, rows: int | None) -> dict[str, Any]:
    """Return what became of a run whose workers are killed ten times and its driver twice."""
    import pyarrow.parquet as pq

    count = rows or 200_000
    asked: dict[str, Any] = {"bundle": str(TINY), **VECTORS, "input": str(_rows(scratch, count)), "part_rows": 2000}
    run(**asked, output=str(scratch / "local"), threads=1, streams=1)
    with nodes(1, 1) as cluster:
        settings = {**asked, "output": str(scratch / "out"), "engine": "ray", "address": cluster.address}
        command = [sys.executable, "-m", "bench.batch", "child", json.dumps(settings)]
        began = time.monotonic()
        deaths, printed = killed_again_and_again(command)
        seconds = time.monotonic() - began
    summary = json.loads(printed.splitlines()[-1])
    table = pq.read_table(scratch / "out")
    equal = table.equals(pq.read_table(scratch / "local"))
    once = table.column("id").to_pylist() == list(range(count))
    killed = {kind: sum(death["kind"] == kind for death in deaths) for kind in ("worker", "driver")}
    if not equal or not once or summary["rows"] != count or killed != {"worker": 10, "driver": 2}:
        sys.exit(f"killed {killed}; {summary['rows']:,} of {count:,} rows; equal to one machine's: {equal}")
    return {
        "rows": count,
        "parts": summary["parts"],
        "killed": killed,
        "deaths": deaths,
        "seconds": seconds,
        "each_row_once": once,
        "bit_for_bit_equal": equal,
    }


def _rows(scratch: Path, count: int, words: int | None = None) -> Path:
    """Write the rows, or take as many that are there."""
    data = scratch / f"in-{count}.jsonl"
    if not data.exists():
        sentences(scratch / "in.part", count, words).rename(data)
    return data


PROGRAMS = {"rate": rate, "many": many, "driver": driver, "kills": kills}

if __name__ == "__main__":
    main()
