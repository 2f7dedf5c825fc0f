"""An evaluation is written beside its place, under a name that nothing has."""

from __future__ import annotations

import os

from bertport.compare.evaluate.output import check_output, write_output
from tests.conftest import contents


def test_what_a_killed_process_of_the_same_number_left_is_in_no_ones_way(tmp_path):
    """In a container every command has the same number; the file of another one, too, is left alone."""
    left = tmp_path / f".evaluation-{os.getpid()}.tmp"
    left.write_text("half", encoding="utf-8")
    output = tmp_path / "evaluation.json"
    check_output(output)
    write_output(output, "{}\n")
    assert contents(tmp_path) == {left.name: b"half", output.name: b"{}\n"}
