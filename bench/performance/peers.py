"""The rows of bench.performance as a worker of `bertport.measure.speed` loads them: each one way of running a model.

Its interpreter may hold nothing but what the row needs (OpenVINO's does): every row imports its own packages.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.speed.loaded import Answer, Loaded
from bertport.measure.speed.workload import random_batch
from bertport.runtime.heads import HIDDEN_STATES, MLM, NSP, output_of
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bertport.measure.speed.workload import Shape, Texts, WorkerSpec

__all__ = ["PEERS", "open_peer"]

# What is compared of an answer: for fill-mask `token` and `score`, for next-sentence `probability` that B follows A,
# for features `vector`.
OUTPUTS = {"fill-mask": output_of(MLM), "next-sentence": output_of(NSP), "features": HIDDEN_STATES}
HEADS = [output_of(MLM), output_of(NSP)]
FEEDS = ("input_ids", "attention_mask", "token_type_ids")


class Peer(Loaded):
    """One way of running a model."""

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs."""
        raise NotImplementedError

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model alone."""
        raise NotImplementedError

    def answering(self, texts: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs."""
        return lambda inputs: self.answer(texts.task, inputs)

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the answer to each input."""
        return self.answer(texts.task, texts.inputs)

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        batch = random_batch(shape)
        feeds = {name: getattr(batch, name) for name in (*FEEDS, "masked_positions")}
        return lambda: self.run_forward(feeds)


class Ours(Peer):
    """bertport, from text to answer."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        from bertport.runtime import load

        self.model = load(model, variant=variant, provider="cpu", threads=threads or None)

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

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        from tokenizers import Tokenizer

        super().__init__(model, variant, threads)
        self.tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
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


class Transformers(Peer):
    """transformers in PyTorch: its pipelines, and for next-sentence, which has none, its model."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()  # the checkpoint holds both heads, and each model takes one
        if threads:
            torch.set_num_threads(threads)
        self.path, self.pipes, self.batch = model, {}, int(variant or 1)  # type: ignore[var-annotated]  # of any task

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs in batches of the size asked for."""
        import torch
        from transformers import AutoTokenizer, BertForNextSentencePrediction, pipeline

        if task == "next-sentence":
            if task not in self.pipes:
                self.pipes[task] = (
                    BertForNextSentencePrediction.from_pretrained(self.path).eval(),
                    AutoTokenizer.from_pretrained(self.path),
                )
            network, tokenizer = self.pipes[task]
            answers: list[Answer] = []
            for part in _parts(inputs, self.batch):
                given = tokenizer([a for a, _ in part], [b for _, b in part], padding=True, return_tensors="pt")
                with torch.inference_mode():
                    answers += _followed(network(**given).logits.numpy())
            return answers
        names = {"fill-mask": "fill-mask", "features": "feature-extraction"}
        if task not in self.pipes:
            make: Any = pipeline  # its overloads know only literal names
            self.pipes[task] = make(names[task], model=self.path, device="cpu")
        pipe = self.pipes[task]
        if task == "fill-mask":
            return _filled(pipe(list(inputs), batch_size=self.batch))
        return _pooled(pipe, inputs, pipe(list(inputs), batch_size=self.batch, return_tensors=True))

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model with both heads."""
        import torch
        from transformers import BertForPreTraining

        if "forward" not in self.pipes:
            self.pipes["forward"] = BertForPreTraining.from_pretrained(self.path).eval()
        with torch.inference_mode():
            self.pipes["forward"](**{name: torch.from_numpy(feeds[name]) for name in FEEDS})


class Optimum(Peer):
    """Optimum's ONNX Runtime models in transformers' pipelines, in fp32 or its own 8-bit preset."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        self.path, self.threads, self.batch = Path(model), threads, int(variant or 1)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.pipes: dict[str, Any] = {}

    def pipe(self, task: str) -> Any:  # noqa: ANN401 — a pipeline
        """Open the pipeline of a task, once."""
        ort = onnxruntime()
        import transformers
        from optimum.onnxruntime import (  # type: ignore[import-untyped]
            ORTModelForFeatureExtraction,
            ORTModelForMaskedLM,
        )

        if task not in self.pipes:
            kind = {"fill-mask": ORTModelForMaskedLM, "features": ORTModelForFeatureExtraction}[task]
            options = ort.SessionOptions()
            options.intra_op_num_threads = self.threads
            file = next((self.path / task).glob("*.onnx")).name
            opened = kind.from_pretrained(
                self.path / task, file_name=file, provider="CPUExecutionProvider", session_options=options
            )
            name = {"features": "feature-extraction"}.get(task, task)
            make: Any = transformers.pipeline  # its overloads know only literal names
            self.pipes[task] = make(name, model=opened, tokenizer=self.tokenizer)
        return self.pipes[task]

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs in batches of the size asked for."""
        pipe = self.pipe(task)
        if task == "fill-mask":
            return _filled(pipe(list(inputs), batch_size=self.batch))
        return _pooled(pipe, inputs, pipe(list(inputs), batch_size=self.batch, return_tensors=True))

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model of fill-mask."""
        self.pipe("fill-mask").model(**{name: feeds[name] for name in FEEDS})


class _Padded(Peer):
    """A graph that decodes every position, in batches padded to their longest, in the order given."""

    def __init__(self, model: str, variant: str | None) -> None:
        from tokenizers import Tokenizer

        self.batch = int(variant or 1)
        self.tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.enable_padding()
        self.mask = self.tokenizer.token_to_id("[MASK]")

    def run(self, feeds: dict[str, Any], names: Sequence[str]) -> list[Any]:
        raise NotImplementedError

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs in batches of the size asked for."""
        answers: list[Answer] = []
        for part in _parts(inputs, self.batch):
            encodings = self.tokenizer.encode_batch(list(part))
            feeds = {
                "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
                "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
                "token_type_ids": np.array([encoding.type_ids for encoding in encodings], dtype=np.int64),
            }
            [values] = self.run(feeds, [OUTPUTS[task]])
            if task == "fill-mask":
                at = np.argmax(feeds["input_ids"] == self.mask, axis=1)
                answers += _decoded(values[np.arange(len(part)), at])
            elif task == "next-sentence":
                answers += _followed(values)
            else:
                mask = feeds["attention_mask"][:, :, None]
                answers += [{"vector": vector.tolist()} for vector in (values * mask).sum(1) / mask.sum(1)]
        return answers

    def run_forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids, with the outputs of both heads."""
        self.run({name: feeds[name] for name in FEEDS}, HEADS)


class Fused(_Padded):
    """ONNX Runtime as it comes, which fuses at load, on the portable graph."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        super().__init__(model, variant)
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        path = str(Path(model) / "onnx" / "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, feeds: dict[str, Any], names: Sequence[str]) -> list[Any]:
        """Run one batch."""
        values: list[Any] = self.session.run(list(names), feeds)
        return values


class OpenVino(_Padded):
    """OpenVINO itself on the portable graph, told to be fast for one caller."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        import openvino  # type: ignore[import-not-found]  # in an environment of its own

        super().__init__(model, variant)
        core = openvino.Core()
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(str(Path(model) / "onnx" / "model.onnx"), "CPU", config)
        self.request = compiled.create_infer_request()

    def run(self, feeds: dict[str, Any], names: Sequence[str]) -> list[Any]:
        """Run one batch; all outputs are computed, as its graphs always do."""
        values = self.request.infer(feeds)
        return [values[name] for name in names]


PEERS: dict[str, Callable[[str, str | None, int], Peer]] = {
    "bertport": Ours,
    "bare": Bare,
    "transformers": Transformers,
    "optimum": Optimum,
    "fused": Fused,
    "openvino": OpenVino,
}
"""By name: from a directory, a variant or a batch size, and a number of threads, 0 for what each chooses."""


def open_peer(spec: WorkerSpec) -> Peer:
    """Open the row that a specification names as its baseline."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # every model is in a directory
    return PEERS[str(spec.baseline)](str(spec.file), spec.variant, spec.threads or 0)


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


def _parts(inputs: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(inputs), size):
        yield inputs[begin : begin + size]
