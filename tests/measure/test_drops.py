"""Bounds on what a variant loses on labelled data: how they are written, and what an interval decides."""

import dataclasses
import math

import pytest

from bertport.measure.budget import BROKEN, DROPS, HELD, UNDECIDED, Budget, parse_budget, still_needed
from bertport.measure.drops import broken_drops, drop_of, judge_drop, judge_drops, share_left
from bertport.measure.labelled.figures import PairedDifference
from bertport.measure.labelled.metrics import METRICS
from bertport.measure.statistics import Estimate
from bertport.runtime.errors import UnknownNameError, UsageError


def difference(value, low, high, *, count=2000, agreement=0.99, metric="accuracy"):  # noqa: PLR0913 — a figure's parts
    same = None if agreement is None else Estimate(value=agreement, low=0.98, high=1.0, count=count, clusters=count)
    return PairedDifference(
        metric=metric,
        difference=Estimate(value=value, low=low, high=high, count=count, clusters=count),
        p_value=0.5,
        test="mcnemar",
        agreement=same,
        spearman=None,
    )


def test_bounds_of_both_kinds_stand_side_by_side():
    budget = Budget.parse("class=0.98, accuracy.drop=0.005 ,ndcg@10.drop=0.01")
    assert budget == Budget(bounds={"class": 0.98}, drops={"accuracy": 0.005, "ndcg@10": 0.01})
    assert str(budget) == "class=0.98,accuracy.drop=0.005,ndcg@10.drop=0.01"
    assert Budget.parse(str(budget)) == budget
    assert str(Budget.parse("f1.drop=0")) == "f1.drop=0"
    assert not Budget.default().drops


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("accuracy=0.005", UnknownNameError, r"unknown limit 'accuracy' .*accuracy\.drop"),
        ("speed.drop=0.1", UnknownNameError, r"unknown limit 'speed\.drop'"),
        ("ece.drop=0.1", UnknownNameError, r"unknown limit 'ece\.drop'"),
        ("accuracy.drop=0.5%", UsageError, r"drop=0\.5%' is not a limit: write it as accuracy\.drop=0\.005$"),
        ("accuracy.drop=0.5,accuracy.drop=0.001", UsageError, r"^the budget bounds accuracy\.drop twice: give one"),
        ("class=0.98,accuracy.drop=0.5,class=0.9", UsageError, r"^the budget bounds class twice"),
        ("accuracy.drop=-0.1", UsageError, r"is not a limit"),
        ("accuracy.drop=5", UsageError, r"is above 1, .*: write 5% as accuracy\.drop=0\.05$"),
    ],
)
def test_what_is_no_bound_is_refused(text, error, words):
    with pytest.raises(error, match=words):
        Budget.parse(text)


def test_a_command_that_judges_no_drop_says_which_one_does():
    said = (
        r"^accuracy\.drop bounds what is measured on labelled data, and this command holds no variant to that: leave "
        r"it out, or give it to bertport quantize --data FILE$"
    )
    with pytest.raises(UsageError, match=said):
        parse_budget("top1=0.98,accuracy.drop=0.005")


@pytest.mark.parametrize(
    ("given", "verdict", "inside"),
    [
        (difference(-0.001, -0.004, 0.002), HELD, True),
        (difference(0.01, 0.006, 0.014), HELD, True),  # better than the reference
        (difference(-0.004, -0.008, 0.001), UNDECIDED, True),
        (difference(-0.006, -0.010, -0.002), UNDECIDED, False),
        (difference(-0.02, -0.026, -0.013), BROKEN, False),
        (difference(0.0, 0.0, 0.0), HELD, True),  # none of 2,000 differs: 0.19% might
        (difference(0.0, 0.0, 0.0, count=700), UNDECIDED, True),  # 0.55% might
        (difference(-0.0014, -0.004, 0.0, count=700), UNDECIDED, True),  # one does
        (difference(0.0, 0.0, 0.0, count=700, agreement=None), HELD, True),  # numbers, of which each is of a distance
        (difference(0.0, 0.0, 0.0, count=29, agreement=None), UNDECIDED, True),  # and may all keep their ranks
    ],
)
def test_the_interval_of_the_difference_decides(given, verdict, inside):
    judged = judge_drop(0.005, given)
    assert (judged.verdict, judged.inside) == (verdict, inside)
    assert judged.value == pytest.approx(-given.difference.value)
    assert bool(broken_drops({"accuracy": 0.005}, {"accuracy": given})) is not inside
    assert judge_drops({"accuracy": 0.005}, {"accuracy": given}) == {"accuracy.drop": judged}


def test_a_drop_is_the_difference_turned_round():
    drop = drop_of(difference(-0.01, -0.03, 0.02))
    assert (drop.value, drop.low, drop.high) == (0.01, -0.02, 0.03)


def test_an_interval_of_few_differences_reaches_as_far_as_that_of_none():
    # Tango 1998, table of b = c = 0: z²/(n + z²), 3.7% of 100
    drop = drop_of(difference(0.0, 0.0, 0.0, count=100))
    assert (drop.low, drop.high) == (pytest.approx(-0.0370, abs=1e-4), pytest.approx(0.0370, abs=1e-4))


@pytest.mark.parametrize(("count", "more"), [(100, 670), (400, 370), (764, 1), (765, 0)])
def test_of_examples_of_which_none_differs_so_many_more_decide(count, more):
    # z²/(n + z²) is 0.5% where n is 764.4
    assert judge_drop(0.005, difference(0.0, 0.0, 0.0, count=count)).more == more
    assert judge_drop(0.00001, difference(0.0, 0.0, 0.0, count=count)).more == still_needed(384_142, count)
    assert judge_drop(0.000001, difference(0.0, 0.0, 0.0, count=count)).more is None


def test_of_few_numbers_that_keep_their_ranks_more_are_asked_for():
    judged = judge_drop(0.005, difference(0.0, 0.0, 0.0, count=8, agreement=None, metric="spearman"))
    assert judged.more == 22
    assert (judged.to_json()["low"], judged.to_json()["high"]) == (None, None)


def test_the_sentence_tells_figure_interval_and_bound():
    [sentence] = broken_drops({"accuracy": 0.005}, {"accuracy": difference(-0.02, -0.025, -0.015)})
    assert sentence.startswith("the drop of accuracy is 0.0200 on 2,000 examples, 0.01")
    assert sentence.endswith("at most 0.0050 was asked")


def test_how_much_nearer_a_head_has_to_come_follows_from_the_worst_drop():
    twice, held = difference(-0.01, -0.02, 0.0), difference(0.0, 0.0, 0.0, metric="f1")
    assert share_left({"accuracy": 0.005, "f1": 0.005}, {"accuracy": twice, "f1": held}) == pytest.approx(0.25)
    assert share_left({"f1": 0.005}, {"f1": held}) is None
    assert share_left({"accuracy": 0}, {"accuracy": twice}) == 0


def test_a_metric_that_is_not_defined_keeps_to_no_bound():
    nothing = difference(math.nan, math.nan, math.nan, metric="pearson", agreement=None)
    drops, differences = {"pearson": 0.1}, {"pearson": nothing}
    assert broken_drops(drops, differences) == ("pearson is not defined for what is predicted",)
    assert share_left(drops, differences) == 0
    assert judge_drops(drops, differences) == {}


def test_every_metric_of_which_more_is_better_can_be_bounded():
    assert set(DROPS) == METRICS.keys() - {"ece"}  # of which less is better
    assert [field.name for field in dataclasses.fields(Budget)] == ["bounds", "drops"]
