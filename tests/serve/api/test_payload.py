"""Which task a body is for, where neither address nor header names it."""

from __future__ import annotations

import pytest

from bertport.runtime.heads import (
    EMBEDDING,
    MLM,
    MULTIPLE_CHOICE,
    NSP,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)
from bertport.serve.api.payload import choose, read_payload

PRETRAINED = frozenset({MLM, NSP})
ANY = (PRETRAINED, {SEQUENCE_CLASSIFICATION}, {EMBEDDING}, {QUESTION_ANSWERING}, set())


@pytest.mark.parametrize(
    ("body", "task"),
    [
        ({"inputs": {"source_sentence": "a", "sentences": ["b"]}}, "sentence-similarity"),
        ({"inputs": {"question": "a", "context": "b"}}, "question-answering"),
        ({"inputs": [{"question": "a", "context": "b"}]}, "question-answering"),
        ({"inputs": {"query": "a", "documents": ["b"]}}, "text-ranking"),
        ({"query": "a", "documents": ["b"]}, "text-ranking"),
        ({"inputs": {"prompt": "a", "choices": ["b"]}}, "multiple-choice"),
        ({"inputs": {"text": "a", "text_pair": "b"}}, "text-classification"),
        ({"inputs": [["a", "b"]]}, "text-classification"),
        ({"inputs": "a", "parameters": {"candidate_labels": ["b"]}}, "zero-shot-classification"),
        ({"inputs": "a", "parameters": {"function_to_apply": "none"}}, "text-classification"),
        ({"inputs": "a", "parameters": {"aggregation_strategy": "max"}}, "token-classification"),
        ({"inputs": "a", "parameters": {"stride": 3}}, "token-classification"),
        ({"inputs": "a", "normalize": True}, "feature-extraction"),
        ({"inputs": "a", "parameters": {"pooling": "cls"}}, "feature-extraction"),
        ({"inputs": "a", "dimensions": 3}, "feature-extraction"),
    ],
)
def test_fields_and_parameters_say_it_whatever_the_bundle(body, task):
    for heads in ANY:
        assert choose(read_payload(body, 8), "[MASK]", heads) == task


@pytest.mark.parametrize(
    ("heads", "plain", "told", "masked"),
    [
        (PRETRAINED, "feature-extraction", "fill-mask", "fill-mask"),
        ({NSP}, "feature-extraction", "fill-mask", "fill-mask"),
        ({SEQUENCE_CLASSIFICATION}, "text-classification", "text-classification", "text-classification"),
        ({TOKEN_CLASSIFICATION}, "token-classification", "token-classification", "token-classification"),
        ({EMBEDDING}, "feature-extraction", "feature-extraction", "feature-extraction"),
        ({MLM, SEQUENCE_CLASSIFICATION}, "text-classification", "text-classification", "fill-mask"),
        ({MLM, EMBEDDING}, "feature-extraction", "feature-extraction", "fill-mask"),
        ({EMBEDDING, TOKEN_CLASSIFICATION}, "token-classification", "token-classification", "token-classification"),
        ({MULTIPLE_CHOICE}, "feature-extraction", "fill-mask", "fill-mask"),
    ],
)
def test_a_text_alone_is_for_the_head_of_the_bundle(heads, plain, told, masked):
    def chosen(body):
        return choose(read_payload(body, 8), "[MASK]", heads)

    for inputs in ("a", ["a", "b"], {"text": "a"}):
        assert chosen({"inputs": inputs}) == plain
        assert chosen({"inputs": inputs, "parameters": {}}) == told
    for inputs in ("a [MASK]", ["a", "b [MASK]"], {"text": "[MASK]"}):
        assert chosen({"inputs": inputs}) == chosen({"inputs": inputs, "parameters": {}}) == masked
    assert choose(read_payload("[MASK]", 8), None, heads) == plain


@pytest.mark.parametrize("inputs", [None, 3, [], [None], [3, "a"], {"text": 3}, {"x": "a"}, {}])
def test_what_is_no_text_has_a_task_too_which_refuses_it(inputs):
    for heads in ANY:
        assert choose(read_payload({"inputs": inputs}, 8), "[MASK]", heads)
