"""Metrics on labelled data in the report: the first plot, tables, recommendation, and what changed between two."""

import copy
import csv
import io
import re

import pytest

from bertport.compare.codec import encode
from bertport.compare.report.assembly import conclude
from bertport.compare.report.files import as_csv
from bertport.compare.report.html import html
from bertport.compare.report.labelled import labelled_paragraphs
from bertport.compare.report.markdown import markdown
from bertport.compare.report.not_measured import not_measured
from bertport.compare.report.plots import plots
from bertport.compare.report.regressions import differences, parse_tolerance
from bertport.compare.report.sections import notes, sections
from bertport.compare.report.tables import overview
from tests.compare.conftest import typed
from tests.compare.test_runner import row, validate


def lose(document, *, value=-0.1, low=-0.15, high=-0.05, p_value=0.001):
    """Return a copy in which `noisy` has another difference in accuracy from fp32, which it is shown to lose by."""
    document, metric = copy.deepcopy(document), "accuracy"
    measured = row(document, "noisy")["labelled"]
    measured["differences"][metric] |= {"p_value": p_value}
    measured["differences"][metric]["difference"] |= {"value": value, "low": low, "high": high}
    accuracy = row(document, "fp32")["labelled"]["figures"]["metrics"][metric]
    measured["figures"]["metrics"][metric] = {
        key: number + value if key in {"value", "low", "high"} else number for key, number in accuracy.items()
    }
    return document


def points(value, form=".1f"):
    return f"{100 * value:{form}}"


def test_the_figures_are_those_of_the_file(labelled):
    validate(labelled)
    assert labelled["data"]["task"] == "text-classification"
    assert labelled["data"]["examples"] == 60
    fp32, noisy = (row(labelled, name)["labelled"] for name in ("fp32", "noisy"))
    assert fp32["figures"]["metrics"]["accuracy"]["value"] == 0.75  # a quarter of the labels was changed
    assert fp32["differences"] == {}
    accuracy = noisy["differences"]["accuracy"]
    assert accuracy["difference"]["value"] == pytest.approx(noisy["figures"]["metrics"]["accuracy"]["value"] - 0.75)
    assert accuracy["agreement"]["value"] < 1
    assert fp32["figures"]["fingerprint"] == labelled["data"]["fingerprint"]


def test_what_texts_begin_with_is_said(labelled):
    document = copy.deepcopy(labelled)
    assert " begin with " not in labelled_paragraphs(typed(document))[0]
    document["data"]["prompts"] = {"query": "q: ", "document": ""}
    said = "Queries, or first texts, begin with 'q: ', and documents, or second texts, with nothing."
    assert said in labelled_paragraphs(typed(document))[0]
    other = copy.deepcopy(document)
    other["data"]["prompts"]["query"] = "other: "
    against = differences(typed(document), typed(other), parse_tolerance("0.05"))
    assert "labelled data: it differs" in against.not_compared


def test_data_that_is_not_measured_without_a_reference_is_named(labelled):
    document = copy.deepcopy(labelled)
    document["bundles"][0]["reference"] = None
    said = not_measured(typed(document), ())
    assert f"{document['bundles'][0]['label']}: texts.jsonl, because its reference variant does not take part." in said


def test_the_first_plot_is_of_labelled_data_against_latency(timed):
    report = typed(timed)
    first, second, *_ = plots(report)
    metric = next(iter(row(timed, "fp32")["labelled"]["figures"]["metrics"]))
    assert first.title == f"{metric.capitalize()} on texts.jsonl against latency"
    assert second.title == "Class agreement with fp32 against latency"
    for name in ("fp32", "noisy"):
        latency = 1e3 * row(timed, name)["speed"]["single_stream"]["p90"]["value"]
        value = row(timed, name)["labelled"]["figures"]["metrics"][metric]["value"]
        assert f"{name} {latency:.3g} ms and {points(value)} points" in first.description
    page = html(report)
    figures = re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL)
    assert f"<h3>{first.title}</h3>" in figures[0]
    assert f'role="img" aria-label="{first.title}"' in figures[0]
    assert first.description in figures[0]
    assert first.caption in figures[0]


def test_the_tables_agree_with_the_document(timed):
    report = typed(timed)
    tables = {table.title: table for section in sections(report) for table in section.tables}
    metrics = {cells[0]: dict(zip(tables["Metrics"].head, cells, strict=True)) for cells in tables["Metrics"].rows}
    for name in ("fp32", "noisy"):
        for metric, estimate in row(timed, name)["labelled"]["figures"]["metrics"].items():
            if metric != "ece":
                assert metrics[name][metric].split()[0] == points(estimate["value"])
    assert "exact ones for shares of right answers, and for other metrics" in tables["Metrics"].caption
    [table] = [table for title, table in tables.items() if title.startswith("Differences from fp32 on")]
    [cells] = table.rows
    by_metric = dict(zip(table.head, cells, strict=True))
    assert by_metric["variant"] == "noisy"
    for metric, paired in row(timed, "noisy")["labelled"]["differences"].items():
        if metric != "ece":
            assert by_metric[metric].split()[0] == points(paired["difference"]["value"], "+.2f")
            assert by_metric[metric].endswith(f"p = {paired['p_value']:.2g}")
    glance = overview(report)
    accuracy = row(timed, "noisy")["labelled"]["figures"]["metrics"]["accuracy"]
    [cells] = [cells for cells in glance.rows if cells[0] == "noisy"]
    assert cells[glance.head.index("accuracy, points")].split()[0] == points(accuracy["value"])
    assert "## Labelled data" in markdown(report)
    assert ">Labelled data</h2>" in html(report)


def test_a_note_that_begins_with_a_name_keeps_it(timed):
    note = "texts.jsonl writes labels as ids"
    timed["data"]["notes"] = [note]
    assert f"\n- {note}.\n" in markdown(typed(timed))


@pytest.mark.parametrize(("kind", "counted"), [("classification", "examples"), ("tags", "entities")])
def test_labels_are_counted_by_what_has_them(timed, kind, counted):
    for name in ("fp32", "noisy"):
        row(timed, name)["labelled"]["figures"]["kind"] = kind
    tables = [table for section in sections(typed(timed)) for table in section.tables]
    # Another of this title is of the agreement with fp32.
    [table] = [table for table in tables if table.title == "Label by label" and table.head[0] == "label"]
    assert table.head[1] == counted
    assert f"those of most {counted} first." in table.caption


def test_the_table_of_figures_has_them(timed):
    lines = {(line["row"], line["figure"]): line for line in csv.DictReader(io.StringIO(as_csv(typed(timed))))}
    for name in ("fp32", "noisy"):
        value = row(timed, name)["labelled"]["figures"]["metrics"]["accuracy"]["value"]
        assert float(lines[name, "labelled.figures.metrics.accuracy"]["value"]) == value
    paired = row(timed, "noisy")["labelled"]["differences"]["accuracy"]["difference"]
    assert float(lines["noisy", "labelled.differences.accuracy.difference"]["low"]) == paired["low"]


def test_what_is_not_shown_to_lose_is_recommended_and_its_difference_is_said(timed):
    report = conclude(typed(lose(timed, value=-0.01, low=-0.03, high=0.01, p_value=0.4)))
    [latency, *_] = report.recommendations
    assert latency.choice == "noisy"
    assert latency.reason.endswith("; no difference in accuracy seen (-3.00 to +1.00 points)")
    assert not any("loses on" in note for note in notes(report))
    [finding] = [finding for finding in report.findings if finding.id == "labelled.accuracy"]
    assert finding.no_difference_seen
    assert finding.size == "-1.00 (-3.00 to +1.00), p = 0.4"


def test_what_is_shown_to_lose_is_never_recommended(timed):
    report = conclude(typed(lose(timed)))
    assert {advice.choice for advice in report.recommendations} == {"fp32"}
    latency = report.recommendations[0]
    assert "nothing else holds the budget without a loss on the labelled data" in latency.reason
    assert latency.reason.endswith("; accuracy 75.0")
    said = (
        "noisy is not recommended, because it loses on the 60 examples of texts.jsonl: accuracy is -10.00 (-15.00 to "
        "-5.00) points from fp32's, p = 0.001."
    )
    assert [note for note in notes(report) if "not recommended" in note] == [said]
    assert html(report).count(said.replace("'", "&#39;")) == 1
    [finding] = [finding for finding in report.findings if finding.id == "labelled.accuracy"]
    assert finding.verdict == "worse than fp32"


def test_what_could_not_be_measured_on_the_data_is_never_recommended(timed):
    """It may be one whose answers to an example are no finite numbers: that is no reason to deploy it."""
    now = copy.deepcopy(timed)
    del row(now, "noisy")["labelled"]
    report = conclude(typed(now))
    assert {advice.choice for advice in report.recommendations} == {"fp32"}
    assert [note for note in notes(report) if "not recommended" in note] == [
        (
            "noisy is not recommended, because it could not be measured on texts.jsonl: the reason is under what was "
            "not measured."
        )
    ]
    del row(now, "fp32")["labelled"]  # without a reference, nothing was
    assert not any("not recommended" in note for note in notes(conclude(typed(now))))


def test_a_gain_is_no_loss(timed):
    report = conclude(typed(lose(timed, value=0.1, low=0.05, high=0.15)))
    assert report.recommendations[0].choice == "noisy"


def test_worse_than_before_beyond_noise_is_a_regression(timed):
    before = lose(timed, value=-0.001, low=-0.004, high=0.002, p_value=0.7)
    now = lose(timed, value=-0.03, low=-0.04, high=-0.02)
    against = differences(typed(before), typed(now), parse_tolerance("0.05"))
    [change] = [change for change in against.changes if "accuracy" in change.figure]
    assert change.regression
    assert change.sentence == (
        "noisy: accuracy, difference from fp32 went from -0.1 points to -3 points: worse, beyond the tolerance"
    )
    within = differences(typed(before), typed(now), parse_tolerance("labelled=0.03"))
    assert not any(change.regression for change in within.changes)
    better = differences(typed(now), typed(before), parse_tolerance("0.05"))
    assert [change.worse for change in better.changes if "accuracy" in change.figure] == [False]
    same = differences(typed(now), typed(now), parse_tolerance("0.05"))
    assert same.changes == ()


def collapse(document):
    """Return a copy in which accuracy is not defined for what `noisy` predicts."""
    document, reason = lose(document), "all predictions are the same"
    measured, nothing = row(document, "noisy")["labelled"], dict.fromkeys(("value", "low", "high"))
    measured["differences"]["accuracy"] |= {"p_value": None, "undefined": reason}
    measured["differences"]["accuracy"]["difference"] |= nothing
    measured["figures"]["metrics"]["accuracy"] |= nothing
    return document


def test_a_metric_that_is_not_defined_any_more_is_a_loss(timed):
    report = conclude(typed(collapse(timed)))
    assert {advice.choice for advice in report.recommendations} == {"fp32"}
    [said] = [note for note in notes(report) if "not recommended" in note]
    assert said == (
        "noisy is not recommended, because it loses on the 60 examples of texts.jsonl: accuracy is not defined (all "
        "predictions are the same), and fp32's is."
    )
    [table] = [table for section in sections(report) for table in section.tables if "Differences from" in table.title]
    assert dict(zip(table.head, table.rows[0], strict=True))["accuracy"] == "worse: not defined"
    validate(encode(report))
    assert said.replace("'", "&#39;") in html(report)
    assert said in markdown(report)
    assert "noisy" not in plots(report)[0].description
    against = differences(typed(lose(timed, value=0.0)), report, parse_tolerance("0.05"))
    [change] = [change for change in against.changes if "accuracy" in change.figure]
    assert change.regression
    assert change.sentence.startswith("noisy: accuracy on labelled data was 75 points and is not defined now: all pred")


def test_what_cannot_be_measured_on_the_data_any_more_is_a_regression(timed):
    now = copy.deepcopy(timed)
    del row(now, "noisy")["labelled"]
    interrupted = differences(typed(timed), typed(now | {"complete": False}), parse_tolerance("0.05"))
    assert interrupted.changes == ()
    against = differences(typed(timed), typed(now | {"complete": True}), parse_tolerance("0.05"))
    [change] = against.changes
    assert change.regression
    assert change.sentence.startswith("noisy was measured on the labelled data before and is not now: the new report")
    back = differences(typed(now), typed(timed | {"complete": True}), parse_tolerance("0.05"))
    assert back.changes == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "sha256:00"}, "labelled data: it differs"),
        ({"positive": "good"}, "labelled data: it differs"),
        ({"columns": {"text": "text", "label": "second"}}, "labelled data: it differs"),
        (None, "labelled data: the old report has none"),
    ],
)
def test_metrics_on_other_data_are_not_compared(timed, change, said):
    before, now = copy.deepcopy(timed), lose(timed)
    if change is None:
        del before["data"]
        for name in ("fp32", "noisy"):
            del row(before, name)["labelled"]
    else:
        before["data"] |= change
    against = differences(typed(before), typed(now), parse_tolerance("0.05"))
    assert said in against.not_compared
    assert not any("accuracy" in change.figure for change in against.changes)


def test_without_labelled_data_nothing_of_it_is_there(document):
    report = typed(document)
    assert "data" not in encode(report)
    assert all("labelled" not in measured for measured in encode(report)["rows"])
    assert "labelled" not in {section.key for section in sections(report)}
    assert not any("points" in heading for heading in overview(report).head)
