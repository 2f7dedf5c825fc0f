"""numpy on one thread: what is set is what was there before, afterwards."""

import numpy as np
import pytest

from bertport.quantize import blas
from bertport.quantize.blas import one_thread


def test_products_run_on_one_thread_for_as_long_as_the_block_lasts():
    functions = blas._functions()
    if functions is None:
        pytest.skip("this numpy does not come with OpenBLAS")
    count, limit = functions
    before = count()
    limit(2)  # a machine of one core has one at most
    two = count()
    try:
        with one_thread():
            assert count() == 1
            square = np.ones((300, 300)) @ np.ones((300, 300))
        assert count() == two
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert count() == two
    finally:
        limit(before)
    assert (square == 300).all()


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(blas, "_functions", lambda: None)
    with one_thread():
        assert (np.eye(2) @ np.eye(2)).sum() == 2
