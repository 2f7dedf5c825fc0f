"""What people are shown of an evaluation, from figures that are made up."""

from __future__ import annotations

import math

import pytest

from bertport.compare.evaluate.document import (
    Data,
    DifferingExample,
    EvaluatedBundle,
    EvaluatedVariant,
    Evaluation,
    Settings,
)
from bertport.compare.evaluate.tables import shown
from bertport.measure.labelled.figures import LabelFigures, TaskFigures
from bertport.measure.machine import Machine
from bertport.measure.statistics import Estimate

ESTIMATE = Estimate(value=0.5, low=0.4, high=0.6, count=9, clusters=9)
FOUND = LabelFigures(precision=0.5, recall=0.25, f1=1 / 3, support=4, predicted=2)
NEVER = LabelFigures(precision=0.0, recall=math.nan, f1=0.0, support=0, predicted=3)


def variant(name, labels):
    figures = TaskFigures(
        task="token-classification",
        kind="tags",
        data="data.jsonl",
        fingerprint="sha256:",
        examples=9,
        metrics={"entity_f1": ESTIMATE},
        labels=labels,
        calibration=None,
        notes=(),
    )
    return EvaluatedVariant(
        name=name, recipe=name, provider="cpu", size_bytes=1, figures=figures, recorded_speed={}, recorded_on=None
    )


def evaluation(*variants, data="data.jsonl", examples=None):
    return Evaluation(
        created="",
        command="",
        bundle=EvaluatedBundle(name="bundle", digest="sha256:", default_variant="fp32"),
        task="token-classification",
        data=Data(
            name=data,
            fingerprint="sha256:",
            examples=9,
            limit=None,
            kind="tags",
            columns={},
            labels=("O",),
            label_form="names",
            label_map={},
            positive=None,
            notes=(),
        ),
        settings=Settings(provider="cpu", threads=None, truncation=False, seed=0, resamples=2000, confidence=0.95),
        machine=Machine(
            cpu="",
            instruction_set="",
            flags=(),
            physical_cores=1,
            usable_cores=1.0,
            memory_bytes=None,
            system="",
            versions={},
            busy=None,
            matmul_gflops=None,
        ),
        reference="fp32",
        variants=variants,
        comparisons=(),
        left_out=(),
        conclusion="",
        examples=examples,
    )


def test_a_type_that_one_variant_alone_predicts_is_shown_of_that_one():
    one, other = variant("fp32", {"PER": FOUND, "MISC": NEVER}), variant("int8", {"PER": FOUND, "TIME": NEVER})
    lines = [line.split() for line in shown(evaluation(one, other)).splitlines()]
    head = "label entities"
    figures, never, dash = "50.0 / 25.0 / 33.3", "0.0 / – / 0.0", "–"  # noqa: RUF001 — the dash of tables
    assert f"PER 4 {figures} {figures}".split() in lines
    assert f"MISC 0 {never} {dash}".split() in lines
    assert f"TIME 0 {dash} {never}".split() in lines
    assert f"{head} fp32 P / R / F1 int8 P / R / F1".split() in lines


@pytest.mark.parametrize(("name", "place"), [("data.jsonl", "line 12"), ("data.parquet", "row 12")])
def test_an_example_is_named_by_what_its_file_counts(name, place):
    example = DifferingExample(line=12, inputs='"a"', truth="O", predictions={"fp32": "O"}, difference=1.0)
    assert f"\n{name}, {place}: " in shown(evaluation(variant("fp32", {}), data=name, examples=(example,)))
