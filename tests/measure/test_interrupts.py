import os
import signal

import pytest

from bertport.measure.interrupts import InterruptionError, OutOfMemoryError, explained, stoppable
from bertport.runtime.errors import BundleError

SENTENCES = {"interrupted": "interrupted: nothing is left", "out_of_memory": "out of memory: use a larger machine"}
DAMAGED = BundleError("ONNX Runtime cannot load the graph: it is damaged")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        BundleError("ONNX Runtime cannot load the graph: std::bad_alloc"),
        RuntimeError("BFCArena: Available memory of 1024 is smaller than requested bytes of 4096"),
    ],
)
def test_a_lack_of_memory_is_told_as_such(error):
    with pytest.raises(OutOfMemoryError, match="out of memory: use a larger machine"), explained(**SENTENCES):
        raise error


def test_a_lack_of_memory_is_seen_behind_another_error():
    error = BundleError("cannot measure")
    error.__cause__ = MemoryError()
    with pytest.raises(OutOfMemoryError), explained(**SENTENCES):
        raise error


def test_other_errors_pass_unchanged():
    with pytest.raises(BundleError, match="it is damaged"), explained(**SENTENCES):
        raise DAMAGED


def test_sigterm_interrupts_and_is_told_in_a_sentence():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptionError, match="nothing is left"), explained(**SENTENCES), stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
