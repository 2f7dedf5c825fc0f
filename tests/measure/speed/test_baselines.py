"""The checkpoint that peers are measured on is the one that the bundle was exported from."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bertport.measure.speed.baselines import restore_checkpoint, stored_weights
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.errors import BundleError
from tests.broken import copied, edited_json


def restore(path, out):
    return restore_checkpoint(Bundle.open(path), out)


def test_every_tensor_comes_back(tiny_bundle, tiny_checkpoint, tmp_path):
    from safetensors.numpy import load_file

    found = load_file(restore(tiny_bundle, tmp_path / "restored") / "model.safetensors")
    expected = load_file(tiny_checkpoint / "model.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_the_configuration_is_the_one_that_was_hashed(tiny_bundle, tmp_path):
    """Though it names another for this version of transformers, and code for its attention."""

    def led_on(value):
        value.update(configuration_files=["config.4.0.0.json"], auto_map={"AutoConfig": "code.Config"})
        value["_attn_implementation"] = value["_experts_implementation"] = "acme/kernels"

    bundle = copied(tiny_bundle, tmp_path / "bundle", config_json=edited_json(led_on))
    config = json.loads((tiny_bundle / "config.json").read_text())
    (bundle / "config.4.0.0.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    restored = json.loads((restore(bundle, tmp_path / "restored") / "config.json").read_text())
    assert restored["hidden_act"] == config["hidden_act"]
    assert not restored.keys() & {"configuration_files", "auto_map", "_attn_implementation"}


@pytest.mark.parametrize("link", [False, True])
def test_a_configuration_that_the_manifest_does_not_list_is_not_read(tiny_bundle, tmp_path, link):
    bundle = copied(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["files"]["config.json"]
    (bundle / MANIFEST).write_bytes(sealed(manifest))
    if link:
        (bundle / "config.json").rename(tmp_path / "elsewhere.json")
        (bundle / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match=r"lists no file 'config.json': export again"):
        restore(bundle, tmp_path / "restored")


@pytest.mark.parametrize("content", [b"[]", b"no", b"\xff"])
def test_a_configuration_that_is_none(tiny_bundle, tmp_path, content):
    bundle = copied(tiny_bundle, tmp_path / "bundle", config_json=lambda _: content)
    with pytest.raises(BundleError, match=r"config.json is no configuration of a BERT .*: export again"):
        restore(bundle, tmp_path / "restored")


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "usage: python -m bertport.measure.speed.baselines {transformers,optimum} BUNDLE OUT"),
        (("torch", "bundle", "out"), "usage: python -m bertport.measure.speed.baselines {transformers,optimum}"),
        (("transformers", "bundle", "out"), "no bundle at bundle: no such directory"),
    ],
)
def test_the_program_says_what_is_wrong_in_a_sentence(tmp_path, arguments, said):
    command = [sys.executable, "-m", "bertport.measure.speed.baselines", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
