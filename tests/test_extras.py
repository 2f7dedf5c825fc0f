"""Without the extras each command ends in one sentence that says what to install."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import OLD

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED = {"pyyaml": "yaml", "scikit-learn": "sklearn", "optimum-onnx": "optimum", "tensorflow-cpu": "tensorflow"}
"""Modules by their packages, where the names differ by more than hyphens."""
BUNDLE = "bundle"
COMMANDS = {
    "fill-mask": ("cpu", ["fill-mask", "the [MASK]", "-m", BUNDLE]),
    "features": ("cpu", ["features", "the word", "-m", BUNDLE, "--json"]),
    "predict": ("cpu", ["predict", "fill-mask", "-i", "the [MASK]", "-m", BUNDLE]),
    "verify --golden": ("cpu", ["verify", "--golden"]),
    "push": ("hub", ["push", BUNDLE, "acme/tiny"]),
    "export": ("export", ["export", ".", "out"]),
    "restore": ("export", ["restore", BUNDLE, "out"]),
    "quantize": ("quantize", ["quantize", BUNDLE, "--overwrite"]),
    "compare": ("compare", ["compare", BUNDLE, "--output", "out"]),
    "evaluate": ("evaluate", ["evaluate", BUNDLE, "--data", "in.jsonl"]),
    "serve": ("serve", ["serve", BUNDLE]),
    "batch": ("batch", ["batch", BUNDLE, "fill-mask", "in.jsonl", "--output", "out"]),
}
"""By name, a command's extra and its arguments; those of the extra `cpu` come first."""
PROGRAM = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
commands, absent = json.load(sys.stdin)
absent = set(absent)
sys.meta_path.insert(0, Absent())
from click.testing import CliRunner
from bertport.runtime import cli
said = {}
for name, (extra, arguments) in commands.items():
    if extra != "cpu":
        absent.discard("onnxruntime")  # or that would be what they lack first
    done = CliRunner().invoke(cli.app, arguments)
    said[name] = [done.exit_code, done.stdout, done.stderr]
print(json.dumps(said))
"""


def modules():
    """Return the modules of every extra but those that bertport itself asks for."""
    names = {
        Requirement(text).name.lower() for texts in PROJECT["optional-dependencies"].values() for text in texts
    } - {Requirement(text).name.lower() for text in PROJECT["dependencies"]}
    return sorted(IMPORTED.get(name, name.replace("-", "_")) for name in names)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Return each command's exit code and output, in a process that finds no module of any extra but `cpu`."""
    place = tmp_path_factory.mktemp("bare")
    shutil.copytree(OLD, place / BUNDLE)
    (place / "in.jsonl").write_text('{"text": "the [MASK]"}\n', encoding="utf-8")
    asked = json.dumps([COMMANDS, modules()])
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, cwd=place)
    assert {path.name for path in place.iterdir()} == {BUNDLE, "in.jsonl"}
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_its_extra_is_one_sentence(said, name):
    code, out, error = said[name]
    assert (code, out) == (1, "")
    assert re.fullmatch(r"bertport: error: .+ needs the package [\w-]+, which is not installed: .+\n", error)
    assert COMMANDS[name][0] in re.search(r"\[([\w,-]+)\]", error)[1].split(",")
