"""Speed of bertport beside what people use today: the same weights, texts and machine, taking turns.

    python -m bench.performance [--quick] [--rounds 5] [--texts 60] [--models default,base] [--tasks fill-mask,...]
        [--without streams,shapes,settings,profile,sessions] [--threads N] [--output DIRECTORY]
    python -m bench.performance --prepare
    python -m bench.performance --pages | --check

Every subject has a process of its own, in the environment that it needs; in each round all take a turn, in one order
and in the next round in the reverse one, with the machine's lock held. Sizes of batches that are much slower than their
group's best in the first round take no further turns. A BERT-base takes eight times as long for a text as the default
model, so it gets a quarter of the texts, and fill-mask alone; the default model's other tasks get two fifths.

Writes the figures and the page of this machine's class of CPU, such as docs/data/performance-vnni.json and
docs/research/performance-vnni.md, and the README's line of all classes; for AVX2 alone run `python -m bench.avx2 python
-m bench.performance`. --output writes elsewhere, and has to be given with --models, --tasks and --without, which
measure a part. Models and environments are made once, by --prepare or before anything is measured, and kept in
out/bench and .tools. --pages writes the pages anew from the data and measures nothing; with --check the exit code is 1
where one is not what the data say.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, commit
from bench.intel.__main__ import is_intel
from bench.performance import models
from bench.performance.environments import (
    ENVIRONMENTS,
    HIDDEN,
    PLUGIN,
    interpreter,
    optimum_python,
    plugin_python,
    say,
    versions,
)
from bench.performance.figures import figures
from bench.performance.inputs import TEXT, inputs_of, lengths_of, share_of
from bench.performance.pages import check_pages, write_pages
from bench.performance.report import page, plots, stem
from bench.performance.subjects import BATCHES, TASKS, subjects_of
from bench.performance.timing import measure_shapes, measure_task
from bertport.measure.machine import awaited, describe_machine, machine_lock, matmul_peak
from bertport.measure.speed.process import Workers
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import cpu, usable_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.performance.models import Prepared
    from bench.performance.subjects import Subject

SHAPES = ((1, 16), (1, 128), (8, 128), (1, 512))
PARTS = ("streams", "shapes", "settings", "profile", "sessions")
"""Parts that are measured beside the tasks, and can be left out."""
QUICK = ROOT / "docs" / "data" / "performance-quick.json"
"""How long --quick took on each class of CPU."""
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
    model: Prepared, inputs: dict[str, list[Any]], given: argparse.Namespace, pythons: Mapping[str, str]
) -> dict[str, Any]:
    """Measure one model: each task, fixed shapes, and bertport's own settings."""
    manifest = Bundle.open(model.bundle).manifest
    rounds = max(LEAST_ROUNDS, given.rounds)
    tasks = [task for task in given.tasks if task == "fill-mask" or model.name != "base"]
    say(f"model {model.name}, {rounds} rounds of {len(inputs['fill-mask'])} texts")

    def subjects(task: str, streams: int) -> list[Subject]:
        flags = describe_machine().flags
        return subjects_of(model, task, pythons, batches=given.batches, streams=streams, flags=flags)

    rows: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    several = 1 if "streams" in given.without else max(1, int(usable_cores()))
    for task in tasks:
        with Workers() as workers:  # its own for each task, since their memory is shown
            rows += measure_task(
                subjects(task, several),
                task,
                inputs[task],
                workers=workers,
                rounds=rounds,
                threads=given.threads,
                say=say,
            )
            if task == "fill-mask" and "shapes" not in given.without:
                shapes = measure_shapes(
                    subjects(task, 1),
                    given.shapes,
                    workers=workers,
                    rounds=LEAST_ROUNDS,
                    threads=given.threads,
                    vocabulary=manifest.architecture.vocab_size,
                    say=say,
                )
    choices = None
    if "settings" not in given.without and model.name != "base":
        # Other settings of bertport's own than those it ships with.
        options = [str(model.bundle), model.variants[1], str(LEAST_ROUNDS)]
        choices = asked("bench.performance.settings", *options, given=json.dumps(inputs["fill-mask"]))
    return {
        "bundle": manifest.name,
        "architecture": dataclasses.asdict(manifest.architecture),
        "variants": list(model.variants),
        "like_default": model.name != "default",
        "optimum_preset": models.preset(cpu().instruction_set),
        "rounds": rounds,
        "lengths": {task: lengths for task, lengths in lengths_of(model.bundle, inputs).items() if task in tasks},
        "rows": rows,
        "shapes": shapes,
        "choices": choices or {},
        "profile": None,
    }


def interpreters() -> dict[str, str]:
    """Make the environments of the peers; return the interpreter of each that can be had, by name."""
    # bench.avx2 answers in the CPU's place, and cannot say that Intel made it besides: the plugin would have no CPU.
    left_out = {"openvino-plugin"} if HIDDEN else set()
    makers = {"optimum": optimum_python, "openvino-plugin": plugin_python}
    makers |= {name: partial(interpreter, name) for name in ENVIRONMENTS}
    made = {name: make() for name, make in makers.items() if name not in left_out}
    return {name: python for name, python in made.items() if python is not None}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; return the figures as JSON values."""
    began = time.monotonic()
    inputs = inputs_of(given.texts)
    pythons = interpreters()
    prepared = [
        models.prepare(name, instruction_set=cpu().instruction_set, adds=not given.quick, pythons=pythons)
        for name in given.models.split(",")
    ]
    made = time.monotonic() - began
    say(f"everything is made ({made:.0f} s)")
    if given.prepare:
        sys.exit()
    result: dict[str, Any] = {
        "command": " ".join(
            [*(["python -m bench.avx2"] if HIDDEN else []), "python -m bench.performance", *sys.argv[1:]]
        ),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "hidden": HIDDEN,
        "as_intel": "openvino-plugin" in pythons and not is_intel(),
        "quick": given.quick,
        "inputs": inputs,
        "text_sha256": hashlib.sha256(TEXT.read_bytes()).hexdigest(),
        "models": {},
    }
    with machine_lock(lambda: say(awaited())):
        began = time.monotonic()
        peaks = [matmul_peak(threads=given.threads or None)]
        for model in prepared:
            result["models"][model.name] = measure_model(model, share_of(inputs, model.name), given, pythons)
            peaks.append(matmul_peak(threads=given.threads or None))
    # These take the machine's lock themselves.
    for model in prepared:
        if "profile" not in given.without:
            say(f"profile of {model.name}")
            profiled = [name for name in model.variants if name != "bf16"]
            options = ["--variants", ",".join(profiled), "--threads", str(given.threads)]
            options += ["--seconds", "1.5" if given.quick else "4"]
            result["models"][model.name]["profile"] = asked("bench.performance.profiling", str(model.bundle), *options)
    if "sessions" not in given.without:
        options = ["--json", "--seconds", "1" if given.quick else "3"]
        result["sessions"] = asked("bench.performance.second_session", *options)
    result["machine"] = dataclasses.asdict(describe_machine(matmul_gflops=max(peaks)))
    result["matmul_gflops_over_time"] = peaks
    result["versions"] = versions(sys.executable, ("torch", "transformers", "onnxruntime"))
    result["beside"] = beside(pythons)
    result["made_in"] = made
    result["seconds"] = time.monotonic() - began
    return result


def record_duration(result: dict[str, Any], path: Path) -> None:
    """Keep how long a run with --quick took, in place of what the same class of CPU had."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    facts = {name: result[name] for name in ("command", "date", "commit", "made_in", "seconds", "machine")}
    text = json.dumps({**kept, stem(result).removeprefix("performance-"): facts}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def beside(pythons: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the versions of the packages of each peer's environment, by its name."""
    listed = {
        name: versions(pythons[name], environment.shown)
        for name, environment in ENVIRONMENTS.items()
        if name in pythons
    }
    if "optimum" in pythons:
        listed["optimum"] = versions(pythons["optimum"], ("optimum-onnx", "transformers"))
    if "openvino-plugin" in pythons:
        package, _, version = PLUGIN.partition("==")
        listed["openvino plugin"] = {package: version}
    return listed


def arguments() -> argparse.Namespace:
    """Read the command line; --quick sets what is not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the default model alone, fewer texts and rounds")
    parser.add_argument("--rounds", type=int, help="[5; 3 with --quick, and at least]")
    parser.add_argument("--texts", type=int, help="[60; 24 with --quick]")
    parser.add_argument(
        "--models", help="default, base, tiny, separated by commas [default,base; default with --quick]"
    )
    parser.add_argument(
        "--tasks", type=lambda text: text.split(","), help=f"[{','.join(TASKS)}; {TASKS[0]} with --quick]"
    )
    parser.add_argument(
        "--without", type=lambda text: text.split(","), default=[], help=f"{', '.join(PARTS)} [settings with --quick]"
    )
    parser.add_argument("--threads", type=int, default=0, help="of every subject [what each chooses]")
    parser.add_argument("--output", type=Path, help="[docs; out/bench/quick with --quick]")
    parser.add_argument("--prepare", action="store_true", help="make models and environments, measure nothing")
    parser.add_argument("--record", action="store_true", help="with --quick, keep how long it took in docs/data")
    parser.add_argument("--pages", action="store_true", help="write the pages from the data, measure nothing")
    parser.add_argument("--check", action="store_true", help="compare the pages with the data, measure nothing")
    given = parser.parse_args()
    if (given.models or given.tasks or given.without) and not (given.output or given.quick or given.prepare):
        parser.error("--models, --tasks and --without measure a part, and the pages have all: add --output DIRECTORY")
    if given.record and not given.quick:
        parser.error("--record keeps how long --quick takes: add --quick")
    given.rounds = given.rounds or (3 if given.quick else 5)
    given.texts = given.texts or (24 if given.quick else 60)
    given.tasks = given.tasks or list(TASKS[:1] if given.quick else TASKS)
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
    if given.record:
        record_duration(result, QUICK)
    print(page(result))


if __name__ == "__main__":
    main()
