"""A bound is held, broken or undecided by the interval of its figure, and no more often wrong than that says."""

import copy
import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bertport.compare.quality import Samples, further
from bertport.compare.recorded import recorded, same_arithmetic
from bertport.compare.report.document import conclude
from bertport.compare.report.files import as_csv
from bertport.compare.report.recommend import recommend, verdicts
from bertport.compare.report.regressions import differences, parse_tolerance
from bertport.compare.report.summary import notes
from bertport.compare.runner import Comparison
from bertport.measure import budget
from bertport.measure.binomial import clopper_pearson, incomplete_beta, t_quantile
from bertport.measure.budget import (
    BROKEN,
    HELD,
    UNDECIDED,
    applicable,
    beyond_doubt,
    default_budget,
    default_without_heads,
    format_budget,
    judge,
    judge_all,
    overall,
    parse_budget,
)
from bertport.measure.quality.heads import limit_named
from bertport.measure.quality.samples import Sample
from bertport.measure.statistics import Settings, ratio, share
from bertport.runtime.cli import app
from bertport.runtime.errors import MissingHeadError, UnknownNameError, UsageError

NSP, TOP1, KL, COSINE = (limit_named(name) for name in ("nsp", "top1", "kl", "cosine"))


def estimate(value, low, high, count=2000, clusters=1000):
    return {"value": value, "low": low, "high": high, "count": count, "clusters": clusters}


def test_budgets_are_read_and_written():
    assert parse_budget(default_budget()) == {"top1": 0.98, "nsp": 0.005}
    assert parse_budget("none") == {}
    assert format_budget({}) == "no bounds"
    with pytest.raises(UsageError, match="not a limit"):
        parse_budget("top1")
    with pytest.raises(UnknownNameError, match="unknown limit"):
        parse_budget("speed=1")


# What scipy.stats gives: beta.cdf, beta.ppf as binom's exact interval, t.ppf.
def test_the_distributions_are_those_of_the_textbooks():
    assert incomplete_beta(2, 3, 0.4) == pytest.approx(0.5248)
    assert clopper_pearson(0, 60, 0.95) == pytest.approx((0, 1 - 0.025 ** (1 / 60)))
    assert clopper_pearson(6, 2000, 0.95) == pytest.approx((0.0011017182, 0.0065182186), abs=1e-9)
    assert clopper_pearson(60, 60, 0.95)[1] == 1
    assert [t_quantile(0.975, each) for each in (1, 29, 1e6)] == pytest.approx(
        [12.706205, 2.045230, 1.959966], abs=1e-5
    )


@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_an_exact_interval_leaves_just_so_much_to_either_side(hits, misses, confidence):
    trials, tail = hits + misses, (1 - confidence) / 2
    low, high = clopper_pearson(hits, trials, confidence)

    def at_least(share, number):
        return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(number, trials + 1))

    assert 0 <= low <= hits / trials <= high <= 1
    assert at_least(low, hits) == pytest.approx(tail if hits else 1, abs=1e-9)
    assert 1 - at_least(high, hits + 1) == pytest.approx(tail, abs=1e-9)


@pytest.mark.parametrize(
    ("limit", "bound", "figure", "verdict"),
    [
        (NSP, 0.005, share([1] + [0] * 59, [1] * 60), UNDECIDED),  # what fp32 was once recommended for
        (NSP, 0.005, share([0] * 60, [1] * 60), UNDECIDED),
        (NSP, 0.005, share([0] * 2000, [1] * 2000), HELD),
        (NSP, 0.005, share([1] * 8 + [0] * 52, [1] * 60), BROKEN),
        (NSP, 0.005, share([1] * 6 + [0] * 1994, [1] * 2000), UNDECIDED),
        (TOP1, 0.98, share([10] * 300, [10] * 300), HELD),
        (TOP1, 0.98, share([9, 10] * 30, [10] * 60), BROKEN),
        (TOP1, 0.98, share([0], [50]), BROKEN),  # however alike the positions of one text are, none of 50 agrees
        (TOP1, 0.98, share([50], [50]), UNDECIDED),
        (NSP, 0.005, estimate(0.002, 0.0, 0.004, 1000, 900), UNDECIDED),  # as 0.1 recorded it: 2 of 1,000
        (NSP, 0.005, estimate(1 / 60, 0.0, 0.05, 60, 58), UNDECIDED),
        (KL, 0.01, estimate(0.001, 0.0009, 0.0012), HELD),
        (KL, 0.01, estimate(0.02, 0.018, 0.023), BROKEN),
        (KL, 0.01, estimate(0.0098, 0.0094, 0.0103), UNDECIDED),
        (KL, 0.01, estimate(0.001, 0.001, 0.001, 100, 1), UNDECIDED),  # one text has no interval
        (COSINE, 0.99, estimate(0.9996, 0.9995, 0.9997), HELD),
        (COSINE, 0.99, estimate(0.2, None, None), UNDECIDED),
    ],
)
def test_a_figure_and_its_bound(limit, bound, figure, verdict):
    figure = figure if isinstance(figure, dict) else dataclasses.asdict(figure)
    found = judge(limit, bound, figure)
    assert found.verdict == verdict
    assert found.low <= figure["value"] <= found.high
    assert (found.more == 0) is (verdict != UNDECIDED)
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("figure", [None, {}, estimate(None, None, None, 0, 0), estimate(math.nan, 0, 0), "figure"])
def test_what_is_no_figure_has_no_verdict(figure):
    assert judge(NSP, 0.005, figure) is None
    assert judge_all({"nsp": 0.005}, {"nsp": {"flips": figure}}) == judge_all({"nsp": 0.005}, None) == {}


def test_one_verdict_for_several():
    assert overall([HELD, HELD]) == HELD
    assert overall([HELD, UNDECIDED]) == UNDECIDED
    assert overall([UNDECIDED, BROKEN, HELD]) == BROKEN
    assert overall([]) == UNDECIDED


@pytest.mark.parametrize(("hits", "count"), [(0, 60), (1, 500), (2, 1000), (26, 4000)])
def test_as_many_samples_more_as_are_named_would_decide(hits, count):
    found = judge(NSP, 0.005, dataclasses.asdict(share([1] * hits + [0] * (count - hits), [1] * count)))
    assert found.verdict == UNDECIDED
    for samples, decided in ((count + found.more, True), (count + found.more * 9 // 10, False)):
        interval = clopper_pearson(hits / count * samples, samples, 0.95)
        again = judge(NSP, 0.005, estimate(hits / count, *interval, samples, samples))
        assert (again.verdict != UNDECIDED) is decided


def test_no_number_of_samples_decides_what_is_on_the_bound():
    assert judge(NSP, 0.005, dataclasses.asdict(share([1] + [0] * 199, [1] * 200))).more is None
    assert judge(KL, 0.01, estimate(0.01, 0.009, 0.011)).more is None


def independent(rng):
    return rng.binomial(1, 0.01, 600), np.ones(600)


def dependent(rng):
    """Eighty texts of 1 to 20 positions that differ in how likely each is to change."""
    sizes = rng.integers(1, 21, size=80)
    return rng.binomial(sizes, rng.beta(0.2, 3.8, size=80)), sizes


def skewed(rng):
    """Sixty texts whose divergence is log-normal, as it is over texts."""
    sizes = rng.integers(5, 20, size=60)
    return sizes * 0.01 * rng.lognormal(-0.18, 0.6, size=60), sizes


@pytest.mark.parametrize(
    ("draw", "limit", "bound", "make"),
    [(independent, NSP, 0.01, share), (dependent, NSP, 0.05, share), (skewed, KL, 0.01, ratio)],
)
def test_false_verdicts_are_as_rare_as_the_confidence_says(draw, limit, bound, make, monkeypatch):
    """The true figure is the bound itself, the hardest case: either verdict is false there, in 1 of 40 samples each."""
    monkeypatch.setattr(budget, "_more", lambda *_: 1)  # it takes most of the time
    rng = np.random.default_rng(4)
    settings = Settings(resamples=100)
    found = [judge(limit, bound, dataclasses.asdict(make(*draw(rng), settings))).verdict for _ in range(160)]
    # 4 are expected at most; a binomial with that mean exceeds 9 in one of 100 seeds.
    assert found.count(HELD) <= 9
    assert found.count(BROKEN) <= 9


def samples(positions=0, pairs=0):
    def one(masked, label):
        ids = np.zeros(12, dtype=np.int64)
        return Sample(
            text=0, input_ids=ids, token_type_ids=ids, positions=ids[:masked], labels=ids[:masked], next_sentence=label
        )

    return Samples(first=(one(2, None),), masked=(one(10, None),) * (positions // 10), pairs=(one(0, 1),) * pairs)


def accuracy(hits, count, agreement=1.0):
    top1 = share([10 * agreement] * 300, [10] * 300)
    flips = share([1] * hits + [0] * (count - hits), [1] * count)
    return {"mlm": {"top1_agreement": dataclasses.asdict(top1)}, "nsp": {"flips": dataclasses.asdict(flips)}}


@pytest.mark.parametrize(
    ("bounds", "figures", "left", "pairs", "masked"),
    [
        ({"nsp": 0.005}, accuracy(0, 60), 2000, True, False),  # more pairs would tell
        ({"nsp": 0.005}, accuracy(0, 60), 100, False, False),  # not so few
        ({"nsp": 0.005}, accuracy(1, 200), 2000, False, False),  # no number would
        ({"nsp": 0.005}, accuracy(30, 60), 2000, False, False),  # beyond doubt
        ({"nsp": 0.005}, accuracy(5, 60), 2000, True, False),  # at 95%, and a look before the last needs more
        ({"top1": 0.98}, accuracy(0, 60), 2000, False, True),  # the same of 300 texts without a change
        ({"top1": 0.9}, accuracy(0, 60), 2000, False, False),
        ({"top1": 0.98, "nsp": 0.005}, accuracy(0, 60, 0.5), 2000, True, False),
        ({}, accuracy(0, 60), 2000, False, False),
        ({"kl": 0.1}, accuracy(0, 60), 2000, False, False),  # not measured
    ],
)
def test_more_samples_are_taken_only_where_they_would_decide(bounds, figures, left, pairs, masked):
    found = further(samples(positions=left, pairs=left), figures, bounds)
    assert any(each.next_sentence is not None for each in found) is pairs
    assert any(len(each.positions) for each in found) is masked


def test_a_first_look_decides_only_beyond_doubt():
    sure, likely = (judge(NSP, 0.005, accuracy(hits, 60)["nsp"]["flips"]) for hits in (30, 5))
    assert sure.verdict == likely.verdict == BROKEN
    assert beyond_doubt(NSP, 0.005, sure)
    assert not beyond_doubt(NSP, 0.005, likely)


def test_two_looks_are_taken_of_a_variant_that_is_near_its_bound(make_options, tmp_path, monkeypatch):
    """On a real bundle: `noisy` on eight pairs, then on all there are."""
    monkeypatch.setattr("bertport.compare.quality.further", lambda samples, *_: samples.pairs)
    options = make_options(tmp_path / "out", variants=("noisy",), budget="nsp=0.1")
    comparison = Comparison(dataclasses.replace(options, effort=dataclasses.replace(options.sizes, pairs=8)))
    [entrant] = comparison.entrants
    [step] = [each for each in comparison._quality_steps() if each.key == "quality/noisy"]
    found = step.run()
    assert found["looks"] == 2
    assert found["fidelity"]["nsp"]["flips"]["count"] > 8
    assert found["fidelity"]["stability"]
    labels = [each.next_sentence for each in comparison.samples[entrant.label].first if each.next_sentence is not None]
    assert sorted(labels) == [0] * 4 + [1] * 4


@pytest.fixture
def trained(document):
    """The document as if its weights were trained, and `noisy` faster than fp32 with one flip in 60 pairs."""
    found = copy.deepcopy(document)
    found["bundles"][0] |= {"weights": "trained", "weights_reason": ""}
    found["settings"]["budget"] = {"nsp": 0.005}
    row = noisy(found)
    row["quality"]["nsp"]["flips"] = dataclasses.asdict(share([1] + [0] * 59, [1] * 60))
    speed = {"value": 2.0, "low": 1.8, "high": 2.2, "count": 9, "clusters": 3, "no_difference_seen": False}
    row["times_faster"] = {"SingleStream": speed, "Offline": dict(speed)}
    row["speed"]["single_stream"]["p90"] |= dict.fromkeys(("value", "low", "high"), 1e-9)
    row["speed"]["offline"]["texts_per_second"] |= dict.fromkeys(("value", "low", "high"), 1e9)
    row["size_bytes"] = 1
    return found


def noisy(document):
    return next(each for each in document["rows"] if each["name"] == "noisy")


def record(hits, count=2000):
    flips = dataclasses.asdict(share([1] * hits + [0] * (count - hits), [1] * count))
    figures = {"nsp": {"flips": flips}}
    return {"measured": "2026-11-23", "instruction_set": "amx", "text": "rest.jsonl", "figures": figures}


def test_an_undecided_variant_is_recommended_and_what_is_known_is_said(trained):
    noisy(trained)["recorded"] = record(6)
    [verdict] = verdicts(trained)
    assert (verdict["verdict"], verdict["holds"], verdict["breaks"]) == (UNDECIDED, True, [])
    said = (
        "NSP flips, at most 0.50% asked: 1.67% of 60 pairs (0.04% to 8.94%) here, outside by its value, but this run "
        "cannot tell; about 220 more pairs would tell; at quantization on rest.jsonl (amx) 0.30% of 2,000 pairs (0.11% "
        "to 0.65%): inside by its value"
    )
    assert verdict["near"] == [said]
    found = recommend(trained)
    assert {each["choice"] for each in found} == {"noisy"}
    assert all(each["reason"].endswith("within the budget by its figures, but not beyond doubt") for each in found)
    noisy(trained)["recorded"] = None
    assert all("whether it is within the budget is undecided" in each["reason"] for each in recommend(trained))
    assert sum("Accuracy budget of noisy: undecided. NSP flips" in each for each in notes(conclude(trained))) == 1


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
    [found] = verdicts(trained)
    [bound] = found["bounds"]
    assert (found["verdict"], bound["verdict"], bound["by"]) == (verdict, verdict, by)
    assert "at quantization on rest.jsonl (amx)" in bound["sentence"]
    assert {each["choice"] for each in recommend(trained)} == {"fp32" if verdict == BROKEN else "noisy"}


def test_what_this_run_shows_stands_whatever_was_recorded(trained):
    trained["text"]["shipped"] = True
    row = noisy(trained) | {"recorded": record(0)}
    row["quality"]["nsp"]["flips"] = dataclasses.asdict(share([1] * 20 + [0] * 40, [1] * 60))
    trained["rows"] = [row if each["name"] == "noisy" else each for each in trained["rows"]]
    [found] = verdicts(trained)
    assert (found["verdict"], found["bounds"][0]["by"]) == (BROKEN, "run")
    assert "here: broken; at quantization on rest.jsonl (amx) 0.00% of 2,000 pairs" in found["breaks"][0]


def test_a_report_of_the_last_release_is_judged_too(trained):
    old = copy.deepcopy(trained)
    old["text"].pop("shipped")
    for row in old["rows"]:
        row.pop("recorded")
        row.pop("looks")
    noisy(old)["quality"]["nsp"]["flips"] = estimate(1 / 60, 0.0, 0.05, 60, 60)
    assert [each["verdict"] for each in verdicts(old)] == [UNDECIDED]
    assert not differences(old, trained, parse_tolerance("0.05"))["changes"]


def test_a_budget_that_is_broken_now_is_a_regression_and_one_that_is_undecided_is_none(trained):
    tolerance = parse_tolerance("1000")
    new = copy.deepcopy(trained)
    noisy(new)["quality"]["nsp"]["flips"] = dataclasses.asdict(share([1] * 20 + [0] * 40, [1] * 60))
    [change] = differences(trained, new, tolerance)["changes"]
    assert change["regression"]
    assert "noisy: the accuracy budget was undecided and is broken now: NSP flips" in change["sentence"]
    [change] = differences(new, trained, tolerance)["changes"]
    assert not change["regression"]
    assert not change["worse"]
    assert differences(trained, trained, tolerance)["changes"] == []


def test_the_verdicts_are_in_the_table_of_figures(trained):
    lines = list(csv.DictReader(io.StringIO(as_csv(conclude(trained)))))
    [line] = [each for each in lines if each["figure"] == "budget.nsp"]
    assert (line["row"], line["verdict"], line["count"]) == ("noisy", UNDECIDED, "60")
    assert float(line["high"]) == pytest.approx(0.0894, abs=1e-4)
    assert {each["verdict"] for each in lines if not each["figure"].startswith("budget.")} == {""}


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
    [found] = verdicts(trained)
    assert (found["verdict"], [each["limit"] for each in found["bounds"]]) == (BROKEN, ["cosine"])


def test_no_budget_is_held_and_one_of_nothing_that_was_measured_is_undecided(trained):
    trained["settings"]["budget"] = {}
    assert [each["verdict"] for each in verdicts(trained)] == [HELD]
    trained["settings"]["budget"] = {"nsp": 0.005}
    noisy(trained)["quality"]["nsp"] = None
    assert [each["verdict"] for each in verdicts(trained)] == [UNDECIDED]
    assert "because nothing that it bounds was measured." in " ".join(notes(conclude(trained)))


RECORD = {
    "reference": "fp32",
    "provider": "cpu",
    "measured": "2026-11-23",
    "text": {"name": "rest.jsonl"},
    "machine": {"instruction_set": "avx512_vnni"},
    "accuracy": {"nsp": {"flips": estimate(0.003, 0.001, 0.006)}, "mlm": {"kl": "none"}, "hidden": None},
}


@pytest.mark.parametrize(
    ("change", "here", "taken"),
    [
        ({}, "avx512_vnni", True),
        ({}, "amx", True),  # both sum products of 8 bits exactly
        ({}, "avx2", False),
        ({"machine": {"instruction_set": "avx2"}}, "avx2", True),
        ({"machine": {"instruction_set": "avx2"}}, "amx", False),
        ({"reference": "portable"}, "amx", False),
        ({"provider": "cuda"}, "amx", False),
        ({"machine": None}, "amx", False),
        ({"accuracy": []}, "amx", False),
    ],
)
def test_a_record_is_taken_where_it_is_of_the_same_arithmetic(change, here, taken):
    found = recorded(RECORD | change, reference="fp32", provider="cpu", here=here)
    assert (found is not None) is taken
    if found:
        assert found["figures"] == {"nsp": {"flips": RECORD["accuracy"]["nsp"]["flips"]}}
    assert recorded(None, reference="fp32", provider="cpu", here=here) is None
    assert same_arithmetic("of another planet", "of another planet")


def test_a_bound_on_a_head_that_nothing_has_is_refused_if_it_was_asked_for(make_options, tmp_path, monkeypatch):
    assert applicable({"top1": 0.98, "nsp": 0.005, "cosine": 0.9}, ("mlm",)) == {"top1": 0.98, "cosine": 0.9}
    assert applicable(parse_budget(default_budget()), ("nsp", "pooler")) == {"nsp": 0.005}
    assert applicable(parse_budget(default_budget()), ("pooler",)) == parse_budget(default_without_heads())
    assert applicable({"top1": 0.9}, ("pooler",)) == applicable({}, ("pooler",)) == {}
    from bertport.compare import runner as comparison

    heads = comparison.open_bundles
    monkeypatch.setattr(comparison, "open_bundles", lambda paths: [beheaded(each) for each in heads(paths)])
    with pytest.raises(MissingHeadError, match=r"bounds MLM top-1 agreement \(top1\), and there is no head 'mlm'"):
        Comparison(make_options(tmp_path / "out"))
    assert Comparison(make_options(tmp_path / "out", budget=default_budget())).bounds
    assert Comparison(make_options(tmp_path / "out", budget="cosine=0.9")).bounds


def beheaded(entrant):
    manifest = entrant.bundle.manifest
    bare = dataclasses.replace(manifest, heads=type(manifest.heads)())
    return dataclasses.replace(entrant, bundle=dataclasses.replace(entrant.bundle, manifest=bare))
