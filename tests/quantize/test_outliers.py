"""Outlier channels: found where they are, left alone where there are none, and the product stays."""

import numpy as np
import pytest

from bertport.quantize.activations import Activations
from bertport.quantize.int8 import SYMMETRIC, rounded
from bertport.quantize.outliers import divisors
from bertport.quantize.weights import pair_safe


def activations(rows):
    rows = rows.astype(np.float32)
    return Activations(
        gram=rows.T @ rows,
        mean=rows.mean(axis=0),
        lowest=rows.min(axis=0),
        highest=rows.max(axis=0),
        rows=rows,
        count=len(rows),
    )


def found_in(rows, weights):
    return divisors(
        activations(rows),
        weights,
        round_weights=pair_safe,
        round_activations=lambda values: rounded(values, SYMMETRIC),
    )


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_an_outlier_channel_is_divided_and_the_error_falls(rng):
    rows = rng.normal(size=(200, 48))
    rows[:, 5] *= 25
    weights = rng.normal(size=(48, 30)).astype(np.float32)
    by = found_in(rows, weights)
    assert by is not None
    assert by.argmax() == 5
    assert by.min() >= 1

    unseen = rng.normal(size=(100, 48)).astype(np.float32)
    unseen[:, 5] *= 25
    np.testing.assert_allclose((unseen / by) @ (weights * by[:, None]), unseen @ weights, rtol=1e-3, atol=1e-3)

    def error(divided):
        product = rounded(unseen / divided, SYMMETRIC) @ (weights * np.reshape(divided, (-1, 1)))
        return np.square(product - unseen @ weights).sum()

    assert error(by) < 0.2 * error(np.ones(48, dtype=np.float32))


def test_even_channels_are_left_alone(rng):
    assert found_in(rng.normal(size=(200, 48)), rng.normal(size=(48, 30)).astype(np.float32)) is None


def test_a_dead_channel_does_no_harm(rng):
    rows = rng.normal(size=(50, 16))
    rows[:, 3], rows[:, 4] = 0, rows[:, 4] * 40
    by = found_in(rows, rng.normal(size=(16, 8)).astype(np.float32))
    assert by is not None
    assert np.isfinite(by).all()


def test_rounding_is_that_of_the_graph(rng):
    rows = rng.normal(size=(10, 32)).astype(np.float32)
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    found = rounded(rows, SYMMETRIC)
    assert np.abs(found - rows).max() <= step.max() / 2 * 1.001
    np.testing.assert_allclose(found / step, np.rint(found / step), atol=1e-3)
