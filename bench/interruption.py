"""Kill export and quantize again and again: each time a whole bundle is left, a retry works, and nothing else stays.

    python -m bench.interruption [--kills 100] [--seed 0] [--output FILE]

The commands are run on a tiny checkpoint in processes that are killed (SIGKILL): half of them at a random moment, half
before one of the steps by which files below the bundle's folder are opened, renamed, removed or locked, which are
tried evenly. Each is killed with `--overwrite` and without, and with names that are exchanged in one step and with two
renames, as on a system that exchanges none. After each kill the bundle is read: it must be the old or the new one and
verify, or, between the two renames alone, be named by the error. Then the command is run again, and its folder must
hold the bundle and nothing else. Writes docs/data/interruption.json, and fails where anything else was found.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, commit
from bertport.export import export
from bertport.measure.machine import describe_machine
from bertport.runtime.bundle import exchange
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.cli import app
from bertport.runtime.errors import BertportError
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "fcntl.flock", "ctypes.dlsym"}
)
"""Audit events at which a command may be killed: Python reports each to its hooks before it acts."""
VARIANT = "int8-dynamic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Inputs of the commands."""

    checkpoint: Path
    """Checkpoint of the tiny model."""
    bundle: Path
    """The old bundle."""
    quantized: Path
    """The old bundle with the variant."""
    text: Path
    """To measure on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A command, and where it begins."""

    command: str
    """`export` or `quantize`."""
    overwrite: bool
    """Whether what it makes is there already."""
    exchanges: bool
    """Whether the system exchanges two names in one step."""

    def arguments(self, material: Material, bundle: Path) -> list[str]:
        """Return the command line."""
        more = ["--overwrite"] if self.overwrite else []
        if self.command == "export":
            return ["export", str(material.checkpoint), str(bundle), "--name", "new", *more]
        few = ["--positions", "60", "--pairs", "8", "--accuracy-budget", "none", "--force"]
        return ["quantize", str(bundle), "--text", str(material.text), *few, *more]

    def place(self, material: Material, bundle: Path) -> None:
        """Put there what it begins with."""
        if self.command == "quantize":
            shutil.copytree(material.quantized if self.overwrite else material.bundle, bundle)
        elif self.overwrite:
            shutil.copytree(material.bundle, bundle)


CASES = [
    Case(command=command, overwrite=overwrite, exchanges=exchanges)
    for command in ("export", "quantize")
    for overwrite, exchanges in ((True, True), (True, False), (False, True))
]


class Steps:
    """Counts the steps below a folder, and kills this process before one of them.

    Args:
        folder: Where.
        last: Number of the step; 0 to count only.
    """

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last, self.count = str(folder), last, 0
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Be told of an event."""
        if event not in STEPS or not (event == "fcntl.flock" or self._is_there(arguments)):
            return
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_there(self, arguments: tuple[Any, ...]) -> bool:
        return any(str(argument).startswith(self.folder) or argument == "renameat2" for argument in arguments)


def in_child(work: Callable[[], None]) -> int:
    """Start a process that does something quietly, and return its number."""
    child = os.fork()
    if child:
        return child
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Return the exit code of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(case: Case, material: Material, bundle: Path, *, step: int = 0, report: Path | None = None) -> int:
    """Start a command in a process of its own, which is killed before a step."""

    def work() -> None:
        if not case.exchanges:
            exchange.exchange = lambda *_: False
        steps = Steps(bundle.parent, step) if step or report else None
        try:
            app(case.arguments(material, bundle))
        finally:
            if steps and report:
                report.write_text(str(steps.count))

    return in_child(work)


def outcome(case: Case, material: Material, bundle: Path) -> str:
    """Return what a kill left: `old`, `new`, `missing` or `aside`; anything else is wrong."""
    try:
        opened = Bundle.open(bundle)
        opened.verify()
    except BertportError as error:
        if "which is whole in" in error.message and not case.exchanges:
            return "aside"
        if not bundle.exists() and case.command == "export" and not case.overwrite:
            return "missing"
        return f"WRONG: {error.message}"
    if case.command == "export":
        return "new" if opened.manifest.name == "new" else "old"
    before = Bundle.open(material.quantized if case.overwrite else material.bundle).manifest
    return "old" if opened.manifest == before else "new"


def again(case: Case, material: Material, bundle: Path, left: str) -> str:
    """Run a command to its end after a kill; return what is wrong then."""
    code = ended(run(case, material, bundle))
    refused = left == "new" and not case.overwrite  # it is there: rightly refused
    if code != (2 if refused else 0):
        return f"WRONG: the retry ended with {code}"
    opened = Bundle.open(bundle)
    more = [*opened.verify(), *(path.name for path in bundle.parent.iterdir() if path != bundle)]
    return f"WRONG: {', '.join(more)} stayed" if more else ""


def length(case: Case, material: Material, scratch: Path) -> tuple[float, int]:
    """Return the seconds that a command takes, and its steps."""
    bundle, report = scratch / "whole" / "bundle", scratch / "steps"
    bundle.parent.mkdir()
    case.place(material, bundle)
    began = time.perf_counter()
    code = ended(run(case, material, bundle, report=report))
    seconds = time.perf_counter() - began
    if code:
        sys.exit(f"{case} does not work: it ended with {code}")
    shutil.rmtree(bundle.parent)
    return seconds, int(report.read_text())


def kill(case: Case, material: Material, scratch: Path, *, seconds: float = 0.0, step: int = 0) -> tuple[str, str]:
    """Kill a command at a moment or before a step; return what was left, and what is wrong after a retry."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    bundle = folder / "bundle"
    case.place(material, bundle)
    child = run(case, material, bundle, step=step)
    if not step:
        timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
        timer.start()
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it stays a process until the timer cannot strike
        timer.cancel()
        timer.join()
    code = ended(child)
    if code not in (0, -signal.SIGKILL):
        return "", f"WRONG: it ended with {code}"
    left = outcome(case, material, bundle)
    if code == 0 and left != "new":  # it ended before the moment came, and so all of its work is done
        left = f"WRONG: it ended with 0, and left the bundle {left}"
    wrong = left if left.startswith("WRONG") else again(case, material, bundle, left)
    shutil.rmtree(folder)
    return ("done" if code == 0 else left), wrong


def kill_all(case: Case, material: Material, scratch: Path, kills: int, generator: random.Random) -> dict[str, Any]:
    """Kill a command many times; return how often what was left."""
    seconds, steps = length(case, material, scratch)
    left: Counter[str] = Counter()
    wrong = []
    aimed = [1 + number * steps // max(1, kills // 2) for number in range(kills // 2)]
    while sum(left[state] for state in left if state != "done") < kills and left["done"] < kills:
        step = aimed.pop() if aimed else 0
        moment = generator.uniform(0, seconds)
        state, broken = kill(case, material, scratch, seconds=moment, step=step)
        left[state] += 1
        if broken:
            wrong.append({"step": step, "seconds": round(moment, 3), "found": broken})
    return {
        **dataclasses.asdict(case),
        "seconds": round(seconds, 3),
        "steps": steps,
        "kills": sum(count for state, count in left.items() if state != "done"),
        "left": dict(sorted(left.items())),
        "wrong": wrong,
    }


def make_material(place: Path) -> Material:
    """Make the tiny checkpoint, its bundle, and that with the variant."""
    conftest = importlib.import_module("tests.conftest")  # which is not typed

    (place / "checkpoint").mkdir(parents=True)
    generator = random.Random(3)  # noqa: S311 — no secret
    sentences = [" ".join(generator.choices(conftest.WORDS, k=8)).capitalize() + "." for _ in range(120)]
    text = place / "text.txt"
    text.write_text("\n".join(" ".join(sentences[at : at + 3]) for at in range(0, 120, 3)) + "\n", encoding="utf-8")
    material = Material(checkpoint=place / "checkpoint", bundle=place / "old", quantized=place / "quantized", text=text)

    def work() -> None:  # in a process of its own: that which is forked from has run nothing
        conftest.build_checkpoint(material.checkpoint)
        export(material.checkpoint, material.bundle, name="old")
        shutil.copytree(material.bundle, material.quantized)
        app(CASES[-1].arguments(material, material.quantized))

    if ended(in_child(work)):
        sys.exit("the checkpoint and its bundles cannot be made")
    return material


def import_all() -> None:
    """Import what the commands import, once: a process that is forked from this one begins with it."""
    for name in (
        "onnx",
        "optimum.exporters.tasks",
        "torch",
        "transformers",
        "bertport.quantize.cli",
        "bertport.quantize.remeasure",
    ):
        importlib.import_module(name)
    onnxruntime()


def main() -> None:
    """Kill, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "data" / "interruption.json")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny models' threads wait for each other
    os.environ["HF_HUB_OFFLINE"] = "1"
    import_all()
    generator, cases = random.Random(arguments.seed), []  # noqa: S311 — no secret
    kills = -(-arguments.kills * 2 // len(CASES))
    with tempfile.TemporaryDirectory() as scratch:  # nothing is timed: others may use the machine
        material = make_material(Path(scratch) / "material")
        for case in CASES:
            cases.append(kill_all(case, material, Path(scratch), kills, generator))
            print(cases[-1], flush=True)
    value = {
        "machine": dataclasses.asdict(describe_machine()),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seed": arguments.seed,
        "cases": cases,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(case["wrong"] for case in cases))


if __name__ == "__main__":
    main()
