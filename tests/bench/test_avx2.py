"""Hiding AVX-512 makes ONNX Runtime run its AVX2 kernels: seen in their arithmetic, which no other kernels have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.avx2.__main__ import cpuinfo
from bertport.runtime.providers.cpu import INSTRUCTION_SETS, cpu, parse_cpuinfo

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import json, sys
import numpy, onnxruntime
from bertport.runtime.providers.cpu import cpu
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
found = session.run(None, {"a": numpy.full((1, 1024), 255, numpy.uint8)})[0]
print(json.dumps([int(found[0, 0]), cpu().model, cpu().instruction_set]))
"""


def test_flags_and_name_of_the_cpu():
    text = "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni amx_int8 fma\n"
    shown = parse_cpuinfo(cpuinfo(text))
    assert shown.flags == {"fpu", "avx2", "fma"}
    assert shown.model == "Some CPU, AVX-512 hidden"


@pytest.mark.slow  # Reading ONNX Runtime's library takes objdump 20 seconds.
def test_sums_of_pairs_saturate_as_on_avx2(tmp_path):
    if INSTRUCTION_SETS.get(cpu().instruction_set) is None or "avx2" not in cpu().flags:
        pytest.skip(f"this CPU ({cpu().instruction_set}) has no AVX2 to fall back to")
    if sys.platform != "linux" or not (shutil.which("cc") and shutil.which("objdump")):
        pytest.skip("hiding AVX-512 needs Linux, a C compiler and objdump")
    weights = np.full((1024, 16), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", 1024])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "one.onnx").write_bytes(model.SerializeToString())
    command = [sys.executable, "-m", "bench.avx2", "--package", "onnxruntime"]
    command += [sys.executable, "-c", RUN, str(tmp_path / "one.onnx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    total, model_name, instruction_set = json.loads(done.stdout)
    # VPMADDUBSW adds neighbouring products in 16 bits: 2 * 255 * 127 becomes 32767.
    assert total == 512 * 32767
    assert model_name.endswith("AVX-512 hidden")
    assert instruction_set == "avx2"
