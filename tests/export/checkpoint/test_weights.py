"""Weight files: found, read, and refused when they are damaged or are not what they say."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertport.export.checkpoint.weights import find_weights, read_shapes, read_tensors
from bertport.runtime.errors import CheckpointError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.tensor([1.5, 2.5])}


def read_all(directory):
    files = find_weights(directory)
    return read_tensors(files, {name: name for name in read_shapes(files)})


def shard(directory, suffix, writer):
    for number, (name, tensor) in enumerate(TENSORS.items(), 1):
        writer({name: tensor}, directory / f"part-{number}{suffix}")
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    weight_map = {name: f"part-{number}{suffix}" for number, name in enumerate(TENSORS, 1)}
    (directory / f"{stem}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_bin(tensors, path):
    torch.save(tensors, path)


def write_old_bin(tensors, path):
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


FORMS = {
    "safetensors": lambda directory: save_file(TENSORS, directory / "model.safetensors"),
    "bin": lambda directory: write_bin(TENSORS, directory / "pytorch_model.bin"),
    "old bin": lambda directory: write_old_bin(TENSORS, directory / "pytorch_model.bin"),
    "safetensors shards": lambda directory: shard(directory, ".safetensors", save_file),
    "bin shards": lambda directory: shard(directory, ".bin", write_bin),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tensors(tmp_path, form):
    FORMS[form](tmp_path)
    tensors = read_all(tmp_path)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_safetensors_come_first(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never looked at")
    assert find_weights(tmp_path).safe
    assert read_all(tmp_path).keys() == TENSORS.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    save_file({"a": torch.tensor([0.5, 3.0], dtype=dtype)}, tmp_path / "model.safetensors")
    tensor = read_all(tmp_path)["a"]
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == [0.5, 3.0]


def test_no_weights(tmp_path):
    with pytest.raises(CheckpointError, match="has no weights"):
        find_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
@pytest.mark.parametrize("form", ["safetensors", "bin", "old bin"])
def test_truncated(tmp_path, form, keep):
    FORMS[form](tmp_path)
    path = find_weights(tmp_path).paths[0]
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if isinstance(keep, float) else keep)
    with pytest.raises(CheckpointError, match=r"truncated or damaged|is damaged"):
        read_all(tmp_path)


@pytest.mark.parametrize("content", [b"\x00" * 64, b"not weights at all, only text", b"\xff" * 4096])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_not_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_all(tmp_path)


class Touch:
    """Pickled as a call that leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_is_never_run(tmp_path, protocol):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Touch(tmp_path / "ran")}, protocol=protocol))
    with pytest.raises(CheckpointError):
        read_all(tmp_path)
    torch.save({"a": Touch(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="objects other than tensors, which are never loaded"):
        read_all(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {"state": {"a": torch.zeros(1)}}, torch.zeros(2)])
def test_a_pickle_that_is_no_state_dict(tmp_path, value):
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="does not hold a state dict"):
        read_all(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    FORMS["safetensors shards"](tmp_path)
    (tmp_path / "part-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shard part-2\.safetensors"):
        find_weights(tmp_path)


def test_a_shard_without_what_its_index_names(tmp_path):
    FORMS["safetensors shards"](tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "part-2.safetensors")
    with pytest.raises(CheckpointError, match=r"lack b\.bias, which their index names"):
        read_all(tmp_path)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "sub/part.safetensors"])
def test_a_shard_outside_the_directory(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        find_weights(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a": 1}}])
def test_an_index_without_a_map(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="has no weight_map"):
        find_weights(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path, value):
    save_file({"a": torch.tensor([1.0, value])}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="the tensor a holds values that are not finite"):
        read_all(tmp_path)


NOT_READ = [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("write", [save_file, write_bin])
@pytest.mark.parametrize("dtype", NOT_READ)
def test_numbers_that_are_parts_of_a_value_are_no_weights(tmp_path, dtype, write):
    """8 bits mean nothing without the scales that are stored apart."""
    name = "model.safetensors" if write is save_file else "pytorch_model.bin"
    write({"a.weight": torch.ones(2, 2).to(dtype)}, tmp_path / name)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(
        CheckpointError, match=rf"the tensor a\.weight is of type {kind}; float32, .* can be read: convert"
    ):
        read_all(tmp_path)


def test_values_beyond_float32_are_refused(tmp_path):
    save_file({"a": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="the tensor a holds values that are not finite"):
        read_all(tmp_path)


def test_two_names_for_one_tensor_must_agree(tmp_path):
    save_file({"a": torch.zeros(2), "b": torch.ones(2)}, tmp_path / "model.safetensors")
    files = find_weights(tmp_path)
    with pytest.raises(CheckpointError, match="differs from another one stored for c"):
        read_tensors(files, {"a": "c", "b": "c"})
    assert load_file(files.paths[0])["a"].tolist() == [0, 0]
    assert read_tensors(files, {"a": "c"})["c"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "form"),
    [
        (torch.Tensor.to_sparse, "sparse_coo"),
        (torch.Tensor.to_sparse_csr, "sparse_csr"),
        (lambda tensor: tensor.to("meta"), "meta, which has no values"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_tensors_that_are_not_dense(tmp_path, change, form):
    write_bin(TENSORS | {"a.weight": change(TENSORS["a.weight"])}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=f"the tensor a.weight is stored as {form}; dense tensors can be read"):
        read_all(tmp_path)
