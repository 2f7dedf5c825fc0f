"""What the page says of sites in a browser follows from the data, and these hold what is claimed."""

import base64
import json

import numpy as np
import pytest

from bench.checkout import ROOT
from bench.site.__main__ import DATA, main, within

DATA_OF = json.loads(DATA.read_text(encoding="utf-8"))
BY_WEBASSEMBLY = {row["variant"]: row for row in DATA_OF["rows"] if row["device"] == "cpu"}


def test_the_page_is_what_the_data_say():
    main(["--check"])


def test_the_best_word_is_that_of_python_in_every_text():
    words = BY_WEBASSEMBLY["portable"]["fill-mask"]
    assert words["texts"] == 200
    assert words["equal"] + words["ties"] == 200


@pytest.mark.parametrize("variant", ["portable", "int8-dynamic"])
def test_every_logit_is_within_the_golden_tolerance_in_every_text(variant):
    row = BY_WEBASSEMBLY[variant]
    assert row["logits"]["texts"] == row["logits"]["within"] == 200
    assert row["logits"]["largest_difference"] <= row["logits"]["tolerance"]
    assert row["golden"]["holds"]


@pytest.mark.parametrize("variant", ["portable", "int8-dynamic"])
def test_visits_are_those_of_the_page_itself(variant):
    visits = BY_WEBASSEMBLY[variant]["page"]
    assert visits["visits"] >= 5
    assert visits["first"]["where"] == "on the CPU, 1 thread"  # a plain server of files
    assert visits["second"]["where"] != visits["first"]["where"]
    for visit in (visits["first"], visits["second"]):
        assert 0 <= visit["proven"] <= visits["visits"]
        assert 0 < visit["ready"] < visit["answered"] <= visit["slowest"]


def test_logits_are_compared_text_by_text():
    ours = [np.array([[1, 2, 3]], np.float32), np.array([[4, 5, 6]], np.float32)]

    def theirs(*rows):
        return [base64.b64encode(np.array(row, np.float32).tobytes()).decode() for row in rows]

    held = within(ours, theirs([1, 2, 3.25], [4, 4.5, 6]), 0.5)
    assert held == {"texts": 2, "within": 2, "largest_difference": 0.5, "tolerance": 0.5}
    assert within(ours, theirs([1, 2, 3.25], [4, 4.25, 6]), 0.5)["within"] == 1
    assert within(ours, theirs([1, 2, np.nan], [4, 5, 6]), 0.5)["within"] == 1
    with pytest.raises(ValueError, match=r"zip\(\)"):
        within(ours, theirs([1, 2, 3]), 0.5)


def test_the_page_shows_a_desk_and_a_phone():
    page = (ROOT / "docs" / "how-to" / "site.md").read_text(encoding="utf-8")
    for name in ("site.png", "site-phone.png"):
        assert f"../images/{name})" in page
        assert (ROOT / "docs" / "images" / name).is_file()
