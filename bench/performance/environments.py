"""The environments that peers of bench.performance run in: what is no dependency of bertport, or excludes one of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import dev
from bench.checkout import ROOT
from bench.cpuid.patching import handled
from bench.intel.__main__ import is_intel

__all__ = [
    "ENVIRONMENTS",
    "HIDDEN",
    "PLUGIN",
    "Environment",
    "interpreter",
    "optimum_python",
    "plugin_python",
    "say",
    "script",
    "versions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One row: a virtual environment."""

    name: str
    """Name of its directory in `.tools`."""
    requirements: tuple[str, ...]
    """Requirements that pip installs."""
    torch: bool = False
    """Whether the CPU build of PyTorch is installed first."""
    removed: tuple[str, ...] = ()
    """Packages that are removed again, since they do not fit that build and no row uses them."""
    patched: tuple[str, ...] = ()
    """Packages from which bench.avx2 hides AVX-512 as well: it does so from ONNX Runtime and PyTorch by itself."""
    shown: tuple[str, ...]
    """Packages whose versions a page states."""


HIDDEN = "WITHOUT_AVX512_CPUINFO" in os.environ
"""Whether bench.avx2 hides what the CPU can do."""
HERE = f"onnxruntime=={metadata.version('onnxruntime')}"
"""The ONNX Runtime of this environment, so that peers do not differ by it."""
ENVIRONMENTS: dict[str, Environment] = {
    row.name: row
    for row in (
        Environment(
            name="openvino",
            requirements=("openvino==2026.4.1", "tokenizers", "numpy"),
            patched=("openvino",),
            shown=("openvino",),
        ),
        Environment(
            name="optimum-intel",
            requirements=("optimum-intel==2.2.0", "sentence-transformers==6.2.0"),
            torch=True,
            removed=("torchvision",),
            patched=("openvino",),
            shown=("optimum-intel", "transformers", "nncf", "sentence-transformers"),
        ),
        Environment(
            name="sentence-transformers",
            requirements=("sentence-transformers[onnx]==5.7.0", HERE),
            torch=True,
            shown=("sentence-transformers", "transformers", "optimum-onnx"),
        ),
    )
}
"""By name."""
PLUGIN = "onnxruntime-ep-openvino==1.8.1"
"""OpenVINO's plugin for ONNX Runtime, which is put beside this environment's packages."""


def interpreter(name: str) -> str | None:
    """Return the interpreter of an environment, which is made once; None where it cannot be."""
    wanted = ENVIRONMENTS[name]
    place = ROOT / ".tools" / name
    python, stamp = dev.executable(place, "python"), place / "installed"
    made_of = repr((wanted.requirements, wanted.torch and dev.TORCH, wanted.removed))
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == made_of):
        say(f"making the environment {name}")
        try:
            dev.create(place)
            if wanted.torch:
                dev.install_torch(python)
            dev.pip(python, *wanted.requirements, *([f"torch=={dev.TORCH}"] if wanted.torch else []))
            if wanted.removed:
                dev.call(python, "-m", "pip", "uninstall", "-qq", "--yes", *wanted.removed)
        except (subprocess.CalledProcessError, SystemExit):
            say(f"the environment {name} cannot be made: its rows are left out")
            return None
        stamp.write_text(made_of, encoding="utf-8")
    return _hiding(place, python, wanted.patched) if HIDDEN and wanted.patched else str(python)


def _hiding(place: Path, python: Path, packages: tuple[str, ...]) -> str:
    """Return what runs an interpreter with copies of packages that see no AVX-512, under bench.avx2."""
    program = "import sys\nfrom bench.cpuid.patching import prepare\nfor name in sys.argv[1:]: print(prepare(name))"
    command = [str(python), "-c", program, *packages]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return script(place / "python-avx2", str(python), {"PYTHONPATH": os.pathsep.join(done.stdout.split())})


def script(path: Path, python: str, variables: dict[str, str]) -> str:
    """Write a program that runs an interpreter with some variables, PYTHONPATH before what it was; return its path."""
    lines = [
        f'export {name}="{value}{os.pathsep + "$PYTHONPATH" if name == "PYTHONPATH" else ""}"'
        for name, value in variables.items()
    ]
    path.write_text("\n".join(["#!/bin/sh", *lines, f'exec "{python}" "$@"', ""]), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def plugin_python() -> str | None:
    """Return what runs this interpreter with OpenVINO's plugin beside its packages; None where it cannot be had.

    On a CPU that Intel did not make it runs as `bench.intel` does: the plugin offers a CPU on no other.
    """
    place = ROOT / ".tools" / "openvino-plugin"
    stamp = place / "installed"
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == PLUGIN):
        say("installing OpenVINO's plugin")
        shutil.rmtree(place, ignore_errors=True)
        try:
            dev.pip(Path(sys.executable), "--no-deps", f"--target={place}", PLUGIN)
        except subprocess.CalledProcessError:
            say("OpenVINO's plugin cannot be installed: its rows are left out")
            return None
        stamp.write_text(PLUGIN, encoding="utf-8")
    told = {} if is_intel() else handled(["onnxruntime"]) | {"INTEL_VENDOR": "1"}
    first = told.pop("PYTHONPATH", "").partition(os.pathsep)[0]
    told["PYTHONPATH"] = os.pathsep.join(filter(None, [first, str(place)]))
    return script(place / "python", sys.executable, told)


def optimum_python() -> str | None:
    """Return the interpreter of dev.py's environment with optimum-onnx, which is made once; None where it cannot be.

    optimum-onnx needs a transformers that today's programs are not installed beside.
    """
    try:
        return str(dev.executable(dev.environment("optimum"), "python"))
    except (subprocess.CalledProcessError, SystemExit):
        return None


def versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of packages that an interpreter has, by name; those that it lacks are left out."""
    program = (
        "import json, sys\nfrom importlib.metadata import distributions\n"
        "have = {row.metadata['Name'].lower(): row.version for row in distributions()}\n"
        "print(json.dumps({name: have[name] for name in sys.argv[1:] if name in have}))"
    )
    # Without PYTHONPATH, where bench.avx2 puts copies of libraries.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-I", "-c", program, *packages]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    listed: dict[str, str] = json.loads(done.stdout)
    return listed


def say(text: str) -> None:
    """Report progress, apart from results."""
    print(f"performance: {text}", file=sys.stderr, flush=True)
