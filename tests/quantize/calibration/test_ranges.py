"""From a histogram to a range: each method against what it says, computed from all of the values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bertport.quantize.calibration.histogram import Histogram
from bertport.quantize.calibration.ranges import KEPT, METHODS, SCHEMES, TINY, Range, digest, method_named
from bertport.runtime.errors import UnknownNameError

S8, U8 = SCHEMES["s8"], SCHEMES["u8"]
values = arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e4, 1e4, width=32))


def histogram(array):
    counted = Histogram()
    counted.add(array)
    return counted


def rounded(array, scheme, within):
    """Return an array after QuantizeLinear and DequantizeLinear, by ONNX's definition."""
    scale, zero = scheme.parameters(within)
    info = np.iinfo(scheme.dtype)
    integers = np.clip(np.rint(array / scale) + int(zero), info.min, info.max)
    return (integers - int(zero)) * scale


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@settings(max_examples=25)  # hundreds of ranges are tried in each
@given(array=values)
def test_every_range_holds_zero_and_lies_within_the_data(method, scheme, array):
    fitted = METHODS[method](histogram(array), scheme)
    scale, zero = scheme.parameters(fitted)
    info = np.iinfo(scheme.dtype)
    assert fitted.low <= 0 <= fitted.high
    assert scale > 0
    assert info.min <= int(zero) <= info.max
    assert not rounded(np.zeros(1), scheme, fitted).any()  # 0 is exact: padding and masks stay what they are
    whole = scheme.fit(float(array.min()), float(array.max()))
    slack = 1e-6 * (whole.high - whole.low) + TINY
    assert whole.low - slack <= fitted.low
    assert fitted.high <= whole.high + slack


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@given(array=values)
def test_minmax_cuts_nothing_off(scheme, array):
    fitted = METHODS["minmax"](histogram(array), scheme)
    assert fitted.low <= array.min()
    assert fitted.high >= array.max()
    step = (fitted.high - fitted.low) / scheme.steps
    # Half a step, and where the zero point is rounded another half at the ends.
    assert np.abs(rounded(array, scheme, fitted) - array).max() <= step * 1.001


def test_the_symmetric_form_has_no_zero_point_and_the_other_uses_every_integer():
    array = np.array([-0.17, 3.0], dtype=np.float32)
    assert METHODS["minmax"](histogram(array), S8) == Range(low=-3.0, high=3.0)
    assert S8.parameters(Range(low=-3.0, high=3.0)) == (np.float32(3 / 127), 0)
    fitted = METHODS["minmax"](histogram(array), U8)
    scale, zero = U8.parameters(fitted)
    assert scale == pytest.approx(3.17 / 255)
    assert zero == 14  # 0.17 of 3.17, of 255 steps


def test_percentile_is_that_of_the_values():
    rng = np.random.default_rng(0)
    dense = rng.uniform(-3, 5, size=500_000).astype(np.float32)
    data = histogram(dense)
    fitted = METHODS["percentile"](data, U8)
    low, high = np.quantile(dense, [(1 - KEPT) / 2, (1 + KEPT) / 2])
    assert fitted.low == pytest.approx(low, abs=data.width)
    assert fitted.high == pytest.approx(high, abs=data.width)
    assert METHODS["percentile"](data, S8).high == pytest.approx(max(-low, high), abs=data.width)
    # Where the tail is sparse, any number between two of the values is the percentile.
    sparse = rng.standard_t(2, size=200_000).astype(np.float32)
    fitted = METHODS["percentile"](histogram(sparse), U8)
    for cut in (np.sum(sparse < fitted.low), np.sum(sparse > fitted.high)):
        assert abs(cut - len(sparse) * (1 - KEPT) / 2) <= 1


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_mse_leaves_the_least_error(scheme):
    rng = np.random.default_rng(1)
    array = np.concatenate([rng.standard_normal(100_000), rng.uniform(20, 30, 5)]).astype(np.float32)
    data = histogram(array)

    def error(fitted):
        return np.square(rounded(array, scheme, fitted) - array).mean()

    best = error(METHODS["mse"](data, scheme))
    others = [error(METHODS[name](data, scheme)) for name in METHODS]
    assert best <= min(others) * 1.02
    for share in (0.5, 0.8, 1.25):
        fitted = METHODS["mse"](data, scheme)
        assert best <= error(scheme.fit(fitted.low * share, fitted.high * share)) * 1.02


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_entropy_drops_lone_outliers_and_keeps_a_plain_range(scheme):
    rng = np.random.default_rng(2)
    plain = rng.uniform(-1, 1, 50_000).astype(np.float32)
    kept = METHODS["entropy"](histogram(plain), scheme)
    assert kept.high > 0.95
    assert kept.low < -0.95
    bell = rng.standard_normal(200_000).astype(np.float32)
    with_outlier = METHODS["entropy"](histogram(np.append(bell, np.float32(60))), scheme)
    assert with_outlier.high < 30


def test_the_digest_tells_ranges_apart():
    one = {"a": Range(low=-1.0, high=1.0), "b": Range(low=0.0, high=2.0)}
    assert digest(one) == digest(dict(reversed(one.items())))
    assert digest(one) != digest(one | {"b": Range(low=0.0, high=2.0000000000000004)})


def test_an_unknown_method_names_those_that_there_are():
    with pytest.raises(UnknownNameError, match="minmax, percentile, entropy, mse"):
        method_named("median")
