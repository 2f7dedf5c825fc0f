"""GPTQ: products change less than with rounding to the nearest, within the same bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertport.quantize.weights.gptq import round_with_gptq
from bertport.quantize.weights.rounding import full_range, pair_safe, saturates


def correlated(rng, tokens, inputs):
    """Activations of few directions, as those of a real model are."""
    return rng.normal(size=(tokens, inputs // 4)) @ rng.normal(size=(inputs // 4, inputs)) + 0.1 * rng.normal(
        size=(tokens, inputs)
    )


def error(activations, weights, quantized):
    return np.square(activations @ (quantized.dequantize().astype(np.float64) - weights)).sum()


@pytest.mark.parametrize("inputs", [64, 130])  # one block of rows, and some with a rest
@pytest.mark.parametrize(("method", "saturating"), [(pair_safe, True), (full_range, False)])
def test_unseen_products_change_less_than_half_as_much(method, saturating, inputs):
    rng = np.random.default_rng(inputs)
    weights = rng.normal(size=(inputs, 40)).astype(np.float32)
    activations = correlated(rng, 1200, inputs)
    seen, unseen = activations[:1000], activations[1000:]
    nearest = method(weights)
    quantized = round_with_gptq(weights, seen.T @ seen, nearest, saturating=saturating)
    assert error(unseen, weights, quantized) < 0.5 * error(unseen, weights, nearest)
    assert np.array_equal(quantized.scales, nearest.scales)
    assert quantized.values.dtype == np.int8


@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(2, 90), spread=st.floats(0.1, 4))
@settings(max_examples=40, deadline=None)
def test_no_pair_overflows_and_no_weight_is_out_of_range(seed, inputs, spread):
    rng = np.random.default_rng(seed)
    weights = (rng.standard_cauchy(size=(inputs, 7)) * spread).astype(np.float32)
    activations = correlated(rng, 3 * inputs, max(4, inputs))[:, :inputs]
    quantized = round_with_gptq(weights, activations.T @ activations, pair_safe(weights), saturating=True)
    assert not saturates(quantized.values)
    assert np.abs(quantized.values.astype(int)).max() <= 127


def test_activations_without_direction_round_to_the_nearest():
    weights = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    nearest = full_range(weights)
    assert np.array_equal(round_with_gptq(weights, np.eye(20), nearest, saturating=False).values, nearest.values)


@pytest.mark.parametrize("gram", [np.zeros((6, 6)), np.full((6, 6), np.nan), np.full((6, 6), np.inf)])
def test_activations_that_tell_nothing_leave_the_weights(gram):
    weights = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    nearest = full_range(weights)
    assert round_with_gptq(weights, gram, nearest, saturating=False) is nearest
