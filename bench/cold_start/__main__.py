"""From process start to the first fill-mask answer of the default model: bertport against transformers' pipeline.

    python -m bench.cold_start [--rounds 15] [--bundle DIR] [--checkpoint DIR] [--check]

Fresh processes alternate (A B C A B C …) while the machine's lock is held. Times end when the answer's line has
been read; peak memory is the kernel's figure for the whole process. Then `import bertport.runtime` is measured, in
processes of its own. Writes docs/data/cold-start.json and docs/research/cold-start.md. The exit code is 1 where a bar
is missed; with `--check` nothing is measured, and it is 1 also where the page is not what the data say.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.checkout import RESTORE, ROOT, check_files, number, provenance, read_data, write_files
from bench.cold_start.report import REFERENCE, complaints, page
from bertport.measure.machine import machine_lock
from bertport.measure.statistics import median_ratio
from bertport.runtime.bundle.default import default_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT = "The man took off his [MASK] and sat down by the fire."
PYTHON = str(Path(sys.executable))
PROGRAM = "bench.cold_start"
IMPORTS = 31
"""Processes that import bertport.runtime and nothing else."""

OURS = """
import json, sys
from bertport.runtime import load
print(json.dumps(load(sys.argv[1], variant=sys.argv[3]).fill_mask(sys.argv[2])), flush=True)
"""
PIPELINE = """
import json, sys
from transformers import pipeline
print(json.dumps(pipeline("fill-mask", model=sys.argv[1], device="cpu")(sys.argv[2])), flush=True)
"""
DESCRIBE = """
import json, sys
from bertport.runtime import load
model = load(sys.argv[1])
print(json.dumps(model.describe() | {"variants": list(model.bundle.manifest.variants)}), flush=True)
"""
IMPORT = """
import json, sys, time
began = time.perf_counter()
import bertport.runtime
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "numpy": "numpy" in sys.modules}), flush=True)
"""
STAGES = """
import json, sys, time
marks = [("start", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
import numpy; mark("import numpy")
import onnxruntime; mark("import onnxruntime")
import tokenizers; mark("import tokenizers")
import bertport.runtime.loading; mark("import bertport.runtime.loading")
model = bertport.runtime.load(sys.argv[1]); mark("load: hashes, tokenizer, session")
model.fill_mask(sys.argv[2]); mark("first answer")
print(json.dumps({name: 1e3 * (end - begin) for (_, begin), (name, end) in zip(marks, marks[1:])}), flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process from its start."""

    seconds: float
    """Until its first line was read."""
    cpu_seconds: float
    """User and system time of the whole process."""
    peak_bytes: int
    """Largest resident set."""
    answer: Any
    """Value of the line that it printed, read as JSON."""


def run(command: list[str], environment: Mapping[str, str]) -> Run:
    """Start a process and measure it; raises CalledProcessError where it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(environment), cwd=tempfile.gettempdir()
    )
    assert process.stdout is not None  # noqa: S101 — asked for above; for the type checker
    assert process.stderr is not None  # noqa: S101 — as above
    printed = process.stdout.readline()
    seconds = time.perf_counter() - began
    printed += process.stdout.read()
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    process.stderr.close()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, printed, errors)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    # Linux starts a child's peak at what its parent had before exec, so a larger parent would hide the child's.
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >= usage.ru_maxrss:
        raise RuntimeError("this process is larger than the one it measures: the peak memory cannot be told")
    return Run(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * unit,
        answer=json.loads(printed),
    )


def measure(bundle: Path, checkpoint: Path, rounds: int) -> dict[str, Any]:
    """Alternate the subjects; return every run, and the figures drawn from them."""
    # Compiled modules are kept, as any installed package has them; nothing asks the network for a model.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def ask(program: str, *arguments: str) -> Any:  # noqa: ANN401 — JSON
        return run([PYTHON, "-c", program, str(bundle), *arguments], environment)

    loaded = ask(DESCRIBE).answer
    variants = dict.fromkeys([loaded["variant"], *(name for name in ("fp32",) if name in loaded["variants"])])
    subjects = {f"bertport, {name}": [PYTHON, "-c", OURS, str(bundle), TEXT, name] for name in variants}
    command_line = str(Path(PYTHON).with_name("bertport"))
    subjects["bertport, command line"] = [command_line, "fill-mask", TEXT, "-m", str(bundle), "--json"]
    subjects[REFERENCE] = [PYTHON, "-c", PIPELINE, str(checkpoint), TEXT]
    runs: dict[str, list[Run]] = {name: [] for name in subjects}
    with machine_lock():
        for done in range(rounds + 1):
            for name, command in subjects.items():
                one_run = run(command, environment)
                if done:  # the first round fills the file cache and is not counted
                    runs[name].append(one_run)
            print(f"round {done} of {rounds}", file=sys.stderr, flush=True)
        stages = [ask(STAGES, TEXT).answer for _ in range(min(5, rounds))]
        empty = [empty_process(environment) for _ in range(min(5, rounds))]
        imports = [imported(environment) for _ in range(1 + IMPORTS)][1:]  # the first fills the file cache
    reference = runs[REFERENCE]
    return {
        "text": TEXT,
        "rounds": rounds,
        **provenance(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "loaded": loaded,
        "runs": {name: [figures(one_run) for one_run in of_one] for name, of_one in runs.items()},
        "answers": {name: top(of_one[0].answer) for name, of_one in runs.items()},
        "ratios": {name: ratios(reference, of_one) for name, of_one in runs.items() if name != REFERENCE},
        "stages_ms": {"start Python": 1e3 * median(empty)}
        | {name: median(times[name] for times in stages) for name in stages[0]},
        "import_ms": [1e3 * each["seconds"] for each in imports],
        "import_loads_numpy": any(each["numpy"] for each in imports),
    }


def empty_process(environment: Mapping[str, str]) -> float:
    """Return the seconds that Python takes to start and end."""
    began = time.perf_counter()
    subprocess.run([PYTHON, "-c", "pass"], env=dict(environment), check=True)
    return time.perf_counter() - began


def imported(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what a process says that imports bertport.runtime and nothing else; it is too small for `run`."""
    done = subprocess.run([PYTHON, "-c", IMPORT], env=dict(environment), check=True, capture_output=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def restored(bundle: Path, out: Path) -> Path:
    """Restore the bundle's checkpoint in a process of its own: a parent's peak counts as its children's (see `run`)."""
    subprocess.run([PYTHON, "-m", *RESTORE, str(bundle), str(out)], check=True, capture_output=True)
    return out


def figures(one_run: Run) -> dict[str, float]:
    """Return a run's figures without its answer."""
    return {"seconds": one_run.seconds, "cpu_seconds": one_run.cpu_seconds, "peak_bytes": one_run.peak_bytes}


def top(answer: Any) -> list[list[Any]]:  # noqa: ANN401 — JSON
    """Return the words of an answer with their scores."""
    return [[word["token_str"], word["score"]] for word in answer]


def ratios(reference: list[Run], candidate: list[Run]) -> dict[str, Any]:
    """Return how many times faster and how much smaller, each with its bootstrap interval over rounds."""

    def ratio(field: str, first: list[Run], second: list[Run]) -> dict[str, Any]:
        one, two = ([[getattr(one_run, field)] for one_run in runs] for runs in (first, second))
        return dataclasses.asdict(median_ratio(one, two))

    return {
        "times_faster": ratio("seconds", reference, candidate),
        "times_less_cpu": ratio("cpu_seconds", reference, candidate),
        "share_of_memory": ratio("peak_bytes", candidate, reference),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the report, or compare the page with the data; fail where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=number, default=15, help="processes of each kind")
    parser.add_argument("--bundle", type=Path, help="the embedded default when not given")
    parser.add_argument("--checkpoint", type=Path, help="restored from the bundle when not given")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where the report is written")
    parser.add_argument("--check", action="store_true", help="compare page, data and targets; measure nothing")
    given = parser.parse_args(arguments)
    data, report = given.output / "data" / "cold-start.json", given.output / "research" / "cold-start.md"
    if given.check:
        result = read_data(data, PROGRAM)
        check_files({report: page(result)}, PROGRAM)
    else:
        bundle = (given.bundle or default_bundle()).resolve()
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = (given.checkpoint or restored(bundle, Path(scratch) / "checkpoint")).resolve()
            result = measure(bundle, checkpoint, given.rounds)
        for path in (data, report):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_files({data: json.dumps(result, indent=2) + "\n", report: page(result)})
        print(page(result))
    if found := complaints(result):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
