"""An image that was kept is measured again only as the image of its own commit."""

from __future__ import annotations

import json

import pytest

from bench import image

LAYERS = [100, 20, 3]
"""Compressed bytes of the layers of the image that the fixture makes."""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The commands that are run: none of them is, and the one that pushes leaves an image of three layers."""
    ran = []

    def call(*command, isolation=""):
        ran.append((*command, isolation))
        if "push" in command:
            blobs = tmp_path / "made" / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            (blobs / "1").write_text(json.dumps({"layers": [{"size": size} for size in LAYERS]}), encoding="utf-8")
            index = json.dumps({"manifests": [{"digest": "sha256:1"}]})
            (tmp_path / "made" / "index.json").write_text(index, encoding="utf-8")

    monkeypatch.setattr(image, "PLACE", tmp_path)
    monkeypatch.setattr(image, "_call", call)
    return ran


def test_an_image_of_another_commit_is_made_again(commands, tmp_path, monkeypatch):
    build = image._image  # noqa: SLF001 — the rest of the program needs root and a container
    monkeypatch.setattr(image, "commit", lambda: "a" * 40)
    assert build(tmp_path / "base.tar") == LAYERS
    once = len(commands)
    assert once > 0
    starting = [number for number, command in enumerate(commands) if "from" in command]
    assert "rm" in commands[starting[0] - 1]  # a container of that name, which a failed build has left
    assert build(tmp_path / "base.tar") == LAYERS
    assert len(commands) == once  # it was kept
    monkeypatch.setattr(image, "commit", lambda: "b" * 40)
    assert build(tmp_path / "base.tar") == LAYERS
    assert len(commands) == 2 * once


def test_an_image_of_no_known_commit_is_made_again(commands, tmp_path, monkeypatch):
    build = image._image  # noqa: SLF001 — as above
    monkeypatch.setattr(image, "commit", lambda: "a" * 40)
    build(tmp_path / "base.tar")
    once = len(commands)
    (tmp_path / "made-of").unlink()
    build(tmp_path / "base.tar")
    assert len(commands) == 2 * once
