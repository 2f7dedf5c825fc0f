"""Checkpoints in every form that is read, made from the tiny one."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """Return a copy of the tiny checkpoint, to be changed."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def change_weights() -> Callable:
    """Return a function that rewrites a checkpoint's safetensors through a function of its dict of tensors."""
    from safetensors.torch import load_file, save_file

    def change(directory: Path, function: Callable) -> None:
        path = directory / "model.safetensors"
        tensors = function(load_file(path))
        path.unlink()
        save_file(
            {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"}
        )

    return change


@pytest.fixture
def change_config() -> Callable:
    """Return a function that sets and removes (None) entries of a JSON file of a checkpoint."""

    def change(directory: Path, file: str = "config.json", **entries: object) -> None:
        path = directory / file
        value = json.loads(path.read_text()) if path.exists() else {}
        value.update(entries)
        path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))

    return change


@pytest.fixture
def run_graph() -> Callable:
    """Return a function that runs a graph file and names its outputs."""
    import onnxruntime

    def run(path: Path, feeds: dict) -> dict:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return dict(zip((output.name for output in session.get_outputs()), session.run(None, feeds), strict=True))

    return run
