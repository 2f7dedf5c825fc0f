"""What two runs of a comparison have in common."""

import copy

from bench.reports import order, repeated


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def report(**times):
    rows = [
        {
            "name": name,
            "speed": {"single_stream": {"p90": estimate(value, 0.9 * value, 1.1 * value)}},
            "times_faster": {} if name == "fp32" else {"SingleStream": estimate(1 / value, 0.9 / value, 1.1 / value)},
        }
        for name, value in times.items()
    ]
    return {"rows": rows}


def test_intervals_that_meet_have_no_order():
    assert order(estimate(1, 0.5, 1.5), estimate(2, 1.4, 3)) == 0
    assert order(estimate(1, 0.5, 1.3), estimate(2, 1.4, 3)) == 1
    assert order(estimate(2, 1.4, 3), estimate(1, 0.5, 1.3)) == -1


def test_two_runs_that_agree():
    first = report(fp32=1.0, fast=0.5, near=0.95)
    assert repeated(first, copy.deepcopy(first)) == {
        "pairs": 2,  # fp32 and near cannot be told apart
        "ranked_alike": 2,
        "ratios": 2,
        "within": 2,
        "meet": 2,
    }


def test_two_runs_that_do_not():
    found = repeated(report(fp32=1.0, fast=0.5), report(fp32=1.0, fast=2.0))
    assert (found["pairs"], found["ranked_alike"]) == (1, 0)
    assert (found["ratios"], found["within"], found["meet"]) == (1, 0, 0)
