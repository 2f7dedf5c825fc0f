"""What the pages quote exists, and they stay short enough to be read."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from bertport.runtime.tasks.table import TASKS
from dev import AREAS, PROGRAMS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "models/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
FOLDERS = (*AREAS, *PROGRAMS, "data", "docs", "tests")
FILE = re.compile(rf"(?<![\w/.~-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
NAME = re.compile(rf"\bbertport\.(?:{'|'.join(AREAS)})(?:\.\w+)*")
PARTS = ("runtime.Model", "runtime.Pipeline", "export.Event")
"""Public names that others return, and that the page writes without their module."""
EXTRAS = {each: each for each in ("export", "quantize", "evaluate", "compare", "serve", "batch")}
EXTRAS |= {"restore": "export", "push": "hub"}
"""By command, the extra that it needs."""
LONGEST = {"README.md": 120, "docs/guide": 150, "docs/how-to": 150, "docs/ARCHITECTURE.md": 100}


def quoted(page):
    """The code that a page quotes in its lines; blocks of code run as tests of their own."""
    return re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    )


def found(name):
    """The object of a dotted name, or an ImportError or AttributeError."""
    path, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(found(path), attribute)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_and_name_that_is_quoted_exists(page):
    missing = []
    for code in quoted(page):
        missing += [each for each in FILE.findall(code) if not (ROOT / each).exists()]
        for name in NAME.findall(code):
            try:
                found(name)
            except AttributeError:
                missing.append(name)
    assert not missing


@pytest.mark.parametrize("name", ["docs/no-such-page.md", "bertport.runtime.loading.laod", "bertport.runtime.no.such"])
def test_what_does_not_exist_is_noticed(name, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"See `{name}`, `docs/README.md` and `bertport.runtime.load`.\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape(name)):
        test_every_file_and_name_that_is_quoted_exists(page)


@pytest.mark.parametrize("place", LONGEST)
def test_pages_for_people_are_short(place):
    pages = [ROOT / place] if place.endswith(".md") else sorted((ROOT / place).glob("*.md"))
    assert pages
    for page in pages:
        assert len(page.read_text(encoding="utf-8").splitlines()) <= LONGEST[place], page


def test_the_page_of_tasks_has_each_with_its_parameters():
    """`truncation`, which all have, is said once."""
    page = (ROOT / "docs" / "reference" / "tasks.md").read_text(encoding="utf-8")
    sections = {}
    for section in page.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        sections |= dict.fromkeys(title.split(", "), text)
    for name, task in TASKS.items():
        documented = set(re.findall(r"^\| `(\w+)` \|", sections[name], re.MULTILINE)) | {"truncation"}
        known = {field.name for field in dataclasses.fields(task.options)}
        assert known <= documented, name
        assert documented - known <= {"normalize"}, name


def test_the_page_of_python_has_every_name_that_stays_the_same():
    """The page on support lists what is public, and no other page has a list of its own."""
    support, python = (
        (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8") for name in ("support", "python")
    )
    [row] = re.findall(r"^\| Python \| (.*) \|$", support, re.MULTILINE)
    public = [name for name in NAME.findall(row) if not isinstance(found(name), ModuleType)]
    assert {"bertport.batch.run", "bertport.quantize.quantizer.quantize"} <= set(public)
    public += [
        f"bertport.{area}.{name}" for area in ("runtime", "export") for name in found(f"bertport.{area}").__all__
    ]
    public = {"Model", "bertport.runtime.errors", *public} - {f"bertport.{name}" for name in PARTS}
    table = python.partition("| call |")[2].partition("\n\n")[0]
    assert [name for name in public if f"`{name}" not in table] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name in {"guide", "how-to"}], ids=lambda at: at.stem
)
def test_a_page_names_the_extras_of_its_commands(page):
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = set(re.findall(r"^(?:\$ )?bertport (\w+)", "\n".join(blocks), re.MULTILINE))
    named = re.findall(r"\bextras?\b([^.]*)", text) + re.findall(r"\[([\w,-]+)\]'", text)
    missing = {extra for command, extra in EXTRAS.items() if command in commands} - set(
        re.findall(r"[\w-]+", " ".join(named))
    )
    assert not missing


def rows(page, head):
    """The rows of the table with this head, as cells."""
    table = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(head)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize(
    ("page", "head", "named"),
    [
        ("reference/python.md", "| keyword | default |", "bertport.runtime.loading.load"),
        ("how-to/scikit-learn.md", "| parameter | default |", "bertport.runtime.sklearn.Encoder"),
    ],
)
def test_a_table_has_every_argument_with_its_default(page, head, named):
    arguments = dict(inspect.signature(found(named)).parameters)
    arguments.pop("path", None)
    documented = {name: cells[1].strip("`") for cells in rows(page, head) for name in re.findall(r"`(\w+)`", cells[0])}
    assert documented.keys() == arguments.keys()
    for name, default in documented.items():
        assert default in {"as in load", "as in `load", str(arguments[name].default), f'"{arguments[name].default}"'}


def test_the_page_of_tasks_has_the_options_of_commands_that_are_named_otherwise():
    parameters = {field.name for task in TASKS.values() for field in dataclasses.fields(task.options)}
    help_of = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    listed = rows("reference/tasks.md", "| command | option | parameter |")
    assert listed
    for command, options, names in listed:
        section = help_of.partition(f"## bertport {command.strip('`')}\n")[2].partition("\n## ")[0]
        assert [each for each in re.findall(r"`(-[\w-]+)`", options) if not re.search(f"{each}[ ,]", section)] == []
        assert set(re.findall(r"`(\w+_\w+|targets)`", names)) <= parameters
