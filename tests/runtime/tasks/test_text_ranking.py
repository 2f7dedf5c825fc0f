"""text-ranking: what is read, and the ranking by scores; tests of whole models compare it with CrossEncoder."""

from __future__ import annotations

import numpy as np
import pytest

from bertport.runtime.errors import InputTextError, MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.inputs import MOST_ROWS
from bertport.runtime.tasks.table import TASKS, obstacle
from bertport.runtime.tasks.text_ranking import Options, finish, read
from tests.runtime.tasks.heads import stating

DOCUMENTS = ["a", "b", "c", "b"]
SCORES = [0.25, 0.5, -1.0, 0.5]


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    """A function that gives a manifest with a classifier of which such facts are known."""
    return lambda **facts: stating(tiny_bundle, SEQUENCE_CLASSIFICATION, **facts)


@pytest.mark.parametrize("name", ["documents", "texts"])
def test_documents_are_ranked_the_earlier_first_among_equals(name):
    parts = read(Options(), None, None)({"query": "q", name: DOCUMENTS})
    assert parts.texts == tuple(("q", document) for document in DOCUMENTS)
    assert parts.combine(SCORES) == [{"corpus_id": place, "score": SCORES[place]} for place in (1, 3, 0, 2)]
    parts = read(Options(top_k=2, return_documents=True), None, None)({"query": "q", name: DOCUMENTS})
    assert parts.combine(SCORES) == [{"corpus_id": place, "score": 0.5, "text": "b"} for place in (1, 3)]
    parts = read(Options(top_k=np.int64(1)), None, None)({"query": "q", name: DOCUMENTS})
    assert parts.combine(SCORES) == [{"corpus_id": 1, "score": 0.5}]
    parts = read(Options(top_k=9), None, None)({"query": "q", name: DOCUMENTS})
    assert len(parts.combine(SCORES)) == 4


@pytest.mark.parametrize("pair", [["q", "d"], ("q", "d"), {"text": "q", "text_pair": "d"}])
def test_a_pair_is_no_ranking(pair):
    assert read(Options(), None, None)(pair) == ("q", "d")


@pytest.mark.parametrize(
    ("stated", "asked", "expected"),
    [(None, None, 0.880797), ("sigmoid", None, 0.880797), ("none", None, 2.0), ("none", "sigmoid", 0.880797),
     (None, "none", 2.0)],
)  # fmt: skip
def test_what_makes_a_score(manifest, stated, asked, expected):
    score = finish(Options(function_to_apply=asked), None, manifest(labels=("LABEL_0",), activation=stated))
    assert score(np.float32([2.0]), None) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "value",
    ["a", None, ["a"], ["a", "b", "c"], {"query": "a"}, {"documents": ["a"]}, {"query": 1, "documents": ["a"]},
     {"query": "a", "documents": ["a"], "texts": ["b"]}, {"query": "a", "documents": ["a"], "top_k": 1}],
)  # fmt: skip
def test_what_is_no_query_with_documents(value):
    with pytest.raises(InputTextError, match=r"text-ranking takes .* or a pair of a query and a document, not "):
        read(Options(), None, None)(value)


@pytest.mark.parametrize("documents", [[], "ab", None, {"a": 1}, [{"text": "a"}], ["a", 1], ["a"] * (MOST_ROWS + 1)])
def test_documents_that_are_none(documents):
    with pytest.raises(InputTextError, match="documents is a list of"):
        read(Options(), None, None)({"query": "a", "documents": documents})


@pytest.mark.parametrize("top_k", [0, -1, True, 1.5, "2"])
def test_a_number_of_documents_that_cannot_be(top_k):
    with pytest.raises(UsageError, match="top_k is a number from 1 up, or None for all documents, not"):
        read(Options(top_k=top_k), None, None)


def test_options_that_cannot_be(manifest):
    with pytest.raises(UsageError, match="return_documents is True or False, not 'yes'"):
        read(Options(return_documents="yes"), None, None)
    for function in ("tanh", "softmax", ["none"]):  # the softmax of one logit is 1 for each document
        with pytest.raises(UnknownNameError, match=r"unknown function_to_apply .* \(available: sigmoid, none\)"):
            finish(Options(function_to_apply=function), None, manifest(labels=("a",)))


def test_a_classifier_of_several_labels(manifest):
    task = TASKS["text-ranking"]
    assert obstacle(task, Options(), None, manifest(labels=("LABEL_0",))) is None
    assert obstacle(task, Options(), None, manifest(labels=None)) is None
    error = obstacle(task, Options(), None, manifest(labels=("bad", "good")))
    assert isinstance(error, MissingHeadError)
    assert error.message == (
        "text-ranking needs a classifier of one label, which says how well a text fits, and that of tiny-bert has 2: "
        "['bad', 'good']: use a bundle that has one"
    )
