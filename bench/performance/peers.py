"""The rows of bench.performance as a worker of `bertport.measure.speed` loads them: each one way of running a model.

Its interpreter may hold nothing but what the row needs (OpenVINO's does): every row imports its own packages.
"""

from __future__ import annotations

import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.speed.loaded import Answer, Loaded
from bertport.measure.speed.workload import random_batch
from bertport.runtime.heads import HIDDEN_STATES, MLM, NSP, output_of
from bertport.runtime.providers.cpu import usable_cores
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bertport.measure.speed.workload import Shape, Texts, WorkerSpec

__all__ = ["HEADS", "PEERS", "PIPELINES", "Opening", "Padded", "Peer", "Pipelines", "open_peer", "parts"]

# What is compared of an answer: for fill-mask `token` and `score`, for next-sentence `probability` that B follows A,
# for features `vector`.
OUTPUTS = {"fill-mask": output_of(MLM), "next-sentence": output_of(NSP), "features": HIDDEN_STATES}
HEADS = [output_of(MLM), output_of(NSP)]
PIPELINES = {"fill-mask": "fill-mask", "features": "feature-extraction"}
"""Names of transformers' pipelines, by task."""
FEEDS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Settings with which a row is opened."""

    path: Path
    """Directory of what it loads."""
    variant: str | None
    """For bertport, a variant of the bundle; for others a file, where there are several."""
    provider: str
    """For bertport, a row of the runtime's table of providers."""
    precision: str | None
    """Precision that it is told to compute in; None to leave that to it."""
    threads: int
    """Threads of a stream; 0 for what it chooses."""
    streams: int
    """Batches that are worked on at once."""
    batch: int | None
    """Inputs of a batch, where several batches are worked on at once; None where bertport makes them."""

    @classmethod
    def of(cls, spec: WorkerSpec) -> Opening:
        """Read a worker's specification."""
        streams, batch = int(spec.config.get("streams", 1)), spec.config.get("batch")
        shared = streams > 1 and batch is not None
        share = max(1, int(usable_cores()) // streams)
        return cls(
            path=Path(str(spec.file)),
            variant=spec.variant,
            provider=spec.provider,
            precision=spec.config.get("precision"),
            threads=share if shared else spec.threads or 0,
            streams=streams,
            batch=int(batch) if batch else None,
        )


class Peer(Loaded):
    """One way of running a model."""

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs: one batch, but for bertport, which makes its own."""
        raise NotImplementedError

    def another(self) -> Peer:
        """Return what answers beside this one in another thread, with the same weights."""
        return self

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model alone."""
        raise NotImplementedError

    def answering(self, texts: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs."""
        return lambda inputs: self.answer(texts.task, inputs)

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the answer to each input."""
        return [answer for part in parts(texts.inputs, texts.at_once) for answer in self.answer(texts.task, part)]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        batch = random_batch(shape)
        feeds = {name: getattr(batch, name) for name in (*FEEDS, "masked_positions")}
        return lambda: self.run_forward(feeds)


class Concurrent(Peer):
    """Batches of a size, as many at once as there are streams, each on its share of the cores.

    Args:
        peer: Answers one of them.
        streams: How many.
        batch: Inputs in each.
    """

    def __init__(self, peer: Peer, streams: int, batch: int) -> None:
        self.batch = batch
        self._idle: SimpleQueue[Peer] = SimpleQueue()
        for one in (peer, *(peer.another() for _ in range(streams - 1))):
            self._idle.put(one)
        self._pool = ThreadPoolExecutor(max_workers=streams)

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs."""

        def one(part: Sequence[Any]) -> list[Answer]:
            peer = self._idle.get()
            try:
                return peer.answer(task, part)
            finally:
                self._idle.put(peer)

        return [answer for answers in self._pool.map(one, parts(inputs, self.batch)) for answer in answers]


class Ours(Peer):
    """bertport, from text to answer."""

    def __init__(self, opening: Opening) -> None:
        from bertport.runtime import load

        # Beside others of one text each, a text has its share of the cores; alone, one call has several batches.
        streams = opening.streams if opening.batch is None else 1
        self.model = load(
            opening.path,
            variant=opening.variant,
            provider=opening.provider,
            threads=opening.threads or None,
            streams=streams,
        )

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs."""
        return [_ours(task, answer) for answer in self.model.predict(task, inputs, **_parameters(task))]

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the graph, one position decoded in each row."""
        self.model.graph.run(feeds, [name for name in HEADS if name in self.model.graph.outputs])


class Bare(Ours):
    """The tokenizer and the session that bertport has, without bertport: what no runtime can do without.

    The batches are those that bertport makes, so that only its own work is left out: reading inputs, arranging them,
    and making answers of outputs.
    """

    def __init__(self, opening: Opening) -> None:
        from tokenizers import Tokenizer

        super().__init__(opening)
        self.tokenizer = Tokenizer.from_file(str(opening.path / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.mask = self.tokenizer.token_to_id("[MASK]")

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Tokenize and run; nothing is answered."""
        from bertport.runtime.batching import plan

        provider, session = self.model.graph.provider, self.model.graph.session
        if len(inputs) == 1:
            one = inputs[0]
            encodings = [self.tokenizer.encode(one) if isinstance(one, str) else self.tokenizer.encode(*one)]
        else:
            encodings = self.tokenizer.encode_batch_fast(list(inputs))
        ids = [encoding.ids for encoding in encodings]
        for batch in plan(
            [len(text_ids) for text_ids in ids], budget=provider.batch_tokens, overhead=provider.overhead_tokens
        ):
            width = len(ids[batch[0]])
            table = np.zeros((len(batch), width), dtype=np.int64)
            mask = np.zeros_like(table)
            for number, index in enumerate(batch):
                table[number, : len(ids[index])] = ids[index]
                mask[number, : len(ids[index])] = 1
            positions = np.flatnonzero(table == self.mask) if task == "fill-mask" else np.zeros(0, dtype=np.int64)
            feeds = {
                "input_ids": table,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(table),
                "masked_positions": positions,
            }
            session.run([OUTPUTS[task]], {name: feeds[name] for name in self.model.graph.inputs})
        return []


class Pipelines(Peer):
    """Models in transformers' pipelines."""

    def __init__(self, opening: Opening) -> None:
        import transformers

        transformers.logging.set_verbosity_error()  # the checkpoint holds both heads, and each model takes one
        self.opening, self.pipes = opening, {}  # type: ignore[var-annotated]  # of any task

    def made(self, task: str) -> Any:  # noqa: ANN401 — a pipeline
        """Make the pipeline of a task."""
        raise NotImplementedError

    def pipe(self, task: str) -> Any:  # noqa: ANN401 — a pipeline
        """Return the pipeline of a task, made once."""
        if task not in self.pipes:
            self.pipes[task] = self.made(task)
        return self.pipes[task]

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer one batch."""
        pipe = self.pipe(task)
        if task == "fill-mask":
            return _filled(pipe(list(inputs), batch_size=len(inputs)))
        return _pooled(pipe, inputs, pipe(list(inputs), batch_size=len(inputs), return_tensors=True))

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model of fill-mask."""
        self.pipe("fill-mask").model(**{name: feeds[name] for name in FEEDS})


class Transformers(Pipelines):
    """transformers in PyTorch: its pipelines, and for next-sentence, which has none, its model."""

    def __init__(self, opening: Opening) -> None:
        import torch

        super().__init__(opening)
        self.dtype = torch.bfloat16 if opening.precision == "bf16" else torch.float32
        if opening.threads:
            torch.set_num_threads(opening.threads)

    def made(self, task: str) -> Any:  # noqa: ANN401 — a pipeline, or a model and its tokenizer
        """Make the pipeline of a task; for next-sentence, the model and its tokenizer."""
        from transformers import AutoTokenizer, BertForNextSentencePrediction, pipeline

        path = str(self.opening.path)
        if task == "next-sentence":
            model = BertForNextSentencePrediction.from_pretrained(path, dtype=self.dtype).eval()
            return model, AutoTokenizer.from_pretrained(path)
        make: Any = pipeline  # its overloads know only literal names
        return make(PIPELINES[task], model=path, device="cpu", dtype=self.dtype)

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer one batch."""
        import torch

        if task != "next-sentence":
            return super().answer(task, inputs)
        network, tokenizer = self.pipe(task)
        given = tokenizer([a for a, _ in inputs], [b for _, b in inputs], padding=True, return_tensors="pt")
        with torch.inference_mode():
            return _followed(network(**given).logits.float().numpy())

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model with both heads."""
        import torch
        from transformers import BertForPreTraining

        if "forward" not in self.pipes:
            model = BertForPreTraining.from_pretrained(str(self.opening.path), dtype=self.dtype)
            self.pipes["forward"] = model.eval()
        with torch.inference_mode():
            self.pipes["forward"](**{name: torch.from_numpy(feeds[name]) for name in FEEDS})


class Optimum(Pipelines):
    """Optimum's ONNX Runtime models in transformers' pipelines, in fp32 or its own 8-bit preset."""

    def made(self, task: str) -> Any:  # noqa: ANN401 — a pipeline
        """Make the pipeline of a task."""
        ort = onnxruntime()
        import transformers
        from optimum.onnxruntime import (  # type: ignore[import-untyped]
            ORTModelForFeatureExtraction,
            ORTModelForMaskedLM,
        )

        kind = {"fill-mask": ORTModelForMaskedLM, "features": ORTModelForFeatureExtraction}[task]
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.opening.threads
        place = self.opening.path / task
        model = kind.from_pretrained(
            place,
            file_name=next(place.glob("*.onnx")).name,
            provider="CPUExecutionProvider",
            session_options=options,
        )
        make: Any = transformers.pipeline  # its overloads know only literal names
        return make(
            PIPELINES[task], model=model, tokenizer=transformers.AutoTokenizer.from_pretrained(self.opening.path)
        )


class Padded(Peer):
    """A graph that decodes every position, in batches padded to their longest, in the order given."""

    def __init__(self, opening: Opening) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(opening.path / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.enable_padding()
        self.mask = self.tokenizer.token_to_id("[MASK]")

    def run(self, feeds: dict[str, Any], names: Sequence[str]) -> list[Any]:
        """Run one batch; return the outputs asked for."""
        raise NotImplementedError

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer one batch."""
        encodings = self.tokenizer.encode_batch(list(inputs))
        feeds = {
            "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings], dtype=np.int64),
        }
        [values] = self.run(feeds, [OUTPUTS[task]])
        if task == "fill-mask":
            at = np.argmax(feeds["input_ids"] == self.mask, axis=1)
            return _decoded(values[np.arange(len(inputs)), at])
        if task == "next-sentence":
            return _followed(values)
        mask = feeds["attention_mask"][:, :, None]
        return [{"vector": vector.tolist()} for vector in (values * mask).sum(1) / mask.sum(1)]

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids, with the outputs of both heads."""
        self.run({name: feeds[name] for name in FEEDS}, HEADS)


class Fused(Padded):
    """ONNX Runtime as it comes, which fuses at load, on the portable graph."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = opening.threads
        path = str(opening.path / "onnx" / "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, feeds: dict[str, Any], names: Sequence[str]) -> list[Any]:
        """Run one batch."""
        values: list[Any] = self.session.run(list(names), feeds)
        return values


PEERS: dict[str, str] = {
    "bertport": "bench.performance.peers:Ours",
    "bare": "bench.performance.peers:Bare",
    "transformers": "bench.performance.peers:Transformers",
    "optimum": "bench.performance.peers:Optimum",
    "fused": "bench.performance.peers:Fused",
    "openvino": "bench.performance.openvino_peers:OpenVino",
    "openvino-plugin": "bench.performance.openvino_peers:Plugin",
    "optimum-intel": "bench.performance.openvino_peers:OptimumIntel",
    "sentence-transformers": "bench.performance.sentence_peer:SentenceTransformers",
}
"""By name: what is opened, `module:class`."""


def open_peer(spec: WorkerSpec) -> Peer:
    """Open the row that a specification names as its baseline, with what its `config` says."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # every model is in a directory
    opening = Opening.of(spec)
    module, _, name = PEERS[str(spec.baseline)].partition(":")
    peer: Peer = getattr(importlib.import_module(module), name)(opening)
    if opening.streams == 1 or opening.batch is None:
        return peer
    return Concurrent(peer, opening.streams, opening.batch)


def _parameters(task: str) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {"features": {"pooling": "mean"}, "fill-mask": {"top_k": 5}}
    return known.get(task, {})


def _ours(task: str, answer: Any) -> Answer:  # noqa: ANN401 — what the runtime answers
    if task == "fill-mask":
        return {"token": answer[0]["token"], "score": answer[0]["score"]}
    if task == "next-sentence":
        return {"probability": answer["probabilities"].get("is_next", answer["score"])}
    return {"vector": answer.tolist()}


def _filled(answers: list[Any]) -> list[Answer]:
    rows = answers if isinstance(answers[0], list) else [answers]
    return [{"token": ranked[0]["token"], "score": ranked[0]["score"]} for ranked in rows]


def _pooled(pipe: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Answer]:  # noqa: ANN401 — a pipeline
    """Average over a text's own tokens: the pipeline leaves the vectors of a batch's padding in its answers."""
    lengths = [len(ids) for ids in pipe.tokenizer(list(inputs))["input_ids"]]
    return [
        {"vector": np.asarray(output[0])[:length].mean(0).tolist()}
        for output, length in zip(outputs, lengths, strict=True)
    ]


def _softmax(values: Any) -> Any:  # noqa: ANN401 — arrays
    weights = np.exp(values - values.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _decoded(logits: Any) -> list[Answer]:  # noqa: ANN401 — an array
    best = logits.argmax(-1)
    scores = _softmax(logits)[np.arange(len(best)), best]
    return [{"token": int(token), "score": float(score)} for token, score in zip(best, scores, strict=True)]


def _followed(logits: Any) -> list[Answer]:  # noqa: ANN401 — an array
    return [{"probability": float(probabilities[0])} for probabilities in _softmax(logits)]


def parts(inputs: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the inputs in parts of a size."""
    for begin in range(0, len(inputs), size):
        yield inputs[begin : begin + size]
