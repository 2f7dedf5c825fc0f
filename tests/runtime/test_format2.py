"""Format 2: its manifest guards itself, and is open to what is coming in the places that say so."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
from pathlib import Path

import pytest

from bertport.runtime import load
from bertport.runtime.bundle import MANIFEST, Bundle
from bertport.runtime.changes import Workspace, add_variant, replace_figures, upgrade
from bertport.runtime.digest import sealed
from bertport.runtime.errors import BundleError
from bertport.runtime.manifest import Manifest, read_manifest

OLD = Path(__file__).parents[1] / "data" / "bundle-0.1.0"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest bundle, in format 2, with a variant that nobody measured; copy it before changing anything."""
    path = shutil.copytree(OLD, tmp_path_factory.mktemp("small") / "small")
    bundle, _ = upgrade(path)
    quantized = dataclasses.replace(bundle.manifest.variants["int8-dynamic"], fidelity=None)
    replace_figures(bundle, "int8-dynamic", quantized, default=lambda now: now.manifest.default_variant)
    return path


@pytest.fixture
def copy(small, tmp_path):
    """A copy of it."""
    return shutil.copytree(small, tmp_path / "copy")


@pytest.fixture(scope="module")
def value(small):
    """Its manifest as JSON; a new one for each test."""
    return (small / MANIFEST).read_bytes()


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_every_single_bit_of_a_manifest_that_changes_is_refused(value):
    whole = Manifest.from_json(json.loads(value))
    portable = dataclasses.replace(whole.variants["portable"], validation=None)
    files = {portable.file: whole.files[portable.file]}
    least = dataclasses.replace(
        whole, variants={"portable": portable}, default_variant="portable", files=files, tools={}, heads={}
    )
    content = least.to_bytes()
    assert read_manifest(content).manifest == least
    taken = []
    for place in range(len(content)):
        for bit in range(8):
            try:
                read_manifest(flipped(content, place, bit))
            except BundleError:
                continue
            taken.append((place, bit))
    assert taken == []
    assert all(name.encode() in content for name in ("requires", "inputs", "files", "digest"))


@pytest.fixture
def opened(monkeypatch):
    """The graphs that were opened."""
    graphs = []
    monkeypatch.setattr("bertport.runtime.loading.open_graph", lambda *given, **_: graphs.append(given))
    return graphs


def test_bits_of_a_manifest_are_refused_by_all_that_reads_bundles(copy, opened):
    content = (copy / MANIFEST).read_bytes()
    rng = random.Random(1)
    for _ in range(60):
        (copy / MANIFEST).write_bytes(flipped(content, rng.randrange(len(content)), rng.randrange(8)))
        for action in (load, lambda path: Bundle.open(path).verify()):
            with pytest.raises(BundleError):
                action(copy)
    assert opened == []


READ = {
    "onnx/model.onnx",  # it holds the weights of the serving graph
    "onnx/model_serving.onnx",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
"""What `load` reads of the small bundle for its variant fp32."""


def test_a_thousand_bits_of_the_files_are_caught(copy, opened):
    bundle = Bundle.open(copy)
    rng, names = random.Random(2), sorted(bundle.manifest.files)
    loaded = dict.fromkeys(READ, 0)
    for _ in range(1000):
        name = rng.choice(names)
        path = copy / name
        content = path.read_bytes()
        path.write_bytes(flipped(content, rng.randrange(len(content)), rng.randrange(8)))
        with pytest.raises(BundleError, match=f"{name} is not the file that was exported"):
            bundle.verify()
        if loaded.get(name, 20) < 20:  # opening a tokenizer takes longer than hashing all there is
            loaded[name] += 1
            with pytest.raises(BundleError, match=f"{name} is not the file that was exported"):
                load(copy, provider="cpu", variant="fp32")
        path.write_bytes(content)
    assert opened == []
    assert set(loaded.values()) == {20}


def test_load_reads_no_other_file(copy):
    for name in Bundle.open(copy).manifest.files.keys() - READ:
        (copy / name).write_bytes(b"changed")
    assert load(copy, provider="cpu", variant="fp32").next_sentence("the man", "the store")
