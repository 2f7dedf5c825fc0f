"""What the program of small devices takes stock with, where no process is started."""

from __future__ import annotations

import pytest

from bench.small_device import __main__ as program


def test_bytes_are_those_of_a_package_s_files(tmp_path):
    place = tmp_path / "thing-1.2.dist-info"
    place.mkdir()
    (tmp_path / "thing.py").write_text("x" * 1000)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.2\n")
    (place / "RECORD").write_text("thing.py,,\nthing-1.2.dist-info/METADATA,,\nmissing.py,,\n")
    size = 1000 + (place / "METADATA").stat().st_size
    assert program.packages(tmp_path) == {"thing": {"version": "1.2", "bytes": size}}


def test_a_machine_without_the_group_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "GROUPS", tmp_path / "none")
    with pytest.raises(SystemExit, match="takes a control group, which cannot be made"), program.quota():
        pass
