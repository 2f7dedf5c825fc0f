"""Everything that needs an NVIDIA GPU, in one go on a machine with CUDA 13 and no network.

    python -m bench.gpu prepare KIT     # where there is a network: wheels, bundle and checkout into one directory
    python -m bench.gpu run KIT         # on the GPU machine: installs them, tests, measures, writes KIT/gpu.md
    python -m bench.gpu page [FILE]     # writes docs/research/gpu.md from a gpu.json, or what is known without one

`prepare` needs the environment of dev.py; `run` needs Python of the same version and the NVIDIA driver, nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.checkout import RESTORE, ROOT, is_made_of
from bench.gpu.page import page

WHEELS = (
    "onnxruntime-gpu[cuda,cudnn]==1.31.1",
    "torch==2.13.0",
    "transformers>=4.57,<4.58",
    "hypothesis>=6.120",
    "pytest>=8.4",
    "pytest-timeout>=2.3",
    "onnx>=1.17",
    "onnx_ir>=0.1.12",
    "ml_dtypes>=0.5",
    "sympy>=1.13",
    "hatchling>=1.27",
    "editables",
    "numpy>=1.26",
    "tokenizers>=0.21",
    "click>=8.1",
)
"""Packages that the tests and peers need there; torch's own build carries CUDA 13."""
TENSORRT = "tensorrt-cu13-libs>=10.14,<11"
"""TensorRT's libraries: onnxruntime-gpu 1.31.1 is linked to libnvinfer.so.10. The index has a source alone, which
fetches NVIDIA's wheel when it is built; where that cannot be had, the kit does without."""
RECIPES = ("fp16", "int8-static")
FP16_ROWS = (
    ("fp32", "cuda"),
    ("fp16", "cuda"),
    ("fp16", "tensorrt"),
    ("int8-static", "cuda"),
    ("int8-static", "tensorrt"),
)
"""Variants and providers that are measured."""


def prepare(kit: Path) -> None:
    """Gather the wheels, the default bundle with its GPU variants, its checkpoint, and the checkout."""
    kit.mkdir(parents=True, exist_ok=True)
    python, program = sys.executable, str(Path(sys.executable).with_name("bertport"))
    say("downloading wheels (gigabytes: CUDA and TensorRT come along)")
    # Not `pip download`, which keeps sources as they are: building them takes a network.
    wheel = (python, "-m", "pip", "wheel", "--quiet", "--wheel-dir", kit / "wheels")
    call(*wheel, "pip", *WHEELS)
    if not works(*wheel, TENSORRT):
        say(f"the kit has no TensorRT: {TENSORRT} cannot be had")
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
            call(program, "quantize", bundle, "--recipe", recipe, "--accuracy-budget", "none", "--force")
    if not (kit / "checkpoint").exists():
        call(python, "-m", *RESTORE, bundle, kit / "checkpoint")
    archive = kit / "checkout.tar"
    call("git", "-C", ROOT, "archive", "--output", archive, "HEAD")
    say(f"ready: copy {kit} to the GPU machine, unpack checkout.tar, and there run python -m bench.gpu run {kit}")


def run(kit: Path) -> None:
    """Install from the kit alone, run the tests that need a GPU, measure, and write the page."""
    kit = kit.resolve()
    venv = kit / "venv"
    python = venv / "bin" / "python"
    installed = venv / "installed"
    if not installed.exists():  # one that was cut is begun anew
        call(sys.executable, "-m", "venv", "--clear", venv)
        offline = ("--no-index", "--find-links", kit / "wheels")
        tensorrt = [TENSORRT] if any((kit / "wheels").glob("tensorrt*.whl")) else []
        call(python, "-m", "pip", "install", "--quiet", *offline, *WHEELS, *tensorrt)
        call(python, "-m", "pip", "install", "--quiet", *offline, "--no-build-isolation", "--no-deps", "-e", ROOT)
        installed.touch()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "BERTPORT_GPU_BUNDLE": str(kit / "bundle")}
    library = next((file.parent for file in venv.glob("lib/*/site-packages/tensorrt*_libs/libnvinfer.so.10")), None)
    if library:  # the linker looks there when the process starts
        environment["LD_LIBRARY_PATH"] = f"{library}{os.pathsep}{environment.get('LD_LIBRARY_PATH', '')}"
    tests = [python, "-m", "pytest", "-m", "gpu", "-q", ROOT / "tests" / "runtime" / "test_gpu.py"]
    passed = subprocess.run([str(part) for part in tests], env=environment, cwd=ROOT, check=False).returncode == 0
    subjects = [*(f"bertport:{variant}:{provider}" for variant, provider in FP16_ROWS), "torch:eager", "torch:compiled"]
    result: dict[str, Any] = {"tests_passed": passed, "rows": []}
    for subject in subjects:  # each in a process of its own, so that none has another's memory
        done = subprocess.run(
            [str(python), "-m", "bench.gpu.measure", subject, str(kit)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        last = (done.stdout.strip().splitlines() or ["{}"])[-1] if done.returncode == 0 else "{}"
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        result["rows"].append({"row": subject, **(json.loads(last) if done.returncode == 0 else {"failed": said})})
        # At once: a run that is cut leaves what it has measured.
        (kit / "gpu.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        say(f"{subject}: {'measured' if done.returncode == 0 else said}")
    write_page(kit / "gpu.json", kit / "gpu.md")
    if not passed:
        sys.exit("tests that need a GPU failed: see above")


def write_page(source: Path | None, target: Path) -> None:
    """Write the page, from measured figures or without any."""
    figures = json.loads(source.read_text(encoding="utf-8")) if source else None
    target.write_text(page(figures), encoding="utf-8")
    if figures:
        print(page(figures))
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
    parser.add_argument("what", choices=("prepare", "run", "page"))
    parser.add_argument("path", type=Path, nargs="?", help="the kit; for page a gpu.json")
    given = parser.parse_args()
    if given.what == "page":
        write_page(given.path, ROOT / "docs" / "research" / "gpu.md")
    elif given.path is None:
        parser.error(f"{given.what} needs the directory of the kit")
    else:
        {"prepare": prepare, "run": run}[given.what](given.path)


if __name__ == "__main__":
    main()
