"""An interpreter where something fails is a row with what was said, and no end of the program."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bench import checkout, pythons


@pytest.mark.parametrize(
    ("interpreter", "said"),
    [("no-such-python", "No such file or directory"), ("/bin/false", "non-zero exit status 1"), ("cut.tar", "tar: ")],
)
def test_what_is_no_interpreter_is_a_row_that_failed(interpreter, said, tmp_path):
    (tmp_path / "cut.tar").write_text("cut", encoding="utf-8")
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    wheel.write_text("cut", encoding="utf-8")
    path = tmp_path / interpreter if interpreter.endswith(".tar") else Path(interpreter)
    row = pythons.row_of(path, wheel, tmp_path / "place", [])
    assert said in row["failed"]
    assert row["python"] == ""


def test_another_python_gets_nothing_of_this_one_s(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("OTHER", "kept")
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & checkout.environment().keys()
    assert checkout.environment()["OTHER"] == "kept"


def test_a_name_that_is_no_interpreter_keeps_the_data(monkeypatch, tmp_path):
    monkeypatch.setattr(pythons, "OUTPUT", tmp_path / "pythons.json")
    monkeypatch.setattr(sys, "argv", ["bench.pythons", sys.executable, "/no/such/python"])
    with pytest.raises(SystemExit, match=r"^there is no interpreter /no/such/python, so nothing was run: give"):
        pythons.main()
    assert not pythons.OUTPUT.exists()


def test_the_tests_that_are_run_elsewhere_import_nothing_that_is_not_there():
    """What is installed there is the runtime; what compares with others, or exports, is in other files."""
    others = re.compile(r"^ *(?:from|import) (?:(?:torch|transformers|onnx)\b|bertport\.(?!runtime\b))", re.MULTILINE)
    folder = checkout.ROOT / "tests" / "runtime"
    for name in pythons.TESTS:
        text = (folder / name).read_text(encoding="utf-8")
        assert not others.search(text), name
        assert "tiny_checkpoint" not in text, name
    assert others.search("def test():\n    import torch\n")
