"""What the program of small devices takes stock with, where no process is started."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest

from bench.small_device import __main__ as program
from bench.small_device.page import section


def test_bytes_are_those_of_a_package_s_files(tmp_path):
    place = tmp_path / "thing-1.2.dist-info"
    place.mkdir()
    (tmp_path / "thing.py").write_text("x" * 1000)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.2\n")
    (place / "RECORD").write_text("thing.py,,\nthing-1.2.dist-info/METADATA,,\nmissing.py,,\n")
    size = 1000 + (place / "METADATA").stat().st_size
    assert program.packages(tmp_path) == {"thing": {"version": "1.2", "bytes": size}}


def test_the_page_is_that_of_the_data():
    program.main(["--check"])


def test_a_machine_without_the_group_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "GROUPS", tmp_path / "none")
    with pytest.raises(SystemExit, match="takes a control group, which cannot be made"), program.quota():
        pass


def test_nothing_else_measures_meanwhile(monkeypatch):
    held = []

    @contextmanager
    def lock(_waiting):
        held.append(True)
        yield
        held.clear()

    monkeypatch.setattr(program, "machine_lock", lock)
    monkeypatch.setattr(program, "quota", nullcontext)
    monkeypatch.setattr(program, "answered", lambda **_: {"held": bool(held)})
    found = program.runs(2)
    assert [run["held"] for run in found] == [True] * 8
    assert not held
    assert [(run["low_memory"], run["limited"]) for run in found[:4]] == [
        *((False, False), (False, True), (True, False), (True, True)),
    ]


def test_the_section_has_medians_of_each_kind_and_short_lines():
    package = {"version": "1.2", "bytes": 10_000_000}
    small = dict.fromkeys(("bertport", "numpy", "onnxruntime", "tokenizers", "click"), package)
    runs = [
        {
            "low_memory": low,
            "limited": limited,
            "seconds": 4.0 * seconds if limited else seconds,
            "cpu_seconds": 0.5,
            "peak_bytes": (90 if low else 110) << 20,
            "own_bytes": 70 << 20,
            "answers_cpu_seconds": 2.0,
        }
        for low in (False, True)
        for limited in (False, True)
        for seconds in (1.0, 9.0, 2.0)
    ]
    versions = {"python": "3.11.7"}
    machine = {"cpu": "C", "instruction_set": "avx2", "busy": 1.0, "physical_cores": 2, "versions": versions}
    machine["system"] = "Linux 6.1.2 x86_64"
    data = {"small": small, "whole": {**small, "more": package}, "machine": machine, "runs": runs, "answers": 200}
    data |= {"bundles": {"default": 71_000_000, "int8-dynamic": 24_000_000}, "wheel_bytes": 22_000_000}
    text = section({**data, "date": "2026-11-29T11:04:00Z", "commit": "0" * 40})
    assert "| the five packages | 5 | 50 |" in text
    assert "| as it comes | 2.00 s | 0.50 s | 8.0 s | 110 MiB | 70 MiB | 10.0 ms |" in text
    assert "| `low_memory` | 2.00 s | 0.50 s | 8.0 s | 90 MiB | 70 MiB | 10.0 ms |" in text
    assert "Medians of 3 processes of each kind" in text
    assert "with `low_memory`. On this kernel, Linux 6.1.2, it is met; the kernel decides" in text.replace("\n", " ")
    for run in runs:
        run["peak_bytes"] += 20 << 20
    text = section({**data, "date": "2026-11-29T11:04:00Z", "commit": "0" * 40})
    assert "it is missed by 14 MiB;" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 120
