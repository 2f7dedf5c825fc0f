"""What is recommended, and by what verdicts: on figures that are made up in a report that was measured."""

import copy
import dataclasses
import json

import pytest
from click.testing import CliRunner

from bertport.compare.report.assembly import conclude
from bertport.compare.report.recommend import NOT_MEASURED, recommend, verdicts
from bertport.compare.report.regressions import differences, parse_tolerance
from bertport.compare.report.sections import notes
from bertport.measure.budget import BROKEN, HELD, UNDECIDED, default_budget, parse_budget
from bertport.measure.quality.heads import HEADS
from bertport.measure.statistics import share
from bertport.runtime.cli import app
from tests.compare.conftest import typed


def estimate(value, low, high, count=2000, clusters=1000):
    return {"value": value, "low": low, "high": high, "count": count, "clusters": clusters}


@pytest.fixture
def trained(document):
    """The document as if its weights were trained, and `noisy` faster than fp32 with one flip in 60 pairs."""
    changed = copy.deepcopy(document)
    changed["bundles"][0] |= {"weights": "trained", "weights_reason": ""}
    changed["settings"]["budget"] = {"nsp": 0.005}
    row = noisy(changed)
    row["quality"]["nsp"]["flips"] = dataclasses.asdict(share([1] + [0] * 59, [1] * 60))
    speed = {"value": 2.0, "low": 1.8, "high": 2.2, "count": 9, "clusters": 3, "no_difference_seen": False}
    row["times_faster"] = {"SingleStream": speed, "Offline": dict(speed)}
    row["speed"]["single_stream"]["p90"] |= dict.fromkeys(("value", "low", "high"), 1e-9)
    row["speed"]["offline"]["texts_per_second"] |= dict.fromkeys(("value", "low", "high"), 1e9)
    row["size_bytes"] = 1
    return changed


def noisy(document):
    return next(row for row in document["rows"] if row["name"] == "noisy")


def record(hits, count=2000):
    flips = dataclasses.asdict(share([1] * hits + [0] * (count - hits), [1] * count))
    figures = {"nsp": {"flips": flips}}
    return {"measured": "2026-11-23", "instruction_set": "amx", "text": "rest.jsonl", "figures": figures}


def test_an_undecided_variant_is_recommended_and_what_is_known_is_said(trained):
    noisy(trained)["recorded"] = record(6)
    [verdict] = verdicts(typed(trained))
    assert (verdict.verdict, verdict.holds, verdict.breaks) == (UNDECIDED, True, ())
    said = (
        "NSP flips, at most 0.50% asked: 1.67% of 60 pairs (0.04% to 8.94%) here, outside by its value, but this run "
        "cannot tell; about 220 more pairs would tell; at quantization on rest.jsonl (amx) 0.30% of 2,000 pairs (0.11% "
        "to 0.65%): inside by its value"
    )
    assert verdict.near == (said,)
    recommendations = recommend(typed(trained))
    assert {recommendation.choice for recommendation in recommendations} == {"noisy"}
    assert all(
        recommendation.reason.endswith("within the budget by its figures, but not beyond doubt")
        for recommendation in recommendations
    )
    noisy(trained)["recorded"] = None
    assert all(
        "whether it is within the budget is undecided" in recommendation.reason
        for recommendation in recommend(typed(trained))
    )
    said = notes(conclude(typed(trained)))
    assert sum("Accuracy budget of noisy: undecided. NSP flips" in note for note in said) == 1


@pytest.mark.parametrize(
    ("hits", "shipped", "verdict", "by"),
    [
        (0, True, HELD, "record"),
        (40, True, BROKEN, "record"),
        (6, True, UNDECIDED, "run"),
        (0, False, UNDECIDED, "run"),  # of a user's own text the record says nothing
        (40, False, UNDECIDED, "run"),
    ],
)
def test_the_record_decides_where_this_run_cannot_on_the_same_kind_of_text(trained, hits, shipped, verdict, by):
    noisy(trained)["recorded"] = record(hits)
    trained["text"]["shipped"] = shipped
    [judged] = verdicts(typed(trained))
    [bound] = judged.bounds
    assert (judged.verdict, bound.verdict, bound.by) == (verdict, verdict, by)
    assert "at quantization on rest.jsonl (amx)" in bound.sentence
    assert {recommendation.choice for recommendation in recommend(typed(trained))} == {
        "fp32" if verdict == BROKEN else "noisy"
    }


def test_what_this_run_shows_stands_whatever_was_recorded(trained):
    trained["text"]["shipped"] = True
    row = noisy(trained) | {"recorded": record(0)}
    row["quality"]["nsp"]["flips"] = dataclasses.asdict(share([1] * 20 + [0] * 40, [1] * 60))
    trained["rows"] = [row if other["name"] == "noisy" else other for other in trained["rows"]]
    [judged] = verdicts(typed(trained))
    assert (judged.verdict, judged.bounds[0].by) == (BROKEN, "run")
    assert "here: broken; at quantization on rest.jsonl (amx) 0.00% of 2,000 pairs" in judged.breaks[0]


def test_a_report_of_the_last_release_is_judged_too(trained):
    old = copy.deepcopy(trained)
    old["text"].pop("shipped")
    for row in old["rows"]:
        row.pop("recorded")
        row.pop("looks")
    noisy(old)["quality"]["nsp"]["flips"] = estimate(1 / 60, 0.0, 0.05, 60, 60)
    assert [judged.verdict for judged in verdicts(typed(old))] == [UNDECIDED]
    assert not differences(typed(old), typed(trained), parse_tolerance("0.05")).changes


def test_a_budget_that_is_broken_now_is_a_regression_and_one_that_is_undecided_is_none(trained):
    tolerance = parse_tolerance("1000")
    new = copy.deepcopy(trained)
    noisy(new)["quality"]["nsp"]["flips"] = dataclasses.asdict(share([1] * 20 + [0] * 40, [1] * 60))
    [change] = differences(typed(trained), typed(new), tolerance).changes
    assert change.regression
    assert "noisy: the accuracy budget was undecided and is broken now: NSP flips" in change.sentence
    [change] = differences(typed(new), typed(trained), tolerance).changes
    assert not change.regression
    assert not change.worse
    assert differences(typed(trained), typed(trained), tolerance).changes == ()


def test_a_report_is_judged_by_another_budget_without_measuring(trained, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(trained), encoding="utf-8")
    command = ["compare", "--from", str(tmp_path / "report.json"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    said = done.stdout
    assert "Accuracy budget of noisy: undecided\n  NSP flips, at most 0.50% asked: 1.67% of 60 pairs" in said
    said = CliRunner().invoke(app, [*command, "--accuracy-budget", "nsp=0.1"]).stdout
    assert "Accuracy budget of noisy: held\n  NSP flips, at most 10.00% asked" in said
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| noisy | NSP flips | at most 10.00% | 1.67% (0.04 to 8.94) of 60 | – | held | – |" in page  # noqa: RUF001


def test_a_bundle_that_answers_nothing_is_judged_by_its_hidden_states(trained):
    trained["settings"]["budget"] = parse_budget(default_budget())
    trained["bundles"][0]["heads"] = ["pooler"]
    noisy(trained)["quality"] |= {
        "mlm": None,
        "nsp": None,
        "hidden": {"cosine": estimate(0.98, 0.97, 0.985), "worst": 0},
    }
    [judged] = verdicts(typed(trained))
    assert (judged.verdict, [bound.limit for bound in judged.bounds]) == (BROKEN, ["cosine"])


def test_no_budget_is_held_and_one_of_nothing_that_was_measured_is_not_measured(trained):
    trained["settings"]["budget"] = {}
    assert [judged.verdict for judged in verdicts(typed(trained))] == [HELD]
    trained["settings"]["budget"] = {"nsp": 0.005}
    noisy(trained)["quality"]["nsp"] = None
    assert [judged.verdict for judged in verdicts(typed(trained))] == [NOT_MEASURED]
    said = " ".join(notes(conclude(typed(trained))))
    assert "Accuracy budget of noisy: not measured: nothing that it bounds was." in said
    assert recommend(typed(trained))[0].reason.endswith("; nothing that the budget bounds was measured")
    trained["settings"]["budget"] = {"nsp": 0.004}
    trained["bundles"][0]["heads"] = ["mlm"]  # another bundle of the comparison has the bounded head
    assert [judged.verdict for judged in verdicts(typed(trained))] == [NOT_MEASURED]


def test_a_budget_is_not_held_where_a_bound_of_it_was_not_measured(trained):
    """A text of one sentence a line makes no pairs of sentences."""
    trained["settings"]["budget"] = {"top1": 0.9, "nsp": 0.005}
    noisy(trained)["quality"]["mlm"]["top1_agreement"] = estimate(0.99, 0.98, 1.0)
    noisy(trained)["quality"]["nsp"] = None
    [verdict] = verdicts(typed(trained))
    assert (verdict.verdict, [bound.verdict for bound in verdict.bounds]) == (NOT_MEASURED, [HELD])
    assert verdict.near == ("NSP flips, at most 0.50% asked: not measured in this run",)
    said = " ".join(notes(conclude(typed(trained))))
    unmeasured = "not measured in full. NSP flips, at most 0.50% asked: not measured in this run."
    assert f"Accuracy budget of noisy: {unmeasured}" in said
    for recommendation in recommend(typed(trained)):
        assert recommendation.choice == "noisy"
        assert recommendation.reason.endswith("; within the budget as far as it was measured")
    noisy(trained)["quality"]["mlm"]["top1_agreement"] = estimate(0.91, 0.88, 0.94)
    [verdict] = verdicts(typed(trained))
    assert (verdict.verdict, len(verdict.near)) == (UNDECIDED, 2)


def test_a_head_is_judged_by_the_row_that_measures_it(trained, monkeypatch):
    """As a classifier's, which gives classes or scores, and is never judged by the bounds of both."""
    judged = HEADS["nsp"]
    limit = dataclasses.replace(judged.limits[0], name="other", path=("others", "flips"))
    monkeypatch.setitem(HEADS, "others", dataclasses.replace(judged, name="others", head="nsp", limits=(limit,)))
    trained["bundles"][0]["heads"] = ["nsp", "others"]
    trained["settings"]["budget"] = {"nsp": 0.5, "other": 0.5}
    [verdict] = verdicts(typed(trained))
    assert (verdict.verdict, verdict.near) == (HELD, ())


def test_the_fastest_and_the_smallest_within_the_budget_are_recommended(trained):
    trained["settings"]["budget"] = {"top1": 0.5}
    recommendations = recommend(typed(trained))
    assert {recommendation.choice for recommendation in recommendations} == {"noisy"}
    assert "2.00 (1.80 to 2.20) times as fast as fp32" in recommendations[0].reason


def test_what_breaks_the_budget_is_not_recommended_and_the_reason_says_so(trained):
    trained["settings"]["budget"] = {"kl": 0.0}
    recommendations = recommend(typed(trained))
    assert {recommendation.choice for recommendation in recommendations} == {"fp32"}
    assert "nothing else holds the budget" in recommendations[0].reason
    [verdict] = [judged for judged in verdicts(typed(trained)) if judged.row == "noisy"]
    assert not verdict.holds
    assert verdict.verdict == "broken"
    assert "MLM KL divergence, at most 0.0000 asked" in verdict.breaks[0]


def test_a_speed_that_cannot_be_told_from_fp32_is_not_recommended(trained):
    trained["settings"]["budget"] = {"top1": 0.5}
    noisy(trained)["times_faster"]["SingleStream"] |= {"low": 0.9, "no_difference_seen": True}
    latency, throughput, _ = recommend(typed(trained))
    assert latency.choice == "fp32"
    assert "no difference is seen" in latency.reason
    assert throughput.choice == "noisy"
