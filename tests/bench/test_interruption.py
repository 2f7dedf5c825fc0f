"""Export and quantize killed a few times each, and what the page claims of a hundred times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import interruption

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data" / "interruption.json"


@pytest.mark.long
@pytest.mark.slow
def test_killed_commands_leave_a_whole_bundle_and_nothing_else(tmp_path):
    output = tmp_path / "found.json"
    command = [sys.executable, "-m", "bench.interruption", "--kills", "5", "--output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads(output.read_text(encoding="utf-8"))["cases"]
    assert {case["command"] for case in cases} == {"export", "quantize"}


@pytest.mark.skipif(not DATA.exists(), reason="python -m bench.interruption has not been run")
def test_of_a_hundred_kills_each_nothing_was_wrong():
    data = json.loads(DATA.read_text(encoding="utf-8"))
    assert data["machine"]["cpu"]
    assert len(data["commit"]) == 40
    for command in ("export", "quantize"):
        cases = [case for case in data["cases"] if case["command"] == command]
        assert sum(case["kills"] for case in cases) >= 100
        assert not [case["wrong"] for case in cases if case["wrong"]]


@pytest.mark.parametrize(("left", "wrong"), [("new", ""), ("old", "WRONG: it ended with 0, and left the bundle old")])
def test_a_command_that_ended_has_done_its_work(left, wrong, tmp_path, monkeypatch):
    """In place of the command and of what reads its bundle."""
    monkeypatch.setattr(interruption, "run", lambda *_, **__: 0)
    monkeypatch.setattr(interruption, "ended", lambda _: 0)
    monkeypatch.setattr(interruption, "outcome", lambda *_: left)
    monkeypatch.setattr(interruption, "again", lambda *_: "")
    case = SimpleNamespace(place=lambda *_: None)
    assert interruption.kill(case, None, tmp_path, step=1) == ("done", wrong)


def test_the_index_of_research_says_how_many_kills_there_were():
    cases = json.loads(DATA.read_text(encoding="utf-8"))["cases"]
    text = " ".join((ROOT / "docs" / "research" / "README.md").read_text(encoding="utf-8").split())
    assert f"After each of the {sum(case['kills'] for case in cases)} kills the bundle was" in text
    assert {state for case in cases for state in case["left"]} == {"done", "missing", "new", "old"}
