"""The streaming histogram against all of the values at once."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bertport.quantize.calibration.histogram import Histogram
from bertport.runtime.errors import ValidationError

FLOATS = st.floats(-1e6, 1e6, width=32)
parts = st.lists(
    arrays(np.float32, array_shapes(max_dims=2, min_side=0, max_side=12), elements=FLOATS), min_size=1, max_size=6
).filter(lambda found: any(each.size for each in found))


def counted(several, bins=64):
    found = Histogram(bins)
    for each in several:
        found.add(each)
    return found


@given(parts)
def test_every_value_lies_in_a_bin_that_holds_it(several):
    found = counted(several)
    values = np.concatenate([each.reshape(-1) for each in several]).astype(np.float64)
    assert found.total == len(values)
    assert (found.low, found.high) == (values.min(), values.max())
    edges = found.edges()
    expected = [np.sum((values >= low) & (values < high)) for low, high in itertools.pairwise(edges)]
    np.testing.assert_array_equal(found.counts, expected)


@given(parts, st.randoms(use_true_random=False))
def test_the_order_changes_nothing(several, random):
    one = counted(several)
    shuffled = list(several)
    random.shuffle(shuffled)
    two = counted(shuffled)
    three = counted([np.concatenate([each.reshape(-1) for each in several])])
    for other in (two, three):
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_array_equal(one.edges(), other.edges())


@given(parts)
def test_bins_are_as_fine_as_the_range_allows(several):
    found = counted(several)
    spread = found.high - found.low
    # Half as wide, they would not reach; but for values so near each other that 40 binary digits do not tell them.
    coarse = max(abs(found.low), abs(found.high)) * 2.0**-39
    assert found.width <= max(2 * spread / (len(found.counts) - 1), coarse, 2.0**-99)


def test_memory_does_not_grow():
    rng = np.random.default_rng(0)
    found = Histogram()
    before = found.nbytes
    for size in range(200):
        found.add(rng.standard_normal(1000) * 1.1**size)
    assert found.nbytes == before == 4096 * 8
    assert found.total == 200_000


def test_quantiles_are_within_a_bin_of_numpys():
    values = np.random.default_rng(0).standard_t(3, size=100_000).astype(np.float32)
    found = counted(np.array_split(values, 37), bins=4096)
    cumulated = np.concatenate([[0], np.cumsum(found.counts)]) / found.total
    for share in (0.0001, 0.01, 0.5, 0.999):
        ours = np.interp(share, cumulated, found.edges())
        assert abs(ours - np.quantile(values, share)) <= 2 * found.width


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(ValidationError, match="not a finite number"):
        Histogram().add(np.array([1.0, value]))


def test_nothing_may_be_added():
    found = Histogram()
    found.add(np.empty((0, 32), dtype=np.float32))
    assert found.total == 0
