"""Time limits as users write them, and what passes them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.quantize.deadline import Deadline, TimeUpError, format_duration, parse_duration
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime.errors import UsageError, ValidationError
from tests.conftest import contents


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("90s", 90), ("1h30m", 5400), ("45", 45), (" 1.5m ", 90), ("1h1m1s", 3661), ("0.5", 0.5)],
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5", "m", "10 m", "1m2h", "soon", "1d", "inf", "nan", "1e3", "5mm", "\u0661m", "9" * 400]
)
def test_what_is_no_duration_is_refused_in_a_sentence(text):
    with pytest.raises(UsageError, match=r"is not a duration above 0: write it as 10m, 90s, 1h30m, or as seconds$"):
        parse_duration(text)


@given(st.floats(1, 10**6))
def test_a_duration_that_is_shown_can_be_read(seconds):
    shown = format_duration(seconds)
    assert re.fullmatch(r"\d+s|(\d+h)?(\d+m)?", shown)
    assert parse_duration(shown) == pytest.approx(seconds, abs=31)


def test_time_that_is_up_ends_what_runs_but_not_what_is_only_to_be_written():
    late = Deadline(1, started=-(10**9))
    with pytest.raises(TimeUpError):
        late.watching(lambda *_: None)("stage", 1, 2)
    late.armed = False
    late.check()
    Deadline().check()


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(UsageError, match="a time limit is a number of seconds above 0"):
        Options(time_limit=limit)


def test_a_limit_that_passes_before_anything_is_measured_is_told(bundle_copy, held_out):
    before = contents(bundle_copy)
    options = Options(text=held_out, calibration=held_out, positions=60, pairs=4, time_limit=0.001)
    with pytest.raises(ValidationError, match=r"the time limit of 1s passed before int8-dynamic was.*as it was"):
        quantize(bundle_copy, options=options)
    assert contents(bundle_copy) == before
