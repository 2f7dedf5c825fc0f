"""next-sentence equals BertForPreTraining's own head, with the labels that the bundle records."""

from __future__ import annotations

import numpy as np
import pytest

from bertport.runtime import load
from bertport.runtime.errors import InputTextError, MissingHeadError, UsageError
from tests.runtime.parity import ATOL

PAIRS = [
    ("He went to the store.", "He bought milk."),
    ("", ""),
    ("Paris is the capital of France", "中文日本 😀 \x00 é"),
    ("a", "b " * 100),
]


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    """Probabilities from PyTorch, `[is_next, not_next]`."""
    import torch
    from transformers import AutoTokenizer, BertForPreTraining

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    network = BertForPreTraining.from_pretrained(tiny_checkpoint).eval()

    def probabilities(a, b, **settings):
        with torch.no_grad():
            # In a list, because transformers takes a lone empty second text for none at all.
            logits = network(**tokenizer([a], [b], return_tensors="pt", **settings)).seq_relationship_logits
        return logits.softmax(-1)[0].tolist()

    return probabilities


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_probabilities_equal_pytorch(model, reference, a, b):
    answer = model.next_sentence(a, b)
    is_next, not_next = reference(a, b)
    assert answer["probabilities"] == pytest.approx({"is_next": is_next, "not_next": not_next}, abs=ATOL)
    assert answer["label"] == ("is_next" if is_next > not_next else "not_next")
    assert answer["score"] == max(answer["probabilities"].values())
    assert answer["follows"] is (is_next > not_next)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def test_the_segments_matter(model):
    """Token types 0 and 1 are really made: as one text, the pair gives other hidden states."""
    [pair] = model.predict("features", [("hello", "world")])
    assert (
        pair.shape[0]
        == 3 + len(model.tokens.encode(["hello"])[0].ids) - 2 + len(model.tokens.encode(["world"])[0].ids) - 2
    )
    [joined] = model.predict("features", ["hello [SEP] world"])
    assert pair.shape == joined.shape
    assert np.abs(pair - joined).max() > 0.01


def test_lists_are_answered_in_order(model):
    a, b = map(list, zip(*PAIRS, strict=True))
    answers = model.next_sentence(a, b)
    for answer, pair in zip(answers, PAIRS, strict=True):
        assert answer["probabilities"] == pytest.approx(model.next_sentence(*pair)["probabilities"], abs=1e-6)
    assert model.next_sentence(["a"], ["b"]) == [model.next_sentence("a", "b")]
    assert model.next_sentence([], []) == []


def test_truncation_cuts_the_longer_text_first(model, reference):
    a, b = "paris is", "the capital of france " * 60
    with pytest.raises(InputTextError, match=r"the model takes 160"):
        model.next_sentence(a, b)
    answer = model.next_sentence(a, b, truncation=True)
    expected = reference(a, b, truncation=True)
    assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=ATOL)


def test_the_recorded_polarity_rules(model, edited):
    def swap(manifest):
        manifest["heads"]["nsp"] |= {"labels": ["other", "follows"], "positive": 1}

    before = model.next_sentence("a", "b")["probabilities"]
    swapped = load(edited(swap)).next_sentence("a", "b")
    assert swapped["probabilities"] == pytest.approx({"other": before["is_next"], "follows": before["not_next"]})
    assert swapped["follows"] is (swapped["label"] == "follows")


def test_lists_of_different_lengths_are_refused(model):
    wrong = [(["a"], ["b", "c"]), ("a", ["b"]), (["a"], "b"), (["a"], None), (iter("a"), ["b"]), ({"a": 1}, {"b": 2})]
    for a, b in wrong:
        with pytest.raises(UsageError, match="takes two texts or two lists of one length, not "):
            model.next_sentence(a, b)


@pytest.mark.parametrize("bad", ["text", ["one"], ["a", "b", "c"], {"text": "a"}, {"text": "a", "text_pair": 3}, None])
def test_what_is_no_pair_is_refused(model, bad):
    with pytest.raises(InputTextError, match="next-sentence takes two texts"):
        list(model.predict("next-sentence", [bad]))


def test_a_bundle_without_the_head_refuses(edited):
    def behead(manifest):
        manifest["heads"] = {"mlm": manifest["heads"]["mlm"]}

    beheaded = load(edited(behead))
    with pytest.raises(MissingHeadError, match=r"next-sentence needs the head 'nsp'.*heads: mlm"):
        beheaded.next_sentence("a", "b")
    with pytest.raises(MissingHeadError, match="needs the head 'pooler'"):
        beheaded.features("a", pooling="pooler")
    with pytest.warns(FutureWarning, match="state of the first token"):
        assert beheaded.features("a", pooling="cls").tolist() == beheaded.features("a")[0].tolist()
    assert beheaded.describe()["tasks"] == ["fill-mask", "features"]
