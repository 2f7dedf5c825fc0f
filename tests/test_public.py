"""What a module shows to others is what its `__all__` says, in every area."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.test_layout import MODULES, PROGRAMS, module_of

SHOWN = [path for path in MODULES if path.name != "__main__.py"]


@cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def defined(tree):
    """Names that a module itself defines at its top level and that do not begin with an underscore."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def only_for_types(tree):
    """Names of types that only a type checker sees: at run time there is nothing to show."""
    guarded = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {name for node in guarded for name in defined(ast.Module(node.body, []))}


@cache
def taken():
    """Names that the project's files import, by the module that they take them from; read once for all modules."""
    names = defaultdict(set)
    for path in [*MODULES, *PROGRAMS]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom):
                names[node.module] |= {alias.name for alias in node.names}
    submodules = {module_of(path) for path in MODULES}
    return {module: {name for name in names[module] if f"{module}.{name}" not in submodules} for module in names}


@pytest.mark.parametrize("path", SHOWN, ids=module_of)
def test_all_is_what_other_modules_use(path):
    """`__all__` names only what is defined here, and all that other files of the project take from here."""
    module = importlib.import_module(module_of(path))
    public = set(getattr(module, "__all__", ()))
    if path.name != "__init__.py":  # a package shows names of its modules, or nothing
        assert "__all__" in vars(module)
        assert public <= defined(parsed(path))
    assert taken().get(module.__name__, set()) - only_for_types(parsed(path)) <= public


def test_there_are_names_to_look_at():
    assert {"load", "Model"} <= set(importlib.import_module("bertport.runtime").__all__)
    assert "Bundle" in taken()["bertport.runtime.bundle.directory"]
    assert Path(importlib.import_module("bertport.runtime.loading").__file__) in SHOWN
    assert defined(ast.parse("A, B = 1, 2\nC: int = 3\ndef d(): ...\nasync def e(): ...\n_f = 1\nfrom g import h")) == {
        *"ABCde"
    }
