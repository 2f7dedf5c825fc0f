"""Each benchmark is a program that starts as its first lines say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"): path
    for path in sorted((ROOT / "bench").rglob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
}
PAGES = [ROOT / "README.md", ROOT / "js" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_says_how_it_is_started(name):
    tree = ast.parse(PROGRAMS[name].read_text(encoding="utf-8"))
    assert f"python -m {name}" in ast.get_docstring(tree)


def test_contributing_names_programs_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {word for word in text.split() if word.startswith("bench.")}
    assert len(named) > 10
    assert named <= PROGRAMS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_names_programs_that_exist(page):
    named = re.findall(r"python3? -m\s+(bench(?:\.\w+)*)", page.read_text(encoding="utf-8"))
    assert set(named) <= PROGRAMS.keys()


def test_none_is_imported_but_as_a_part_of_bench():
    names = {path.stem for path in (ROOT / "bench").rglob("*.py")}
    for path in (ROOT / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module.partition(".")[0] not in names, path
