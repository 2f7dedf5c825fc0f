"""One row of bench.gpu, in a process of its own: speed and fidelity of one way of running the default model.

    python -m bench.gpu.measure bertport:fp16:cuda KIT      # or torch:eager, torch:compiled

Prints one line of JSON: milliseconds of fixed shapes, the share of the measured fp16 matmul peak, and the difference
from the fp32 variant on the CPU.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ((1, 16), (1, 128), (8, 128), (64, 128), (1, 512), (32, 512))
RUNS = 50
FIDELITY = 64
"""Batches of one row of 64 random tokens on which outputs are compared."""

Feeds = dict[str, Any]


def feeds_of(rows: int, length: int, vocabulary: int, seed: int = 0) -> Feeds:
    """Draw ids; one position is decoded in each row."""
    ids = np.random.default_rng(seed).integers(1000, vocabulary, size=(rows, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
        "masked_positions": np.arange(rows) * length + 1,
    }


def needed(shape: dict[str, Any], rows: int, length: int) -> float:
    """Count the floating-point operations of a batch with one position decoded in each row."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    encoder = length * shape["layers"] * (8 * hidden**2 + 4 * hidden * inner + 4 * length * hidden)
    return float(rows * (encoder + 2 * hidden**2 + 2 * hidden * shape["vocab_size"]))


def peak_gflops() -> float:
    """Measure the GPU's fp16 matmul peak."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    fastest = float("inf")
    for _ in range(30):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.mm(a, b)
        torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * 8192**3 / fastest / 1e9


def bertport(variant: str, provider: str, kit: Path) -> tuple[Callable[[Feeds, list[str]], Any], dict[str, Any]]:
    """Open a variant on a provider; loading twice shows what an engine that is kept saves."""
    from bertport.runtime import load

    took = []
    for _ in range(2):
        began = time.perf_counter()
        model = load(kit / "bundle", variant=variant, provider=provider)
        took.append(time.perf_counter() - began)
    said = model.describe()
    return model.graph.run, {"load_s": took, "nodes": said["nodes"], "provider_options": said["provider_options"]}


def torch_model(how: str, kit: Path) -> tuple[Callable[[Feeds, list[str]], Any], dict[str, Any]]:
    """Open the checkpoint in PyTorch, fp16, with the positions to decode gathered as bertport does."""
    import torch
    from transformers import BertForPreTraining

    network: Any = BertForPreTraining.from_pretrained(kit / "checkpoint", dtype=torch.float16)
    network.cuda().eval()

    def forward(ids: Any, mask: Any, types: Any, positions: Any) -> Any:  # noqa: ANN401 — tensors
        hidden = network.bert(ids, mask, types)
        chosen = hidden.last_hidden_state.flatten(0, 1)[positions]
        return network.cls.predictions(chosen), network.cls.seq_relationship(hidden.pooler_output)

    called = torch.compile(forward, dynamic=True) if how == "compiled" else forward

    def run(feeds: Feeds, outputs: list[str]) -> dict[str, Any]:
        del outputs
        names = ("input_ids", "attention_mask", "token_type_ids", "masked_positions")
        with torch.inference_mode():
            answers = called(*(torch.from_numpy(feeds[name]).cuda() for name in names))
            logits, pair = (tensor.float().cpu().numpy() for tensor in answers)
        return {"logits": logits, "seq_relationship_logits": pair}

    return run, {}


def fidelity(run: Callable[[Feeds, list[str]], Any], kit: Path, vocabulary: int) -> dict[str, float]:
    """Compare both heads with the fp32 variant on the CPU."""
    from bertport.runtime import load

    reference = load(kit / "bundle", variant="fp32", provider="cpu").graph.run
    names = ["logits", "seq_relationship_logits"]
    same, kls, flips = [], [], []
    for seed in range(FIDELITY):
        feeds = feeds_of(1, 64, vocabulary, seed)
        wanted, actual = reference(feeds, names), run(feeds, names)
        a, b = (_log_softmax(outputs["logits"]) for outputs in (wanted, actual))
        same.append(bool((a.argmax(-1) == b.argmax(-1)).all()))
        kls.append(float((np.exp(a) * (a - b)).sum(-1).mean()))
        flips.append(bool((wanted[names[1]].argmax(-1) != actual[names[1]].argmax(-1)).any()))
    return {"top1_agreement": float(np.mean(same)), "kl": float(np.mean(kls)), "nsp_flips": float(np.mean(flips))}


def _log_softmax(values: Any) -> Any:  # noqa: ANN401 — arrays
    values = values.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def main() -> None:
    """Measure one subject."""
    from bertport.runtime.providers.native import driver

    kind, how, *on = sys.argv[1].split(":")
    kit = Path(sys.argv[2])
    manifest = json.loads((kit / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    shape = manifest["architecture"]
    run, facts = bertport(how, on[0], kit) if kind == "bertport" else torch_model(how, kit)
    names = ["logits", "seq_relationship_logits"]
    # What the runtime fetches for fill-mask: the words chosen on the device.
    fetched = ["best_ids", "best_log_probabilities"] if kind == "bertport" else names
    times = {}
    for rows, length in SHAPES:
        feeds = feeds_of(rows, length, shape["vocab_size"])
        for _ in range(5):
            run(feeds, fetched)
        took = []
        for _ in range(RUNS):
            began = time.perf_counter()
            run(feeds, fetched)  # what it gives is on the CPU, so nothing is left running
            took.append(time.perf_counter() - began)
        times[f"{rows}x{length}"] = {
            "ms": 1e3 * median(took),
            "gflops": needed(shape, rows, length) / median(took) / 1e9,
        }
    result = {
        "gpu": [f"{device.name} {device.capability}" for device in driver().devices],
        "shapes": times,
        "peak_gflops": peak_gflops(),
        "fidelity": fidelity(run, kit, shape["vocab_size"]),
        **facts,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
