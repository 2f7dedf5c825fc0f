"""features equal BertModel's outputs; pooling is over real tokens."""

from __future__ import annotations

import numpy as np
import pytest

from bertport.runtime.errors import InputTextError, UnknownNameError, UsageError

TEXTS = ["hello world", "", "a much longer text about Paris, the capital of France.", "中 é 😀", "two words"]
ATOL = 1e-4
"""The tolerance that the export promises for hidden states."""


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    """Hidden states and pooler output from PyTorch, padded in one batch: padding must not show."""
    import torch
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    network = BertModel.from_pretrained(tiny_checkpoint).eval()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    mask = inputs["attention_mask"].numpy().astype(bool)
    hidden = outputs.last_hidden_state.numpy()
    return [rows[real] for rows, real in zip(hidden, mask, strict=True)], outputs.pooler_output.numpy()


def test_per_token(model, reference):
    answers = model.features(TEXTS)
    for ours, theirs in zip(answers, reference[0], strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=ATOL, rtol=0)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("normalize", [False, True])
def test_pooler_is_the_pooler(model, reference, normalize):
    answers = model.features(TEXTS, pooling="pooler", normalize=normalize)
    assert answers.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(answers, unit(reference[1]) if normalize else reference[1], atol=ATOL, rtol=0)
    assert model.features(TEXTS[0], pooling="pooler", normalize=normalize).base is None  # as with cls


@pytest.mark.filterwarnings("ignore:pooling 'cls'")
@pytest.mark.parametrize("normalize", [False, True])
def test_cls_is_the_state_of_the_first_token(model, reference, normalize):
    expected = np.stack([rows[0] for rows in reference[0]])
    assert np.abs(expected - reference[1]).max() > 0.1
    answers = model.features(TEXTS, pooling="cls", normalize=normalize)
    assert answers.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(answers, unit(expected) if normalize else expected, atol=ATOL, rtol=0)
    assert model.features(TEXTS[0], pooling="cls").base is None  # not a view that keeps the states of every token


def test_cls_says_where_it_is_asked_for_that_it_has_changed(model):
    asked = (
        lambda: model.features("a", pooling="cls"),
        lambda: model.predict("features", ["a"], pooling="cls"),
        lambda: model.bind("features", pooling="cls"),
    )
    for ask in asked:
        with pytest.warns(FutureWarning, match="for which write pooling 'pooler' now") as caught:
            ask()
        assert [warning.filename for warning in caught] == [__file__]
    assert model.resolve("features", pooling="cls").note
    assert model.resolve("features", pooling="pooler").note is None


@pytest.mark.parametrize("normalize", [False, True])
def test_mean_is_over_real_tokens(model, reference, normalize):
    expected = np.stack([rows.mean(axis=0) for rows in reference[0]])
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    answers = model.features(TEXTS, pooling="mean", normalize=normalize)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected, atol=ATOL, rtol=0)


def test_one_text_gives_one_array(model):
    assert model.features("hello world").shape == (4, 32)
    assert model.features("hello world", pooling="mean").shape == (32,)
    assert [vectors.shape for vectors in model.features(["hello world"])] == [(4, 32)]
    assert model.features(["hello world"], pooling="mean").shape == (1, 32)
    assert model.features([]) == []
    assert model.features([], pooling="pooler").shape == (0, 32)


def test_too_long(model):
    with pytest.raises(InputTextError, match="has 202 tokens and the model takes 160"):
        model.features("a " * 200)
    assert model.features("a " * 200, truncation=True).shape == (160, 32)


def test_unknown_pooling_and_useless_normalize_are_refused(model):
    with pytest.raises(UnknownNameError, match=r"unknown pooling 'max' \(available: none, cls, mean, pooler\)"):
        model.features("a", pooling="max")
    with pytest.raises(UnknownNameError, match="unknown pooling"):
        model.predict("features", ["a"], pooling=["mean"])
    with pytest.raises(UsageError, match="choose pooling 'cls', 'mean' or 'pooler'"):
        model.features("a", normalize=True)
    with pytest.raises(UsageError, match="normalize is True or False"):
        model.features("a", pooling="mean", normalize="yes")


@pytest.mark.parametrize("bad", [3, None, {"txt": "a"}, ["a", "b", "c"], {"text": "a", "more": 1}])
def test_what_is_no_text_is_refused(model, bad):
    with pytest.raises(InputTextError, match="features takes a text"):
        list(model.predict("features", [bad]))
