"""Queries and documents begin with what the model was trained with, as `predict` and `embed` put it before a text."""

import dataclasses
import re

import numpy as np
import pytest

from bertport.measure.labelled.data import read_labelled
from bertport.measure.labelled.lengths import check_lengths
from bertport.measure.labelled.predictions import predict_labelled
from bertport.measure.labelled.prompts import prompts_for
from bertport.runtime import load
from bertport.runtime.errors import InputTextError, UnknownNameError, UsageError
from tests.measure.labelled.conftest import texts

TASK = "sentence-similarity"
TEXTS, OTHERS = texts(12, seed=1), texts(12, seed=2)
ROWS = {
    "retrieval": [{"query": one, "positives": [other]} for one, other in zip(TEXTS, OTHERS, strict=True)],
    "ranking": [{"query": one, "documents": OTHERS[:4], "relevance": [1, 0, 0, 0]} for one in TEXTS],
    "similarity": [
        {"text": one, "text_pair": other, "score": place}
        for place, (one, other) in enumerate(zip(TEXTS, OTHERS, strict=True))
    ],
}


@pytest.fixture(scope="module")
def model(sentence_bundle):
    return load(sentence_bundle, threads=1)


def with_prompts(manifest, prompts, default=None):
    """The manifest of a model with other prompts."""
    head = manifest.heads["embedding"]
    stated = dataclasses.replace(head.embedding, prompts=prompts, default_prompt=default)
    heads = manifest.heads | {"embedding": dataclasses.replace(head, embedding=stated)}
    return dataclasses.replace(manifest, heads=heads)


@pytest.mark.parametrize(
    ("prompts", "default", "kind", "begin"),
    [
        ({"query": "q: ", "document": "d: "}, None, "retrieval", ("q: ", "d: ")),
        ({"query": "q: ", "passage": "p: ", "corpus": "c: "}, None, "ranking", ("q: ", "p: ")),
        ({"query": "q: ", "corpus": "c: ", "other": "o: "}, "other", "retrieval", ("q: ", "c: ")),
        ({"query": "q: ", "document": "", "other": "o: "}, "other", "retrieval", ("q: ", "")),
        ({"query": "q: "}, "query", "retrieval", ("q: ", "")),
        ({"other": "o: "}, "other", "ranking", ("", "")),
        ({"other": "o: "}, None, "retrieval", ("", "")),
        ({"query": "q: ", "document": "d: "}, None, "similarity", ("", "")),
        ({"query": "q: ", "document": "d: "}, "query", "similarity", ("q: ", "q: ")),
    ],
)
def test_the_prompts_of_a_model_are_taken_as_sentence_transformers_documents_it(model, prompts, default, kind, begin):
    """By `encode_query` and `encode_document`; two similar texts by `encode`."""
    manifest = with_prompts(model.bundle.manifest, prompts, default)
    taken = prompts_for(TASK, kind, manifest, {})
    assert (taken.query, taken.document) == begin


def test_prompts_that_are_asked_for(model):
    manifest = with_prompts(model.bundle.manifest, {"query": "q: ", "document": "d: ", "other": "o: "})

    def taken(kind="retrieval", task=TASK, **asked):
        prompts = prompts_for(task, kind, manifest, asked)
        return prompts.query, prompts.document

    assert taken("similarity", query_prompt_name="query", document_prompt_name="document") == ("q: ", "d: ")
    assert taken(query_prompt_name="other") == ("o: ", "d: ")
    assert taken(query_prompt="", document_prompt="my ") == ("", "my ")
    for asked, error, said in (
        ({"query_prompt_name": "title"}, UnknownNameError, r"unknown prompt 'title' \(available: query, document, oth"),
        ({"query_prompt": "a", "query_prompt_name": "query"}, UsageError, "which mean the same: leave one of them out"),
        ({"task": "text-ranking", "query_prompt": "a"}, UsageError, "and those of text-ranking do not: leave it out"),
    ):
        with pytest.raises(error, match=said):
            taken(**asked)
    assert prompts_for("text-ranking", "ranking", manifest, {}) is None


def test_what_was_taken_by_its_name_is_noted(model, write):
    manifest = with_prompts(model.bundle.manifest, {"query": "q: ", "passage": "p: "})
    note = "texts begin with the model's prompts, queries with 'query' ('q: '), documents with 'passage' ('p: ')"
    path = write(ROWS["retrieval"])
    assert read_labelled(path, TASK, manifest).notes == (note,)
    assert read_labelled(path, TASK, manifest, prompts={"query_prompt": "", "document_prompt": ""}).notes == ()
    assert read_labelled(write(ROWS["similarity"]), TASK, manifest).notes == ()


@pytest.mark.parametrize("kind", ROWS)
def test_each_side_begins_with_its_own(model, kind, write):
    asked = {"query_prompt_name": "query", "document_prompt": "the document "}
    data = read_labelled(write(ROWS[kind]), TASK, model.bundle.manifest, prompts=asked)
    assert data.kind == kind
    check_lengths(model.bundle, data)
    predictions = predict_labelled(model, data)
    queries = model.embed(TEXTS, prompt_name="query")
    documents = model.embed(OTHERS, prompt="the document ")
    alike = model.similarity(queries, documents)
    assert np.abs(alike - model.similarity(model.embed(TEXTS), model.embed(OTHERS))).max() > 1e-3
    if kind == "similarity":
        assert predictions.values == pytest.approx(np.diagonal(alike), abs=1e-5)
    elif kind == "ranking":
        assert np.stack(predictions.scores) == pytest.approx(alike[:, :4], abs=1e-5)
    else:
        best = np.sort(alike, axis=1)[:, ::-1][:, :10]
        assert np.stack(predictions.scores) == pytest.approx(best, abs=1e-5)


def test_a_prompt_counts_for_the_length_of_a_text(model, write):
    most = model.bundle.manifest.max_length
    rows = [row | {"query": "good " * (most - 4)} for row in ROWS["retrieval"]]
    read = write(rows)
    check_lengths(model.bundle, read_labelled(read, TASK, model.bundle.manifest, prompts={"query_prompt": ""}))
    long = read_labelled(read, TASK, model.bundle.manifest, prompts={"query_prompt": "word " * 9})
    with pytest.raises(InputTextError, match=r"line 1: the input has"):
        check_lengths(model.bundle, long)


def test_the_default_bundle_without_vectors_has_no_prompts(manifest, write):
    rows = [{"text": "a", "label": number % 3} for number in range(9)]
    assert read_labelled(write(rows), "text-classification", manifest).prompts is None
    with pytest.raises(UsageError, match=re.escape("those of text-classification do not")):
        read_labelled(write(rows), "text-classification", manifest, prompts={"query_prompt": "a"})
