"""Wheels of ONNX Runtime, each in an environment without torch and transformers, and plugins; kept in `.tools`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
WHEELS = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu==1.31.1"}
"""The wheel of each; that of `gpu` is pinned, because tests also read what the providers' libraries hold."""
PLUGINS = {
    "openvino": "onnxruntime-ep-openvino==1.8.1",
    "webgpu": "onnxruntime-ep-webgpu==0.4.0",
}
"""Packages of plugins, pinned because tests also read what their libraries hold."""


def plugin(name: str) -> Path:
    """Return a directory for PYTHONPATH with the package of a plugin and nothing else, made once."""
    return directory_of(f"plugins/{PLUGINS[name]}", PLUGINS[name])


def directory_of(name: str, *requirements: str) -> Path:
    """Return a directory for PYTHONPATH with packages, without what these ask for, made once below `.tools`."""
    place = ROOT / ".tools" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if place.is_dir():
            return place
        unfinished = place.with_name(f"{place.name}.{os.getpid()}")
        install = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
        command = [*install, "--target", str(unfinished), *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{requirements[0]} could not be installed: {done.stderr.strip().splitlines()[-1]}")
        unfinished.rename(place)
    return place


def environment(name: str) -> Path:
    """Return the interpreter of an environment with one of the wheels, made once."""
    requirement = WHEELS[name]
    place = ROOT / ".tools" / f"onnxruntime-{name}"
    stamp = place / "installed"
    python = place / "bin" / "python"
    wanted = f"{requirement} {sys.version}"
    place.parent.mkdir(exist_ok=True)
    with FileLock(f"{place}.lock"):
        if stamp.is_file() and stamp.read_text() == wanted:
            return python
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
        install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", requirement]
        done = subprocess.run([*install, "numpy", "tokenizers", "click"], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{requirement} could not be installed: {done.stderr.strip().splitlines()[-1]}")
        stamp.write_text(wanted)
    return python


def run(python, *arguments):
    """Run the checkout's runtime under another environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean |= {"PYTHONPATH": str(ROOT / "runtime"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(each) for each in (python, *arguments)]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=300)


def bertport(python, *arguments):
    return run(python, "-m", "bertport.runtime", *arguments)
