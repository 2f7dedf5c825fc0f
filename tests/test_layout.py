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
AREAS = ("export", "quantize", "runtime", "measure", "compare", "serve")
MAY_IMPORT = {"quantize": {"measure"}, "compare": {"measure"}}
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


@pytest.mark.parametrize("area", AREAS)
def test_every_area_tells_type_checkers_that_it_is_typed(area):
    assert (ROOT / area / "bertport" / area / "py.typed").is_file()


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


def takes_onnx_runtime(node: ast.AST) -> bool:
    """Whether a statement imports ONNX Runtime, a part of it, or Optimum's package around it."""
    return any(re.match(r"(onnxruntime|optimum\.onnxruntime)(\.|$)", name) for name in imported([node]))


def past_the_door(tree: ast.Module) -> list[int]:
    """The lines that take ONNX Runtime where no statement before, in the same block or around it, opens the door.

    A door that another branch opens does not count, nor one that is opened when the function was only defined.
    """
    found: list[int] = []

    def visit(body: list[ast.stmt], *, opened: bool) -> None:
        for statement in body:
            if takes_onnx_runtime(statement) and not opened:
                found.append(statement.lineno)
            inside = opened and not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for name in ("body", "orelse", "finalbody"):
                visit(getattr(statement, name, []), opened=inside)
            for each in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                visit(each.body, opened=inside)
            value = getattr(statement, "value", None)
            opened |= (
                isinstance(statement, ast.Expr | ast.Assign)
                and isinstance(value, ast.Call)
                and isinstance(value.func, ast.Name)
                and value.func.id == "onnxruntime"
            )

    visit(tree.body, opened=False)
    return found


def smuggled(tree: ast.Module) -> list[int]:
    """The lines that import it by name, or hold a program for another process that imports it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            found += [node.lineno for each in node.args if "onnxruntime" in ast.unparse(each)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [node.lineno] * bool(
                re.search(r"^\s*(import|from) (onnxruntime|optimum\.onnx)", node.value, re.MULTILINE)
            )
    return found


DOOR = ROOT / "runtime" / "bertport" / "runtime" / "providers" / "table.py"
ALONE = ROOT / "bench" / "performance_peers.py"
"""Runs under interpreters that have no bertport; it sets the variable itself, at its head."""
SETS_IT = "os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')"
PROGRAMS = [each for place in ("bench", "models") for each in sorted((ROOT / place).rglob("*.py"))]


@pytest.mark.parametrize("path", [*MODULES, *PROGRAMS], ids=lambda path: str(path.relative_to(ROOT)))
def test_onnx_runtime_is_taken_through_one_door(path):
    """Telemetry must be off before it is imported: `providers.onnxruntime()` is called before any part of it is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path == DOOR:
        [function] = [each for each in tree.body if getattr(each, "name", "") == "onnxruntime"]
        assert len(past_the_door(function)) == len(past_the_door(tree)) == 1
        return
    if path == ALONE:
        [line] = [each.lineno for each in tree.body if ast.unparse(each) == SETS_IT]
        assert all(line < each for each in past_the_door(tree))
        return
    assert not past_the_door(tree)
    names = imported(list(ast.walk(tree)))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if "onnxruntime" in called and path.stem != "doctor":
        assert "bertport.runtime.providers.table.onnxruntime" in names, "another function of the door's name"
    if smuggled(tree):  # the variable is set for child processes as soon as any part of bertport is imported
        assert any(each.startswith("bertport.") for each in imported(statements_at_import(tree.body)))


OPENER = ROOT / "runtime" / "bertport" / "runtime" / "session.py"


@pytest.mark.parametrize("path", [*MODULES, *PROGRAMS], ids=lambda path: str(path.relative_to(ROOT)))
def test_sessions_are_opened_in_one_place(path):
    """Their settings, log level and errors are decided once; everything else calls `runtime.session.open_session`."""
    made = opened_sessions(ast.parse(path.read_text(encoding="utf-8")))
    assert len(made) == 2 if path == OPENER else not made or path == ALONE


def opened_sessions(tree: ast.AST) -> list[int]:
    """The lines that take ONNX Runtime's class of sessions or of their options, to make or to inherit from."""
    names = {"InferenceSession", "SessionOptions"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            found += [node.lineno] * (getattr(node, "attr", getattr(node, "id", None)) in names)
        elif isinstance(node, ast.ImportFrom):
            found += [node.lineno] * any(alias.name in names for alias in node.names)
    return found


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("import onnxruntime as ort\nort.InferenceSession(a)", [2]),
        ("from onnxruntime import InferenceSession as Session", [1]),
        ("options = onnxruntime().SessionOptions()", [1]),
        ("open_session(path)\nhasattr(ort, 'InferenceSession')", []),
    ],
)
def test_what_opens_a_session(program, lines):
    assert opened_sessions(ast.parse(program)) == lines


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("import onnxruntime", [1]),
        ("def f():\n  import onnxruntime as ort", [2]),
        ("def f():\n  from optimum.onnxruntime import A\n  onnxruntime()", [2]),
        ("def f():\n  onnxruntime()\n  from onnxruntime.capi import a", []),
        ("def f():\n  ort = onnxruntime()\n  with a:\n    import onnxruntime.tools", []),
        ("def f():\n  if a:\n    onnxruntime()\n  import onnxruntime.tools", [4]),
        ("def f():\n  try:\n    onnxruntime()\n    import onnxruntime\n  except E:\n    import onnxruntime", [6]),
        ("onnxruntime()\ndef f():\n  import onnxruntime", [3]),
        ("def g():\n  onnxruntime()\nfrom optimum import onnxruntime", [3]),
        ("import onnxruntime_extensions, onnx, optimum.exporters", []),
    ],
)
def test_what_is_past_the_door(program, lines):
    assert past_the_door(ast.parse(program)) == lines


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("importlib.import_module('onnxruntime')", True),
        ("__import__('onnxruntime.capi')", True),
        ("CHILD = 'import sys\\nimport onnxruntime'", True),
        ("TEXT = 'people import onnxruntime too'", False),
    ],
)
def test_what_is_smuggled(program, found):
    assert bool(smuggled(ast.parse(program))) is found


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
