"""The layout's rules: one namespace over several roots, dependencies inwards, heavy packages only when used."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import dev
from bertport.runtime.cli import app
from dev import AREAS
from tests.layout import Tree, area_of

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = {
    "runtime": ("providers", "bundle", "text", "tasks", "methods", "pipelines", "commands"),
    "measure": ("quality", "speed", "labelled"),
    "export": ("checkpoint", "graph.passes", "graph", "validation"),
    "quantize": ("graph", "calibration", "weights", "recipes", "search"),
    "compare": ("report", "evaluate"),
    "serve": ("engine", "http", "observability", "api", "site", "triton"),
}
"""By area, its rooms from the lowest up: a module imports from its own and from those before it.

The area's own modules belong to no room: some are the ground (`errors`), others the roof (`cli`).
"""
TREE = Tree(root=ROOT, areas=AREAS, programs=(*dev.PROGRAMS, "docs", "tests"), rooms=ROOMS)
HEAVY = {"torch", "transformers", "optimum", "onnx", "onnxruntime", "huggingface_hub", "safetensors", "onnx_ir"}
"""Imported inside the functions that need them: starting the command line loads none of them."""
MODULES = {path: name for name, path in TREE.paths.items()}


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


RULES = ("upward", "circles", "unregistered", "untyped", "unlisted", "borrowed")


@pytest.mark.parametrize("rule", RULES)
def test_the_rules_of_the_layout(rule):
    assert getattr(TREE, rule)() == set()


@pytest.mark.parametrize("area", ROOMS)
def test_the_page_of_the_architecture_names_every_room(area):
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{area}` |")]
    named = [room.rpartition(".")[2] for room in ROOMS[area]]
    assert [room for room in named if f"`{room}`" not in row] == []


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


SOUND = {
    "low/bertport/low/py.typed": "",
    "low/bertport/low/__init__.py": '"""The lower area."""',
    "low/bertport/low/errors.py": "__all__ = ['Wrong']\nclass Wrong(Exception): ...",
    "low/bertport/low/cellar/__init__.py": '"""A room."""',
    "low/bertport/low/cellar/a.py": "from bertport.low.errors import Wrong\n__all__ = ['A']\nA = Wrong\nHIDDEN = 2",
    "low/bertport/low/hall/__init__.py": '"""A room."""',
    "low/bertport/low/hall/b.py": "from bertport.low.cellar import a\n__all__ = ['B']\nB = a.A",
    "high/bertport/high/py.typed": "",
    "high/bertport/high/cli.py": "from bertport.low.hall.b import B\n__all__ = ['main']\nmain = B",
    "bench/speed.py": "from bertport.high.cli import main",
}
LOW, ROOM = "low/bertport/low/errors.py", "low/bertport/low/cellar/c.py"


@pytest.mark.parametrize(
    ("rule", "files", "found"),
    [
        (None, {}, ""),
        ("upward", {LOW: "import bertport.high.cli\n__all__ = []"}, "bertport.low.errors -> bertport.high.cli"),
        ("upward", {LOW: "def f():\n  from bench import speed\n__all__ = []"}, "bertport.low.errors -> bench"),
        ("upward", {LOW: "import dev\n__all__ = []"}, "bertport.low.errors -> dev"),
        (
            "upward",
            {ROOM: "from bertport.low.hall import b\n__all__ = []"},
            "bertport.low.cellar.c -> bertport.low.hall.b",
        ),
        (
            "circles",
            {LOW: "if TYPE_CHECKING:\n  from bertport.low.cellar.a import A\n__all__ = ['Wrong']"},
            "bertport.low.cellar.a <-> bertport.low.errors",
        ),
        (
            "circles",
            {LOW: "def f():\n  from bertport.low.hall.b import B\n__all__ = ['Wrong']"},
            "bertport.low.cellar.a <-> bertport.low.errors <-> bertport.low.hall.b",
        ),
        ("unregistered", {"attic/bertport/attic/py.typed": ""}, "attic"),
        ("unregistered", {"low/bertport/low/attic/__init__.py": ""}, "low: attic"),
        ("untyped", {"low/bertport/low/py.typed": None}, "low"),
        ("unlisted", {LOW: "class Wrong(Exception): ..."}, "bertport.low.errors"),
        (
            "unlisted",
            {ROOM: "from bertport.low.cellar.a import HIDDEN\n__all__ = []"},
            "bertport.low.cellar.c -> bertport.low.cellar.a.HIDDEN",
        ),
        (
            "unlisted",
            {ROOM: "from bertport.low.cellar import a\n__all__ = ['X']\nX = a.HIDDEN"},
            "bertport.low.cellar.c -> bertport.low.cellar.a.HIDDEN",
        ),
        (
            "borrowed",
            {ROOM: "from bertport.low.cellar.a import A\n__all__: list[str] = ['A']"},
            "bertport.low.cellar.c.A",
        ),
        (
            None,
            {
                LOW: "class Wrong(Exception): ...\nif TYPE_CHECKING:\n  Kind = int\n__all__ = ['Wrong']",
                ROOM: "if TYPE_CHECKING:\n  from bertport.low.errors import Kind\n__all__ = []",
            },
            "",
        ),
    ],
)
def test_each_rule_is_seen_to_fail(rule, files, found, tmp_path):
    """On a small tree that keeps every rule until a file of it is changed, added or removed."""
    write(tmp_path, SOUND | {"dev.py": ""} | {name: content for name, content in files.items() if content is not None})
    for name in (name for name, content in files.items() if content is None):
        (tmp_path / name).unlink()
    areas, rooms = {"low": (), "high": ("low",)}, {"low": ("cellar", "hall")}
    tree = Tree(root=tmp_path, areas=areas, programs=("bench",), rooms=rooms)
    assert (found in getattr(tree, rule)()) if rule else not any(getattr(tree, each)() for each in RULES)


def test_the_lists_of_areas_are_those_of_dev():
    areas, tool = list(AREAS), PYPROJECT["tool"]
    assert tool["hatch"]["build"]["dev-mode-dirs"] == areas
    assert tool["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"{each}/bertport" for each in areas]
    roots = [*areas, "models"]  # the recipe's packages are imported by their own names, those of bench as bench.x
    assert tool["mypy"]["mypy_path"].split(":") == [f"$MYPY_CONFIG_FILE_DIR/{each}" for each in roots]
    assert tool["pytest"]["ini_options"]["testpaths"] == ["tests", *areas]
    assert tool["ruff"]["src"] == roots


def test_the_areas_that_are_imported_are_registered_before():
    """An area stands below those that import it, in the lists and in the picture."""
    seen = set()
    for area, below in AREAS.items():
        assert set(below) <= seen
        seen.add(area)


@pytest.mark.parametrize("area", AREAS)
def test_nothing_hides_the_other_roots(area):
    assert not (ROOT / area / "__init__.py").exists()
    assert not (ROOT / area / "bertport" / "__init__.py").exists()


def test_a_module_stands_where_its_name_says():
    for path, name in MODULES.items():
        assert path.relative_to(ROOT).parts[:3] == (area_of(name), "bertport", area_of(name))
        if path.name != "__main__.py":
            assert Path(importlib.import_module(name).__file__).resolve() == path


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
        name: imported(list(statements_at_import(ast.parse(path.read_text(encoding="utf-8")).body)))
        for path, name in MODULES.items()
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
PROGRAMS = [each for place in dev.PROGRAMS for each in sorted((ROOT / place).rglob("*.py"))]


def test_onnx_runtime_is_taken_through_one_door():
    """Telemetry must be off before it is imported: `providers.onnxruntime()` is called before any part of it is."""
    door = ast.parse(DOOR.read_text(encoding="utf-8"))
    [function] = [each for each in door.body if getattr(each, "name", "") == "onnxruntime"]
    assert len(past_the_door(function)) == len(past_the_door(door)) == 1
    for path in {*MODULES, *PROGRAMS} - {DOOR, PROBE}:
        text = path.read_text(encoding="utf-8")
        if "onnx" not in text:  # in no statement and no string: nothing below finds anything
            continue
        tree = ast.parse(text)
        assert not past_the_door(tree), path
        nodes = list(ast.walk(tree))
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        if "onnxruntime" in called and path.stem != "doctor":
            assert "bertport.runtime.providers.table.onnxruntime" in imported(nodes), (
                f"{path}: another function of the door's name"
            )
        if smuggled(tree):  # the variable is set for child processes as soon as any part of bertport is imported
            assert any(each.startswith("bertport.") for each in imported(statements_at_import(tree.body))), path


def test_progress_is_shown_in_one_place():
    """Whether a stream is a terminal is asked in the room of the commands, which all areas' commands use."""
    asking = {path for path in MODULES if ".isatty()" in path.read_text(encoding="utf-8")}
    assert asking
    assert {path.parent for path in asking} == {ROOT / "runtime" / "bertport" / "runtime" / "commands"}


def test_tables_are_laid_out_in_one_place():
    """Columns are padded by the width that a terminal gives a text, which its number of characters is not."""
    padding = re.compile(r"\.[lr]just\(|:.?[<>^]\{")
    found = {path.parent for path in MODULES if padding.search(path.read_text(encoding="utf-8"))}
    assert found <= {ROOT / "runtime" / "bertport" / "runtime" / "commands"}


OPENER = ROOT / "runtime" / "bertport" / "runtime" / "session.py"
PROBE = ROOT / "bench" / "runtimes" / "probe.py"
"""Proves another release of ONNX Runtime by a bundle's files alone: nothing of bertport is there, and whoever starts it
turns telemetry off."""
ALONE = {PROBE, *(ROOT / "bench" / "performance" / name for name in ("openvino_peers.py", "peers.py"))}
"""Measure ONNX Runtime and its plugins as they come, without the settings of bertport."""


def test_sessions_are_opened_in_one_place():
    """Their settings, log level and errors are decided once; everything else calls `runtime.session.open_session`."""
    made = {}
    for path in {*MODULES, *PROGRAMS} - ALONE:
        text = path.read_text(encoding="utf-8")
        if any(name in text for name in SESSIONS):
            made[path] = opened_sessions(ast.parse(text))
    assert len(made.pop(OPENER)) == 2
    assert not {path: lines for path, lines in made.items() if lines}


SESSIONS = {"InferenceSession", "SessionOptions"}
"""ONNX Runtime's class of sessions, and that of their options."""


def opened_sessions(tree: ast.AST) -> list[int]:
    """The lines that take one of the two classes, to make or to inherit from."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            found += [node.lineno] * (getattr(node, "attr", getattr(node, "id", None)) in SESSIONS)
        elif isinstance(node, ast.ImportFrom):
            found += [node.lineno] * any(alias.name in SESSIONS for alias in node.names)
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


def test_the_command_line_starts_without_the_heavy_packages_and_without_other_areas():
    areas = {f"bertport.{area}" for area in AREAS} - {"bertport.runtime"}
    heavy = HEAVY | areas | {"numpy", "scipy", "sklearn", "tokenizers"}
    program = (
        "import sys, bertport.runtime, bertport.runtime.cli\n"
        "try: bertport.runtime.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('loaded:', *sorted(set(sys.modules) & {heavy!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
    assert "fill-mask" in done.stdout


def test_the_list_of_commands_says_of_each_what_the_command_itself_does():
    listed = CliRunner().invoke(app, ["--help"]).stdout
    for name in app.list_commands(click.Context(app)):
        command = app.get_command(click.Context(app), name)
        [line] = [line for line in listed.splitlines() if line.startswith(f"  {name} ")]
        summary = line.split(maxsplit=1)[1]
        assert command.help.startswith(summary.removesuffix("...").removesuffix(".")), name


def test_onnx_runtime_is_chosen_by_exactly_one_extra():
    project = PYPROJECT["project"]
    assert not any("onnxruntime" in each or "torch" in each for each in project["dependencies"])
    for name, requirements in project["optional-dependencies"].items():
        wheels = {re.match(r"[\w-]+", each)[0] for each in requirements if each.startswith("onnxruntime")}
        wheels = {wheel for wheel in wheels if not wheel.startswith("onnxruntime-ep-")}  # plugins bring none
        assert len(wheels) == (1 if name in {"cpu", "gpu"} else 0)


def test_every_public_name_exists():
    for path, name in MODULES.items():
        module = importlib.import_module(name) if path.name != "__main__.py" else None
        for each in getattr(module, "__all__", ()):
            assert hasattr(module, each), f"{name}.__all__ names {each}"
