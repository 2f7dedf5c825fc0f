"""Copies of a bundle that are wrong in one way, with hashes that fit: what damage, or a bad checkpoint, looks like."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from bertport.runtime.bundle.digest import sealed

TOKENIZER = "tokenizer.json"
GRAPH = "onnx/model.onnx"


def copied(bundle, target, *, manifest=None, **files):
    """Return a copy of a bundle: `manifest` changes its manifest in place, and each other argument a file.

    A file is named by its path with `_` for what no name may have, and changed by a function from bytes to bytes.
    """
    shutil.copytree(bundle, target)
    path = target / "manifest.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    for alias, change in files.items():
        name = next(each for each in known["files"] if alias == each.replace("/", "_").replace(".", "_"))
        content = change((target / name).read_bytes())
        (target / name).write_bytes(content)
        known["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if manifest is not None:
        manifest(known)
    path.write_bytes(sealed(known))
    return target


def edited_json(change):
    """Return a function that changes JSON in a file."""

    def edit(content):
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return edit


def without_template(value):
    """Remove the post-processor, and so the special tokens: so `BertWordPieceTokenizer().train().save()` writes it."""
    value["post_processor"] = None


def without_vocabulary(value):
    """A vocabulary of nothing."""
    value["model"]["vocab"] = {}
    value["added_tokens"] = []


def not_a_number(weight, rows=slice(None)):
    """Return a function that makes a weight of a graph NaN, in all of its rows or some, and moves no other byte."""

    def edit(content):
        import onnx
        from onnx import numpy_helper

        graph = onnx.load_from_string(content).graph
        [tensor] = [each for each in graph.initializer if each.name.endswith(weight)]
        assert content.count(tensor.raw_data) == 1
        values = numpy_helper.to_array(tensor).copy()
        values[rows] = np.nan
        return content.replace(tensor.raw_data, values.tobytes())

    return edit


def longer(manifest):
    """More positions than the graph has."""
    manifest["max_length"] = 900


BROKEN = {
    "a length beyond the positions": {"manifest": longer},
    "a tokenizer that is not UTF-8": {"tokenizer_json": lambda content: content.replace(b'"[MASK]"', b'"[M\xffSK]"')},
    "an empty vocabulary": {"tokenizer_json": edited_json(without_vocabulary)},
    "a tokenizer of nothing": {"tokenizer_json": lambda _: b"{}"},
    "a graph that is none": {"onnx_model_serving_onnx": lambda _: b"no graph"},
    "a graph cut short": {"onnx_model_serving_onnx": lambda content: content[: len(content) // 2]},
    "weights that are no numbers": {"onnx_model_onnx": not_a_number("cls.predictions.bias")},
    "a late position that is no number": {
        "onnx_model_onnx": not_a_number("position_embeddings.weight", slice(100, None))
    },
}
"""Bundles that can be opened and cannot be served, by what is wrong with them: arguments of `copied`."""
__all__ = ["BROKEN", "GRAPH", "TOKENIZER", "Path", "copied", "edited_json", "not_a_number", "without_template"]
