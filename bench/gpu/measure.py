"""One row of bench.gpu, in a process of its own: speed and fidelity of one way of running one model.

    python -m bench.gpu.measure default bertport:fp16:cuda KIT      # or torch:compiled, server:fp16:cuda, peak

Each figure is a line of JSON, appended to KIT/gpu.jsonl as soon as it is there: milliseconds of fixed shapes, texts a
second of real lengths, and the difference from the fp32 variant on the CPU. `peak` is the GPU's own: its fp16 matmul.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.gpu.page import FIGURES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHAPES = ((1, 16), (1, 128), (8, 128), (128, 128), (1, 512), (8, 512))
RUNS = 50
TEXTS, TIMES = 512, 8
"""Sentences of the held-out text, and how often each is asked: fewer are one batch."""
ROUNDS = 5
"""Measurements of all of them, of which the median counts."""
FIDELITY = 64
"""Batches of one row of 64 random tokens on which outputs are compared."""
SERVED_S = 8
"""Seconds that the server is under load."""
ATTENTION = {"eager": "eager", "sdpa": "sdpa", "compiled": "sdpa"}
"""The attention of PyTorch's rows, as transformers names it: unless it is told, it takes SDPA everywhere."""
HEADS = ("logits", "seq_relationship_logits")
BEST = ("best_log_probabilities", "best_ids")
"""What the runtime fetches for fill-mask: the words chosen on the device. PyTorch's rows do the same."""

Feeds = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One way of running a model."""

    run: Callable[[Feeds, Sequence[str]], dict[str, Any]]
    """Returns outputs of a batch, on the CPU."""
    answer: Callable[[list[str]], Any]
    """Fills in the masks of texts."""


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


def bertport(variant: str, provider: str, place: Path, note: Callable[..., None]) -> Subject:
    """Open a variant on a provider; loading twice shows what an engine that is kept saves."""
    from bertport.runtime import load

    took = []
    for _ in range(2):
        began = time.perf_counter()
        model = load(place / "bundle", variant=variant, provider=provider)
        took.append(time.perf_counter() - began)
    said = model.describe()
    note(load_s=took, nodes=said["nodes"], provider_options=said["provider_options"])
    return Subject(run=model.graph.run, answer=lambda texts: list(model.predict("fill-mask", texts)))


def torch_model(how: str, place: Path) -> Subject:
    """Open the checkpoint in PyTorch, fp16, with the positions to decode gathered and words chosen as bertport does."""
    import torch
    from transformers import BertForPreTraining

    from bertport.runtime.heads import DEFAULT_TOP_K

    network: Any = BertForPreTraining.from_pretrained(
        place / "checkpoint", dtype=torch.float16, attn_implementation=ATTENTION[how]
    )
    network.cuda().eval()

    def forward(ids: Any, mask: Any, types: Any, positions: Any) -> Any:  # noqa: ANN401 — tensors
        hidden = network.bert(input_ids=ids, attention_mask=mask, token_type_ids=types)
        logits = network.cls.predictions(hidden.last_hidden_state.flatten(0, 1)[positions])
        best = logits.float().log_softmax(-1).topk(DEFAULT_TOP_K)
        return logits, network.cls.seq_relationship(hidden.pooler_output), best.values, best.indices

    called = torch.compile(forward, dynamic=True) if how == "compiled" else forward

    def run(feeds: Feeds, outputs: Sequence[str]) -> dict[str, Any]:
        names = ("input_ids", "attention_mask", "token_type_ids", "masked_positions")
        with torch.inference_mode():
            answers = called(*(torch.from_numpy(feeds[name]).cuda() for name in names))
            values = dict(zip((*HEADS, *BEST), answers, strict=True))
            return {name: (values[name].float() if name in HEADS else values[name]).cpu().numpy() for name in outputs}

    return Subject(run=run, answer=by_plan(run, place))


def by_plan(run: Callable[[Feeds, Sequence[str]], Any], place: Path) -> Callable[[list[str]], Any]:
    """Return a function that tokenizes and batches texts as bertport does on CUDA; it makes no words of ids."""
    from bertport.runtime.batching import plan
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.providers.table import PROVIDERS
    from bertport.runtime.text.tokenizer import Tokens

    tokens, row = Tokens.read(Bundle.open(place / "bundle")), PROVIDERS["cuda"]

    def answer(texts: list[str]) -> list[Any]:
        encoded: list[Any] = tokens.encode(texts)
        lengths = [len(one.ids) for one in encoded]
        batches = plan(lengths, budget=row.batch_tokens, overhead=row.overhead_tokens, most_rows=row.batch_rows)
        answers = []
        for batch in batches:
            shape = (len(batch), max(lengths[index] for index in batch))
            feeds: Feeds = {
                name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")
            }
            for number, index in enumerate(batch):
                feeds["input_ids"][number, : lengths[index]] = encoded[index].ids
                feeds["attention_mask"][number, : lengths[index]] = 1
            feeds["masked_positions"] = np.flatnonzero(feeds["input_ids"] == tokens.mask_id)
            answers.append(run(feeds, BEST))
        return answers

    return answer


def fidelity(run: Callable[[Feeds, Sequence[str]], Any], place: Path, vocabulary: int) -> dict[str, float]:
    """Compare both heads with the fp32 variant on the CPU."""
    from bertport.runtime import load

    reference = load(place / "bundle", variant="fp32", provider="cpu").graph.run
    same, kls, flips, far = [], [], [], []
    for seed in range(FIDELITY):
        feeds = feeds_of(1, 64, vocabulary, seed)
        wanted, actual = reference(feeds, HEADS), run(feeds, HEADS)
        a, b = (_log_softmax(outputs["logits"]) for outputs in (wanted, actual))
        same.append(bool((a.argmax(-1) == b.argmax(-1)).all()))
        kls.append(float((np.exp(a) * (a - b)).sum(-1).mean()))
        flips.append(bool((wanted[HEADS[1]].argmax(-1) != actual[HEADS[1]].argmax(-1)).any()))
        far.append(max(float(np.abs(wanted[name] - actual[name]).max()) for name in HEADS))
    return {
        "top1_agreement": float(np.mean(same)),
        "kl": float(np.mean(kls)),
        "nsp_flips": float(np.mean(flips)),
        "most": float(np.max(far)),
    }


def _log_softmax(values: Any) -> Any:  # noqa: ANN401 — arrays
    values = values.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def texts_of() -> list[str]:
    """Return sentences of real lengths, each with one word masked."""
    from bench.performance.inputs import inputs_of

    return [str(text) for text in inputs_of(TEXTS)["fill-mask"]] * TIMES


def measure(subject: Subject, place: Path, note: Callable[..., None]) -> None:
    """Measure one way of running a model."""
    shape = json.loads((place / "bundle" / "manifest.json").read_text(encoding="utf-8"))["architecture"]
    for rows, length in SHAPES:
        feeds = feeds_of(rows, length, shape["vocab_size"])
        for _ in range(5):
            subject.run(feeds, BEST)
        took = []
        for _ in range(RUNS):
            began = time.perf_counter()
            subject.run(feeds, BEST)  # what it gives is on the CPU, so nothing is left running
            took.append(time.perf_counter() - began)
        cost = {"ms": 1e3 * median(took), "gflops": needed(shape, rows, length) / median(took) / 1e9}
        note(shapes={f"{rows}x{length}": cost})
    texts = texts_of()
    subject.answer(texts)
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subject.answer(texts)
        took.append(time.perf_counter() - began)
    note(texts_per_s=len(texts) / median(took))
    note(fidelity=fidelity(subject.run, place, shape["vocab_size"]))


def serve(variant: str, provider: str, place: Path, note: Callable[..., None]) -> None:
    """Measure the server under load, its clients on the same machine."""
    from bench.serving import server
    from bertport.runtime.bundle.directory import Bundle

    bodies = server.make_bodies(place / "bodies.jsonl", Bundle.open(place / "bundle"))
    running = server.serve(place / "bundle", variant, "--provider", provider)
    try:
        note(server=server.under_load(running, bodies, SERVED_S, "--clients", server.CLIENTS))
    finally:
        running.stop()


def main() -> None:
    """Measure one subject of one model."""
    model, name, kit = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    place = kit if model == "default" else kit / model

    def note(**figure: object) -> None:
        with (kit / FIGURES).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": model, "row": name, **figure}) + "\n")

    kind, _, how = name.partition(":")
    variant, _, provider = how.partition(":")
    if kind == "peak":
        from bertport.runtime.providers.native import driver

        note(gpu=[f"{device.name} {device.capability}" for device in driver().devices])
        note(peak_gflops=peak_gflops())
    elif kind == "server":
        serve(variant, provider, place, note)
    else:
        subject = bertport(variant, provider, place, note) if kind == "bertport" else torch_model(how, place)
        measure(subject, place, note)
    note(done=True)


if __name__ == "__main__":
    main()
