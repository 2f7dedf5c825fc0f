import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bertport.quantize.weights.rounding import PAIR_LIMIT, full_range, pair_safe, saturates

FLOATS = st.floats(-1e3, 1e3, width=32)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=FLOATS)


@given(matrices)
def test_no_pair_of_pair_safe_weights_can_overflow(matrix):
    assert not saturates(pair_safe(matrix).values)


@given(matrices)
def test_every_weight_is_within_half_a_step(matrix):
    for method in (full_range, pair_safe):
        made = method(matrix)
        assert made.values.dtype == np.int8
        assert made.scales.dtype == np.float32
        # 1e-5: float32 rounding of weight / scale near a half step.
        assert np.all(np.abs(made.dequantize() - matrix) <= made.scales * (0.5 + 1e-5))


def test_the_full_range_is_used_where_nothing_saturates():
    matrix = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    assert (np.abs(full_range(matrix).values).max(axis=0) == 127).all()
    assert saturates(full_range(matrix).values)


def test_pair_safe_costs_less_than_seven_bits():
    matrix = np.random.default_rng(0).standard_normal((768, 64)).astype(np.float32)
    exact, safe = (np.square(method(matrix).dequantize() - matrix).mean() ** 0.5 for method in (full_range, pair_safe))
    assert exact < safe < 1.5 * exact  # seven bits: 2 * exact


@pytest.mark.parametrize(
    ("pair", "overflows"),
    [
        ((127, 127), True),
        ((127, -127), False),
        ((PAIR_LIMIT - 1, 1), False),
        ((PAIR_LIMIT - 1, 2), True),
        ((-127, -1), False),
        ((-127, -2), True),
    ],
)
def test_only_pairs_of_one_sign_overflow(pair, overflows):
    assert saturates(np.array(pair, dtype=np.int8)[:, None]) is overflows


def test_the_last_row_of_an_odd_number_has_no_partner():
    assert not saturates(np.array([[1], [1], [127]], dtype=np.int8))
    assert pair_safe(np.array([[0], [0], [5]], dtype=np.float32)).values[2, 0] == 127


def test_zeros_stay_zeros():
    made = pair_safe(np.zeros((4, 3), dtype=np.float32))
    assert not made.dequantize().any()
    assert np.isfinite(made.scales).all()
