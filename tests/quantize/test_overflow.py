"""The arithmetic of AVX2 without VNNI: the naive graph is wrong there, and the shipped recipe right.

Runs where the CPU has no VNNI, and elsewhere under qemu-user (Debian's qemu-user), which emulates such a CPU so that
ONNX Runtime chooses its AVX2 kernels.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from bertport.quantize.calibration.ranges import SCHEMES, Range
from bertport.quantize.graph.builder import GraphBuilder
from bertport.quantize.graph.rewrite import Linear
from bertport.quantize.recipes.dynamic import DynamicEmitter
from bertport.quantize.recipes.qdq import QdqEmitter
from bertport.quantize.weights.cache import WeightCache
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, cpu

RUN = """
import json, sys
import numpy, onnxruntime
given = numpy.load(sys.argv[1])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
found = {}
for path in sys.argv[2:]:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found[path] = session.run(None, {"x": given})[0].tolist()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def without_vnni():
    """A command prefix that runs Python on a CPU whose 8-bit products saturate."""
    isa = INSTRUCTION_SETS.get(cpu().instruction_set)
    if isa is not None and isa.saturates:
        return []
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip(f"this CPU ({cpu().instruction_set}) does not saturate, and qemu-user is not installed")
    return [emulator, "-cpu", "Haswell"]


def write_graph(path, weights, *, saturating, static):
    """One linear layer as the recipe writes it."""
    from onnx import TensorProto, helper

    builder = GraphBuilder(17)
    layer = Linear(name="layer", source="x", output="y", weights=weights, bias=None, gelu=False, table=None)
    cache = WeightCache(saturating=saturating)
    ranges = {"x": Range(low=0.0, high=6.0)}
    emitter = (
        QdqEmitter(weights=cache, ranges=ranges, scheme=SCHEMES["u8"]) if static else DynamicEmitter(weights=cache)
    )
    emitter.linear(builder, layer)
    inputs, outputs = weights.shape
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])
    frame = helper.make_model(helper.make_graph([], "one", [given], [answer]), ir_version=8)
    path.write_bytes(builder.model(frame).SerializeToString())


@pytest.mark.parametrize("static", [False, True], ids=["int8-dynamic", "int8-static-cpu"])
def test_naive_weights_overflow_where_the_recipe_does_not(without_vnni, tmp_path, static):
    rng = np.random.default_rng(0)
    # Large activations of one sign meet large adjacent weights of one sign, as in the last layers of a BERT.
    weights = rng.uniform(2, 3, (64, 24)).astype(np.float32)
    given = rng.uniform(4, 6, (5, 64)).astype(np.float32)
    np.save(tmp_path / "given.npy", given)
    paths = {name: tmp_path / f"{name}.onnx" for name in ("naive", "shipped")}
    write_graph(paths["naive"], weights, saturating=False, static=static)
    write_graph(paths["shipped"], weights, saturating=True, static=static)
    command = [*without_vnni, sys.executable, "-c", RUN, str(tmp_path / "given.npy"), *map(str, paths.values())]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    answers = json.loads(answer.stdout)
    exact = given @ weights
    error = {name: np.abs(np.array(answers[str(path)]) - exact).max() / exact.max() for name, path in paths.items()}
    assert error["naive"] > 0.1
    assert error["shipped"] < 0.01
