"""What the program of small devices takes stock with, where no process is started."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from bench.small_device import __main__ as program
from bench.small_device import groups
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


@pytest.mark.parametrize(
    ("group", "what"), [(lambda: groups.quota(0.25), "a share"), (lambda: groups.memory_bound(1 << 26), "a bound")]
)
def test_a_machine_without_the_group_is_told_of(tmp_path, monkeypatch, group, what):
    monkeypatch.setattr(groups, "GROUPS", tmp_path / "none")
    with pytest.raises(SystemExit, match=rf"{what} .* takes a control group, which cannot be made"), group():
        pass


@pytest.mark.parametrize("controllers", [(), ("cpu", "memory")], ids=["version 2", "version 1"])
def test_a_group_has_its_share_and_its_bound_in_the_words_of_its_version(tmp_path, monkeypatch, controllers):
    for controller in controllers:
        (tmp_path / controller).mkdir()
    written = {}
    monkeypatch.setattr(groups, "GROUPS", tmp_path)
    monkeypatch.setattr(Path, "write_text", lambda file, text, **_: written.update({file.name: text}))
    with groups.quota(0.25) as group:
        assert group.parent == tmp_path.joinpath(*controllers[:1])
    with groups.memory_bound(96 << 20):
        pass
    assert written == (
        {
            "cpu.cfs_period_us": "100000",
            "cpu.cfs_quota_us": "25000",
            "memory.limit_in_bytes": "100663296",
            "memory.swappiness": "0",
        }
        if controllers
        else {"cpu.max": "25000 100000", "memory.max": "100663296", "memory.swap.max": "0"}
    )
    assert not list(tmp_path.rglob("bertport-*"))


def test_memory_is_taken_away_until_a_process_ends_without_its_answers(monkeypatch):
    monkeypatch.setattr(program, "machine_lock", lambda _waiting: nullcontext())
    need = {False: 100 << 20, True: 70 << 20}
    monkeypatch.setattr(program, "bounded", lambda bound, low: {"seconds": 1.0} if bound >= need[low] else None)
    found = program.bounds()
    tried = {low: [bound for bound in found if bound["low_memory"] is low] for low in need}
    assert [bound["bytes"] >> 20 for bound in tried[False]] == [120, 112, 104, 96]
    assert [len(bound["runs"]) for bound in tried[False]] == [3, 3, 3, 0]
    assert [bound["bytes"] >> 20 for bound in tried[True]] == [120, 112, 104, 96, 88, 80, 72, 64]
    need[False] = 1 << 30
    with pytest.raises(SystemExit, match="120 MiB were too little"):
        program.bounds()


def test_a_process_that_is_killed_has_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "PLACE", tmp_path)
    monkeypatch.setattr(program, "ANSWER", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert program.answered(low=True, group=None, count=1) is None


def test_a_process_that_does_not_answer_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "PLACE", tmp_path)
    monkeypatch.setattr(program, "ANSWER", "import time; print('best', flush=True); time.sleep(60)")
    monkeypatch.setattr(program, "PATIENCE", 0.5)
    assert program.answered(low=True, group=None, count=1, further={}) is None


def test_a_process_maps_a_copy_of_the_interpreter_s_library(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "PLACE", tmp_path)
    monkeypatch.setattr(
        program,
        "ANSWER",
        "import json; print('best', flush=True); print(json.dumps({'maps': open('/proc/self/maps').read()}))",
    )
    further = program.own_library()
    if not further:
        pytest.skip("this interpreter has no library of its own")
    run = program.answered(low=True, group=None, count=0, further=further)
    [library] = (tmp_path / "interpreter").iterdir()
    mapped = {line.split()[-1] for line in run["maps"].splitlines() if library.name in line}
    assert mapped == {str(library)}


def test_nothing_else_measures_meanwhile(monkeypatch):
    held = []

    @contextmanager
    def lock(_waiting):
        held.append(True)
        yield
        held.clear()

    monkeypatch.setattr(program, "machine_lock", lock)
    monkeypatch.setattr(program, "quota", lambda _share: nullcontext())
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
    data = {
        "small": small,
        "whole": {**small, "more": package},
        "machine": machine,
        "runs": runs,
        "answers": 200,
        "few_answers": 20,
    }
    bounds = [
        {
            "low_memory": low,
            "bytes": size << 20,
            "of": 3,
            "runs": [{"seconds": 3.0, "answers_cpu_seconds": 0.2}] * (3 if size > least else 2),
        }
        for low, least in ((False, 88), (True, 72))
        for size in range(128, least - 8, -8)
    ]
    data |= {"bounds": bounds}
    data |= {"bundles": {"default": 71_000_000, "int8-dynamic": 24_000_000}, "wheel_bytes": 22_000_000}
    text = section({**data, "date": "2026-11-29T11:04:00Z", "commit": "0" * 40})
    assert "| the five packages | 5 | 50 |" in text
    assert "| as it comes | 2.00 s | 0.50 s | 8.0 s | 110 MiB | 70 MiB | 10.0 ms |" in text
    assert "| `low_memory` | 2.00 s | 0.50 s | 8.0 s | 90 MiB | 70 MiB | 10.0 ms |" in text
    assert "Medians of 3 processes of each kind" in text
    assert "| as it comes | 96 MiB | 3.0 s | 10 ms | 3.0 s | 10 ms |" in text
    assert "| `low_memory` | 80 MiB | 3.0 s | 10 ms | 3.0 s | 10 ms |" in text
    assert "with 128 MiB: first answer |" in text
    joined = text.replace("\n", " ")
    assert "within 96 MiB with `low_memory`. It is met: 80 MiB are enough. Without a bound" in joined
    assert "the peak is 90 MiB here, as this kernel, Linux 6.1.2, then maps" in joined
    data["bounds"] = [bound for bound in bounds if bound["bytes"] > 96 << 20]
    text = section({**data, "date": "2026-11-29T11:04:00Z", "commit": "0" * 40})
    assert "It is missed by 8 MiB: 104 MiB is the least that was enough." in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 120
