"""The tiny bundle loaded, and transformers' own pipeline on the same checkpoint."""

from __future__ import annotations

import hashlib
import json

import pytest

from bertport.runtime.bundle.digest import sealed


@pytest.fixture(scope="session")
def model(tiny_bundle):
    """The runtime on the tiny bundle."""
    from bertport.runtime import load

    return load(tiny_bundle)


@pytest.fixture(scope="session")
def pipe(tiny_checkpoint):
    """The pipeline whose answers ours have to equal, in PyTorch on the checkpoint."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(1)  # one sentence of a tiny model: more threads only wait for each other
    return pipeline("fill-mask", model=str(tiny_checkpoint), device="cpu")


@pytest.fixture
def edited(tiny_bundle, tmp_path):
    """A function that gives a copy of the tiny bundle whose manifest was changed by another."""
    import shutil

    def copy(change=None):
        target = tmp_path / f"edited-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny_bundle, target)
        if change is not None:
            path = target / "manifest.json"
            manifest = json.loads(path.read_text(encoding="utf-8"))
            change(manifest)
            path.write_bytes(sealed(manifest))
        return target

    return copy


@pytest.fixture
def rewritten(edited):
    """A function that gives a copy of the tiny bundle whose files were replaced, with hashes to match."""

    def copy(**contents):
        names = {
            name.replace("_json", ".json"): text if isinstance(text, bytes) else text.encode()
            for name, text in contents.items()
        }

        def record(manifest):
            for name, content in names.items():
                manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

        bundle = edited(record)
        for name, content in names.items():
            (bundle / name).write_bytes(content)
        return bundle

    return copy


@pytest.fixture
def characters(monkeypatch):
    """The numbers of characters that the tokenizer is given, in a list that grows with each reading."""
    from bertport.runtime.text.reader import Reader

    counts = []
    read = Reader.read

    def note(reader):
        before = reader.at
        answer = read(reader)
        counts.append(reader.at - before)
        return answer

    monkeypatch.setattr(Reader, "read", note)
    return counts
