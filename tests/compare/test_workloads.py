"""Workloads made of a text, the count of operations."""

import numpy as np
import pytest

from bertport.compare.entries import open_bundles
from bertport.compare.workloads import arrivals, flops, make_inputs
from bertport.measure.speed.baselines import padded_tokens
from bertport.measure.text import Text, read_texts
from bertport.runtime.bundle.manifest import Architecture
from bertport.runtime.errors import InputTextError

BASE = Architecture(
    model_class="BertForPreTraining",
    layers=12,
    hidden_size=768,
    attention_heads=12,
    intermediate_size=3072,
    vocab_size=30522,
    type_vocab_size=2,
    parameters=110_106_428,
)


def test_operations_of_bert_base():
    # 12 (8 768^2 + 4 768 3072) = 169.9 million per token, 36,864 more for each token attended to; 48.1 per position.
    assert flops(BASE, 1, 128, masked=0) == pytest.approx(128 * (169.87e6 + 128 * 36864), rel=1e-4)
    assert flops(BASE, 1, 16, masked=1) - flops(BASE, 1, 16, masked=0) == pytest.approx(48.06e6, rel=1e-3)
    assert flops(BASE, 8, 16) == 8 * flops(BASE, 1, 16)


def test_arrivals_are_a_poisson_process():
    times = np.array(arrivals(50.0, 20_000, seed=1))
    gaps = np.diff(times)
    assert (gaps > 0).all()
    # An exponential distribution's mean and standard deviation are equal; 2% is three standard errors of 20,000.
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)
    assert arrivals(50.0, 10, seed=1) == tuple(times[:10])


def test_inputs_have_one_mask_and_the_lengths_of_the_text(tiny_bundle, held_out):
    bundles = open_bundles([tiny_bundle])
    texts = read_texts(held_out)
    inputs = make_inputs(bundles, texts, 10, seed=0)
    assert len(inputs.texts) == len(set(inputs.texts)) == 10
    originals = [text.text for text in texts]
    for masked, length in zip(inputs.texts, inputs.lengths, strict=True):
        before, after = masked.split("[MASK]")
        assert any(text.startswith(before) and text.endswith(after) for text in originals)
        assert length <= 160
    assert inputs.summary().real_tokens == sum(inputs.lengths)
    assert make_inputs(bundles, texts, 10, seed=0) == inputs


def test_a_long_text_is_cut_to_what_the_model_takes(tiny_bundle):
    long = Text(text="the man went home " * 200, document=0)
    inputs = make_inputs(open_bundles([tiny_bundle]), [long], 1, seed=0)
    assert inputs.cut == 1
    assert inputs.lengths[0] <= 160
    with pytest.raises(InputTextError, match="no word"):
        make_inputs(open_bundles([tiny_bundle]), [Text(text="[MASK]", document=0)], 1, seed=0)


def test_padding_counts_the_longest_of_each_batch():
    assert padded_tokens([3, 5, 2], rows=2) == 2 * 5 + 2
    assert padded_tokens([7] * 9, rows=8) == 63
