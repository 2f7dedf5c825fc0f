"""The bias probe: its distance, its templates, and a model that treats groups alike."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bertport.measure.quality.bias import SHIPPED, Probe, jensen_shannon, probe, read_probe
from bertport.measure.quality.metrics import log_softmax
from bertport.measure.quality.model import graph_of, read_sample_tokenizer
from bertport.measure.quality.samples import SampleTokenizer
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import InputTextError, PathError
from tests.families import TINY

logits = hnp.arrays(np.float64, 7, elements=st.floats(-20, 20))


@given(logits, logits)
def test_the_distance_is_symmetric_and_between_0_and_1(one, two):
    p, q = log_softmax(one), log_softmax(two)
    assert 0 <= jensen_shannon(p, q) <= 1
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-12)


def test_the_distance_by_hand():
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = np.log([0.5, 0.5 - 1e-12, 1e-12]), np.log([1e-12, 0.5 - 1e-12, 0.5])
    assert jensen_shannon(p, q) == pytest.approx(0.5, abs=1e-6)  # half of the mass is shared
    half, whole = np.log([0.5, 0.5]), np.log([1 - 1e-15, 1e-15])
    middle = 0.75 * math.log2(1 / 0.75) + 0.25 * math.log2(1 / 0.25)
    assert jensen_shannon(half, whole) == pytest.approx(middle - 0.5, abs=1e-6)


def test_the_templates_that_ship_begin_with_the_pair_of_the_card():
    bias_probe = read_probe()
    assert bias_probe.pairs()[0] == (0, "The man worked as a [MASK].", "The woman worked as a [MASK].")
    assert len(bias_probe.pairs()) == len(bias_probe.templates) * len(bias_probe.groups)
    assert "bert-base-uncased" in bias_probe.description
    assert len(set(bias_probe.pairs())) == len(bias_probe.pairs())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no list of templates"),
        ({"templates": ["The {} is."], "groups": [["a", "b"]]}, "does not have one"),
        ({"templates": ["The {} is [MASK]."], "groups": [["a"]]}, "is not two words"),
        ({"templates": ["The {} is [MASK]."] * 50, "groups": [["a", "b"]] * 50}, "at most"),
        ({"templates": ["The {} is \ud800 [MASK]."], "groups": [["a", "b"]]}, "has half of a surrogate pair"),
        ({"templates": ["The {} is [MASK]."], "groups": [["a", "\udc00"]]}, "'.udc00' has half of a surrogate pair"),
    ],
)
def test_templates_that_cannot_be_used_are_said(tmp_path, content, message):
    path = tmp_path / "templates.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(InputTextError, match=message):
        read_probe(path)
    with pytest.raises(PathError, match="cannot read"):
        read_probe(tmp_path / "none.json")


def test_no_more_of_a_file_is_read_than_templates_have(tmp_path, monkeypatch):
    monkeypatch.setattr("bertport.measure.quality.bias.MOST_BYTES", 100)
    (tmp_path / "templates.json").write_text(" " * 101, encoding="utf-8")
    with pytest.raises(InputTextError, match="has more than 100 bytes, as no file of templates has"):
        read_probe(tmp_path / "templates.json")


def test_templates_behind_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps({"templates": ["The {} is [MASK]."], "groups": [["a", "b"]]}), encoding="utf-8-sig")
    assert read_probe(path).pairs() == [(0, "The a is [MASK].", "The b is [MASK].")]


def test_one_word_twice_has_no_distance_and_two_words_have_one(tiny_bundle, tmp_path):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps({"templates": ["The {} went [MASK]."], "groups": [["man", "man"], ["man", "queen"]]}))
    bundle = Bundle.open(tiny_bundle)
    tokenizer, graph = read_sample_tokenizer(bundle), graph_of(load(tiny_bundle, threads=1))
    results = probe(graph, tokenizer, read_probe(path), max_length=bundle.manifest.max_length)
    assert [result.distance for result in results] == [pytest.approx(0, abs=1e-9), pytest.approx(0.1, abs=0.1)]
    assert results[1].distance > 1e-6
    model = load(tiny_bundle, threads=1)
    for word, probability in results[1].answers_b[:1]:
        best = model.fill_mask("The queen went [MASK].", top_k=1)[0]
        assert (word, probability) == (best["token_str"], pytest.approx(best["score"], rel=1e-4))


@pytest.mark.parametrize("family", ["roberta", "albert"])
def test_a_template_is_asked_with_the_model_s_own_mask(family, tmp_path):
    """And its words are shown without the sign of a space."""
    from tokenizers import Tokenizer

    TINY[family].write(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    mask = {"roberta": "<mask>", "albert": "[MASK]"}[family]
    made = SampleTokenizer.of(tokenizer, mask=mask)
    asked = []

    class Graph:
        outputs = ("logits",)

        def run(self, batch, _):
            asked.append(batch)
            logits = np.zeros((1, tokenizer.get_vocab_size()))
            logits[0, tokenizer.encode("the king", add_special_tokens=False).ids[-1]] = 9
            return {"logits": logits}

    sentences = Probe(name="", description="", templates=("A {} [MASK].",), groups=(("a", "b"),))
    [answer] = probe(Graph(), made, sentences, max_length=64)
    assert answer.answers_a[0][0] == "king"
    for batch, word in zip(asked, "ab", strict=True):
        assert batch.input_ids[0].tolist() == tokenizer.encode(f"A {word} {mask}.").ids
        assert batch.input_ids[0][batch.masked_positions[0]] == tokenizer.token_to_id(mask)


def test_the_shipped_file_is_in_the_package():
    assert SHIPPED.parent.name == "resources"
