import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bertport.measure.quality.metrics import (
    PAIR_COLUMNS,
    TOKEN_COLUMNS,
    compare_pairs,
    compare_tokens,
    cosines,
    kl_divergence,
    log_softmax,
)

logits = hnp.arrays(np.float32, (4, 9), elements=st.floats(-30, 30, width=32))


def named(columns, rows):
    return {name: rows[:, index] for index, name in enumerate(columns)}


def test_two_distributions_by_hand():
    # p = (1/2, 1/4, 1/4) and q = (1/4, 1/2, 1/4): KL(p || q) = 1/2 ln 2 - 1/4 ln 2 = ln(2) / 4
    p, q = np.log([[2.0, 1.0, 1.0]]), np.log([[1.0, 2.0, 1.0]])
    columns = named(TOKEN_COLUMNS, compare_tokens(p, q, np.array([1])))
    assert columns["kl"] == pytest.approx(math.log(2) / 4)
    assert columns["nll_reference"] == pytest.approx(math.log(4))
    assert columns["nll_candidate"] == pytest.approx(math.log(2))
    assert (columns["top1"], columns["right_reference"], columns["right_candidate"]) == (0, 0, 1)


def test_the_five_best_are_compared_as_sets():
    reference = np.arange(10.0)[None]  # the best five: 9 8 7 6 5
    candidate = np.array([[9, 8, 0, 0, 0, 1, 2, 3, 4, 5.0]])  # the best five: 0 1 9 8 7
    columns = named(TOKEN_COLUMNS, compare_tokens(reference, candidate, np.array([0])))
    assert columns["top5"] == pytest.approx(3 / 5)
    assert compare_tokens(reference[:, :3], candidate[:, :3], np.array([0]))[0, 1] == 1.0  # fewer entries than five


def test_pairs_by_hand():
    reference, candidate = np.log([[3.0, 1.0], [3.0, 1.0]]), np.log([[1.0, 1.0000001], [1.0, 3.0]])
    columns = named(PAIR_COLUMNS, compare_pairs(reference, candidate, np.array([0, 0])))
    np.testing.assert_array_equal(columns["flip"], [1, 1])
    np.testing.assert_allclose(columns["change"], [0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(columns["kl"][1], 0.75 * math.log(3) + 0.25 * math.log(1 / 3))
    np.testing.assert_array_equal(columns["right_reference"], [1, 1])
    np.testing.assert_array_equal(columns["right_candidate"], [0, 0])


def test_the_meaning_of_the_columns_decides_who_is_right():
    says_column_1 = np.array([[0.0, 5.0]])
    for positive, label, right in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)):
        columns = named(PAIR_COLUMNS, compare_pairs(says_column_1, says_column_1, np.array([label]), positive=positive))
        assert columns["right_reference"] == right


@given(logits)
def test_a_model_agrees_with_itself(values):
    labels = np.arange(4)
    columns = named(TOKEN_COLUMNS, compare_tokens(values, values.copy(), labels))
    assert columns["top1"].all()
    np.testing.assert_allclose(columns["top5"], 1)
    assert not columns["kl"].any()
    np.testing.assert_array_equal(columns["nll_reference"], columns["nll_candidate"])


@given(logits, logits)
def test_against_the_definitions_written_out(one, two):
    p, q = (np.exp(logits.astype(np.float64)) for logits in (one, two))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    brute = [sum(p[r, c] * math.log(p[r, c] / q[r, c]) for c in range(9)) for r in range(4)]
    np.testing.assert_allclose(kl_divergence(log_softmax(one), log_softmax(two)), brute, atol=1e-9)
    assert (kl_divergence(log_softmax(one), log_softmax(two)) >= 0).all()


@given(logits, st.floats(-1e4, 1e4))
def test_a_constant_added_to_logits_changes_nothing(values, constant):
    wide = values.astype(np.float64)
    np.testing.assert_allclose(log_softmax(wide + constant), log_softmax(wide), atol=1e-9)


def test_large_logits_do_not_overflow():
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4, 0.0]], dtype=np.float32))).all()


def test_cosines_by_hand():
    one = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    two = np.array([[0.0, 3.0], [2.0, 2.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(cosines(one, two), [0, 1, 1, 0, -1], atol=1e-12)
