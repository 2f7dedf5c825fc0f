"""Bundles whose files are links or have two names: read like others, and what they share is never written to."""

from __future__ import annotations

import hashlib
import os
import shutil

import pytest

from bertport.measure.budget import Budget
from bertport.measure.onnx_files import read_model
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BundleError
from tests.broken import copied
from tests.hub_cache import in_hub_cache

GRAPH = "onnx/model_serving.onnx"


def hashes(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.mark.slow
def test_quantizing_in_the_hubs_cache_leaves_its_blobs_alone(tiny_bundle, held_out, tmp_path):
    bundle = in_hub_cache(tiny_bundle, tmp_path)
    blobs = tmp_path / "models--acme--tiny" / "blobs"
    before = hashes(blobs)
    options = Options(text=held_out, budget=Budget.parse("top1=0.5"), positions=120, pairs=20, force=True)
    quantize(bundle, options=options)
    assert hashes(blobs) == before
    # What was written anew is the snapshot's own; the rest is still links.
    own = {
        path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file() and not path.is_symlink()
    }
    opened = Bundle.open(bundle)
    variant = opened.manifest.variants["int8-dynamic"]
    assert own >= {"manifest.json", "README.md", variant.file, *variant.external_data}
    assert not own & set(Bundle.open(tiny_bundle).manifest.files)
    assert opened.verify() == ()
    assert load(bundle, variant="int8-dynamic").fill_mask("a [MASK]")


@pytest.mark.parametrize("share", [os.symlink, os.link])
def test_a_graph_is_read_with_its_weights_however_they_are_stored(tiny, tiny_bundle, tmp_path, share):
    import onnx

    shutil.copytree(tiny_bundle / "onnx", tmp_path / "onnx")
    (tmp_path / "onnx" / "model.onnx").rename(tmp_path / "onnx" / "blob")
    share(tmp_path / "onnx" / "blob", tmp_path / "onnx" / "model.onnx")
    path = tiny.file(GRAPH)
    assert read_model(tmp_path / GRAPH) == onnx.load(path) == read_model(path)


def test_weights_that_lie_elsewhere_are_not_quantized(tiny_bundle, held_out, tmp_path):
    bundle = copied(
        tiny_bundle, tmp_path / "bundle", manifest=lambda value: value["variants"]["fp32"].update(external_data=[])
    )
    with pytest.raises(BundleError, match=r"manifest.json does not list as external data"):
        quantize(bundle, options=Options(text=held_out))
