"""Google's original checkpoints: every variable under its name in transformers, read by TensorFlow itself."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench.tensorflow_checkpoint.google import TINY, values
from bertport.export import export
from bertport.export.checkpoint.tensorflow import TRAINING, convert, find_variables
from bertport.export.graph.stored_weights import stored_weights
from bertport.runtime.errors import CheckpointError, MissingDependencyError

FIXTURE = Path(__file__).parents[2] / "data" / "bert-tensorflow"
"""A checkpoint of a few kilobytes, by `python -m bench.tensorflow_checkpoint --fixture tests/data/bert-tensorflow`."""


@pytest.fixture(scope="module")
def model():
    """transformers' model of the fixture's settings."""
    from transformers import BertConfig, BertForPreTraining

    return BertForPreTraining(BertConfig(**asdict(TINY)))


def test_every_variable_finds_its_place(model):
    converted = convert(values(TINY))
    assert not converted.notes
    places = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {name: tensor.shape for name, tensor in converted.tensors.items()} == places


def test_kernels_are_transposed_and_nothing_else():
    given, tensors = values(TINY), convert(values(TINY)).tensors
    layer = "bert/encoder/layer_0/"
    for ours, theirs in {
        "bert.encoder.layer.0.attention.self.query.weight": given[f"{layer}attention/self/query/kernel"].T,
        "bert.encoder.layer.0.intermediate.dense.weight": given[f"{layer}intermediate/dense/kernel"].T,
        "bert.encoder.layer.0.output.LayerNorm.weight": given[f"{layer}output/LayerNorm/gamma"],
        "bert.encoder.layer.0.output.LayerNorm.bias": given[f"{layer}output/LayerNorm/beta"],
        "bert.embeddings.word_embeddings.weight": given["bert/embeddings/word_embeddings"],
        "cls.predictions.bias": given["cls/predictions/output_bias"],
        "cls.seq_relationship.weight": given["cls/seq_relationship/output_weights"],
        "cls.seq_relationship.bias": given["cls/seq_relationship/output_bias"],
    }.items():
        np.testing.assert_array_equal(tensors[ours], theirs, err_msg=ours)


def test_a_classifier_is_left_out_with_a_note():
    extra = {"output_weights": np.ones((3, 8)), "output_bias": np.ones(3), "cls/squad/output_weights": np.ones((2, 8))}
    [note] = convert(values(TINY) | extra).notes
    assert note.endswith("head: output_weights, output_bias, cls/squad/output_weights")


@pytest.mark.parametrize("variables", [{}, {"resnet/conv/kernel": np.ones((2, 2))}])
def test_variables_of_no_bert(variables):
    with pytest.raises(CheckpointError, match=r"holds no variables of a BERT, whose names begin with bert/ \(it has"):
        convert(variables)


def test_what_training_keeps_is_no_weight():
    training = ["global_step", "beta1_power", "bert/pooler/dense/kernel/adam_m", "bert/pooler/dense/bias/Adam_1"]
    training += ["bert/pooler/dense/kernel/AdamWeightDecayOptimizer", "loss_scale"]
    assert all(TRAINING.search(name) for name in training)
    assert not any(TRAINING.search(name) for name in values(TINY))


def test_where_a_checkpoint_is(tmp_path, tiny_checkpoint):
    assert find_variables(FIXTURE) == FIXTURE / "bert_model.ckpt"
    assert find_variables(tiny_checkpoint) is None
    both = shutil.copytree(FIXTURE, tmp_path / "both")
    (both / "model.safetensors").touch()
    assert find_variables(both) is None  # an early release for transformers, with what it was converted from
    (both / "model.safetensors").unlink()
    (both / "model.ckpt-20.index").touch()
    with pytest.raises(
        CheckpointError, match=r"holds 2 TensorFlow checkpoints \(bert_model.ckpt, model.ckpt-20\): leave"
    ):
        find_variables(both)


def test_without_tensorflow_it_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorflow" else find(name))
    with pytest.raises(
        MissingDependencyError, match=r"^a TensorFlow checkpoint needs the package tensorflow, which is"
    ):
        export(FIXTURE, tmp_path / "out")
    assert not list(tmp_path.iterdir())


READ = """
import sys
from bertport.export.checkpoint.tensorflow import read_variables
from bertport.runtime.errors import CheckpointError
from pathlib import Path
try:
    read_variables(Path(sys.argv[1]))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_tensorflow_wrote_is_exported(tmp_path):
    """By TensorFlow: that of this environment, or of the one that the benchmark makes beside it."""
    from bench.tensorflow_checkpoint.__main__ import environment

    python = sys.executable if importlib.util.find_spec("tensorflow") else str(environment())
    command = [python, "-m", "bertport.runtime", "export", str(FIXTURE), str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ.copy())
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert list(manifest["heads"]) == ["mlm", "nsp", "pooler"]
    assert manifest["source"]["weights_sha256"].keys() == {
        "bert_model.ckpt.index",
        "bert_model.ckpt.data-00000-of-00001",
    }
    weights, expected = stored_weights(tmp_path / "out" / "onnx" / "model.onnx"), convert(values(TINY)).tensors
    assert expected.keys() <= weights.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(weights[name], tensor, err_msg=name)
    # And of a damaged one it says in a sentence what is wrong.
    damaged = shutil.copytree(FIXTURE, tmp_path / "damaged")
    data = next(damaged.glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-100])
    command = [python, "-c", READ, str(damaged / "bert_model.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ.copy())
    assert done.stdout.startswith(f"TensorFlow cannot read {damaged / 'bert_model.ckpt'} (")
    assert len(done.stdout.splitlines()) == 1
