"""docs/build_site.py: where each version of the documentation's site goes. What Sphinx makes is test_site.py's."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "docs" / "build_site.py"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The program, which builds files that say what they are of in place of sites."""
    spec = importlib.util.spec_from_file_location("build_site", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def build(root, out, version):
        out.mkdir(parents=True)
        (out / "of").write_text((root / "of").read_text() + f" as {version}")

    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "OUT", tmp_path / "out")
    monkeypatch.setattr(module, "unpack", lambda ref, directory: (directory / "of").write_text(ref))
    monkeypatch.setattr(module, "build", build)
    (tmp_path / "of").write_text("checkout")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "2.0"\n')
    return module


def test_versions_of_like_names_have_directories_of_their_own(program, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["build_site.py", "a/b", "a-b", "v1", ".", "a/b"])
    program.main()
    sites = tmp_path / "out" / "sites"
    versions = json.loads((sites / "versions.json").read_text())
    assert versions == [
        {"name": "a/b", "path": "a~b/"},
        {"name": "a-b", "path": "a-b/"},
        {"name": "v1", "path": "v1/"},
        {"name": "2.0", "path": "2.0/"},
    ]
    assert [(sites / each["path"] / "of").read_text() for each in versions] == [
        "a/b as a/b",
        "a-b as a-b",
        "v1 as v1",
        "checkout as 2.0",
    ]
    assert "url=a~b/" in (sites / "index.html").read_text()


@pytest.mark.parametrize(
    ("first", "second", "place"), [("a/b", "a@b", "a~b/"), (".", "2.0", "2.0/"), ("V1", "v1", "v1/")]
)
def test_versions_of_one_directory_are_refused(program, tmp_path, monkeypatch, first, second, place):  # noqa: PLR0913, PLR0917 — a row
    monkeypatch.setattr(sys, "argv", ["build_site.py", first, second])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == (f"{first} and {second} would both be out/sites/{place}: name one of them by its commit")
    assert not (tmp_path / "out").exists()
