"""What the page says of JavaScript follows from the data, and these hold what is claimed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.node.__main__ import DTYPES, VARIANTS, difference, from_unicode, masked, same_words

ROOT = Path(__file__).parents[2]
DATA = json.loads((ROOT / "docs" / "data" / "node.json").read_text(encoding="utf-8"))


def test_the_page_is_what_the_data_say():
    command = [sys.executable, "-m", "bench.node", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_best_word_is_that_of_python_in_every_text(variant):
    row = DATA["variants"][variant]
    for task in ("fill-mask", "next-sentence"):
        assert row[task]["texts"] >= 200
        assert row[task]["equal"] + row[task]["ties"] == row[task]["texts"]
    assert row["golden"]["holds"]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("int8")])
def test_what_transformers_js_does_with_an_int8_variant_is_said(variant):
    said = DATA["transformers_js"]["variants"][variant]
    page = (ROOT / "docs" / "reference" / "javascript.md").read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if line.startswith(f"| transformers.js | `{variant}` |")]
    assert said["fails"] in row if "fails" in said else f"| {said['equal']}" in row


@pytest.mark.parametrize("variant", DTYPES)
def test_transformers_js_answers_from_the_portable_form_of_an_int8_variant(variant):
    said = DATA["transformers_js"]["forms"][variant]
    assert said["dtype"] == DTYPES[variant]
    words = said["fill-mask"]
    assert words["equal"] + words["ties"] == words["texts"] >= 200
    assert said["features"]["largest_difference"] < 1e-4


def test_transformers_js_answers_from_int8_with_every_head_that_it_has_a_pipeline_for():
    for row in DATA["heads"]:
        if row["transformers_js"] is not None:
            assert row["transformers_js_int8"]["largest_difference"] < 1e-4, row


def test_ids_are_those_of_python():
    assert DATA["ids"]["sentences"]["equal"] == DATA["ids"]["sentences"]["texts"] > 3000
    assert DATA["ids"]["unicode"]["equal"] >= 0.97 * DATA["ids"]["unicode"]["texts"]


def test_every_head_is_answered():
    assert len(DATA["heads"]) == 5
    for row in DATA["heads"]:
        assert row["largest_difference"] < 1e-5, row


def test_words_are_compared():
    def answer(*words):
        return [{"token": token, "score": score} for token, score in words]

    ours = [answer((1, 0.5), (2, 0.2)), answer((1, 0.50002), (2, 0.5)), answer((1, 0.5), (2, 0.2))]
    theirs = [answer((1, 0.4), (2, 0.2)), answer((2, 0.5), (1, 0.5)), answer((2, 0.5), (3, 0.4))]
    said = same_words(ours, theirs)
    assert (said["texts"], said["equal"], said["ties"]) == (3, 1, 1)
    assert said["largest_difference"] == pytest.approx(0.3)


def test_answers_are_compared():
    ours = [{"word": "a", "score": 0.5, "start": 1}, np.array([1.0, 2.0], dtype=np.float32)]
    assert difference(ours, [{"word": "a", "score": 0.25, "start": 1}, [1, 2.5]]) == pytest.approx(0.5)
    assert difference(ours, [{"word": "b", "score": 0.5, "start": 1}, [1, 2]]) is None
    assert difference(ours, [{"word": "a", "score": 0.5, "start": 2}, [1, 2]]) is None
    assert difference(ours, [{"word": "a", "score": 0.5, "start": 1}, [1]]) is None


def test_texts_are_the_same_every_time():
    assert from_unicode(4, np.random.default_rng(0)) == from_unicode(4, np.random.default_rng(0))
    [text] = masked(["He went home."], "[MASK]", np.random.default_rng(0))
    assert text.count("[MASK]") == 1
