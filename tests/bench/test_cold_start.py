"""The page of the cold start is that of its data, and the data hold the bars."""

from __future__ import annotations

import copy
import json
import os

import pytest

from bench import checkout
from bench.checkout import ROOT
from bench.cold_start import __main__ as program
from bench.cold_start.report import complaints, page

DATA = json.loads((ROOT / "docs" / "data" / "cold-start.json").read_text(encoding="utf-8"))


def test_the_page_is_what_the_data_say_and_they_hold_the_bars():
    program.main(["--check"])


def test_a_page_that_is_not_what_the_data_say_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    for path, text in (("data/cold-start.json", json.dumps(DATA)), ("research/cold-start.md", page(DATA) + "more")):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"cold-start.md is not what the data say: run python -m bench.cold_start"):
        program.main(["--check", "--output", str(tmp_path)])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"times_faster": 9.9}, "int8-dynamic answers 9.9 times as fast as the transformers pipeline, and 10 is"),
        ({"share_of_memory": 0.26}, "int8-dynamic takes 0.26 of the transformers pipeline's memory, and 0.25 is"),
        ({"import_ms": [39.0, 41.0, 50.0]}, "import bertport.runtime takes 41 ms, and 40 is the most"),
        ({"import_loads_numpy": True}, "import bertport.runtime loads NumPy"),
    ],
)
def test_a_bar_that_is_missed_is_named(changed, said):
    data = copy.deepcopy(DATA) | {"import_ms": [39.0], "import_loads_numpy": False}
    assert complaints(data) == []
    for name, value in changed.items():
        if name in data:
            data[name] = value
        else:
            data["ratios"]["bertport, int8-dynamic"][name]["value"] = value
    [complaint] = complaints(data)
    assert complaint.startswith(said)


def test_the_import_stands_beside_its_limit():
    text = page(DATA | {"import_ms": [31.0, 30.0, 36.0], "import_loads_numpy": False})
    assert "alone takes 31 ms (median of 3 processes, 30 to 36) and loads\nno NumPy; the limit is 40 ms." in text


def test_a_process_imports_without_numpy():
    answer = program.imported(os.environ)
    assert answer["numpy"] is False
    assert answer["seconds"] > 0
