"""The line that shows how far a run is: what is done, rates, the time left, and the pace of each node."""

from __future__ import annotations

import pytest

from bertport.batch.job import Part, Span
from bertport.batch.places import open_place
from bertport.batch.record import Record
from bertport.batch.summary import Pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, and a function that moves it."""
    now = [0.0]
    monkeypatch.setattr("bertport.batch.summary.time.monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


def made(number, node="one", rows=1000):
    return {"part": number, "rows": rows, "tokens": 20 * rows, "node": node}


def record(*weights, done=()):
    """Return the record of a run whose parts have these weights, of which some were done before."""
    parts = [Part(number=n, spans=(Span("in", 0, -1),), weight=weight) for n, weight in enumerate(weights)]
    return Record(output=open_place("out"), id="1", parts=parts, done={number: made(number) for number in done})


def test_rates_and_the_time_left_are_of_what_this_run_made(clock):
    """Parts weigh as much as they hold; those that were done before took none of its time."""
    pace = Pace(record(100, 100, 300, 500, done=[0, 1]))
    clock(10)
    assert pace.line().endswith("20%  0 rows/s, 0 tokens/s")  # no time left is known yet
    pace.take(made(2))
    clock(10)
    assert pace.line().endswith("50%  50 rows/s, 1,000 tokens/s, 33 s left")
    pace.take(made(3, rows=3000))
    assert "100%  200 rows/s, 4,000 tokens/s" in pace.line()


def test_each_node_has_its_pace_the_fastest_first(clock):
    pace = Pace(record(*[1] * 10))
    clock(10)
    pace.take(made(0, "slow", 1000))
    assert "slow" not in pace.line()  # alone, its pace is that of the run
    pace.take(made(1, "fast", 4000))
    pace.take(made(2, "slow", 1000))
    assert pace.line().endswith("600 rows/s, 12,000 tokens/s, 23 s left (fast 400, slow 200)")
    for number, node in enumerate(("third", "fourth", "fifth", "sixth"), 3):
        pace.take(made(number, node, 100 * number))
    assert pace.line().endswith("(fast 400, slow 200, sixth 60, fifth 50 and 2 more nodes)")
