"""The layout's rules: one namespace over several roots, dependencies inwards, heavy packages only when used."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AREAS = ("export", "quantize", "runtime", "compare", "serve")
MAY_IMPORT = {"quantize": {"compare"}}
"""Beside itself and `runtime`, which every area may import."""
HEAVY = {"torch", "transformers", "optimum", "onnx", "onnxruntime", "huggingface_hub", "safetensors", "onnx_ir"}
"""Imported inside the functions that need them: starting the command line loads none of them."""
MODULES = sorted(path for area in AREAS for path in (ROOT / area / "bertport").rglob("*.py"))


def area_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / area_of(path)).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements_at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that run when a module is imported: what `if TYPE_CHECKING:` guards does not."""
    found: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            found += statements_at_import(statement.orelse)
            continue
        found.append(statement)
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.ClassDef):
            for name in ("body", "orelse", "finalbody"):
                found += statements_at_import(getattr(statement, name, []))
            for handler in getattr(statement, "handlers", []):
                found += statements_at_import(handler.body)
    return found


def imported(statements: list[ast.AST]) -> set[str]:
    names: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0 and statement.module:
            names.add(statement.module)
            names.update(f"{statement.module}.{alias.name}" for alias in statement.names)
    return names


def test_there_are_modules_to_look_at():
    assert {area_of(path) for path in MODULES} >= {"export", "runtime"}


@pytest.mark.parametrize("area", AREAS)
def test_nothing_hides_the_other_roots(area):
    assert not (ROOT / area / "__init__.py").exists()
    assert not (ROOT / area / "bertport" / "__init__.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_a_module_stands_where_its_name_says(path):
    area = area_of(path)
    assert path.relative_to(ROOT).parts[:3] == (area, "bertport", area)
    if path.name != "__main__.py":
        assert Path(importlib.import_module(module_of(path)).__file__).resolve() == path


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_dependencies_point_inwards(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    others = {match[1] for name in imported(list(ast.walk(tree))) if (match := re.match(r"bertport\.(\w+)", name))}
    area = area_of(path)
    allowed = {area} if area == "runtime" else {area, "runtime"} | MAY_IMPORT.get(area, set())
    assert others <= allowed


def loaded_with(names: set[str], at_import: dict[str, set[str]]) -> set[str]:
    """The modules that importing `names` loads, packages above them included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        above = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)}
        for each in above - found:
            found.add(each)
            waiting += at_import.get(each, ())
    return found


def test_heavy_packages_are_imported_inside_functions():
    """A module that cannot (it subclasses a torch class) is itself imported inside functions."""
    at_import = {
        module_of(path): imported(list(statements_at_import(ast.parse(path.read_text(encoding="utf-8")).body)))
        for path in MODULES
    }
    for name in at_import:
        if name.startswith("bertport.runtime") or name.count(".") == 1 or name.endswith(".cli"):
            assert not loaded_with({name}, at_import) & HEAVY, f"importing {name} loads a heavy package"


def test_the_command_line_starts_without_the_heavy_packages():
    program = (
        "import sys, bertport.runtime, bertport.runtime.cli\n"
        "try: bertport.runtime.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('loaded:', *sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
    assert "fill-mask" in done.stdout


def test_onnx_runtime_is_chosen_by_exactly_one_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not any("onnxruntime" in each or "torch" in each for each in project["dependencies"])
    for name, requirements in project["optional-dependencies"].items():
        wheels = {re.match(r"[\w-]+", each)[0] for each in requirements if each.startswith("onnxruntime")}
        assert len(wheels) == (1 if name in {"cpu", "gpu"} else 0)


def test_every_public_name_exists():
    for path in MODULES:
        module = importlib.import_module(module_of(path)) if path.name != "__main__.py" else None
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module_of(path)}.__all__ names {name}"
