"""Figures on labelled data in a manifest: what is understood is shown, and everything else is passed over."""

import dataclasses

import pytest

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.task_metrics import HEADINGS, labelled_metrics
from bertport.runtime.commands import render

RECORD = {
    "task": "text-classification",
    "examples": 1500,
    "metrics": {
        "accuracy": {
            "reference": {"value": 0.91, "low": 0.9, "high": 0.92},
            "candidate": {"value": 0.9, "low": 0.89, "high": 0.91},
            "difference": {"value": -0.01, "low": -0.02, "high": 0.001},
            "drop_bound": 0.005,
            "verdict": "undecided",
        },
        "matthews": {"reference": {"value": None}, "candidate": {"value": 0.5}, "difference": {"value": None}},
    },
}


@pytest.fixture
def with_metrics(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)

    def made(record, name="dev.jsonl"):
        variants = bundle.manifest.variants
        fp32 = dataclasses.replace(variants["fp32"], task_metrics={name: record})
        manifest = dataclasses.replace(bundle.manifest, variants=variants | {"fp32": fp32})
        return dataclasses.replace(bundle, manifest=manifest)

    return made


def test_each_metric_is_a_row(with_metrics):
    bundle = with_metrics(RECORD)
    accuracy, matthews = labelled_metrics(bundle.manifest)
    assert accuracy.cells() == (
        "fp32",
        "dev.jsonl (1,500 examples)",
        "accuracy",
        "0.9100",
        "0.9000",
        "-0.0100 (-0.0200 to +0.0010)",
        "drop at most 0.005: undecided",
    )
    assert matthews.cells()[3:] == ("-", "0.5000", "-", "not judged")
    assert len(accuracy.cells()) == len(HEADINGS)
    assert "dev.jsonl (1,500 examples)" in render.manifest(bundle)


def test_the_label_of_f1_is_named_where_it_is_recorded(with_metrics):
    figures = {"f1": {"candidate": {"value": 0.5}}, "f1_macro": {"candidate": {"value": 0.5}}}
    for positive, named in (("spam", "f1 of spam"), (None, "f1"), (3, "f1")):
        bundle = with_metrics({"metrics": figures, "examples": 9, "positive": positive})
        assert [metric.cells()[2] for metric in labelled_metrics(bundle.manifest)] == [named, "f1_macro"]


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {"spearman": 0.8},
        {"metrics": [], "examples": 3},
        {"metrics": {"accuracy": 0.9}, "examples": 3},
        {"metrics": {"accuracy": {}}, "examples": "3"},
    ],
)
def test_entries_of_another_form_are_passed_over(with_metrics, record):
    bundle = with_metrics(record)
    assert labelled_metrics(bundle.manifest) == ()
    assert "labelled data" not in render.manifest(bundle)


def test_figures_of_another_form_are_left_out_and_names_cannot_move_the_cursor(with_metrics):
    figures = {"reference": 3, "candidate": {"value": "high"}, "difference": {"value": 1}, "verdict": 5}
    bundle = with_metrics({"metrics": {"\x1b[2J": figures}, "examples": 3}, name="a\nb")
    [metric] = labelled_metrics(bundle.manifest)
    assert metric.cells()[3:] == ("-", "-", "-", "not judged")
    shown = render.manifest(bundle)
    assert "\x1b" not in shown
    assert "a\\nb" in shown


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["above", "below"])
def test_numbers_that_no_float_holds_are_left_out(with_metrics, value):
    figures = {"reference": {"value": value}, "candidate": {"value": 0.5}, "drop_bound": value}
    bundle = with_metrics({"metrics": {"accuracy": figures}, "examples": 3})
    [metric] = labelled_metrics(bundle.manifest)
    assert metric.cells()[3:] == ("-", "0.5000", "-", "not judged")
    assert "dev.jsonl (3 examples)" in render.manifest(bundle)


def test_a_bundle_without_them_shows_no_table(tiny_bundle):
    assert "labelled data" not in render.manifest(Bundle.open(tiny_bundle))
