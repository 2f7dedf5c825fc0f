"""How fast bertport answers, beside what people use today: the same weights, texts and machine, taking turns.

    python -m bench.performance [--quick] [--rounds 7] [--texts 100] [--models default,base] [--tasks fill-mask,...]
        [--without shapes,settings,profile,sessions] [--threads N] [--output DIRECTORY]

Every subject has a process of its own; in each round all take a turn, in one order and in the next round in the
reverse one, with the machine's lock held. Writes docs/data/performance.json and docs/research/performance.md, or
performance-avx2 for a CPU with AVX2 alone (or `python -m bench.avx2 python -m bench.performance`); --output
writes elsewhere. The models are made once and kept in out/bench. A BERT-base takes eight times as long for a text as
the default model, so it gets half of the texts; tasks other than fill-mask get two fifths of the
texts.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.checkout import ROOT
from bench.performance import models
from bench.performance.report import figures, page, plots, stem
from bertport.measure.machine import describe_machine, machine_lock, matmul_peak
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.providers.cpu import cpu
from bertport.runtime.text.encoder import Encoded
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.performance.models import Prepared

TEXT = ROOT / "data" / "evaluation.txt"
TASKS = ("fill-mask", "next-sentence", "features")
SHAPES = ((1, 16), (1, 128), (8, 128), (1, 512))
BATCHES = (1, 8, 32)
PARTS = ("shapes", "settings", "profile", "sessions")
"""What is measured beside the tasks, and can be left out."""
LEAST_ROUNDS = 3
SMALLER = {"base": 0.5}
"""The share of the texts that a model gets."""
OTHERS = 0.4
"""The share of the texts that a task beside fill-mask gets."""
# As in bertport.measure.quality.samples: an abbreviation is a false end, which makes a short "sentence" of real words.
SENTENCE = re.compile("(?<=[.!?])[\"'\u201d\u2019)]*\\s+(?=[\"'\u201c\u2018(]?[A-Z])")
WORDS = (4, 60)
"""Fewest and most words of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One row of the report."""

    name: str
    """What it is listed under."""
    group: str
    """Who it belongs to: the best of a group is what others are compared with."""
    peer: str
    """A row of performance_peers.PEERS."""
    model: str
    """Directory that it loads."""
    variant: str | None = None
    """For bertport a variant, for others the batch size."""
    at_once: int | None = None
    """Inputs given in one call; None for all."""
    python: str = sys.executable
    """Its interpreter."""

    @property
    def process(self) -> tuple[str, ...]:
        """Subjects that share it share a process."""
        return (self.peer, self.model, str(self.variant), self.python)


@dataclass(slots=True)
class Process:
    """A running performance_peers.py; a context manager."""

    subject: Subject
    threads: int
    peak_bytes: int = 0
    load_s: float = 0.0
    child: Any = field(default=None)

    def __enter__(self) -> Self:
        """Start it and have it load its model."""
        program = [self.subject.python, "-m", "bench.performance.peers"]
        self.child = subprocess.Popen(
            program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        opened = {"peer": self.subject.peer, "model": self.subject.model, "variant": self.subject.variant}
        try:
            self.load_s = self.ask({"do": "open", "threads": self.threads, **opened})["seconds"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.child.kill()
        self.child.communicate()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer; RuntimeError when there is none."""
        try:
            print(json.dumps(request), file=self.child.stdin, flush=True)
            line = self.child.stdout.readline()
        except OSError:
            line = ""
        nothing = {"ok": False, "error": f"the process ended ({self.child.poll()})"}
        answer: dict[str, Any] = json.loads(line) if line else nothing
        if not answer["ok"]:
            raise RuntimeError(f"{self.subject.name}: {answer['error']}")
        self.peak_bytes = max(self.peak_bytes, int(answer["peak_bytes"]))
        return answer


def inputs_of(count: int) -> dict[str, list[Any]]:
    """Return the frozen inputs: sentences with one word masked, pairs of which half are neighbours, sentences."""
    rng = random.Random(0)  # noqa: S311 — a frozen choice, not a secret
    paragraphs = [SENTENCE.split(line.strip()) for line in TEXT.read_text(encoding="utf-8").splitlines()]
    fit = [
        [each for each in paragraph if WORDS[0] <= len(each.split()) <= WORDS[1] and re.search(r"\b[a-z]{4,}\b", each)]
        for paragraph in paragraphs
    ]
    every = [each for paragraph in fit for each in paragraph]
    neighbours = [pair for paragraph in fit for pair in itertools.pairwise(paragraph)]
    chosen = rng.sample(every, count)
    masked = []
    for each in chosen:
        word = rng.choice(list(re.finditer(r"\b[a-z]{4,}\b", each)))
        masked.append(f"{each[: word.start()]}[MASK]{each[word.end() :]}")
    pairs = rng.sample(neighbours, count)
    strangers = [(a, rng.choice(every)) for a, _ in pairs]
    mixed = [pair if number % 2 else other for number, (pair, other) in enumerate(zip(pairs, strangers, strict=True))]
    return {"fill-mask": masked, "next-sentence": [list(pair) for pair in mixed], "features": chosen}


def share_of(inputs: dict[str, list[Any]], model: str) -> dict[str, list[Any]]:
    """Return a model's inputs: the first of each task's."""
    part = SMALLER.get(model, 1.0)
    return {
        task: each[: max(1, round(len(each) * part * (1 if task == "fill-mask" else OTHERS)))]
        for task, each in inputs.items()
    }


def subjects_of(model: Prepared, task: str, openvino: str | None, batches: Sequence[int] = BATCHES) -> list[Subject]:
    """List who takes part in a task."""
    bundle, found = str(model.bundle), []
    for variant in model.variants:
        precision = "fp32" if variant == "fp32" else "int8"
        for peer, name in (("bertport", "bertport"), ("bare", "tokenizer and session alone")):
            for at_once in (None, 1):
                said = f"{name} {precision}{', one at a time' if at_once else ''}"
                group = f"{peer} {precision}{' single' if at_once else ''}"
                found.append(Subject(name=said, group=group, peer=peer, model=bundle, variant=variant, at_once=at_once))
    rows = [("transformers", "transformers", str(model.checkpoint), sys.executable)]
    if task != "next-sentence":  # Optimum has no model for it
        rows += [
            (f"optimum {precision}", "optimum", str(model.optimum / precision), sys.executable)
            for precision in ("fp32", "int8")
        ]
    rows.append(("onnxruntime, padded", "fused", bundle, sys.executable))
    if openvino:
        rows.append(("openvino, padded", "openvino", bundle, openvino))
    for group, peer, path, python in rows:
        found += [
            Subject(
                name=f"{group}, batches of {batch}",
                group=group,
                peer=peer,
                model=path,
                variant=str(batch),
                at_once=batch,
                python=python,
            )
            for batch in batches
        ]
    return found


def measure_task(
    subjects: Sequence[Subject], task: str, inputs: list[Any], *, rounds: int, threads: int
) -> list[dict[str, Any]]:
    """Have every subject answer all inputs in each round; give what each took and said."""
    rows: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        processes: dict[tuple[str, ...], Process] = {}
        left = []
        for subject in subjects:
            try:
                if subject.process not in processes:
                    processes[subject.process] = stack.enter_context(Process(subject, threads))
                # Also the warm-up: every shape is run once.
                said = processes[subject.process].ask({"do": "answer", "task": task, "inputs": inputs})["answers"]
            except RuntimeError as error:
                say(f"left out: {error}")
                rows[subject.name] = {"subject": dataclasses.asdict(subject), "task": task, "failed": str(error)}
                continue
            rows[subject.name] = {"subject": dataclasses.asdict(subject), "task": task, "rounds": [], "answers": said}
            left.append(subject)
        for number in range(rounds):
            for subject in list(left) if number % 2 == 0 else left[::-1]:
                request = {"do": "time", "task": task, "inputs": inputs, "at_once": subject.at_once}
                try:
                    rows[subject.name]["rounds"].append(processes[subject.process].ask(request)["calls"])
                except RuntimeError as error:  # the others go on
                    say(f"left out: {error}")
                    left.remove(subject)
                    rows[subject.name] = {"subject": dataclasses.asdict(subject), "task": task, "failed": str(error)}
            say(f"{task}: round {number + 1} of {rounds}")
        for subject in left:
            process = processes[subject.process]
            rows[subject.name] |= {"peak_bytes": process.peak_bytes, "load_s": process.load_s}
    return list(rows.values())


def measure_shapes(
    subjects: Sequence[Subject], shapes: Sequence[tuple[int, int]], *, rounds: int, threads: int, vocabulary: int
) -> list[dict[str, Any]]:
    """Time batches of one length through the graph alone."""
    one = {
        subject.group: subject
        for subject in reversed(subjects)
        if subject.peer != "bare" and "single" not in subject.group
    }
    rows: list[dict[str, Any]] = []
    if not shapes:
        return rows
    with ExitStack() as stack:
        processes = {}
        for group, subject in one.items():
            try:
                processes[group] = stack.enter_context(Process(subject, threads))
            except RuntimeError as error:
                say(f"left out: {error}")
        for batch, length in shapes:
            request = {"do": "shape", "rows": batch, "length": length, "vocabulary": vocabulary}
            found: dict[str, list[list[float]]] = {group: [] for group in processes}
            for process in processes.values():
                process.ask(request | {"runs": 2})
            for number in range(rounds):
                for group in list(processes) if number % 2 == 0 else list(processes)[::-1]:
                    found[group].append(processes[group].ask(request | {"runs": 3})["calls"])
            rows += [{"shape": [batch, length], "group": group, "rounds": runs} for group, runs in found.items()]
            say(f"{batch}x{length}")
    return rows


def asked(program: str, *arguments: str, given: str = "") -> Any:  # noqa: ANN401 — JSON
    """Run another program of this directory, and give what it prints; None when it fails."""
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"{program} left out: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return None
    return json.loads(done.stdout)


def lengths_of(bundle: Path, inputs: dict[str, list[Any]]) -> dict[str, list[int]]:
    """Count the tokens of each input."""
    tokens = Tokens.read(Bundle.open(bundle))

    def count(each: Any) -> int:  # noqa: ANN401 — a text or a pair
        [found] = tokens.encode([each if isinstance(each, str) else (each[0], each[1])])
        if not isinstance(found, Encoded):
            raise found
        return len(found.ids)

    return {task: [count(each) for each in found] for task, found in inputs.items()}


def measure_model(
    model: Prepared, inputs: dict[str, list[Any]], given: argparse.Namespace, openvino: str | None
) -> dict[str, Any]:
    """Measure one model: each task, fixed shapes, and bertport's own settings."""
    manifest = Bundle.open(model.bundle).manifest
    rounds = max(LEAST_ROUNDS, given.rounds)
    say(f"model {model.name}, {rounds} rounds of {len(inputs['fill-mask'])} texts")
    rows = [
        row
        for task in given.tasks
        for row in measure_task(
            subjects_of(model, task, openvino, given.batches),
            task,
            inputs[task],
            rounds=rounds,
            threads=given.threads,
        )
    ]
    shapes = measure_shapes(
        subjects_of(model, "fill-mask", openvino),
        () if "shapes" in given.without else given.shapes,
        rounds=max(2, rounds // 2),
        threads=given.threads,
        vocabulary=manifest.architecture.vocab_size,
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
    """Measure everything, and give the figures as JSON values."""
    began = time.monotonic()
    inputs = inputs_of(given.texts)
    names = given.models.split(",")
    # OpenVINO's libraries are not among those that bench.avx2 patches: it would run with what is hidden.
    hidden = "WITHOUT_AVX512_CPUINFO" in os.environ
    with ThreadPoolExecutor(max_workers=1) as pool:  # installing waits for the network, exporting computes
        installing = pool.submit((lambda: None) if hidden else models.openvino_python)
        prepared = [models.prepare(name, instruction_set=cpu().instruction_set) for name in names]
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
    with machine_lock(lambda: say("waiting for whoever measures on this machine")):
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
    result["versions"] = {name: _version(name) for name in ("torch", "transformers", "optimum-onnx", "onnxruntime")}
    result["versions"]["openvino"] = models.OPENVINO.partition("==")[2] if openvino else None
    result["seconds"] = time.monotonic() - began
    return result


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
    result = measure(given)
    result["figures"] = figures(result)
    for model in result["models"].values():  # agreement is in the figures by now, and vectors are large
        for row in model["rows"]:
            row.pop("answers", None)
    for folder in ("data", "research"):
        (given.output / folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    name = stem(result)
    (given.output / "data" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    plots(result, given.output / "data")
    (given.output / "research" / f"{name}.md").write_text(page(result), encoding="utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
