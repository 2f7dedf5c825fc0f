"""Checkpoints under other names and in other forms: read where nothing is lost, or named with the way on."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.source import locate
from bertport.export.exporter import export
from bertport.runtime.errors import CheckpointError


def read(directory):
    checkpoint = read_checkpoint(locate(str(directory)))
    return checkpoint, checkpoint.tensors()


@pytest.fixture(scope="module")
def plain(tiny_checkpoint):
    return read(tiny_checkpoint)[1]


PREFIXES = [
    "_orig_mod.",
    "module.",
    "model.",
    "0.auto_model.",
    "encoder.",
    "bert.",
    "base_model.model.",
    "module._orig_mod.model.",
    "model.module.",
    "net.student.bert.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_stands_before_the_names_is_left_out_with_a_note(checkpoint, change_weights, plain, prefix):
    change_weights(checkpoint, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    loaded, tensors = read(checkpoint)
    assert loaded.plan.heads == ("mlm", "nsp", "pooler")
    assert tensors.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in tensors.items())
    left = prefix.replace("module.", "").replace("_orig_mod.", "")
    assert loaded.plan.notes == ((f"left out: {left!r}, with which the names of the weights begin",) if left else ())


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_same_of_a_bare_encoder(checkpoint, change_weights, plain, prefix, change_config):
    change_config(checkpoint, architectures=["BertModel"])
    bare = {name.removeprefix("bert.") for name in plain if name.startswith("bert.")}
    change_weights(
        checkpoint,
        lambda tensors: {prefix + name: tensors[f"bert.{name}"] for name in bare if f"bert.{name}" in tensors},
    )
    loaded, tensors = read(checkpoint)
    assert loaded.plan.heads == ("pooler",)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in tensors.items())


def test_wrappers_of_single_modules_are_left_out(checkpoint, change_weights, plain):
    change_weights(
        checkpoint,
        lambda tensors: {
            name.replace("encoder.layer.0.", "encoder.layer.0._orig_mod."): tensor for name, tensor in tensors.items()
        },
    )
    assert read(checkpoint)[1].keys() == plain.keys()


def test_what_is_beside_a_prefixed_encoder_is_named(checkpoint, change_weights):
    change_weights(
        checkpoint,
        lambda tensors: {f"model.{name}": tensor for name, tensor in tensors.items()} | {"loss.weight": torch.ones(2)},
    )
    assert "left out, as part of neither the encoder nor a head: loss.weight" in read(checkpoint)[0].plan.notes


def test_two_encoders_are_refused(checkpoint, change_weights):
    change_weights(
        checkpoint,
        lambda tensors: {
            f"{tower}.{name}": tensor for name, tensor in tensors.items() for tower in ("query", "document")
        },
    )
    with pytest.raises(
        CheckpointError, match=r"hold 2 encoders, under document\., query\.: save the one that is meant"
    ):
        read(checkpoint)


def test_a_prefixed_checkpoint_is_exported(checkpoint, change_weights, tmp_path):
    change_weights(checkpoint, lambda tensors: {f"0.auto_model.{name}": tensor for name, tensor in tensors.items()})
    notes = []
    bundle = export(checkpoint, tmp_path / "out", progress=lambda event: notes.append(event.text))
    assert bundle.manifest.heads
    assert "left out: '0.auto_model.', with which the names of the weights begin" in notes


@pytest.mark.parametrize("part", ["base_layer.weight", "lora_A.default.weight", "modules_to_save.default.weight"])
def test_an_adapter_that_is_not_merged_is_refused(checkpoint, change_weights, part):
    name = f"base_model.model.bert.encoder.layer.0.attention.self.query.{part}"
    change_weights(checkpoint, lambda tensors: tensors | {name: torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=r"adapter that is not merged .*merge_and_unload"):
        read(checkpoint)


def test_an_adapter_beside_the_weights_is_refused(checkpoint, tmp_path):
    (checkpoint / "adapter_config.json").write_text("{}")
    said = r"^checkpoint holds a PEFT adapter \(adapter_config.json\) beside a whole model: give --adapter \S+ to merge"
    with pytest.raises(CheckpointError, match=said):
        export(checkpoint, tmp_path / "out")


FORMS = {
    "adapter": (
        {"adapter_config.json": '{"base_model_name_or_path": "google/b"}'},
        r"PEFT adapter .* trained on \('google/b'\) with --adapter \S+/given$",
    ),
    "adapter without settings": (
        {"adapter_model.safetensors": ""},
        r"PEFT adapter \(adapter_model.* on with --adapter",
    ),
    "adapter, settings damaged": ({"adapter_config.json": "["}, r"PEFT adapter .* trained on with --adapter"),
    "Google's, without its settings": (
        {"bert_model.ckpt.index": "", "bert_model.ckpt.data-00000-of-00001": ""},
        r"a TensorFlow checkpoint \(bert_model.*its bert_config.json and vocab.txt lie beside it",
    ),
    "TensorFlow": ({"config.json": "", "tf_model.h5": ""}, r"TensorFlow \(tf_model.h5\).* CLASS.from_.*from_tf=True"),
    "Flax": ({"config.json": "", "flax_model.msgpack": ""}, r"Flax \(flax_model.ms.* CLASS.from_.*from_flax=True"),
    "ONNX": ({"config.json": "", "onnx/model.onnx": ""}, r"an ONNX graph \(onnx/model.onnx\)"),
    "GGUF": ({"bert-q8.gguf": ""}, r"GGUF \(bert-q8.gguf\)"),
    "a variant": ({"config.json": "", "model.fp16.safetensors": ""}, r"another name \(model.fp16.safetensors\)"),
    "another name": ({"config.json": "", "weights.safetensors": ""}, r"another name \(weights.safetensors\)"),
    "PyTorch's": ({"config.json": "", "best.pt": ""}, r"another name \(best.pt\)"),
    "one level up": ({"notes.txt": "", "0_BERT/model.safetensors": ""}, r"there is one in it: give .*0_BERT"),
    "a Trainer's": (
        {"config.json": "", "training_args.bin": "", "rng_state_0.pth": "", "checkpoint-5/model.safetensors": ""},
        r"it has no weights \(looked for .*; there is one in it: give \S+checkpoint-5$",
    ),
    "nothing": ({"notes.txt": ""}, "it has no config.json"),
    "no weights": ({"config.json": "", "vocab.txt": ""}, r"it has no weights \(looked for model.safetensors"),
    "no config": ({"model.safetensors": ""}, r"no config.json beside model.safetensors: copy it"),
    "the first config's name": (
        {"pytorch_model.bin": "", "bert_config.json": ""},
        r"copy its bert_config.json to that name, beside pytorch_model.bin",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path, form, tiny_checkpoint):
    files, expected = FORMS[form]
    for name, content in files.items():
        path = tmp_path / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "config.json":
            shutil.copy(tiny_checkpoint / name, path)
        else:
            path.write_text(content)
    with pytest.raises(CheckpointError, match=expected) as caught:
        export(tmp_path / "given", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_and_an_index_that_leads_outside_are_named(checkpoint):
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "../model.safetensors"}
    (checkpoint / "model.safetensors").unlink()
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        read(checkpoint)
    index.write_text(json.dumps({"weight_map": {"a": weight_map["a"]}}))
    with pytest.raises(CheckpointError, match=r"lacks the shard model-00001-of-00002\.safetensors"):
        read(checkpoint)
