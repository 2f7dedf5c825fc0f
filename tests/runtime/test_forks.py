"""A process that is forked from one with a loaded model: what it is told, that it ends well, and that it may load."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked on this system")

BEGINNING = """
import gc, os, signal, sys
from bertport.runtime import load
from bertport.runtime.errors import ProviderError

path = sys.argv[1]
model = load(path, threads=4)  # more than one, for those that wait for work
here = model.fill_mask("a [MASK]")
child = os.fork()
if child:
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert model.fill_mask("a [MASK]") == here
    sys.exit(ended)
signal.alarm(60)
"""
REFUSED = """
try:
    model.fill_mask("a [MASK]")
except ProviderError as error:
    said = error.message
print(said)
assert said == (
    f"a model of process {os.getppid()} was asked in process {os.getpid()}, which was forked from it without "
    "ONNX Runtime's threads: load the model in each process, or start processes by spawn"
)
"""
RUN = """
import numpy as np
ids = np.ones((1, 3), dtype=np.int64)
try:
    model.graph.run({"input_ids": ids, "attention_mask": ids, "token_type_ids": ids}, ["last_hidden_state"])
except ProviderError:
    sys.exit()
sys.exit("it ran")
"""
LOADED = """
model = load(path, threads=4)  # and the parent's model is nobody's any more
gc.collect()
assert model.fill_mask("a [MASK]") == here
grandchild = os.fork()
if not grandchild:
    model = None
    sys.exit()
assert os.waitpid(grandchild, 0)[1] == 0
"""


@pytest.mark.parametrize("then", [REFUSED, RUN, "del model; gc.collect()", LOADED, REFUSED + LOADED])
def test_in_a_process_that_was_forked(tiny_bundle, then):
    """Each child ends as the interpreter does, which frees what is left, and not by os._exit."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGINNING + then, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr


POOL = """
import multiprocessing, sys
from bertport.runtime import load
from bertport.runtime.sklearn import Encoder

encoder = Encoder(sys.argv[1], threads=1).fit(["a", "b"])
expected = encoder.transform(["a", "b"]).tolist()

def vectors(texts):
    return encoder.transform(texts).tolist()

with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(vectors, [["a", "b"]] * 4) == [expected] * 4
"""


def test_an_encoder_opens_its_model_again(tiny_bundle):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", POOL, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
