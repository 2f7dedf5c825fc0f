"""Search for the cause of INT8's other logits in a browser: each value of the graph there beside its value here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.node import packages
from bertport.runtime import load
from bertport.runtime.session import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["feeds", "trace"]

HERE = Path(__file__).parent
TEXT = "The capital of France is [MASK]."
VARIANT = "int8-dynamic"


def trace(bundle: Path, package: Path, directory: Path) -> dict[str, Any]:
    """Return where the values of `int8-dynamic` on onnxruntime-web part from those of this machine's ONNX Runtime.

    Args:
        bundle: the default bundle.
        package: directory of onnxruntime-web.
        directory: an empty one, for the graph with every value as an output.

    Returns:
        The first value that differs and by how much, how many of the 8-bit activations are another step, the first of
        these, how far the products are from those of NumPy on the browser's own inputs, and how far the logits are.
    """
    import onnx
    from onnx import numpy_helper

    variant = load(bundle).bundle.manifest.variants[VARIANT]
    files = [bundle / variant.file, *(bundle / path for path in variant.external_data)]
    model = onnx.load(files[0])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    graph = onnx.load(files[0], load_external_data=False)
    have = {output.name for output in graph.graph.output}
    made = [(name, node.op_type) for node in graph.graph.node for name in node.output if name]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name, _ in made if name not in have)
    traced = directory / "traced.onnx"
    onnx.save(graph, traced)
    for file in files[1:]:
        (directory / file.name).write_bytes(file.read_bytes())
    given = feeds(load(bundle).tokens, TEXT)
    ours = _here(traced, given)
    asked = {
        "model": str(traced),
        "external": [str(directory / file.name) for file in files[1:]],
        "feeds": {name: {"data": value.ravel().tolist(), "dims": list(value.shape)} for name, value in given.items()},
    }
    said = json.loads(packages.run(HERE, "node", "trace.mjs", str(package), standard_input=json.dumps(asked)))
    theirs = {name: np.array(value["data"]).reshape(value["dims"]) for name, value in said.items()}
    apart = [(name, kind, _far(theirs[name], ours[name])) for name, kind in made if name in theirs and name in ours]
    first = next(row for row in apart if row[2] > 0)
    steps = [
        (name, int((theirs[name] != ours[name]).sum()), int(ours[name].size))
        for name, kind in made
        if kind == "QuantizeLinear"
    ]
    moved = next(row for row in steps if row[1])
    return {
        "text": TEXT,
        "first": {"value": first[0], "operator": first[1], "difference": first[2]},
        "first_step": {"value": moved[0], "other": moved[1], "of": moved[2]},
        "steps": {"other": sum(row[1] for row in steps), "of": sum(row[2] for row in steps)},
        "products_from_numpy": _products(graph, weights, theirs),
        "logits": _far(theirs["logits"], ours["logits"]),
    }


def feeds(tokens: Tokens, text: str) -> dict[str, NDArray[np.int64]]:
    """Return the inputs of a graph for one text."""
    [encoded] = tokens.encode([text], truncation=True)
    ids = np.array([encoded.ids.tolist()])  # type: ignore[union-attr]  # the text fits
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        "masked_positions": np.flatnonzero(ids[0] == tokens.mask_id),
    }


def _here(model: Path, given: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    taken = {argument.name: given[argument.name] for argument in session.get_inputs()}
    return dict(zip(names, session.run(names, taken), strict=True))


def _far(theirs: NDArray[Any], ours: NDArray[Any]) -> float:
    return float(np.abs(theirs - ours.astype(float)).max()) if ours.size else 0.0


def _products(graph: Any, weights: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]) -> float:  # noqa: ANN401 — onnx's ModelProto
    """Return how far products are from exact ones of their own inputs, in shares of the largest of each."""
    worst = 0.0
    for node in graph.graph.node:
        if node.op_type != "MatMulIntegerToFloat":
            continue
        names = [*node.input, *[""] * 8]
        a, b, a_scale, b_scale, a_zero, b_zero, bias = (
            (weights[name] if name in weights else theirs[name]) if name else np.array(0) for name in names[:7]
        )
        exact = (a.astype(int) - a_zero.astype(int)) @ (b.astype(int) - b_zero.astype(int))
        product = exact * (a_scale.astype(float) * b_scale) + bias
        got = theirs[node.output[0]]
        worst = max(worst, float(np.abs(product - got).max() / np.abs(got).max()))
    return worst
