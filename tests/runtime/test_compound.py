"""Inputs that are several rows of a batch: each is answered as it is alone, whatever stands beside it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertport.runtime import load
from bertport.runtime.errors import InputTextError, OutputError
from bertport.runtime.model import Model
from bertport.runtime.tasks.inputs import MOST_ROWS
from bertport.runtime.tasks.table import Several, Work, joined, rows
from tests.compound import BEADS, LINKS, add_task

TEXT = st.sampled_from(["a", "the king", "bread and tea " * 9, "water", "", "long " * 200, "\ud800"])
"""The last two are errors: too long, and no Unicode text."""
INPUT = st.one_of(
    TEXT, st.lists(TEXT | st.tuples(TEXT, TEXT).map(list), max_size=4).map(lambda texts: {"beads": texts})
)


@pytest.fixture(autouse=True)
def _beads(monkeypatch):
    add_task(monkeypatch.setitem)


@pytest.fixture(scope="module")
def models(tiny_bundle):
    """The bundle with one stream, with two, and with batches of a few tokens."""
    one, two, small = (load(tiny_bundle, threads=count, streams=count) for count in (1, 2, 1))
    small.batch_tokens = 12
    return one, two, small


def same(answer, other):
    if isinstance(answer, InputTextError):
        return type(other) is InputTextError and other.message == answer.message
    if isinstance(answer, tuple):
        return isinstance(other, tuple) and all(itertools.starmap(same, zip(answer, other, strict=True)))
    return answer.shape == other.shape and bool(np.abs(answer - other).max() < 1e-5)


@settings(max_examples=40)
@given(inputs=st.lists(INPUT, max_size=6), which=st.integers(0, 2), lazily=st.booleans())
def test_any_mix_gives_what_each_gives_alone(models, inputs, which, lazily):
    call = models[0].bind(BEADS, pooling="mean")
    alone = [answer for value in inputs for answer in models[0].outcomes(call, [value])]
    together = list(models[which].outcomes(call, iter(inputs) if lazily else inputs))
    assert len(alone) == len(together) == len(inputs)
    for value, answer, other in zip(inputs, alone, together, strict=True):
        assert same(answer, other), value
        if isinstance(value, dict) and not isinstance(answer, InputTextError):
            vectors = models[0].predict("features", value["beads"], pooling="mean")
            assert same(answer, tuple(vectors))


def test_an_error_of_one_part_is_that_of_the_input(models):
    call = models[0].bind(BEADS, pooling="mean")
    too_long, empty, many, good = models[0].outcomes(
        call,
        [{"beads": ["a", "b " * 200, "\ud800"]}, {"beads": []}, {"beads": ["a"] * (MOST_ROWS + 1)}, {"beads": ["a"]}],
    )
    assert too_long.message.startswith("the input has 202 tokens and the model takes 160")
    assert empty.message.startswith("the input makes 0 texts to run and may make 1 to 16,384: give")
    assert many.message.startswith("the input makes 16,385 texts to run")
    assert isinstance(good, tuple)
    with pytest.raises(InputTextError, match="input 2: the input has 202 tokens"):
        list(models[0].predict(BEADS, ["a", {"beads": ["b " * 200]}]))


def test_an_output_that_is_not_finite_is_that_of_its_input_alone(models):
    model = models[0]
    bad = dataclasses.replace(
        model.bind(BEADS, pooling="mean"), finish=lambda values, ids: values[0] * (np.nan if len(ids.ids) > 4 else 1)
    )
    outcomes = list(model.outcomes(bad, [{"beads": ["a", "a b c d"]}, {"beads": ["a", "b"]}, "c"]))
    assert [type(outcome) for outcome in outcomes] == [OutputError, tuple, np.ndarray]


def test_compound_inputs_weigh_what_their_rows_do(models, monkeypatch):
    """A window holds so much text at most, however few the inputs are that make it."""
    monkeypatch.setattr("bertport.runtime.model.MAX_WINDOW_WEIGHT", 1000)
    model = models[0]
    sizes = []

    def run(works):
        sizes.append(sum(len(work.ids) for work in works))
        return Model.run(model, works)

    monkeypatch.setattr(model, "run", run)
    monkeypatch.setattr(model, "batch_tokens", 100_000)
    list(model.outcomes(model.bind(BEADS, pooling="mean"), [{"beads": ["a b c d " * 8] * 10}] * 8))
    assert len(sizes) == 8
    sizes.clear()
    list(model.outcomes(model.bind(BEADS, pooling="mean"), [{"beads": ["a"] * 8}] * 8))
    assert len(sizes) == 4


def test_rows_are_put_together_in_order(models):
    single, several, error = models[0].bind(BEADS).prepare(["a", {"beads": ["b", "c"]}, {"beads": [3]}])
    assert (type(single), type(several), type(error)) == (Work, Several, InputTextError)
    assert [len(rows(outcome)) for outcome in (single, several, error)] == [1, 2, 0]
    coming = iter("xyz")
    assert [joined(outcome, coming) for outcome in (single, several, error)] == ["x", ("y", "z"), error]


def test_windows_are_counted_whatever_stands_beside_them(models):
    for model in models:
        call = model.bind(LINKS, pooling="mean")
        inputs = ["a", "a " * 45, "\ud800", {"beads": ["a", "a " * 25]}, "", "a " * 5000]
        one, several, bad, parts, empty, long = model.outcomes(call, inputs)
        assert (one, several, parts, empty, long) == (1, 5, (1, 3), 1, 500)
        assert isinstance(bad, InputTextError)
