"""One subject of bench.performance in a process of its own: what it loads, how it answers, and how long that takes.

    python -m bench.performance.peers        # requests and answers are JSON objects, a line each

Each row of `PEERS` is one way of running a model. The program needs only what the row it opens imports, so that it also
runs under an interpreter whose environment holds nothing but that (OpenVINO's).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# As bertport.runtime does, which not every interpreter that runs this has.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Answer = dict[str, Any]
"""What is compared: for fill-mask `token` and `score`, for next-sentence `probability` that B follows A, for features
`vector`."""
OUTPUTS = {"fill-mask": "logits", "next-sentence": "seq_relationship_logits", "features": "last_hidden_state"}
FEEDS = ("input_ids", "attention_mask", "token_type_ids")


class Ours:
    """bertport, from text to answer."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        from bertport.runtime import load

        self.model = load(model, variant=variant, provider="cpu", threads=threads or None)

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:
        """Answer a list of inputs."""
        return [_ours(task, each) for each in self.model.predict(task, inputs, **_parameters(task))]

    def forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the graph, one position decoded in each row."""
        rows, length = feeds["input_ids"].shape
        outputs = [name for name in ("logits", "seq_relationship_logits") if name in self.model.graph.outputs]
        self.model.graph.run(feeds | {"masked_positions": np.arange(rows) * length + 1}, outputs)


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

        row, session = self.model.graph.provider, self.model.graph.session
        if len(inputs) == 1:
            one = inputs[0]
            encodings = [self.tokenizer.encode(one) if isinstance(one, str) else self.tokenizer.encode(*one)]
        else:
            encodings = self.tokenizer.encode_batch_fast(list(inputs))
        ids = [each.ids for each in encodings]
        for batch in plan([len(each) for each in ids], budget=row.batch_tokens, overhead=row.overhead_tokens):
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


class Transformers:
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
            found: list[Answer] = []
            for part in _parts(inputs, self.batch):
                given = tokenizer([a for a, _ in part], [b for _, b in part], padding=True, return_tensors="pt")
                with torch.inference_mode():
                    found += _followed(network(**given).logits.numpy())
            return found
        names = {"fill-mask": "fill-mask", "features": "feature-extraction"}
        if task not in self.pipes:
            make: Any = pipeline  # its overloads know only literal names
            self.pipes[task] = make(names[task], model=self.path, device="cpu")
        pipe = self.pipes[task]
        if task == "fill-mask":
            return _filled(pipe(list(inputs), batch_size=self.batch))
        return _pooled(pipe, inputs, pipe(list(inputs), batch_size=self.batch, return_tensors=True))

    def forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model with both heads."""
        import torch
        from transformers import BertForPreTraining

        if "forward" not in self.pipes:
            self.pipes["forward"] = BertForPreTraining.from_pretrained(self.path).eval()
        with torch.inference_mode():
            self.pipes["forward"](**{name: torch.from_numpy(feeds[name]) for name in FEEDS})


class Optimum:
    """Optimum's ONNX Runtime models in transformers' pipelines, in fp32 or its own 8-bit preset."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        self.path, self.threads, self.batch = Path(model), threads, int(variant or 1)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.pipes: dict[str, Any] = {}

    def pipe(self, task: str) -> Any:  # noqa: ANN401 — a pipeline
        """Open the pipeline of a task, once."""
        import onnxruntime
        import transformers
        from optimum.onnxruntime import (  # type: ignore[import-untyped]
            ORTModelForFeatureExtraction,
            ORTModelForMaskedLM,
        )

        if task not in self.pipes:
            kind = {"fill-mask": ORTModelForMaskedLM, "features": ORTModelForFeatureExtraction}[task]
            options = onnxruntime.SessionOptions()
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

    def forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids through the model of fill-mask."""
        self.pipe("fill-mask").model(**{name: feeds[name] for name in FEEDS})


class _Padded:
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
        found: list[Answer] = []
        for part in _parts(inputs, self.batch):
            encodings = self.tokenizer.encode_batch(list(part))
            feeds = {
                "input_ids": np.array([each.ids for each in encodings], dtype=np.int64),
                "attention_mask": np.array([each.attention_mask for each in encodings], dtype=np.int64),
                "token_type_ids": np.array([each.type_ids for each in encodings], dtype=np.int64),
            }
            [values] = self.run(feeds, [OUTPUTS[task]])
            if task == "fill-mask":
                at = np.argmax(feeds["input_ids"] == self.mask, axis=1)
                found += _decoded(values[np.arange(len(part)), at])
            elif task == "next-sentence":
                found += _followed(values)
            else:
                mask = feeds["attention_mask"][:, :, None]
                found += [{"vector": each.tolist()} for each in (values * mask).sum(1) / mask.sum(1)]
        return found

    def forward(self, feeds: dict[str, Any]) -> None:
        """Run a batch of ids, with the outputs of both heads."""
        self.run(feeds, ["logits", "seq_relationship_logits"])


class Fused(_Padded):
    """ONNX Runtime as it comes, which fuses at load, on the portable graph."""

    def __init__(self, model: str, variant: str | None, threads: int) -> None:
        import onnxruntime

        super().__init__(model, variant)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = str(Path(model) / "onnx" / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

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
        found: list[Any] = [values[name] for name in names]
        return found


PEERS: dict[str, Callable[[str, str | None, int], Any]] = {
    "bertport": Ours,
    "bare": Bare,
    "transformers": Transformers,
    "optimum": Optimum,
    "fused": Fused,
    "openvino": OpenVino,
}
"""By name."""


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
    return [{"token": row[0]["token"], "score": row[0]["score"]} for row in rows]


def _pooled(pipe: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Answer]:  # noqa: ANN401 — a pipeline
    """Average over a text's own tokens: the pipeline leaves the vectors of a batch's padding in its answers."""
    lengths = [len(each) for each in pipe.tokenizer(list(inputs))["input_ids"]]
    return [
        {"vector": np.asarray(each[0])[:length].mean(0).tolist()} for each, length in zip(outputs, lengths, strict=True)
    ]


def _softmax(values: Any) -> Any:  # noqa: ANN401 — arrays
    weights = np.exp(values - values.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _decoded(logits: Any) -> list[Answer]:  # noqa: ANN401 — an array
    best = logits.argmax(-1)
    scores = _softmax(logits)[np.arange(len(best)), best]
    return [{"token": int(token), "score": float(score)} for token, score in zip(best, scores, strict=True)]


def _followed(logits: Any) -> list[Answer]:  # noqa: ANN401 — an array
    return [{"probability": float(row[0])} for row in _softmax(logits)]


def _parts(inputs: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(inputs), size):
        yield inputs[begin : begin + size]


def _feeds(rows: int, length: int, vocabulary: int) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(vocabulary, size=(rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _peak_bytes() -> int:
    """Return the most memory that this process had resident."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024


def _handle(request: dict[str, Any], peer: Any) -> tuple[dict[str, Any], Any]:  # noqa: ANN401 — a peer
    began = time.perf_counter()
    if request["do"] == "open":
        peer = PEERS[request["peer"]](request["model"], request["variant"], request["threads"])
        return {"seconds": time.perf_counter() - began}, peer
    if request["do"] == "answer":
        return {"answers": peer.answer(request["task"], request["inputs"])}, peer
    calls = []
    if request["do"] == "shape":
        feeds = _feeds(request["rows"], request["length"], request["vocabulary"])
        for _ in range(request["runs"]):
            began = time.perf_counter()
            peer.forward(feeds)
            calls.append(time.perf_counter() - began)
    else:
        for part in _parts(request["inputs"], request["at_once"] or len(request["inputs"])):
            began = time.perf_counter()
            peer.answer(request["task"], part)
            calls.append(time.perf_counter() - began)
    return {"calls": calls}, peer


def main() -> None:
    """Answer requests until stdin ends."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # every model is in a directory
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    peer: Any = None
    for line in sys.stdin:
        try:
            found, peer = _handle(json.loads(line), peer)
            answer = {"ok": True, "peak_bytes": _peak_bytes(), **found}
        except Exception as error:  # noqa: BLE001 — whatever it is, the parent must hear of it and not wait
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
