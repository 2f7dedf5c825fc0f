"""The checkpoint that peers are measured on is the one that the bundle was exported from."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bench.restore import restore
from bertport.compare.restoring import stored_weights
from bertport.runtime.errors import BundleError


def test_every_tensor_comes_back(tiny_bundle, tiny_checkpoint, tmp_path):
    from safetensors.numpy import load_file

    found = load_file(restore(tiny_bundle, tmp_path / "restored") / "model.safetensors")
    expected = load_file(tiny_checkpoint / "model.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_weights_in_16_bits_come_back_rounded(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    graph = onnx.parser.parse_graph("g (float[n, 2] x) => (float[n, 3] y) { w = Cast<to = 1>(h)\n y = MatMul(x, w) }")
    graph.node[0].input[0] = "w.float16"
    graph.initializer.append(numpy_helper.from_array(matrix.astype(np.float16), "w.float16"))
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    np.testing.assert_array_equal(stored_weights(tmp_path / "model.onnx")["w"], matrix.astype(np.float16).T)


def test_equal_tensors_that_are_stored_once_come_back_under_each_name(tmp_path):
    graph = onnx.parser.parse_graph("g (float[n] x) => (float[n] y) { other = Identity(one)\n y = Add(x, other) }")
    graph.initializer.append(numpy_helper.from_array(np.zeros(3, dtype=np.float32), "one"))
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    found = stored_weights(tmp_path / "model.onnx")
    assert set(found) == {"one", "other"}
    np.testing.assert_array_equal(found["other"], np.zeros(3, dtype=np.float32))


def test_a_damaged_bundle_is_not_restored(tiny_bundle, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, damaged)
    with (damaged / "onnx" / "model.onnx").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(BundleError, match="SHA-256"):
        restore(damaged, tmp_path / "restored")
