"""How fast bertport answers, beside what people use today: the same weights, texts and machine, taking turns.

    python -m bench.performance [--quick] [--rounds 7] [--texts 100] [--models default,base] [--tasks fill-mask,...]
        [--without shapes,settings,profile,sessions] [--threads N] [--output DIRECTORY]
    python -m bench.performance --pages | --check

Every subject has a process of its own; in each round all take a turn, in one order and in the next round in the
reverse one, with the machine's lock held. Writes the figures and the page of this machine's class of CPU, such as
docs/data/performance-vnni.json and docs/research/performance-vnni.md, and the README's line of all classes; for AVX2
alone run `python -m bench.avx2 python -m bench.performance`. --output writes elsewhere. --pages writes the pages anew
from the data and measures nothing; with --check the exit code is 1 where one is not what the data say. The models are
made once and kept in out/bench. A BERT-base takes eight times as long for a text as
the default model, so it gets half of the texts; tasks other than fill-mask get two fifths of the
texts.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT
from bench.performance import models
from bench.performance.inputs import TEXT, inputs_of, lengths_of, share_of
from bench.performance.pages import check_pages, write_pages
from bench.performance.report import figures, page, plots, stem
from bench.performance.subjects import BATCHES, measure_shapes, measure_task, subjects_of
from bertport.measure.machine import describe_machine, machine_lock, matmul_peak
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import cpu

if TYPE_CHECKING:
    from bench.performance.models import Prepared

TASKS = ("fill-mask", "next-sentence", "features")
SHAPES = ((1, 16), (1, 128), (8, 128), (1, 512))
PARTS = ("shapes", "settings", "profile", "sessions")
"""What is measured beside the tasks, and can be left out."""
LEAST_ROUNDS = 3


def asked(program: str, *arguments: str, given: str = "") -> Any:  # noqa: ANN401 — JSON
    """Run another program of this directory; return what it prints, or None when it fails."""
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"{program} left out: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return None
    return json.loads(done.stdout)


def measure_model(
    model: Prepared, inputs: dict[str, list[Any]], given: argparse.Namespace, openvino: str | None
) -> dict[str, Any]:
    """Measure one model: each task, fixed shapes, and bertport's own settings."""
    manifest = Bundle.open(model.bundle).manifest
    rounds = max(LEAST_ROUNDS, given.rounds)
    say(f"model {model.name}, {rounds} rounds of {len(inputs['fill-mask'])} texts")
    rows = [
        measurement
        for task in given.tasks
        for measurement in measure_task(
            subjects_of(model, task, openvino, given.batches),
            task,
            inputs[task],
            rounds=rounds,
            threads=given.threads,
            say=say,
        )
    ]
    shapes = measure_shapes(
        subjects_of(model, "fill-mask", openvino),
        () if "shapes" in given.without else given.shapes,
        rounds=max(2, rounds // 2),
        threads=given.threads,
        vocabulary=manifest.architecture.vocab_size,
        say=say,
    )
    choices = None
    if "settings" not in given.without:
        # Other settings of bertport's own than those it ships with.
        options = [str(model.bundle), model.variants[-1], str(rounds)]
        choices = asked("bench.performance.settings", *options, given=json.dumps(inputs["fill-mask"]))
    return {
        "bundle": manifest.name,
        "architecture": dataclasses.asdict(manifest.architecture),
        "variants": list(model.variants),
        "optimum_preset": models.preset(cpu().instruction_set),
        "rounds": rounds,
        "lengths": lengths_of(model.bundle, inputs),
        "rows": rows,
        "shapes": shapes,
        "choices": choices or {},
        "profile": None,
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; return the figures as JSON values."""
    began = time.monotonic()
    inputs = inputs_of(given.texts)
    names = given.models.split(",")
    # OpenVINO's libraries are not among those that bench.avx2 patches: it would run with what is hidden.
    hidden = "WITHOUT_AVX512_CPUINFO" in os.environ
    with ThreadPoolExecutor(max_workers=1) as pool:  # installing waits for the network, exporting computes
        installing = pool.submit((lambda: None) if hidden else models.openvino_python)
        optimum = models.optimum_python()
        if optimum is None:
            say("Optimum is left out: the environment that `python3 dev.py optimum` makes cannot be made")
        prepared = [
            models.prepare(name, instruction_set=cpu().instruction_set, optimum_python=optimum) for name in names
        ]
        openvino = installing.result()
    say(f"everything is made ({time.monotonic() - began:.0f} s)")
    command = "python -m bench.performance" + (" --quick" if given.quick else "")
    if hidden:
        command = " ".join(["python -m bench.avx2 python -m bench.performance", *sys.argv[1:]])
    result: dict[str, Any] = {
        "command": command,
        "hidden": hidden,
        "quick": given.quick,
        "inputs": inputs,
        "text_sha256": hashlib.sha256(TEXT.read_bytes()).hexdigest(),
        "models": {},
    }
    with machine_lock(lambda: say("waiting for another measurement on this machine")):
        peaks = [matmul_peak(threads=given.threads or None)]
        for model in prepared:
            result["models"][model.name] = measure_model(model, share_of(inputs, model.name), given, openvino)
            peaks.append(matmul_peak(threads=given.threads or None))
    # These take the machine's lock themselves.
    for model in prepared:
        if "profile" not in given.without:
            say(f"profile of {model.name}")
            options = ["--variants", ",".join(model.variants), "--threads", str(given.threads)]
            options += ["--seconds", "1.5" if given.quick else "4"]
            result["models"][model.name]["profile"] = asked("bench.performance.profiling", str(model.bundle), *options)
    if "sessions" not in given.without:
        options = ["--json", "--seconds", "1" if given.quick else "3"]
        result["sessions"] = asked("bench.performance.second_session", *options)
    result["machine"] = dataclasses.asdict(describe_machine(matmul_gflops=max(peaks)))
    result["matmul_gflops_over_time"] = peaks
    result["versions"] = {name: _version(name) for name in ("torch", "transformers", "onnxruntime")}
    if optimum:  # its rows are those of another environment
        result["versions"]["optimum-onnx"] = _version("optimum-onnx", optimum)
        result["versions"]["transformers beside it"] = _version("transformers", optimum)
    result["versions"]["openvino"] = models.OPENVINO.partition("==")[2] if openvino else None
    result["seconds"] = time.monotonic() - began
    return result


def _version(package: str, python: str = sys.executable) -> str | None:
    """Return the version of a package that an interpreter has; None where it has none."""
    program = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    done = subprocess.run([python, "-c", program, package], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def say(text: str) -> None:
    """Report progress, apart from results."""
    print(f"performance: {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line; --quick sets what is not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the default model alone, fewer texts and rounds")
    parser.add_argument("--rounds", type=int, help="[7; 3 with --quick, and at least]")
    parser.add_argument("--texts", type=int, help="[100; 40 with --quick]")
    parser.add_argument(
        "--models", help="default, base, tiny, separated by commas [default,base; default with --quick]"
    )
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS))
    parser.add_argument(
        "--without", type=lambda text: text.split(","), default=[], help=f"{', '.join(PARTS)} [settings with --quick]"
    )
    parser.add_argument("--threads", type=int, default=0, help="of every subject [what each chooses]")
    parser.add_argument("--output", type=Path, help="[docs; out/bench/quick with --quick]")
    parser.add_argument("--pages", action="store_true", help="write the pages from the data, measure nothing")
    parser.add_argument("--check", action="store_true", help="compare the pages with the data, measure nothing")
    given = parser.parse_args()
    given.rounds = given.rounds or (3 if given.quick else 7)
    given.texts = given.texts or (40 if given.quick else 100)
    given.models = given.models or ("default" if given.quick else "default,base")
    given.shapes = SHAPES[:2] if given.quick else SHAPES
    given.batches = BATCHES[:2] if given.quick else BATCHES
    given.without = given.without or (["settings"] if given.quick else [])
    for kind, names, known in (("task", given.tasks, TASKS), ("part", given.without, PARTS)):
        if unknown := set(names) - set(known):
            parser.error(f"unknown {kind} {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    given.output = given.output or (models.KEPT / "quick" if given.quick else ROOT / "docs")
    return given


def main() -> None:
    """Measure, and write the report."""
    given = arguments()
    if given.pages or given.check:
        (write_pages if given.pages else check_pages)()
        return
    result = measure(given)
    result["figures"] = figures(result)
    for model in result["models"].values():  # agreement is in the figures by now, and vectors are large
        for measurement in model["rows"]:
            measurement.pop("answers", None)
    for folder in ("data", "research"):
        (given.output / folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    name = stem(result)
    (given.output / "data" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    plots(result, given.output / "data")
    (given.output / "research" / f"{name}.md").write_text(page(result), encoding="utf-8")
    if given.output == ROOT / "docs":
        write_pages()
    print(page(result))


if __name__ == "__main__":
    main()
