"""Format 2: its manifest guards itself, and is open to what is coming in the places that say so."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bertport.runtime import load
from bertport.runtime.bundle.changes import add_variant, replace_figures, upgrade
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.bundle.reading import from_json, read_manifest
from bertport.runtime.bundle.workspace import Workspace
from bertport.runtime.errors import BundleError
from bertport.runtime.golden_making import write_golden
from tests.conftest import OLD


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest bundle, in format 2, with a variant that was not measured; copy it before changing anything."""
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
    """The content of its manifest."""
    return (small / MANIFEST).read_bytes()


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ 1 << int(bit)]) + content[place + 1 :]


def test_every_single_bit_of_a_manifest_that_changes_is_refused(value):
    whole = from_json(json.loads(value))
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
    rng = np.random.default_rng(1)
    for _ in range(60):
        (copy / MANIFEST).write_bytes(flipped(content, rng.integers(len(content)), rng.integers(8)))
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
"""Files of the small bundle that `load` reads for its variant fp32."""


@pytest.mark.slow
def test_a_thousand_bits_of_the_files_are_caught(copy, opened):
    bundle = Bundle.open(copy)
    rng, names = np.random.default_rng(2), sorted(bundle.manifest.files)
    loaded = dict.fromkeys(READ, 0)
    for _ in range(1000):
        name = str(rng.choice(names))
        path = copy / name
        content = path.read_bytes()
        path.write_bytes(flipped(content, rng.integers(len(content)), rng.integers(8)))
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


LATER = {"colour": {"of": ["a later version", 1, None]}}


def with_later(value):
    """Add what a later version may add in every open place."""
    for entry in value["inputs"].values():
        entry.update(LATER)
    value["inputs"]["position_ids"] = {"dtype": "int64", "axes": ["batch", "sequence"], "constant": 3, **LATER}
    for entry in value["heads"].values():
        entry.update(LATER)
    value["heads"]["tokens"] = {
        "output": "tags",
        "axes": ["batch", "sequence", "label"],
        "labels": ["O", "B", "I"],
        "problem_type": "iob",
        **LATER,
    }
    value["pooling"] = {"mode": "weighted", "normalize": True, **LATER}
    for entry in value["variants"].values():
        entry["requires"].update(LATER)
        entry["task_metrics"] = {"sts-b": {"spearman": 0.8, **LATER}, "further": 1}
    value["golden_vectors"] = {"file": "golden.json", **LATER, "further": {"further": 2}}


def rewritten(bundle, change):
    """Change a bundle's manifest, its digest too."""
    value = json.loads((bundle / MANIFEST).read_bytes())
    change(value)
    (bundle / MANIFEST).write_bytes(sealed(value))
    return value


def test_what_a_later_version_adds_in_the_open_places_is_ignored_and_kept(copy):
    write_golden(copy)
    value = rewritten(copy, with_later)
    assert load(copy, provider="cpu", variant="fp32").fill_mask("the [MASK]")
    bundle = Bundle.open(copy)
    assert bundle.verify() == ()
    assert bundle.manifest.to_json() | {"digest": None} == value | {"digest": None}
    fp32 = bundle.manifest.variants["fp32"]
    with Workspace.beside(bundle) as work:
        made = Path(shutil.copy(copy / fp32.file, work.directory / "copy.onnx"))
        file = work.reserve("onnx/copy.onnx")
        bundle = add_variant(work, "copy", dataclasses.replace(fp32, file=file), {file: made})
    figures = dataclasses.replace(bundle.manifest.variants["copy"], fidelity={"top1": 1.0})
    replace_figures(bundle, "copy", figures, default=lambda now: now.manifest.default_variant)
    after = json.loads((copy / MANIFEST).read_bytes())
    copied = value["variants"]["fp32"] | {"file": file, "fidelity": {"top1": 1.0}}
    assert after["variants"] == value["variants"] | {"copy": copied}
    changed = {"digest", "variants", "files"}
    assert {key: content for key, content in after.items() if key not in changed} == {
        key: content for key, content in value.items() if key not in changed
    }


CLOSED = {
    "the manifest": lambda value: value,
    "source": lambda value: value["source"],
    "architecture": lambda value: value["architecture"],
    "a variant": lambda value: value["variants"]["fp32"],
    "validation": lambda value: value["variants"]["fp32"]["validation"],
    "a file": lambda value: value["files"]["config.json"],
}


@pytest.mark.parametrize("place", CLOSED)
def test_an_unknown_key_anywhere_else_is_refused(copy, place):
    rewritten(copy, lambda value: CLOSED[place](value).update(LATER))
    with pytest.raises(BundleError, match=r"does not know \('colour'\): .*later version; update the checkout /"):
        Bundle.open(copy)


def test_an_input_that_is_known_is_constant_only_where_it_can_be(copy):
    rewritten(copy, lambda value: value["inputs"]["input_ids"].update(constant=0))
    with pytest.raises(BundleError, match="gives the input 'input_ids' the constant 0, which is not possible"):
        Bundle.open(copy)


def test_a_later_format_is_refused_with_what_to_do(copy):
    rewritten(copy, lambda value: value.update(format_version=3, anything="else"))
    with pytest.raises(BundleError, match=r"has format 3 and .* reads up to 2: update the checkout /"):
        Bundle.open(copy)


def deep(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


ODD = {
    "a key that is there twice": (
        lambda content: content.replace(b'"name"', b'"name": "other", "name"', 1),
        "there twice",
    ),
    "NaN": (lambda content: content.replace(b'"max_length": 24', b'"max_length": NaN'), "NaN is not a JSON number"),
    "infinity": (lambda content: content.replace(b'"atol": 0.0001', b'"atol": -Infinity'), "is not a JSON number"),
    "a number beyond all": (
        lambda content: content.replace(b'"atol": 0.0001', b'"atol": 1e999'),
        "1e999 is larger than any float",
    ),
    "deep nesting": (
        lambda content: content.replace(b'"fidelity": null', b'"fidelity": ' + deep(90_000), 1),
        "is not JSON",
    ),
    "nesting": (
        lambda content: content.replace(b'"fidelity": null', b'"fidelity": ' + deep(300), 1),
        "nested more than 100 levels",
    ),
    "digits": (lambda content: content.replace(b'"max_length": 24', b'"max_length": ' + b"9" * 5000), "is not JSON"),
    "more tokens than there are": (
        lambda content: content.replace(b'"max_length": 24', b'"max_length": 1000001'),
        "max_length is 1000001 tokens",
    ),
    "tokens without end": (
        lambda content: content.replace(b'"max_length": 24', b'"max_length": ' + b"9" * 4000),
        "max_length is <a number of .* bits> tokens",
    ),
    "more words than there are": (
        lambda content: re.sub(rb'"vocab_size": \d+', b'"vocab_size": 1000000000000', content),
        "vocab_size is 1000000000000 words",
    ),
    "no words": (lambda content: re.sub(rb'"vocab_size": \d+', b'"vocab_size": 0', content), "vocab_size is 0 words"),
    "half a character": (
        lambda content: content.replace(b'"name": "', b'"name": "\\ud800', 1),
        r"not Unicode text \('\\ud800tiny",
    ),
    "half a character in an open place": (
        lambda content: content.replace(b'"fidelity": null', b'"fidelity": {"a": [{"\\udfff": 1}]}', 1),
        "not Unicode text",
    ),
    "no digest": (lambda content: content.replace(b'"digest"', b'"gigest"'), "lacks its digest"),
    "a digest of another kind": (lambda content: content.replace(b'"sha256:', b'"sha512:', 1), "not as it was written"),
    "a digest in upper case": (lambda content: content.replace(b'"sha256:', b'"SHA256:', 1), "not as it was written"),
    "a digest twice": (lambda content: content.rstrip() + content[30:120], "is not JSON"),
    "a format of 2.0": (lambda content: content.replace(b'"format_version": 2', b'"format_version": 2.0'), "is not"),
    "20 MB": (lambda content: content + b" " * (20 << 20), "has more than 16,777,216 bytes"),
    "UTF-16": (lambda content: content.decode().encode("utf-16"), "is not JSON"),
    "nothing": (lambda _: b"", "is not JSON"),
}


def resealed(content):
    """Return a manifest's bytes with the digest that they have to have, however odd they are."""
    [stated] = re.findall(rb'"digest": "sha256:([0-9a-f]{64})"', content)[:1] or [b""]
    if not stated:
        return content
    return content.replace(stated, hashlib.sha256(content.replace(stated, b"0" * 64)).hexdigest().encode())


@pytest.mark.parametrize("kind", ODD)
def test_odd_manifests_are_refused_even_where_the_digest_is_right(copy, kind):
    change, said = ODD[kind]
    content = (copy / MANIFEST).read_bytes()
    changed = change(content)
    assert changed != content
    (copy / MANIFEST).write_bytes(resealed(changed))
    with pytest.raises(BundleError, match=said) as caught:
        Bundle.open(copy)
    assert len(str(caught.value)) < 1000


def test_digits_of_the_digest_that_stand_elsewhere_as_well_are_refused(value):
    assert read_manifest(value)
    digits = re.findall(rb"sha256:([0-9a-f]{64})", value)[0]
    with pytest.raises(BundleError, match="not as it was written"):
        read_manifest(resealed(value.replace(b'"tiny-0.1.0"', b'"' + digits + b'"')))


def test_a_manifest_with_zeros_where_a_hash_stands(value):
    whole = from_json(json.loads(value))
    zeros = dataclasses.replace(whole, source=dataclasses.replace(whole.source, weights_sha256={"a": "0" * 64}))
    assert read_manifest(zeros.to_bytes()).manifest == zeros
