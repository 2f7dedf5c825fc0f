"""Profile of the time of one batch, and the fixed cost of a run beside its tokens.

    python -m bench.performance.profiling BUNDLE [--variants fp32,int8-dynamic] [--seconds 4] [--threads N]

Prints one line of JSON, with the machine's lock held meanwhile (a process of bench.performance):

- `operators`: per variant, the nodes of a run of 1x128 with one position decoded, by ONNX Runtime's own profiler: how
  often each operator and shape runs, what it takes, and what it computes;
- `products`: each shape of fp32 matrix product alone in a session, which is what the kernel gives at that size;
- `cost`: per variant, the milliseconds of runs of few tokens, and the line `a + b * tokens` through them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.performance.sections import PRODUCTS, product_shape
from bertport.measure.machine import machine_lock, matmul_gflops
from bertport.measure.speed.workload import Shape, random_batch
from bertport.runtime import load
from bertport.runtime.session import open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bertport.runtime.model import Model

LENGTH = 128
COST_SHAPES = (
    (1, 8),
    (1, 12),
    (1, 16),
    (1, 24),
    (1, 32),
    (1, 48),
    (1, 64),
    (2, 12),
    (2, 16),
    (2, 24),
    (2, 32),
    (4, 16),
)
"""Rows and tokens of the batches whose time gives what a run costs: few tokens, as those that are joined have."""


def feeds_of(rows: int, length: int, vocabulary: int) -> dict[str, Any]:
    """Return random ids of one shape, with one position decoded in each row."""
    return dataclasses.asdict(random_batch(Shape(rows=rows, length=length, vocabulary=vocabulary)))


def cost(model: Model, seconds: float) -> dict[str, Any]:
    """Time runs of few tokens in turns, and put a line through their medians."""
    vocabulary = model.bundle.manifest.architecture.vocab_size
    batches = {shape: feeds_of(*shape, vocabulary) for shape in COST_SHAPES}
    took: dict[tuple[int, int], list[float]] = {shape: [] for shape in batches}
    for feeds in batches.values():  # warm up
        model.graph.run(feeds, ["logits"])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not took[COST_SHAPES[-1]]:
        for shape, feeds in batches.items():
            began = time.perf_counter()
            model.graph.run(feeds, ["logits"])
            took[shape].append(1e3 * (time.perf_counter() - began))
    medians = np.array([np.median(times) for times in took.values()])
    tokens = np.array([rows * length for rows, length in took], dtype=float)
    # Relative errors: a long run must not outweigh the short ones that matter here.
    table = np.stack([np.ones_like(tokens), tokens], axis=1) / medians[:, None]
    (fixed, per_token), *_ = np.linalg.lstsq(table, np.ones_like(medians), rcond=None)
    return {
        "runs": len(took[COST_SHAPES[-1]]),
        "ms": [[*shape, float(value)] for shape, value in zip(took, medians, strict=True)],
        "fixed_ms": float(fixed),
        "ms_per_token": float(per_token),
        "overhead_tokens": float(fixed / per_token),
    }


def operators(path: Path, feeds: dict[str, Any], *, seconds: float, threads: int) -> list[dict[str, Any]]:
    """Run a graph under ONNX Runtime's profiler; return its nodes by operator and shapes, the slowest first."""
    options = session_options(threads=threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as place:
        options.profile_file_prefix = str(Path(place) / "profile")
        session = open_session(path, options)
        given = {argument.name: feeds[argument.name] for argument in session.get_inputs()}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            session.run(["logits"], given)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return summed(events)


def summed(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum a profile's nodes by operator and shapes: per run how many, the sum of their median times, and their work."""
    nodes: dict[str, list[float]] = {}
    facts: dict[str, tuple[str, tuple[tuple[int, ...], ...]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.setdefault(event["name"], []).append(event["dur"] / 1e3)
            given, gives = (event["args"][f"{side}_type_shape"] for side in ("input", "output"))
            shapes = tuple(tuple(*tensor.values()) for tensor in (*given, *gives[:1]))
            facts[event["name"]] = event["args"]["op_name"], shapes
    rows: dict[tuple[str, tuple[tuple[int, ...], ...]], dict[str, Any]] = {}
    for name, took in nodes.items():
        operator, shapes = facts[name]
        flops = operations(operator, shapes)
        key = operator, shapes if flops else ()
        summary = rows.setdefault(key, {"operator": operator, "shapes": key[1], "count": 0, "ms": 0.0, "flops": 0.0})
        summary["count"] += 1
        summary["ms"] += float(np.median(took))
        summary["flops"] += flops
    return sorted(rows.values(), key=lambda summary: -summary["ms"])


def operations(operator: str, shapes: Sequence[Sequence[int]]) -> float:
    """Count a node's floating-point operations as `bench.performance.report.needed` does; 0 for what is no product.

    Args:
        operator: its name.
        shapes: of its inputs, without the weights that ONNX Runtime packed, and of its first output.
    """
    if operator in PRODUCTS:
        return 2.0 * float(np.prod(shapes[-1])) * shapes[0][-1]  # no left matrix is transposed here
    if operator == "MultiHeadAttention":
        rows, length, width = shapes[-1]
        return 4.0 * rows * length**2 * width
    return 0.0


def products(rows: Sequence[dict[str, Any]], *, threads: int) -> list[dict[str, Any]]:
    """Measure each weight's product alone, at the shapes that a profile lists."""
    shapes = dict.fromkeys(shape for operator in rows if (shape := product_shape(operator)))
    return [{"shape": shape, "gflops": matmul_gflops(*shape, threads=threads or None, seconds=0.5)} for shape in shapes]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variants", default="fp32")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    profile: dict[str, Any] = {"operators": {}, "cost": {}, "products": []}
    with machine_lock():
        for variant in given.variants.split(","):
            model = load(given.bundle, variant=variant, provider="cpu", threads=given.threads or None)
            profile["cost"][variant] = cost(model, given.seconds)
            file = model.bundle.path / model.bundle.manifest.variants[variant].file
            feeds = feeds_of(1, LENGTH, model.bundle.manifest.architecture.vocab_size)
            del model  # no other session beside the one that is profiled
            profile["operators"][variant] = operators(file, feeds, seconds=given.seconds, threads=given.threads)
        if "fp32" in profile["operators"]:
            profile["products"] = products(profile["operators"]["fp32"], threads=given.threads)
    print(json.dumps(profile))


if __name__ == "__main__":
    main()
