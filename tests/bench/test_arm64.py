"""What the page says of arm64 follows from the data, and what was refused is not called not run."""

import json
import math
import subprocess

import pytest

from bench.arm64 import __main__ as program
from bench.arm64 import inside, root
from bench.arm64.__main__ import main, outcome
from bench.arm64.page import section
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.golden import GoldenReport, ProvenOutput, ProvenVariant

ROW = {"cpu": "max", "bundle": "b", "variant": "int8-dynamic", "result": "within", "said": None}
GUEST = {"features": ["sve"], "python": "3", "onnxruntime": "1", "numpy": "2", "tokenizers": "0"}


def test_the_page_is_what_the_data_say():
    main(["page", "--check"])


def test_a_cell_is_the_worst_of_its_rows_refused_or_not_run():
    measured = [{**ROW, "difference": far, "tolerance": 0.5} for far in (0.1, 0.2)]
    refused = {
        **ROW,
        "variant": "int8-static",
        "result": "refused",
        "difference": None,
        "tolerance": None,
        "said": "no",
    }
    rows = [*measured, refused]
    guests = {"max": GUEST, "cortex-a72": {**GUEST, "features": []}}
    data = {"guests": guests, "rows": rows, "date": "2026-11-29T00:00:00Z", "commit": "0" * 40}
    failure = "FAILED test_cli.py::test_one - assert 1 == 2"
    ended = "test_doctor.py ended with -11: no word"
    ran = {"counts": {"passed": 3, "failed": 1}, "failures": [failure, ended], "commit": "1" * 40}
    text = section(data, {"tests": {"max": ran}})
    assert "| int8-dynamic | 40% (1) | not run |" in text
    assert "| int8-static | refused | not run |" in text
    assert "| `max` | no | no | yes | 3 | 0 | 2 | 0 | 1 |" in text
    assert "- int8-static: no" in text
    assert "| `max` | 3 | 0 | 2 | 111111111111 |" in text
    assert f"- `max`: {failure}\n- `max`: {ended}\n" in text


def test_a_difference_that_is_infinite_is_null_and_a_word(tiny_bundle, tmp_path, monkeypatch):
    proven = ProvenOutput(tolerance=0.5, largest_difference=math.inf, compared=1)
    variant = ProvenVariant(name="fp32", provider="cpu", outputs={"logits": proven})
    said = "variant 'fp32' on cpu: logits has the shape [1]: its graph computes otherwise"
    report = GoldenReport(texts=1, variants=(variant,), failures=(said,))
    monkeypatch.setattr(inside, "verify_golden", lambda *_, **__: report)
    told = json.loads(json.dumps(inside.became("b", "fp32"), allow_nan=False))
    data = tmp_path / "data.json"
    monkeypatch.setattr(program, "DATA", data)
    monkeypatch.setattr(program, "bundles", lambda *_: {"b": tiny_bundle})
    monkeypatch.setattr(program, "verified", lambda *_: (GUEST, {"fp32": told}))
    with pytest.raises(SystemExit, match="1 outputs differ from the golden values"):
        program.run(["max"], None, ["fp32"])
    [row] = json.loads(data.read_text(encoding="utf-8"))["rows"]
    assert (row["difference"], row["word"], row["result"], row["said"]) == (None, "infinite", "differs", said)
    text = section(json.loads(data.read_text(encoding="utf-8")), {"tests": {}})
    assert "| fp32 | infinite (1) |" in text


def test_what_pytest_said_is_counted():
    failures = ["FAILED a.py::test_b[3 passed] - no", "ERROR a.py::test_c - no"]
    said = "\n".join(["F.E", "= summary =", *failures, "1 failed, 61 passed, 2 skipped, 1 error in 24.83s", ""])
    assert outcome(said) == ({"failed": 1, "passed": 61, "skipped": 2, "error": 1}, failures)
    assert outcome("") == ({}, [])


def test_a_process_that_is_started_by_its_path_runs_in_the_emulator(monkeypatch, tmp_path):
    """In place of the emulator a program that prints what it is given."""
    place = tmp_path / "an emulator's"
    (place / "packages").mkdir(parents=True)
    emulator = place / "emulator" / "usr" / "bin" / "qemu-aarch64"
    emulator.parent.mkdir(parents=True)
    emulator.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    emulator.chmod(0o755)
    monkeypatch.setattr(root, "PLACE", place)
    started = root.program("max,sve=off", tmp_path)
    said = subprocess.check_output([started, "-c", "print(1, $HOME)"], text=True).splitlines()
    assert said[2:] == [
        "-cpu",
        "max,sve=off",
        str(place / "root" / "usr" / "bin" / "python3.13"),
        "-c",
        "print(1, $HOME)",
    ]


def test_rows_of_what_had_a_bundles_title_before_are_dropped(tiny_bundle, tmp_path, monkeypatch):
    data = tmp_path / "data.json"
    old, other = ({**ROW, "bundle": title, "digest": "sha256:0"} for title in ("b", "another"))
    data.write_text(json.dumps({"guests": {}, "rows": [old, other]}), encoding="utf-8")
    monkeypatch.setattr(program, "DATA", data)
    monkeypatch.setattr(program, "bundles", lambda *_: {"b": tiny_bundle})
    monkeypatch.setattr(program, "verified", lambda _, __, asked: (GUEST, {name: {"refused": "no"} for name in asked}))
    program.run(["max"], None, None)
    rows = json.loads(data.read_text(encoding="utf-8"))["rows"]
    assert [row for row in rows if row["bundle"] == "another"] == [other]
    assert {row["digest"] for row in rows if row["bundle"] == "b"} == {Bundle.open(tiny_bundle).digest}
