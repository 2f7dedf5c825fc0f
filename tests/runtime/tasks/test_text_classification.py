"""text-classification equals transformers' pipeline, field for field."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bertport.runtime.errors import InputTextError, MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.text_classification import Options, finish, read
from tests.runtime.tasks.heads import stating

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression", None)
LOGITS = arrays(
    np.float32, st.integers(1, 6), elements=st.floats(-200, 200, width=32) | st.sampled_from([0.0, 0.5, -3.0])
)


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    """A function that gives a manifest with a classifier of such labels and problem type."""
    return lambda labels, problem_type=None: stating(
        tiny_bundle, SEQUENCE_CLASSIFICATION, labels=labels, problem_type=problem_type
    )


@pytest.fixture(scope="module")
def pipe(tiny_checkpoint):
    """transformers' pipeline, whose post-processing is asked."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, pipeline

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=8, max_position_embeddings=8, **sizes))
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    return pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")


def of_pipeline(pipe, logits, problem_type, **parameters):
    """Return the pipeline's answer to one text with these logits."""
    import torch

    config = pipe.model.config
    config.num_labels = len(logits)
    config.id2label = {column: f"label {column}" for column in range(len(logits))}
    config.problem_type = problem_type
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its sigmoid overflows
        return pipe.postprocess(
            {"logits": torch.from_numpy(logits)[None]}, **parameters, _legacy="top_k" not in parameters
        )


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "top_k": st.sampled_from([None, 1, 2, 9]),
        "function_to_apply": st.sampled_from([None, "softmax", "sigmoid", "none"]),
    },
)


@settings(max_examples=60)
@given(LOGITS, st.sampled_from(PROBLEMS), PARAMETERS)
@example(np.zeros(3, np.float32), None, {})
@example(np.zeros(3, np.float32), None, {"top_k": None})
def test_answers_equal_the_pipeline(pipe, manifest, logits, problem_type, parameters):
    labels = tuple(f"label {column}" for column in range(len(logits)))
    ours = finish(Options(**parameters), None, manifest(labels, problem_type))(logits, None)
    theirs = of_pipeline(pipe, logits, problem_type, **parameters)
    assert isinstance(ours, dict) == isinstance(theirs, dict)
    ours, theirs = ([answer] if isinstance(answer, dict) else answer for answer in (ours, theirs))
    assert len(ours) == len(theirs)
    by_label = {answer["label"]: answer["score"] for answer in theirs}
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.keys() == its.keys()
        assert type(mine["score"]) is float
        # a unit in the last place: the sigmoids are different formulas
        assert mine["score"] == pytest.approx(its["score"], rel=3e-7, abs=1e-37)
        if mine["label"] != its["label"]:  # a tie within that unit
            assert mine["score"] == pytest.approx(by_label.get(mine["label"], theirs[-1]["score"]), rel=3e-7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a", "a"),
        ({"text": "a"}, "a"),
        ({"text": "a", "text_pair": "b"}, ("a", "b")),
        (["a", "b"], ("a", "b")),
        ({"text": "a", "text_pair": ""}, "a"),
        (["", "b"], ("", "b")),
    ],
)
def test_what_is_read(given, expected):
    assert read(given) == expected


@pytest.mark.parametrize("value", [None, 1, {}, {"text": 1}, {"text": "a", "more": "b"}, ["a"], ["a", "b", "c"]])
def test_what_is_no_text_or_pair(value):
    with pytest.raises(InputTextError, match=r'text-classification takes a text, {"text": …}, or a pair'):
        read(value)


@pytest.mark.parametrize("top_k", [0, -1, True, 1.5, "all", []])
def test_a_number_of_labels_that_cannot_be(manifest, top_k):
    with pytest.raises(UsageError, match="top_k is a number from 1 up, None for all labels, or 'best', not"):
        finish(Options(top_k=top_k), None, manifest(("a", "b")))


def test_a_number_of_labels_of_numpy(manifest):
    answer = finish(Options(top_k=np.int64(1)), None, manifest(("a", "b")))
    assert answer(np.zeros(2, np.float32), None) == [{"label": "a", "score": 0.5}]


@pytest.mark.parametrize("function", ["relu", "SOFTMAX", 1, ["softmax"]])
def test_a_function_that_there_is_not(manifest, function):
    with pytest.raises(UnknownNameError, match=r"unknown function_to_apply .*available: softmax, sigmoid, none"):
        finish(Options(function_to_apply=function), None, manifest(("a", "b")))


def test_a_bundle_without_labels(manifest):
    with pytest.raises(MissingHeadError, match="does not record what its sequence-classification labels mean"):
        finish(Options(), None, manifest(None))
