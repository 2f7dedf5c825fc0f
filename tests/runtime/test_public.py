"""What is public is what `__all__` says, and importing it loads nothing heavy."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import bertport.runtime
from dev import AREAS

FOLDER = Path(bertport.runtime.__file__).parent
MODULES = sorted(path for path in FOLDER.rglob("*.py") if not path.name.startswith("__"))


def defined(path):
    """Names that a module itself defines at its top level and that do not begin with an underscore."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@cache
def taken():
    """Names that the project's files import, by the module that they take them from; read once for all modules."""
    found = defaultdict(set)
    for area in AREAS:
        for path in (FOLDER.parents[2] / area / "bertport").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    found[node.module] |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_all_is_what_other_modules_use(path):
    """`__all__` names only what is defined here, and all that other files of the project take from here."""
    module = "bertport.runtime." + ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    public = set(importlib.import_module(module).__all__)
    assert public <= defined(path)
    assert taken()[module] <= public


def test_the_interface_is_load_and_model():
    assert sorted(bertport.runtime.__all__) == ["Model", "load"]
    assert {name for name in dir(bertport.runtime) if not name.startswith("_")} == {"Model", "load"}
    assert bertport.runtime.load is importlib.import_module("bertport.runtime.loading").load
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        bertport.runtime.laod  # noqa: B018 — the attribute access is the test


def test_answering_loads_no_framework(tiny_bundle):
    program = (
        "import sys\n"
        "from bertport.runtime import load\n"
        f"print(len(load({str(tiny_bundle)!r}).fill_mask('a [MASK]')))\n"
        "print('loaded:', *sorted({'torch', 'transformers', 'optimum', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "loaded:"]


def test_help_loads_no_numpy_either():
    program = (
        "import sys\nfrom bertport.runtime.cli import main\n"
        "try: main(['fill-mask', '--help'])\nexcept SystemExit: pass\n"
        "print('loaded:', *sorted({'numpy', 'tokenizers', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"
