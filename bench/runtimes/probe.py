"""Prove runtimes by golden vectors alone: run in each runtime's own environment, it needs numpy and that runtime.

    python probe.py RUNTIME < job > lines, all JSON

`bench.runtimes` starts it so, as a file (not `python -m bench.runtimes.probe`): bench is not in every environment.

The job is {bundle, variants}: a directory, and which variants are tried. The result is a line with the version, and one
for each variant as soon as it is known, so that it is known which one ends the process. What a graph must give, and how
far it may be, is all from the bundle's own files, as docs/reference/golden.md states them; nothing of bertport is
imported. Further names of a head's output, which a portable graph gives for other runtimes, are compared with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Feeds = Mapping[str, Any]
    Run = Callable[[Feeds, Sequence[str]], Sequence[Any]]

__all__ = ["OPENERS", "alias_values", "difference", "variant_of"]

LONGEST_WORDS = 300
"""Characters that are kept of what a runtime says where it refuses a graph."""
FIRST_EVALUATED, CONVERTED = 19, 21
"""The first opset whose DequantizeLinear the reference evaluator has, and that to which older graphs are converted."""
ENCODER = "encoder"
"""Name in a table for an output that is of no head."""


def onnxruntime(path: Path) -> Run:
    """Open a graph in ONNX Runtime on the CPU."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}
    return lambda feeds, names: session.run(list(names), {name: feeds[name] for name in taken})


def openvino(path: Path) -> Run:
    """Open a graph in OpenVINO itself on the CPU, in float32: it takes bfloat16 by itself where the CPU has it."""
    import openvino as ov  # type: ignore[import-not-found, unused-ignore]

    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    taken = [given.any_name for given in compiled.inputs]

    def run(feeds: Feeds, names: Sequence[str]) -> Sequence[Any]:
        values = request.infer({name: feeds[name] for name in taken})
        return [np.array(values[name]) for name in names]

    return run


def reference(path: Path) -> Run:
    """Open a graph in ONNX's reference evaluator, which is written in Python for what the standard says.

    It has no DequantizeLinear of before opset 19: a graph with such is first converted by ONNX's own converter.
    """
    import onnx
    from onnx import version_converter
    from onnx.reference import ReferenceEvaluator

    graph = onnx.load(path)
    [opset] = [entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")]
    if opset < FIRST_EVALUATED and any(node.op_type == "DequantizeLinear" for node in graph.graph.node):
        graph = version_converter.convert_version(graph, CONVERTED)
    evaluator = ReferenceEvaluator(graph)
    taken, given = [value.name for value in graph.graph.input], [value.name for value in graph.graph.output]

    def run(feeds: Feeds, names: Sequence[str]) -> Sequence[Any]:
        values = dict(zip(given, evaluator.run(None, {name: feeds[name] for name in taken}), strict=True))
        return [values[name] for name in names]

    return run


OPENERS: dict[str, Callable[[Path], Run]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "onnx.reference": reference,
}
"""By the name of the runtime's package or module."""


def difference(expected: Mapping[str, Any], values: Sequence[Any]) -> float | None:
    """Return how far an output is from its golden values at most; None for another shape, NaN or infinity.

    Args:
        expected: the output's entry in golden.json.
        values: the output for each batch.
    """
    if [list(value.shape) for value in values] != expected["shapes"]:
        return None
    far = [0.0]
    for row in expected["rows"]:
        tensor = values[row["batch"]]
        vector = tensor.reshape(-1, tensor.shape[-1])[row["row"]].astype(np.float64)
        columns = list(range(len(vector))) if row["columns"] is None else row["columns"]
        far.append(float(np.abs(vector[columns] - row["values"]).max()))
        far.append(abs(float(np.sqrt(np.mean(vector**2))) - row["rms"]))
        if 0 < row["largest"] < len(vector):
            others = np.delete(vector, columns[: row["largest"]])
            far.append(max(0.0, float(others.max()) - row["values"][row["largest"] - 1]))
    return max(far) if np.isfinite(far).all() else None


def alias_values(output: Any, aliases: Sequence[str]) -> list[Any]:  # noqa: ANN401 — an array of any runtime
    """Return what a head's further names stand for: the output itself, or one of its last columns for each name."""
    return [output] if len(aliases) == 1 else [output[..., column] for column in range(len(aliases))]


def variant_of(bundle: Path, variant: str, opened: Callable[[Path], Run]) -> dict[str, Any]:
    """Return for each output of a variant, by its name, how far it is from its golden values; or who refused, how."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    golden = json.loads((bundle / manifest["golden_vectors"]["file"]).read_bytes())
    heads = {head["output"]: name for name, head in manifest["heads"].items()}
    entry = manifest["variants"][variant]
    expected = golden["variants"][variant]["outputs"]
    named = {
        head["output"]: head["aliases"]
        for head in manifest["heads"].values()
        if entry["kind"] == "portable" and head.get("aliases")
    }
    names = [*expected, *(alias for aliases in named.values() for alias in aliases)]
    try:
        run = opened(bundle / entry["file"])
        given = [dict(zip(names, run(_feeds(batch["inputs"]), names), strict=True)) for batch in golden["batches"]]
    except Exception as error:  # noqa: BLE001 — each runtime has errors of its own
        return {"refused": _words(str(error)) or type(error).__name__}
    outputs = {}
    for output, wanted in expected.items():
        far = [difference(wanted, [batch[output] for batch in given])]
        aliases = named.get(output, ())
        for batch in given:
            far += [
                float(np.abs(batch[alias] - values).max()) if batch[alias].shape == values.shape else None
                for alias, values in zip(aliases, alias_values(batch[output], aliases), strict=True)
            ]
        known = [each for each in far if each is not None and np.isfinite(each)]
        outputs[output] = {
            "head": heads.get(output, ENCODER),
            "difference": max(known) if len(known) == len(far) else None,
            "tolerance": wanted["tolerance"],
            **({"names": list(aliases)} if aliases else {}),
        }
    return {"outputs": outputs}


def _words(said: str) -> str:
    """Return what a runtime says, without what OpenVINO has before and after its reason."""
    reason = said.rpartition("detailed log:")[2].partition("Summary:")[0]
    return " ".join(reason.split())[:LONGEST_WORDS]


def _feeds(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.array(value, dtype=np.int64) for name, value in inputs.items()}


if __name__ == "__main__":
    NAME = sys.argv[1]
    JOB = json.load(sys.stdin)
    MODULE = __import__(NAME.partition(".")[0])
    print(json.dumps({"version": str(MODULE.__version__).partition("-")[0]}), flush=True)
    for VARIANT in JOB["variants"]:
        MADE = variant_of(Path(JOB["bundle"]), VARIANT, OPENERS[NAME])
        print(json.dumps({"variant": VARIANT, **MADE}), flush=True)
