"""Inputs that are several rows of a batch, over HTTP: their answers, and limits and counts of their rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.compound import BEADS, LINKS
from tests.serve.running import Running

ADDED = """
from tests.compound import add_task
add_task(lambda table, name, row: table.update({name: row}))
"""


@pytest.fixture(scope="module")
def beads(tiny_bundle):
    """A server with the task of compound inputs, which takes 40 rows and a few characters a request."""
    limits = ("--max-items", "40", "--max-payload-bytes", "4000")
    running = Running(f"tiny={tiny_bundle}", "--variant", "fp32", *limits, before=ADDED, PYTHONPATH=":".join(sys.path))
    yield running
    running.stop()


def ask(running, inputs, task=BEADS, **parameters):
    return running.post(f"/models/tiny?task={task}", {"inputs": inputs, "parameters": {"pooling": "mean"} | parameters})


def test_rows_of_an_input_are_answered_together(beads, model):
    inputs = ["a", {"beads": ["the king", ["a", "b"], "of bread and tea"]}, {"beads": ["water"]}]
    status, [one, three, single] = ask(beads, inputs)
    assert (status, len(three), len(single)) == (200, 3, 1)
    wanted = list(model.predict("features", ["a", "the king", ("a", "b"), "of bread and tea", "water"], pooling="mean"))
    np.testing.assert_allclose([one, *three, *single], wanted, atol=1e-5)


def test_rows_are_put_together_off_the_event_loop_where_there_are_many(beads, model):
    status, answers = ask(beads, [{"beads": ["a", "b"]}] * 18)
    assert status == 200
    np.testing.assert_allclose(answers[17], list(model.predict("features", ["a", "b"], pooling="mean")), atol=1e-5)


def test_rows_count_as_texts(beads):
    before = beads.metric("bertport_items_total", task=BEADS)
    assert ask(beads, [{"beads": ["a"] * 4}, "b"])[0] == 200
    assert beads.metric("bertport_items_total", task=BEADS) == before + 5
    status, refusal = ask(beads, [{"beads": ["a"] * 36}, {"beads": ["a"] * 5}])
    assert status == 413
    assert refusal["error"] == (
        "the request makes 41 texts to run, one for each part that is judged, and may make 40: send fewer at once"
    )


def test_characters_of_rows_are_counted(beads):
    assert ask(beads, [{"beads": ["a" * 500] * 6}], truncation=True)[0] == 200
    status, refusal = ask(beads, {"beads": ["a" * 390] * 9}, truncation=True)
    assert status == 413
    assert refusal["error"].startswith("the request makes texts of more than 4,000 characters in all")


def test_an_error_of_a_part_is_that_of_its_input(beads):
    status, refusal = ask(beads, ["a", {"beads": ["b", "c " * 200]}])
    assert status == 422
    assert refusal["error"].startswith("input 2: the input has 202 tokens and the model takes 160")


def test_windows_count_as_rows_and_not_as_texts(beads):
    before = beads.metric("bertport_items_total", task=LINKS)
    inputs = ["a", "a " * 44, {"beads": ["a", "a " * 24]}]  # a window for each ten words, and four
    assert ask(beads, inputs, LINKS) == (200, [1, 4, [1, 2]])
    assert beads.metric("bertport_items_total", task=LINKS) == before + 4
    status, refusal = ask(beads, ["a " * 210] * 2, LINKS)
    assert status == 413
    assert refusal["error"].startswith(
        "the request's texts have 42 windows and may have 40: send fewer or shorter ones"
    )
    status, refusal = ask(beads, ["a", "a " * 600], LINKS)
    assert status == 422
    assert refusal["error"].startswith("input 2: the input has more than 40 windows of 16 tokens: shorten it")
