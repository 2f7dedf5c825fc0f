"""Every task that labelled data measures, from a file to a table, on seeded tiny bundles."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest

from bertport.compare.evaluate.schema import evaluation_schema
from bertport.measure.labelled.kinds import TASK_KINDS
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.compare.conftest import with_variants, written
from tests.compare.evaluate.conftest import LABELS, sentences
from tests.conftest import built_once
from tests.heads import LABELS as HEAD_LABELS
from tests.sentence_models import PROMPTS

pytestmark = pytest.mark.slow

COUNT = 40
RNG = random.Random(3)  # noqa: S311 — no secret
MULTI = {"labels": LABELS, "problem_type": "multi_label_classification"}
NUMBER = {"labels": ["LABEL_0"], "problem_type": "regression"}
EMBEDDING = None
"""A bundle that makes vectors, which is not one of a head's checkpoint."""


def records(*columns):
    """Records of columns, each a function of the record's number and of two texts."""
    texts = sentences(2 * COUNT, seed=5)
    return [
        {name: make(number, texts[number], texts[COUNT + number]) for name, make in columns} for number in range(COUNT)
    ]


TEXT, PAIR = ("text", lambda _, one, __: one), ("text_pair", lambda _, __, other: other)
NUMBERS = [RNG.uniform(0, 5) for _ in range(COUNT)]
TAGS = HEAD_LABELS[TOKEN_CLASSIFICATION]
CASES = {
    "text-classification, several labels": (
        SEQUENCE_CLASSIFICATION,
        MULTI,
        records(TEXT, ("label", lambda number, *_: [LABELS[number % 3]] * (number % 4 > 0))),
        ["accuracy", "f1_micro", "f1_macro"],
    ),
    "text-classification, a number": (
        SEQUENCE_CLASSIFICATION,
        NUMBER,
        records(TEXT, PAIR, ("label", lambda number, *_: NUMBERS[number])),
        ["pearson", "spearman"],
    ),
    "token-classification": (
        TOKEN_CLASSIFICATION,
        {},
        records(
            ("tokens", lambda _, one, __: one.split()),
            ("tags", lambda number, one, _: [TAGS[(number + place) % 5] for place in range(len(one.split()))]),
        ),
        ["entity_f1"],
    ),
    "question-answering": (
        QUESTION_ANSWERING,
        {},
        records(
            ("question", lambda _, one, __: one),
            ("context", lambda _, __, other: other),
            ("answers", lambda _, __, other: {"text": [other.split()[0]], "answer_start": [0]}),
        ),
        ["exact_match", "answer_f1"],
    ),
    "multiple-choice": (
        MULTIPLE_CHOICE,
        {},
        records(
            ("prompt", lambda _, one, __: one),
            ("choices", lambda _, one, other: [f"{one} a", f"{other} b", "water"]),
            ("label", lambda number, *_: number % 3),
        ),
        ["accuracy", "ece"],
    ),
    "text-ranking": (
        SEQUENCE_CLASSIFICATION,
        NUMBER,
        records(
            ("query", lambda _, one, __: one),
            ("documents", lambda _, __, other: [other, f"{other} bad", "love"]),
            ("relevance", lambda number, *_: [number % 3, 0, 1]),
        ),
        ["ndcg@10", "mrr@10", "recall@10"],
    ),
    "sentence-similarity": (
        EMBEDDING,
        {},
        records(TEXT, PAIR, ("score", lambda number, *_: NUMBERS[number])),
        ["pearson", "spearman"],
    ),
    "sentence-similarity, retrieval": (
        EMBEDDING,
        {},
        records(("query", lambda number, one, _: f"{one} {number}"), ("positives", lambda _, __, other: [other])),
        ["ndcg@10", "mrr@10", "recall@10"],
    ),
}
"""By task: head, settings of its checkpoint, data, and the metrics that it has."""
PROMPTS_OF = {
    "sentence-similarity": {"query": "", "document": ""},
    "sentence-similarity, retrieval": PROMPTS,
}
"""What texts begin with, by task; null of other tasks."""


@pytest.fixture
def bundle_of(evaluated_bundle, sentence_bundle, tmp_path_factory):
    """A function that gives the bundle of a head, or of a model of sentence-transformers, with the variant `noisy`."""

    def bundle(head, settings):
        if head is not EMBEDDING:
            return evaluated_bundle(head, **settings)
        name = "bundles/evaluated/sentences"
        return built_once(tmp_path_factory, name, lambda path: with_variants(sentence_bundle, path, "noisy"))

    return bundle


def test_every_task_has_a_case():
    assert {name.partition(",")[0] for name in CASES} == TASK_KINDS.keys()


@pytest.mark.parametrize("case", CASES)
def test_a_task_is_evaluated_to_its_end(invoke, bundle_of, case, tmp_path):
    head, settings, rows, metrics = CASES[case]
    data, bundle = written(tmp_path / "data.jsonl", rows), bundle_of(head, settings)
    done = invoke("evaluate", bundle, "--data", data, "--examples", "4", "--json")
    assert done.exit_code == 0, done.stderr
    value = json.loads(done.stdout)
    jsonschema.validate(value, evaluation_schema())
    assert value["task"] == case.partition(",")[0]
    assert value["data"]["prompts"] == PROMPTS_OF.get(case)
    assert {variant["name"] for variant in value["variants"]} == {"fp32", "noisy"}
    for variant in value["variants"]:
        assert list(variant["figures"]["metrics"]) == metrics or set(variant["figures"]["metrics"]) == set(metrics)
        for estimate in variant["figures"]["metrics"].values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    [comparison] = value["comparisons"]
    assert list(comparison["differences"]) == list(value["variants"][0]["figures"]["metrics"])
    assert len(comparison["sentences"]) == len(metrics)
    differing = [example["difference"] for example in value["examples"]]
    assert 0 < len(differing) <= 4
    assert min(differing) > 0
    shown = invoke("evaluate", bundle, "--data", data, "--metric", metrics[-1], "--examples", "4").stdout
    assert all(sentence in shown for sentence in comparison["sentences"] if metrics[-1] in sentence)
    assert not [name for name in metrics[:-1] if f" {name} " in shown]
