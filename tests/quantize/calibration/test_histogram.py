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
).filter(lambda drawn: any(part.size for part in drawn))


def counted(several, bins=64):
    histogram = Histogram(bins)
    for part in several:
        histogram.add(part)
    return histogram


@given(parts)
def test_every_value_lies_in_a_bin_that_holds_it(several):
    histogram = counted(several)
    values = np.concatenate([part.reshape(-1) for part in several]).astype(np.float64)
    assert histogram.total == len(values)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    edges = histogram.edges()
    expected = [np.sum((values >= low) & (values < high)) for low, high in itertools.pairwise(edges)]
    np.testing.assert_array_equal(histogram.counts, expected)


@given(parts, st.randoms(use_true_random=False))
def test_the_order_changes_nothing(several, random):
    one = counted(several)
    shuffled = list(several)
    random.shuffle(shuffled)
    two = counted(shuffled)
    three = counted([np.concatenate([part.reshape(-1) for part in several])])
    for other in (two, three):
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_array_equal(one.edges(), other.edges())


@given(parts)
def test_bins_are_as_fine_as_the_range_allows(several):
    histogram = counted(several)
    spread = histogram.high - histogram.low
    # Half as wide, they would not reach; but for values so near each other that 40 binary digits do not tell them.
    coarse = max(abs(histogram.low), abs(histogram.high)) * 2.0**-39
    assert histogram.width <= max(2 * spread / (len(histogram.counts) - 1), coarse, 2.0**-99)


def test_memory_does_not_grow():
    rng = np.random.default_rng(0)
    histogram = Histogram()
    before = histogram.nbytes
    for size in range(200):
        histogram.add(rng.standard_normal(1000) * 1.1**size)
    assert histogram.nbytes == before == 4096 * 8
    assert histogram.total == 200_000


def test_quantiles_are_within_a_bin_of_numpys():
    values = np.random.default_rng(0).standard_t(3, size=100_000).astype(np.float32)
    histogram = counted(np.array_split(values, 37), bins=4096)
    cumulated = np.concatenate([[0], np.cumsum(histogram.counts)]) / histogram.total
    for share in (0.0001, 0.01, 0.5, 0.999):
        ours = np.interp(share, cumulated, histogram.edges())
        assert abs(ours - np.quantile(values, share)) <= 2 * histogram.width


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(ValidationError, match="not a finite number"):
        Histogram().add(np.array([1.0, value]))


def test_nothing_may_be_added():
    histogram = Histogram()
    histogram.add(np.empty((0, 32), dtype=np.float32))
    assert histogram.total == 0
