"""The installation lines, from the records that pip leaves (PEP 610); tests/test_wheel.py runs some for real."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from bertport.runtime import installation
from bertport.runtime.errors import MissingDependencyError
from dev import AREAS, PROGRAMS

ROOT = Path(__file__).parents[2]
WHEEL = "bertport-9.8-py3-none-any.whl"
SOURCE = Path(installation.__file__)
LITERAL = re.compile(r"pip install [^\n`]*?(?<![\w/-])bertport\b(?!-).*")
"""A line that names bertport itself; `./bertport-0.2.0-py3-none-any.whl` is a file, `/home/me/bertport` a directory."""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that installs the module alone, with a record, and gives the module that is then imported."""
    site = tmp_path / "site"
    folder = site / "bertport" / "runtime"
    folder.mkdir(parents=True)
    shutil.copy(installation.__file__, folder)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))

    def install(record):
        info = site / "bertport-9.8.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bertport\nVersion: 9.8\n")
        if record is not None:
            (info / "direct_url.json").write_text(json.dumps(record))
        spec = importlib.util.spec_from_file_location("installed", folder / "installation.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "installed", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return install


def test_a_checkout_is_installed_again_with_more():
    assert installation.install_command("cpu,serve").endswith(f" install -e '{ROOT}[cpu,serve]'")
    assert installation.install_command("gpu", "tensorrt-cu13").endswith("[gpu]' tensorrt-cu13")
    assert installation.portable_install_command("cpu") == "`pip install '.[cpu]'` in a checkout of bertport"
    assert installation.upgrade_advice() == f"update the checkout {ROOT}"


def test_a_wheel_file(installed, tmp_path):
    wheel = tmp_path / "it's here" / WHEEL
    wheel.parent.mkdir()
    wheel.touch()
    module = installed({"url": wheel.as_uri(), "archive_info": {}})
    assert module.install_command("cpu") == f"pip install '{tmp_path}/it'\"'\"'s here/{WHEEL}[cpu]'"
    assert module.portable_install_command("cpu") == f"`pip install '{WHEEL}[cpu]'`"
    assert module.upgrade_advice() == f"install a version of bertport later than {wheel}"


def test_a_wheel_file_that_is_gone_is_what_is_installed(installed, tmp_path):
    module = installed({"url": (tmp_path / WHEEL).as_uri(), "archive_info": {}})
    assert module.install_command("cpu") == "pip install 'bertport[cpu]==9.8'"
    assert module.portable_install_command("cpu") == "`pip install '.[cpu]'` in a checkout of bertport"
    assert module.upgrade_advice() == "install a version of bertport later than 9.8"


def test_a_directory_that_was_copied(installed, tmp_path):
    module = installed({"url": tmp_path.as_uri(), "dir_info": {}})
    assert module.install_command("cpu") == f"pip install '{tmp_path}[cpu]'"
    assert module.portable_install_command("cpu") == "`pip install '.[cpu]'` in a checkout of bertport"


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({"url": f"https://files.example/{WHEEL}", "archive_info": {}}, f"https://files.example/{WHEEL}"),
        (
            {"url": "https://git.example/b.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
            "git+https://git.example/b.git@0a1b",
        ),
    ],
)
def test_a_url(installed, record, place):
    module = installed(record)
    assert module.install_command("cpu") == f"pip install 'bertport[cpu] @ {place}'"
    assert module.portable_install_command("cpu") == f"`pip install 'bertport[cpu] @ {place}'`"


@pytest.mark.parametrize("record", [{}, [], "text", {"url": "https://git.example/b.git", "vcs_info": {"vcs": "git"}}])
def test_a_record_that_says_nothing_breaks_no_error(installed, record):
    assert installed(record).install_command("cpu") == "pip install 'bertport[cpu]==9.8'"


def test_an_index(installed):
    module = installed(None)
    assert module.install_command("cpu") == "pip install 'bertport[cpu]'"
    assert module.portable_install_command("cpu") == "`pip install 'bertport[cpu]'`"
    assert module.upgrade_advice() == "pip install --upgrade bertport"


def test_pip_is_that_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert installation.pip() == "pip"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installation.pip() == f"{sys.executable} -m pip"
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setattr(sys, "executable", None)  # in a program that has Python in it
    assert installation.pip() == "python -m pip"


def test_what_needs_an_environment_of_its_own_is_installed_by_the_pip_of_that_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installation.install_command("cpu,export-optimum") == f"pip install -e '{ROOT}[cpu,export-optimum]'"
    assert str(MissingDependencyError("this", "optimum-onnx", "cpu,export-optimum")) == (
        "this needs the package optimum-onnx, which is not installed and needs an environment of its own; there: "
        f"pip install -e '{ROOT}[cpu,export-optimum]'"
    )


def test_the_first_module_that_is_missing():
    assert installation.first_missing(("json", "no_such", "nor_this")) == "no_such"
    assert installation.first_missing(("json", "no_such.part")) == "no_such.part"
    assert installation.first_missing(("json", "email.mime")) is None


def test_no_source_writes_such_a_line_itself():
    """The name is not on the public index: a line that has no record behind it fetches nothing, or another package."""
    places = (*AREAS, *PROGRAMS, "docs", "README.md")
    wrong = []
    for path in (path for place in places for path in ((ROOT / place), *(ROOT / place).rglob("*"))):
        if path.suffix in {".py", ".md", ".html", ".js", ".toml"} and path.is_file() and path != SOURCE:
            text = path.read_text(encoding="utf-8")
            wrong += [f"{path.relative_to(ROOT)}: {literal}" for literal in LITERAL.findall(text)]
    assert not wrong


def test_such_a_line_is_noticed():
    lines = ("pip install bertport", "pip install --upgrade 'bertport[cpu]'", "pip install -q bertport==0.2")
    assert all(LITERAL.search(line) for line in lines)
    files = (
        "pip install '.[cpu]'",
        "pip install './bertport-0.2.0-py3-none-any.whl[cpu]'",
        "pip install '/a/bertport[x]'",
    )
    assert not any(LITERAL.search(line) for line in files)
