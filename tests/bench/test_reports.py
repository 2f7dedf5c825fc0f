"""What two runs of a comparison have in common, and what the list of reports says of each."""

import copy

from bench.reports import REPORTS, agreement, in_words, index, order


def test_the_list_of_reports_is_what_the_reports_say():
    text = index(REPORTS)
    assert (REPORTS / "README.md").read_text(encoding="utf-8") == text
    assert "base --effort quick`" in text.replace("\n", " ")  # as its command line has it


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
    return {"created": "2026-01-01", "rows": rows}


def test_intervals_that_meet_have_no_order():
    assert order(estimate(1, 0.5, 1.5), estimate(2, 1.4, 3)) == 0
    assert order(estimate(1, 0.5, 1.3), estimate(2, 1.4, 3)) == 1
    assert order(estimate(2, 1.4, 3), estimate(1, 0.5, 1.3)) == -1


def test_two_runs_that_agree():
    first = report(fp32=1.0, fast=0.5, near=0.95)
    agreed = agreement(first, copy.deepcopy(first))
    assert agreed["rank"] == {"pairs": 2, "alike": 2, "unlike": []}  # fp32 and near cannot be told apart
    assert agreed["ratios"] == {"count": 2, "second_within_first": 2, "intervals_meet": 2, "outside": []}
    assert "2 of the 2 pairs" in in_words(agreed)


def test_two_runs_that_do_not():
    agreed = agreement(report(fp32=1.0, fast=0.5), report(fp32=1.0, fast=2.0))
    assert agreed["rank"] == {"pairs": 1, "alike": 0, "unlike": [["fp32", "fast"]]}
    assert (agreed["ratios"]["count"], agreed["ratios"]["second_within_first"]) == (1, 0)
    assert agreed["ratios"]["intervals_meet"] == 0
    assert [ratio["row"] for ratio in agreed["ratios"]["outside"]] == ["fast"]
