"""Frozen dataclasses as JSON and back: what is read is what was written, and the schema describes both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from bertport.compare.codec import INLINE, LEFT_OUT, DecodeError, decode, encode, inline_keys, json_schema
from bertport.measure.statistics import Difference, Estimate, Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """Something inside."""

    low: Number
    """An end."""
    name: str
    """What it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """Everything that a field can be."""

    inner: Inner = field(metadata=INLINE)
    """Not a key of its own."""
    kind: Literal["a", "b"]
    pairs: tuple[tuple[str, int], ...]
    by_name: Mapping[str, float]
    figures: Mapping[str, Estimate | Difference | float | None] = field(
        metadata=inline_keys(lambda: {"figure": Estimate | Difference | float | None})
    )
    optional: Inner | None = None
    absent: tuple[str, ...] | None = field(default=None, metadata=LEFT_OUT)


ESTIMATE = Estimate(value=1.0, low=0.0, high=math.inf, count=3, clusters=2)
OUTER = Outer(inner=Inner(low=1, name="n"), kind="a", pairs=(("x", 1),), by_name={"y": 0.5}, figures={"figure": 2.0})
WRITTEN = {
    "low": 1,
    "name": "n",
    "kind": "a",
    "pairs": [["x", 1]],
    "by_name": {"y": 0.5},
    "figure": 2.0,
    "optional": None,
}


def test_fields_are_keys_in_their_order():
    assert list(encode(OUTER).items()) == list(WRITTEN.items())
    assert decode(Outer, WRITTEN) == OUTER


@pytest.mark.parametrize(
    "figure",
    [
        None,
        0.5,
        Estimate(value=1.0, low=0.0, high=2.0, count=3, clusters=2),
        Difference(difference=Estimate(value=1.0, low=0.0, high=2.0, count=3, clusters=2), p_value=1, test="mcnemar"),
    ],
)
def test_a_figure_of_either_kind_is_read_as_that(figure):
    written = WRITTEN | {"figure": encode(figure)}
    assert decode(Outer, written).figures == {"figure": figure}


def test_what_is_not_finite_is_null_and_read_as_not_a_number():
    assert encode(ESTIMATE)["high"] is None
    again = decode(Estimate, encode(ESTIMATE))
    assert math.isnan(again.high)
    assert (again.value, again.low) == (1.0, 0.0)
    with pytest.raises(DecodeError, match=r"\$\.by_name\.y is null, and a number was expected"):
        decode(Outer, WRITTEN | {"by_name": {"y": None}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "c"}, r"\$\.kind is 'c', and one of 'a', 'b' was expected"),
        ({"pairs": [["x", 1, 2]]}, r"\$\.pairs\[0\] is a list, and a list of 2 was expected"),
        ({"pairs": [["x", True]]}, r"\$\.pairs\[0\]\[1\] is True, and a whole number was expected"),
        ({"name": 3}, r"\$\.name is 3, and a text was expected"),
        ({"optional": {"low": 1}}, r"\$\.optional has no 'name'"),
        ({"figure": {"value": 1}}, r"\$\.figure has no 'low'"),
        ({"by_name": {"y": math.inf}}, r"\$\.by_name\.y is inf, and a number that a float can hold was expected"),
        ({"low": math.nan}, r"\$\.low is nan, and a number that a float can hold was expected"),
        ({"pairs": [["x", 10**400]]}, r"\$\.pairs\[0\]\[1\] is 10{56}\.\.\., and a number that a float can hold"),
        ({"name": "a\ud800"}, r"\$\.name is not Unicode text \(a lone surrogate at character 1\)"),
        ({"by_name": {"\ud800": 1}}, r"a key of \$\.by_name is not Unicode text"),
    ],
)
def test_an_error_names_the_place(change, message):
    with pytest.raises(DecodeError, match=message):
        decode(Outer, WRITTEN | change)


@pytest.mark.parametrize("value", [True, 1.0])
def test_a_word_of_a_list_is_of_its_type(value):
    assert decode(Literal[1], 1) == 1
    with pytest.raises(DecodeError, match="one of 1 was expected"):
        decode(Literal[1], value)


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="a set"):
        encode({"x": {1, 2}})


def test_the_schema_describes_what_is_written():
    import jsonschema

    schema = json_schema(Outer)
    assert schema["properties"]["low"] == {"type": ["number", "null"], "description": "An end."}
    assert "absent" not in schema["required"]
    assert schema["required"] == ["low", "name", "kind", "pairs", "by_name"]
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(encode(OUTER))
    for broken in ({"kind": "c"}, {"pairs": [["x"]]}, {"low": "1"}, {"optional": {"low": 1}}):
        assert not validator.is_valid(WRITTEN | broken)
