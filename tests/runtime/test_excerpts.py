"""Excerpts quote the beginning of anything, and take no longer for being given more."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.runtime import load
from bertport.runtime.errors import InputTextError, UnknownNameError
from bertport.runtime.excerpts import excerpt, one_line

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES, st.integers(4, 80))
def test_what_is_shown_is_the_repr_cut(value, length):
    whole = repr(value)
    assert excerpt(value, length) == (whole if len(whole) <= length else f"{whole[: length - 3]}...")


@given(st.text(), st.integers(4, 80))
def test_a_long_text_is_cut_before_it_is_quoted(text, length):
    shown = excerpt(text, length)
    assert len(shown) <= length
    shown.encode("utf-8")


def test_what_a_library_says_is_one_line():
    assert one_line(ValueError("\n\tno such\r\n  file ")) == "no such file"
    assert one_line(KeyError()) == ""


class Counting(list):
    """A list that counts how many of its items were looked at."""

    looked = 0

    def __iter__(self):
        for item in super().__iter__():
            self.looked += 1
            yield item


def test_no_more_is_looked_at_than_is_shown():
    many = Counting([[] for _ in range(1000)])
    assert excerpt(many) == "[" + "[], " * 14 + "..."
    assert many.looked < 20


@pytest.mark.parametrize(
    "value",
    [
        "\ud83d" * 1000,
        [[]] * 1000,
        json.loads("[" * 400 + "]" * 400),
        {str(number): "x" * 1000 for number in range(1000)},
        10**5000,
        {1, 2, 3},
        set(range(1000)),
        np.zeros(5000),
        np.float32(1),
        np.zeros(()),
        range(10**9),
        object(),
        b"\xff" * 1000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_has_an_excerpt(value):
    shown = excerpt(value)
    assert 0 < len(shown) <= 60
    shown.encode("utf-8")


def test_deep_and_wide_inputs_are_refused_by_an_excerpt(tiny_bundle):
    model = load(tiny_bundle)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, [[]] * 100_000, {"text": deep}, ("a",) * 100_000):
        for task in ("fill-mask", "next-sentence", "features"):
            with pytest.raises(InputTextError, match=r"takes .*\.\.\.$"):
                list(model.predict(task, [value]))
    with pytest.raises(UnknownNameError) as error:
        model.bind("x" * 2_000_000)
    assert len(str(error.value)) < 500  # with the names of all tasks
    while deep:  # from the outside in: an object nested so deeply is not freed in one go everywhere
        deep = deep[0]
