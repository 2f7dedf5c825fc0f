"""Manifests: true of the default graphs, shown to people, and read in time that grows with their length alone."""

from __future__ import annotations

import time

import onnx
import pytest

from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import FORMAT_VERSION
from bertport.runtime.bundle.reading import read_manifest
from bertport.runtime.bundle.requirements import requires_of
from bertport.runtime.commands import render
from bertport.runtime.errors import BundleError
from tests.conftest import OLD


def test_a_key_that_is_there_twice_is_found_in_one_pass():
    """Counting each key among all of them took minutes here."""
    content = "{" + ", ".join(f'"{number}": 0' for number in (*range(60_000), 59_999)) + "}"
    began = time.process_time()
    with pytest.raises(BundleError, match="the key '59999' is there twice"):
        read_manifest(content.encode())
    assert time.process_time() - began < 20


def test_the_default_bundle_says_what_its_graphs_need():
    """Its manifest was upgraded without looking into them."""
    bundle = Bundle.open(default_bundle())
    assert bundle.format_version == FORMAT_VERSION
    for variant in bundle.manifest.variants.values():
        graph = onnx.load(bundle.file(variant.file), load_external_data=False)
        stated = variant.requires
        assert stated == requires_of(graph, precision=stated.precision, isa=stated.isa)


@pytest.mark.parametrize("path", [OLD, default_bundle()])
def test_inspect_shows_the_digest_and_the_format(path):
    text = render.manifest(Bundle.open(path))
    assert Bundle.open(path).digest in text
    assert (f"1 (bertport upgrade {path})" in text) is (path == OLD)
