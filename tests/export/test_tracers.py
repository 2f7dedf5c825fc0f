"""What traces a model: PyTorch's exporter everywhere, and Optimum's where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bertport.export import export
from bertport.runtime.errors import MissingDependencyError, UnknownNameError, UsageError
from tests.families import tiny

THROUGH_OPTIMUM = importlib.util.find_spec("optimum.exporters.onnx") is not None


@pytest.mark.skipif(not THROUGH_OPTIMUM, reason="optimum-onnx is not installed")
def test_optimums_graph_computes_the_same(tiny_checkpoint, tiny_bundle, tmp_path, run_graph):
    stages = []
    bundle = export(
        tiny_checkpoint, tmp_path / "bundle", tracer="optimum", progress=lambda event: stages.append(event.text)
    )
    assert "tracing through Optimum" in stages
    random = np.random.default_rng(5)
    shape = (2, 9)
    inputs = {
        "input_ids": random.integers(20, 600, shape),
        "attention_mask": np.ones(shape, dtype=np.int64),
        "token_type_ids": random.integers(0, 2, shape),
    }
    expected, outputs = (run_graph(directory / "onnx/model.onnx", inputs) for directory in (tiny_bundle, bundle.path))
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=0, atol=1e-5)


@pytest.mark.skipif(not THROUGH_OPTIMUM, reason="optimum-onnx is not installed")
def test_a_family_that_optimum_does_not_export(tmp_path):
    checkpoint = tiny("ernie", tmp_path / "checkpoint", model_class="ErnieModel")
    with pytest.raises(
        UsageError, match=r"Optimum has no export of ERNIE encoders \(ernie\): leave out --tracer optimum"
    ):
        export(checkpoint, tmp_path / "bundle", tracer="optimum")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.skipif(THROUGH_OPTIMUM, reason="optimum-onnx is installed")
def test_without_optimum_the_extra_is_named(tiny_checkpoint, tmp_path):
    with pytest.raises(
        MissingDependencyError, match=r"--tracer optimum needs .*optimum.exporters.onnx.*export-optimum"
    ):
        export(tiny_checkpoint, tmp_path / "bundle", tracer="optimum")


def test_another_tracer(tiny_checkpoint, tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown tracer 'dynamo' \(available: torch, optimum\)"):
        export(tiny_checkpoint, tmp_path / "bundle", tracer="dynamo")
