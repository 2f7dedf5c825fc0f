"""Everything that needs an NVIDIA GPU, in one go on a machine with CUDA 13 and no network.

    python -m bench.gpu prepare KIT     # where there is a network: wheels, bundle and checkout into one directory
    python -m bench.gpu run KIT         # on the GPU machine: installs them, tests, measures, writes KIT/gpu.md
    python -m bench.gpu pack KIT        # for a machine with PyTorch that takes little at a time: parts, and the calls;
                                        # with --train CORPUS HELDOUT the default model is trained further there
    python -m bench.gpu page [FILE]     # writes docs/research/gpu.md from a gpu.jsonl, or what is known without one

`prepare` and `pack` need the environment of dev.py; `run` needs Python of the same version and the NVIDIA driver,
nothing else. What `pack` makes is run with `--installed`, by a Python that has PyTorch: .gpu-kit/calls.json has each
command, in order, with the folder that it takes along.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkout import RESTORE, ROOT, is_made_of
from bench.gpu.calls import MEASURING, START, TRAINING, calls
from bench.gpu.page import FIGURES, PEAK, gathered, page
from bench.gpu.parts import FOLDER, check_size, split
from bench.gpu.training import thin

if TYPE_CHECKING:
    from collections.abc import Sequence

ONNX_RUNTIME = "onnxruntime-gpu==1.31.1"
SERVER = ("starlette>=1.3.1", "uvicorn>=0.34,<1", "httptools>=0.6.3", "orjson>=3.11.6")
WHEELS = (
    ONNX_RUNTIME.replace("==", "[cuda,cudnn]=="),
    *SERVER,
    "uvloop>=0.21",
    "prometheus_client>=0.21",
    "torch==2.13.0",
    "optimum>=2.3",
    "requests>=2.33",
    "transformers>=5.10.1,<6",
    "safetensors>=0.4.3",
    "filelock>=3.12",
    "hypothesis>=6.120",
    "pytest>=8.4",
    "pytest-timeout>=2.3",
    "onnx>=1.21",
    "onnx_ir>=0.1.12",
    "ml_dtypes>=0.5",
    "sympy>=1.13.3",
    "hatchling>=1.28",
    "editables",
    "numpy>=1.26",
    "tokenizers>=0.22.1",
    "click>=8.3.3",
)
"""Packages that the tests, the peers and the server need there; torch's own build carries CUDA 13."""
BROUGHT = (ONNX_RUNTIME, *SERVER, "optimum>=2.3", "click>=8.3.3")
"""Those that a machine with PyTorch, transformers and the usual tools lacks, or has too old."""
THERE = "3.12"
"""Version of Python on such a machine."""
PLATFORMS = (*(f"manylinux_2_{glibc}_x86_64" for glibc in range(39, 4, -1)), "manylinux2014_x86_64")
"""Platforms whose wheels run there: pip compares their names, and no versions."""
TENSORRT = "tensorrt-cu13-libs>=10.14,<11"
"""TensorRT's libraries: onnxruntime-gpu 1.31.1 is linked to libnvinfer.so.10. The index has a source alone, which
fetches NVIDIA's wheel when it is built; where that cannot be had, the kit does without."""
RECIPES = ("fp16", "int8-static")
PYTORCH = ("torch:compiled", "torch:sdpa", "torch:eager")
SUBJECTS = (
    ("default", PEAK),
    *(("base", row) for row in ("bertport:fp16:cuda", *PYTORCH, "bertport:fp32:cuda")),
    *(("default", row) for row in ("bertport:fp16:cuda", *PYTORCH, "bertport:fp32:cuda", "bertport:int8-static:cuda")),
    *((model, "server:fp16:cuda") for model in ("base", "default")),
    *(("default", row) for row in ("bertport:fp16:tensorrt", "bertport:int8-static:tensorrt")),
    ("base", "bertport:fp16:tensorrt"),
)
"""What is measured, by model: what is aimed at comes first, in case the run is cut."""
MOST_S = 1800
"""Seconds that the tests, or a row, take at most: TensorRT takes minutes for an engine."""
BASE = "import sys, pathlib, bench.random_weights; bench.random_weights.save_bert_base(pathlib.Path(sys.argv[1]))"
"""Writes a BERT-base as a checkpoint: made where it is measured, since nothing makes random weights smaller."""


def prepare(kit: Path) -> None:
    """Gather the wheels, the default bundle with its GPU variants, its checkpoint, and the checkout."""
    kit.mkdir(parents=True, exist_ok=True)
    python = sys.executable
    say("downloading wheels (gigabytes: CUDA and TensorRT come along)")
    # Not `pip download`, which keeps sources as they are: building them takes a network.
    wheel = (python, "-m", "pip", "wheel", "--quiet", "--wheel-dir", kit / "wheels")
    call(*wheel, "pip", *WHEELS)
    if not works(*wheel, TENSORRT):
        say(f"the kit has no TensorRT: {TENSORRT} cannot be had")
    add_bundle(kit)
    if not (kit / "checkpoint").exists():
        call(python, "-m", *RESTORE, kit / "bundle", kit / "checkpoint")
    archive = kit / "checkout.tar"
    call("git", "-C", ROOT, "archive", "--output", archive, "HEAD")
    say(f"ready: copy {kit} to the GPU machine, unpack checkout.tar, and there run python -m bench.gpu run {kit}")


def add_bundle(kit: Path) -> None:
    """Copy the default bundle into the kit, and make the variants for a GPU that it lacks."""
    default, bundle, made_of = ROOT / "models" / "default", kit / "bundle", kit / "made-of"
    digest = json.loads((default / "manifest.json").read_text(encoding="utf-8"))["digest"]
    if not is_made_of(made_of, digest):
        for left in (bundle, kit / "checkpoint"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(default, bundle)
        made_of.write_text(digest, encoding="ascii")
    have = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["variants"]
    for recipe in RECIPES:
        if recipe not in have:
            say(f"making the variant {recipe}")
            # Measured on the GPU, not here: without a budget, and whatever its speed on this CPU.
            call(*quantizing(sys.executable, bundle, recipe))


def quantizing(python: object, bundle: Path, recipe: str, *more: str) -> list[object]:
    """Return the command that adds a variant to a bundle, without a budget."""
    options = ("--recipe", recipe, "--accuracy-budget", "none", "--force", *more)
    return [python, "-m", "bertport.runtime", "quantize", bundle, *options]


def add_training(kit: Path, corpus: Path, heldout: Path) -> Path:
    """Put what the training needs into the kit: the default model as a checkpoint in 16 bits, and the texts tokenized.

    A bundle's matrices are of 16 bits, so the checkpoint has the weights that ship, heads included.
    """
    from bertport.runtime.bundle.directory import file_sha256  # not above: `run` has no bertport yet

    bundle, place, made_of = ROOT / "models" / "default", kit / TRAINING, kit / "training-made-of"
    digest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["digest"]
    stamp = " ".join([digest, *(file_sha256(text) for text in (corpus, heldout))])
    if not is_made_of(made_of, stamp):
        shutil.rmtree(place, ignore_errors=True)
        call(sys.executable, "-m", *RESTORE, bundle, place / START)
        thin(place / START)
        for name, text in (("train", corpus), ("heldout", heldout)):
            packing = (sys.executable, ROOT / "models" / "pack.py", text.resolve(), place / f"{name}.npz")
            call(*packing, "--tokenizer", bundle / "tokenizer.json")
        made_of.write_text(stamp, encoding="ascii")
    return place


def pack(kit: Path, texts: Sequence[Path] = ()) -> None:
    """Write .gpu-kit: the bundle and the few wheels in parts that travel one by one, and the calls that take them.

    Args:
        kit: directory in which it is made.
        texts: training text and held-out text; without them nothing is trained there.
    """
    check_size()
    kit.mkdir(parents=True, exist_ok=True)
    add_bundle(kit)
    wheels = kit / "brought"
    shutil.rmtree(wheels, ignore_errors=True)
    to = (sys.executable, "-m", "pip")
    for_there = ("--only-binary=:all:", "--python-version", THERE, "--implementation", "cp")
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    call(*to, "download", "--quiet", "--no-deps", *for_there, *platforms, "--dest", wheels, *BROUGHT)
    # Not editable: the path of the checkout is another there.
    call(*to, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT)
    shutil.rmtree(ROOT / FOLDER, ignore_errors=True)
    count = split((wheels, kit / "bundle"), ROOT / FOLDER / MEASURING)
    training = split((add_training(kit, *texts),), ROOT / FOLDER / TRAINING) if texts else 0
    check_size()  # again: a kit in the checkout that git does not ignore would travel as well
    (ROOT / FOLDER / "calls.json").write_text(json.dumps(calls(count, training), indent=2) + "\n", encoding="utf-8")
    said = f"ready: {count + training} parts; move models/default/onnx out of the checkout"
    say(f"{said}, make the calls of {FOLDER}/calls.json")


def run(kit: Path, *, installed: bool = False, most_s: float = MOST_S, after: Path | None = None) -> None:
    """Install from the kit alone, run the tests that need a GPU, measure what is missing, and write the page.

    Args:
        kit: what `prepare` made, or the parts of `pack` put together.
        installed: use this Python, with the wheels of `pack` before its own packages.
        most_s: seconds that the tests, or a row, take at most.
        after: measure only when this file is there: something else has the GPU until then.
    """
    kit = kit.resolve()
    python, environment = installation(kit, installed=installed)
    told = figures(kit)
    if not told["tests_passed"]:
        # Warnings are no errors there: packages of other versions may have some of their own.
        file = ROOT / "tests" / "runtime" / "test_gpu.py"
        tests: list[object] = [python, "-m", "pytest", "-m", "gpu", "-q", "-o", "filterwarnings=default", file]
        code, _ = logged(kit, tests, environment, most_s)
        note(kit, tests_passed=code == 0)
    while after and not after.exists():
        time.sleep(0.5)
    done = {(row["model"], row["row"]) for row in told["rows"] if "done" in row}
    failures: dict[Path, str] = {}
    for model, subject in SUBJECTS:  # each in a process of its own, so that none has another's memory
        if (model, subject) in done:
            continue
        reason = ""
        for made, commands in lacking(model, subject, python, kit).items():
            if not reason and made not in failures:
                failures[made] = make(made, commands, kit, environment, most_s)
            reason = reason or failures[made]
        if not reason:
            measuring: list[object] = [python, "-m", "bench.gpu.measure", model, subject, kit]
            code, last = logged(kit, measuring, environment, most_s)
            reason = last if code else ""
        if reason:
            note(kit, model=model, row=subject, failed=reason)
        say(f"{model} {subject}: {reason or 'measured'}")
    write_page(kit / FIGURES, kit / "gpu.md")
    if not figures(kit)["tests_passed"]:
        sys.exit(f"tests that need a GPU failed: see {kit / 'gpu.log'}")


def installation(kit: Path, *, installed: bool) -> tuple[Path, dict[str, str]]:
    """Return the Python that the kit is run with, and its environment."""
    # Unbuffered, or what is printed would come behind the error that ends a program.
    own = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "BERTPORT_GPU_BUNDLE": str(kit / "bundle")}
    environment = {**os.environ, **own}
    if installed:
        # The code is that of the checkout, which travels with every call and so can be mended; its entry points are in
        # the wheel.
        areas = sorted(str(package.parent) for package in ROOT.glob("*/bertport"))
        given = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([*areas, str(brought(kit)), *([given] if given else [])])
        return Path(sys.executable), environment
    python = own_environment(kit)
    library = next((file.parent for file in kit.glob("venv/lib/*/site-packages/tensorrt*_libs/libnvinfer.so.10")), None)
    if library:  # the linker looks there when the process starts
        environment["LD_LIBRARY_PATH"] = f"{library}{os.pathsep}{environment.get('LD_LIBRARY_PATH', '')}"
    return python, environment


def own_environment(kit: Path) -> Path:
    """Install the kit's wheels into an environment of their own; return its Python."""
    venv = kit / "venv"
    python, done = venv / "bin" / "python", venv / "installed"
    if not done.exists():  # one that was cut is begun anew
        call(sys.executable, "-m", "venv", "--clear", venv)
        offline = ("--no-index", "--find-links", kit / "wheels")
        tensorrt = [TENSORRT] if any((kit / "wheels").glob("tensorrt*.whl")) else []
        call(python, "-m", "pip", "install", "--quiet", *offline, *WHEELS, *tensorrt)
        call(python, "-m", "pip", "install", "--quiet", *offline, "--no-build-isolation", "--no-deps", "-e", ROOT)
        done.touch()
    return python


def brought(kit: Path) -> Path:
    """Unpack the wheels that `pack` brings into a directory of their own; return it."""
    place, done = kit / "site", kit / "site" / "installed"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        wheels = sorted((kit / "brought").glob("*.whl"))
        offline = ("--no-index", "--no-deps", "--no-compile", "--no-cache-dir")
        call(sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", place, *wheels)
        done.touch()
    return place


def lacking(model: str, subject: str, python: Path, kit: Path) -> dict[Path, list[list[object]]]:
    """Return what makes what a row needs and the kit lacks, in order: commands, by the file that says they are done.

    The default model's checkpoint, and of BERT-base everything. Where fp16 cannot be made, its other rows still run.
    """
    needed: dict[Path, list[list[object]]] = {}
    if model == "default":
        checkpoint = kit / "checkpoint"
        if subject in PYTORCH:
            needed[checkpoint] = [[python, "-m", *RESTORE, kit / "bundle", checkpoint]]
    else:
        place = kit / model
        checkpoint, bundle = place / "checkpoint", place / "bundle"
        # Overwritten, where a run was cut before it was noted.
        exporting: list[object] = [python, "-m", "bertport.runtime", "export", checkpoint, bundle, "--overwrite"]
        needed[place / "made"] = [[python, "-c", BASE, checkpoint], exporting]
        if ":fp16:" in subject:
            little = ("--positions", "16", "--pairs", "0", "--overwrite")  # it is measured here, not there
            needed[place / "made-fp16"] = [quantizing(python, bundle, "fp16", *little)]
    return {made: commands for made, commands in needed.items() if not made.exists()}


def make(made: Path, commands: list[list[object]], kit: Path, environment: dict[str, str], most_s: float) -> str:
    """Run commands, and note that they are done; return why one failed, empty where none did."""
    for command in commands:
        say(f"making: {' '.join(map(str, command[1:]))}")
        code, last = logged(kit, command, environment, 2 * most_s)
        if code:
            return f"{made.parent.name}/{made.name} cannot be made: {last}"
    made.parent.mkdir(exist_ok=True)
    made.touch()
    return ""


def logged(kit: Path, command: list[object], environment: dict[str, str], most_s: float) -> tuple[int, str]:
    """Run a command, and keep all that it says in KIT/gpu.log; return its exit status and its last line."""
    log = kit / "gpu.log"
    with log.open("ab") as file:
        begin = file.tell()
        words = [str(part) for part in command]
        file.write(f"$ {' '.join(words)}\n".encode())
        file.flush()
        # A group of its own: what it has started ends with it, and the server lets go of the GPU.
        with subprocess.Popen(words, env=environment, cwd=ROOT, stdout=file, stderr=file, process_group=0) as started:
            try:
                code = started.wait(most_s)
            except subprocess.TimeoutExpired:
                return 124, f"it took more than {most_s:g} s"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(started.pid, signal.SIGKILL)
    with log.open("rb") as file:
        file.seek(begin)
        said = file.read().decode("utf-8", errors="replace").strip().splitlines()[1:]
    return code, said[-1] if said else "no message"


def note(kit: Path, **figure: object) -> None:
    """Add a line to the figures: a run that is cut leaves what it has measured."""
    with (kit / FIGURES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(figure) + "\n")


def figures(kit: Path) -> dict[str, Any]:
    """Return what was measured so far."""
    file = kit / FIGURES
    return gathered(file.read_text(encoding="utf-8").splitlines() if file.exists() else ())


def write_page(source: Path | None, target: Path) -> None:
    """Write the page, from measured figures or without any."""
    result = gathered(source.read_text(encoding="utf-8").splitlines()) if source else None
    target.write_text(page(result), encoding="utf-8")
    if result:
        print(page(result))
    say(f"wrote {target}")


def call(*command: object) -> None:
    """Run a command; its failure is ours."""
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def works(*command: object) -> bool:
    """Run a command, and return whether it succeeds."""
    return subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode == 0


def say(text: str) -> None:
    """Report progress, apart from results."""
    print(f"gpu: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("prepare", "run", "pack", "page"))
    parser.add_argument("path", type=Path, nargs="?", help=f"the kit; for page a {FIGURES}")
    parser.add_argument("--installed", action="store_true", help="run with this Python, and with what pack brings")
    parser.add_argument("--after", type=Path, metavar="FILE", help="measure when this file is there, after the tests")
    texts = ("CORPUS", "HELDOUT")
    parser.add_argument("--train", type=Path, nargs=2, default=(), metavar=texts, help="pack a training of these texts")
    parser.add_argument("--most-s", type=float, default=MOST_S, help="seconds for the tests, or a row  [%(default)s]")
    given = parser.parse_args()
    if given.what == "page":
        write_page(given.path, ROOT / "docs" / "research" / "gpu.md")
    elif given.path is None:
        parser.error(f"{given.what} needs the directory of the kit")
    elif given.what == "run":
        run(given.path, installed=given.installed, most_s=given.most_s, after=given.after)
    elif given.what == "pack":
        pack(given.path, given.train)
    else:
        prepare(given.path)


if __name__ == "__main__":
    main()
