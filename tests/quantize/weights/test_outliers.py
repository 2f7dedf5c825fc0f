"""Outlier channels: divided or kept in float where they are, left alone where there are none, and the product stays."""

from functools import partial

import numpy as np
import pytest

from bertport.quantize.weights.activation_range import AFTER_GELU, AFTER_GELU_LOW, SYMMETRIC, round_activations
from bertport.quantize.weights.outliers import KEPT_IN_FLOAT, SPARSE, DecompositionPlan, plan_decomposition
from bertport.quantize.weights.rounding import pair_safe
from tests.quantize.conftest import gathered


def found_in(rows, weights, spans=(SYMMETRIC,), *, may_keep_in_float=True):
    return plan_decomposition(
        gathered(rows),
        weights,
        round_weights=pair_safe,
        roundings=[partial(round_activations, span=span) for span in spans],
        may_keep_in_float=may_keep_in_float,
    )


def error_of(plan, rows, weights, spans=(SYMMETRIC,)):
    """Compute as the graph does, and return the squared difference."""
    rows, weights = rows.astype(np.float32), weights.astype(np.float32)
    product = round_activations(rows * plan.factors, spans[plan.rounding]) @ (weights * plan.inverse[:, None])
    product += rows[:, plan.kept_in_float] @ weights[plan.kept_in_float]
    return np.square(product - rows @ weights).sum()


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def unplanned(channels):
    return DecompositionPlan(factors=np.ones(channels, dtype=np.float32))


def test_an_outlier_channel_is_divided_and_the_error_falls(rng):
    rows, unseen = rng.normal(size=(200, 48)), rng.normal(size=(100, 48))
    for activations in (rows, unseen):
        activations[:, 5] *= 25
    weights = rng.normal(size=(48, 30)).astype(np.float32)
    plan = found_in(rows, weights)
    assert not len(plan.kept_in_float), "so few channels cannot spare eight"
    assert plan.factors.argmin() == 5
    assert plan.factors.max() <= 1
    np.testing.assert_allclose(
        (unseen * plan.factors) @ (weights * plan.inverse[:, None]), unseen @ weights, rtol=1e-3, atol=1e-3
    )
    assert error_of(plan, unseen, weights) < 0.2 * error_of(unplanned(48), unseen, weights)


def test_where_many_channels_are_few_are_taken_out_and_the_error_falls(rng):
    channels = KEPT_IN_FLOAT[0] * SPARSE
    rows, unseen = rng.normal(size=(300, channels)), rng.normal(size=(100, channels))
    outliers = rng.permutation(channels)[:5]
    for activations in (rows, unseen):
        activations[:, outliers] *= 60
    # Where the outliers' weights are as large as any, dividing would make the whole matrix coarser.
    weights = rng.normal(size=(channels, 40)).astype(np.float32)
    plan = found_in(rows, weights)
    assert len(plan.kept_in_float) == KEPT_IN_FLOAT[0]
    assert set(outliers) <= set(plan.kept_in_float)
    divided = found_in(rows, weights, may_keep_in_float=False)
    assert not len(divided.kept_in_float)
    assert error_of(plan, unseen, weights) < 0.5 * error_of(divided, unseen, weights)
    assert error_of(divided, unseen, weights) < 0.5 * error_of(unplanned(channels), unseen, weights)


def test_after_gelu_the_way_of_rounding_follows_what_is_left(rng):
    """Maxima that lie mostly below the floor of the first way take the second one."""
    weights = rng.normal(size=(64, 40)).astype(np.float32)
    spans = (AFTER_GELU, AFTER_GELU_LOW)
    low, high = (np.maximum(rng.normal(size=(200, 64)) * width, -0.17) for width in (0.4, 4))
    assert found_in(low, weights, spans).rounding == 1
    assert found_in(high, weights, spans).rounding == 0


@pytest.mark.parametrize("span", [AFTER_GELU, AFTER_GELU_LOW])
def test_no_value_of_gelu_is_cut_off(span, rng):
    for largest in (0.01, 0.5, 1.7, 2.6, 40):
        rows = np.append(rng.uniform(-0.17005, largest, size=(1, 200)), [[-0.17005, largest]], axis=1)
        step = max(largest, span.floor) / span.steps
        assert np.abs(round_activations(rows.astype(np.float32), span) - rows).max() <= step * 0.501


def test_even_channels_are_left_alone(rng):
    plan = found_in(rng.normal(size=(200, 48)), rng.normal(size=(48, 30)).astype(np.float32))
    assert not plan.multiplies


@pytest.mark.parametrize("dead", [1, 10])
def test_dead_channels_do_no_harm(rng, dead):
    rows = rng.normal(size=(50, 16))
    rows[:, :dead], rows[:, 12] = 0, rows[:, 12] * 40
    plan = found_in(rows, rng.normal(size=(16, 8)).astype(np.float32))
    assert plan.factors.argmin() == 12
    assert not len(plan.kept_in_float)
    assert np.isfinite(plan.inverse).all()


def test_rounding_is_that_of_the_graph(rng):
    rows = rng.normal(size=(10, 32)).astype(np.float32)
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    quantized = round_activations(rows, SYMMETRIC)
    assert np.abs(quantized - rows).max() <= step.max() / 2 * 1.001
    np.testing.assert_allclose(quantized / step, np.rint(quantized / step), atol=1e-3)
