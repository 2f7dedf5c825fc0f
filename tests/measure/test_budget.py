import dataclasses
import math

import pytest

from bertport.measure.budget import NO_BUDGET, Budget
from bertport.measure.quality.heads import known_limits
from bertport.measure.statistics import Estimate
from bertport.runtime.errors import BertportError
from tests.made_up_figures import fidelity


def measured(*, top1=1.0, flips=0.0, kl=0.0, cosine=1.0):
    """The figures that a budget reads."""
    return fidelity(mlm={"top1_agreement": top1, "kl": kl}, nsp={"flips": flips}, hidden={"cosine": cosine})


@pytest.mark.parametrize("text", ["top1=0.98,nsp=0.005", "kl=0.01", "top1=0.9,kl=0.5,cosine=0.99", NO_BUDGET])
def test_a_budget_reads_what_it_prints(text):
    assert str(Budget.parse(text)) == text


def test_the_default_is_the_documented_one():
    assert str(Budget.default()) == (
        "top1=0.98,nsp=0.005,sop=0.005,rtd=0.005,class=0.98,score=0.1,rank=0.95,tag=0.98,entity=0.95,span=0.98,"
        "choice=0.98,embedding=0.99,neighbours=0.9"
    )
    assert Budget.parse(" top1 = 0.98 , nsp=.005").bounds.items() <= Budget.default().bounds.items()


@pytest.mark.parametrize("text", ["", "top1", "top1=", "top1=high", "top1=nan", "nsp=-1", "speed=2", "top1=0.9,,"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(BertportError, match=r"is not a limit|unknown limit"):
        Budget.parse(text)


def test_a_bound_in_per_cent_is_refused_before_anything_is_measured():
    with pytest.raises(BertportError, match=r"^'top1=98' is above 1, .*: write 98% as top1=0.98$"):
        Budget.parse("nsp=0.005,top1=98")
    with pytest.raises(BertportError, match=r"write 1.5% as nsp=0.015$"):
        Budget.parse("nsp=1.5")
    assert Budget.parse("top1=1,nsp=1,cosine=1,kl=3").bounds["kl"] == 3


@pytest.mark.parametrize(
    ("figures", "broken"),
    [
        ({}, 0),
        ({"top1": 0.98, "flips": 0.005}, 0),
        ({"top1": 0.9799}, 1),
        ({"flips": 0.0051}, 1),
        ({"top1": 0.5, "flips": 1.0}, 2),
        ({"top1": float("nan")}, 1),
    ],
)
def test_bounds_are_inclusive(figures, broken):
    assert len(Budget.default().broken(measured(**figures))) == broken


def counted(value, low, high, count=2000):
    """A figure with an interval, in the place of one without."""
    return Estimate(value=value, low=low, high=high, count=count, clusters=count)


def test_what_breaks_a_bound_within_its_noise_is_undecided():
    by_default = Budget.default()
    near = counted(0.979, 0.972, 0.985)
    assert by_default.undecided(measured(top1=0.98, flips=0.005)) == {}
    assert by_default.undecided(measured(top1=near)) == {"mlm": pytest.approx(40, rel=0.1)}
    # 0.75% of 2,000 and 0.5% are told apart by 1,900 more; a breach by a hair by no number within reach.
    both = by_default.undecided(measured(top1=counted(0.97999, 0.973, 0.986), flips=counted(0.0075, 0.0042, 0.0124)))
    assert both == {"mlm": math.inf, "nsp": pytest.approx(1.95, rel=0.1)}
    assert by_default.undecided(measured(top1=near, flips=counted(0.02, 0.0145, 0.027))) == {}
    assert Budget.parse("top1=0.98,kl=0.1").undecided(measured(top1=near, kl=counted(0.2, 0.18, 0.22))) == {}


def test_a_head_that_is_not_there_breaks_nothing():
    assert not Budget.default().broken(fidelity(mlm=None, nsp=None, hidden={"cosine": 0.5}))


def test_the_sentence_tells_both_numbers():
    [sentence] = Budget.default().broken(measured(top1=0.944))
    assert sentence == "MLM top-1 agreement is 94.40%, at least 98.00% was asked"


def test_every_limit_has_its_own_name():
    assert [dataclasses.asdict(limit)["name"] for limit in known_limits().values()] == list(known_limits())


@pytest.mark.parametrize(
    ("figures", "shares"),
    [
        ({}, {}),
        ({"top1": 0.98, "flips": 0.005, "kl": 0.5}, {}),
        ({"top1": 0.96}, {"mlm": 0.25}),  # twice the changed answers: four times the squared noise
        ({"flips": 0.01}, {"nsp": 0.25}),
        ({"kl": 2.0}, {"mlm": 0.5}),
        ({"top1": 0.96, "kl": 10.0}, {"mlm": 0.1}),
        ({"top1": 0.97, "flips": 0.02, "cosine": 0.96}, {"mlm": 4 / 9, "nsp": 1 / 16, "hidden": 0.25}),
        ({"kl": float("nan")}, {"mlm": 0}),
    ],
)
def test_the_share_of_kl_that_may_stay_follows_from_the_worst_breach(figures, shares):
    share = Budget.parse("top1=0.98,nsp=0.005,kl=1,cosine=0.99").shares(measured(**figures))
    assert share == pytest.approx(shares)


def test_a_bound_that_nothing_reaches_leaves_no_kl():
    assert Budget.parse("top1=1").shares(measured(top1=0.99)) == {"mlm": 0}
    assert Budget.parse("top1=0.98").shares(fidelity(mlm=None, nsp=None, hidden=None)) == {}
