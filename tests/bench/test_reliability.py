"""What the page on reliability claims follows from the data that the programs wrote."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.serving import __main__ as serving
from bench.serving import attacks, memory, report
from bench.serving.soak import MOST_WRONG
from bench.serving.soak import soak as clients

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data"


@pytest.mark.parametrize("name", ["serving-attacks", "serving-fuzz", "serving-memory"])
def test_the_data_can_be_read_and_say_when_and_on_what_they_were_made(name):
    data = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    assert data["machine"]["cpu"]
    assert len(data["commit"]) == 40
    assert data.get("date", data.get("created"))


def test_the_page_of_serving_is_what_the_data_say():
    data = json.loads((DATA / "serving.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "research" / "serving.md").read_text(encoding="utf-8")
    assert report.section(data) in text
    assert re.search(r"; bertport \d\S+, 20\d\d-\d\d-\d\d, (recorded by )?commit [0-9a-f]{7}\. Ratios ", text)


def test_the_page_names_the_version_that_was_measured():
    page = (ROOT / "docs" / "research" / "reliability.md").read_text(encoding="utf-8")
    assert len(re.findall(r"; bertport \d\S+, 20\d\d-\d\d-\d\d, commit [0-9a-f]{7}\.", page)) == 3


def test_the_page_is_what_the_data_say():
    command = [sys.executable, "-m", "bench.reliability", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_some_attacks_do_not_take_the_place_of_all(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attacks", "--only", "dots"])
    monkeypatch.setattr(attacks, "measure", lambda *_: pytest.fail("it is measured"))
    with pytest.raises(SystemExit) as ended:
        attacks.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("add --output FILE\n")


def test_every_attack_held_and_the_fuzzer_found_nothing():
    recorded = json.loads((DATA / "serving-attacks.json").read_text(encoding="utf-8"))["attacks"]
    assert recorded.keys() == attacks.attacks().keys()
    assert not [(name, attacks.verdicts(measured)) for name, measured in recorded.items() if attacks.verdicts(measured)]
    fuzz = json.loads((DATA / "serving-fuzz.json").read_text(encoding="utf-8"))
    assert fuzz["requests"] >= 20_000
    assert not fuzz["wrong"]
    soak = json.loads((DATA / "serving-memory.json").read_text(encoding="utf-8"))
    assert soak["seconds"] >= 3590
    assert not memory.verdicts(soak)


def test_the_tests_that_the_pages_name_are_there():
    import re

    for page in (ROOT / "SECURITY.md", ROOT / "docs" / "research" / "reliability.md"):
        named = re.findall(r"`((?:tests|bench)/[\w/]+(?:\.py)?/?)`", page.read_text(encoding="utf-8"))
        assert named
        missing = [name for name in named if not (ROOT / name).exists()]
        assert not missing, page


def test_an_attack_is_what_its_summary_says():
    plans = attacks.attacks()
    recorded = json.loads((DATA / "serving-attacks.json").read_text(encoding="utf-8"))["attacks"]
    told = {name: row["summary"] for name, row in recorded.items()}
    assert told == {name: plan.summary for name, plan in plans.items()}

    def body(name):
        return json.loads(plans[name].request.partition(b"\r\n\r\n")[2])

    for name in ("silent", "silent-binary"):
        [ids] = body(name)["inputs"]
        tokens = int(re.search(r"logits of (\d+) tokens", plans[name].summary)[1])
        assert ids["shape"] == [1, tokens] == [1, len(ids["data"])]
    targets = body("targets")["parameters"]["targets"]
    assert plans["targets"].summary == f"{len(targets):,} targets of {len(targets[0])} characters"


def test_a_soak_ends_where_nothing_is_answered_and_says_no_more_than_a_pipe_holds():
    bodies = [json.dumps({"inputs": f"text {number}"}).encode() for number in range(50)]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        seen = asyncio.run(clients(closed.getsockname()[1], bodies, 60, 8))
    assert MOST_WRONG <= len(seen.wrong) <= MOST_WRONG + 8
    assert {said.partition(": ")[2] for said in seen.wrong} == {"refused"}
    assert len(json.dumps({"tried": dict(seen.tried), "wrong": seen.wrong})) < 1 << 16


WHOLE = ("--bundle", "default", "--bundle", "base")


@pytest.mark.parametrize("given", [(), WHOLE[2:], (*WHOLE, "--no-peer"), (*WHOLE, "--variant", "fp32")])
def test_a_part_is_not_written_in_the_place_of_the_page(given, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.serving", *given])
    monkeypatch.setattr(serving, "made", lambda _: pytest.fail("it was measured"))
    monkeypatch.setattr(serving, "measure", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(SystemExit):
        serving.main()
    assert "the page has a peer and --bundle default --bundle base: add --output" in capsys.readouterr().err
