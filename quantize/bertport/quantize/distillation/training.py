"""Training a quantized graph's vectors against fp32's outputs, without labels."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from bertport.measure.quality.model import make_batch
from bertport.quantize.distillation.executor import TorchGraph
from bertport.quantize.graph.vectors import read_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    import torch
    from numpy.typing import NDArray

    from bertport.measure.quality.model import Graph
    from bertport.measure.quality.samples import Sample
    from bertport.quantize.deadline import Progress
    from bertport.quantize.distillation.distances import Distances

    Vectors = Mapping[str, NDArray[np.float32]]

__all__ = ["batches", "train_vectors"]

TEXTS = 16
"""Samples of a batch."""
POOLED = 32
"""Batches among whose samples those of like length are put together."""
RATE = 3e-4
"""Learning rate of the first step, as a share of the root of a vector's mean square; it falls to 0 by a cosine.
Rounding leaves an error of 4% in the default model's hidden states: steps of 0.001, more than a hundredth of most
vectors, added more than training took away (40 steps: KL 0.0013 to 0.0022)."""
LEAST_SIZE = 0.01
"""The root of the mean square that a vector is taken to have at least: one of zeros is trained as well."""
FIRST = 4
"""Batches of each kind by which the distances before training are known."""


def batches(samples: Sequence[Sample], seed: int) -> Iterator[list[Sample]]:
    """Yield batches of one kind and of like lengths without end, each sample once before any comes again.

    Args:
        samples: At least one.
        seed: The same seed and samples give the same batches.
    """
    rng = np.random.default_rng(seed)
    while True:
        drawn = [samples[number] for number in rng.permutation(len(samples))]
        for begin in range(0, len(drawn), POOLED * TEXTS):
            pool = sorted(drawn[begin : begin + POOLED * TEXTS], key=lambda one: (one.kind, len(one.input_ids)))
            cuts = [start for start in range(1, len(pool)) if pool[start].kind != pool[start - 1].kind]
            parts = [
                pool[start : min(start + TEXTS, end)]
                for first, end in zip([0, *cuts], [*cuts, len(pool)], strict=True)
                for start in range(first, end, TEXTS)
            ]
            for number in rng.permutation(len(parts)):
                yield parts[number]


def train_vectors(  # noqa: PLR0913 — what is trained, by what, and for how long
    model: onnx.ModelProto,
    reference: Graph,
    samples: Sequence[Sample],
    distances: Distances,
    *,
    steps: int,
    seed: int,
    progress: Progress,
    rate: float = RATE,
) -> dict[str, NDArray[np.float32]]:
    """Return a graph's vectors after so many steps of Adam, by name.

    What is lowered is the sum of the heads' distances, each as a share of what it was before.

    Args:
        model: The graph; it is not changed.
        reference: fp32.
        samples: What to train on.
        distances: Of the bundle's heads.
        steps: How many.
        seed: Of the order of the samples. The same seed gives the same vectors on the same machine.
        progress: Told of what is done and of how much.
        rate: The learning rate to begin with, as a share of each vector's size.
    """
    import torch

    graph = TorchGraph(model, read_vectors(model))
    before = _before(graph, reference, samples, distances, seed)
    sizes = [max(float(value.detach().square().mean()) ** 0.5, LEAST_SIZE) for value in graph.parameters.values()]
    groups = [{"params": [value]} for value in graph.parameters.values()]
    optimizer = torch.optim.Adam(groups, lr=rate, betas=(0.9, 0.99))
    for step, batch in zip(range(steps), batches(samples, seed), strict=False):
        for group, size in zip(optimizer.param_groups, sizes, strict=True):
            group["lr"] = rate * size * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        shares = [values.mean() / before[name] for name, values in _compare(graph, reference, batch, distances).items()]
        torch.stack(shares).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress("training biases and LayerNorm against fp32", step + 1, steps)
    return {name: value.detach().numpy().copy() for name, value in graph.parameters.items()}


def _before(
    graph: TorchGraph, reference: Graph, samples: Sequence[Sample], distances: Distances, seed: int
) -> dict[str, float]:
    """Return the distances before training, by row of the table of heads, on some batches of each kind."""
    import torch

    left = dict.fromkeys((sample.kind for sample in samples), FIRST)
    seen: dict[str, list[torch.Tensor]] = {}
    least = float(np.finfo(np.float32).tiny)
    with torch.no_grad():
        for batch in batches(samples, seed):
            if not any(left.values()):
                break
            if left[batch[0].kind]:
                left[batch[0].kind] -= 1
                for name, values in _compare(graph, reference, batch, distances).items():
                    seen.setdefault(name, []).append(values.flatten())
    return {name: max(float(torch.cat(values).mean()), least) for name, values in seen.items()}


def _compare(
    graph: TorchGraph, reference: Graph, batch: Sequence[Sample], distances: Distances
) -> dict[str, torch.Tensor]:
    """Run both on a batch; return the distances by row of the table of heads."""
    import torch

    fed, names = make_batch(batch), distances.outputs(batch)
    expected = {name: torch.from_numpy(np.array(value)) for name, value in reference.run(fed, names).items()}
    found = dict(zip(names, graph.run(dataclasses.asdict(fed), names), strict=True))
    return distances.between(expected, found, batch, torch.from_numpy(fed.attention_mask).bool())
