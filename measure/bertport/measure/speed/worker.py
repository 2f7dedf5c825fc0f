"""A process that loads one model and times it on request: `python -m bertport.measure.speed.worker`.

Each request is a JSON object on a line of stdin, each answer one on a line of stdout, with `ok`; what ONNX Runtime
or anything else prints goes to stderr. A process of its own per model gives each its own threads, memory and caches,
and lets the parent interleave them.

    {"do": "open", "subject": …}                          -> {"ok": true, "seconds": 0.1, "peak_bytes": …}
    {"do": "time", "workload": …, "warmup": 3, "runs": 5} -> {"ok": true, "warmup": […], "seconds": […], …}
    {"do": "answer", "workload": …}                       -> {"ok": true, "tokens": […]}
    {"do": "stop"}                                        -> {"ok": true}
    anything that fails                                   -> {"ok": false, "error": "…", "kind": "BundleError"}
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bertport.measure.quality.bundled import graph_of
from bertport.measure.quality.model import Batch, OnnxGraph, open_onnx
from bertport.measure.speed.workload import SCENARIOS, Shape, Subject, Texts, from_json
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import BertportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertport.measure.speed.baselines import Pipeline
    from bertport.runtime.model import Model

__all__ = ["Timed", "main", "peak_bytes", "random_batch", "repeat"]


class Timed:
    """One loaded model.

    Args:
        subject: What to load, and in which setting.
    """

    def __init__(self, subject: Subject) -> None:
        self.model: Model | None = None
        self.pipeline: Pipeline | None = None
        self.graph: OnnxGraph | None = None
        if subject.baseline is not None:
            from bertport.measure.speed.baselines import open_pipeline

            self.pipeline = open_pipeline(subject)
        elif subject.bundle is not None and subject.bare:
            with Bundle.open(subject.bundle).opening(str(subject.variant)) as graph:
                self.graph = open_onnx(graph, provider=subject.provider, threads=subject.threads, config=subject.config)
        elif subject.bundle is not None:
            self.model = load(
                subject.bundle, variant=subject.variant, provider=subject.provider, threads=subject.threads
            )
            self.graph = graph_of(self.model)
        elif subject.file is not None:
            self.graph = open_onnx(
                subject.file, provider=subject.provider, threads=subject.threads, config=subject.config
            )
        else:
            raise UsageError(f"the subject {subject.name!r} names neither a file nor a bundle")

    def time(self, workload: Shape | Texts, *, warmup: int, runs: int) -> dict[str, Any]:
        """Run a workload `warmup` times and then `runs` times.

        Returns:
            `warmup` and `seconds`, one number per run or, in SingleStream, per input of each run; and for texts the
            `stages` of the timed runs: seconds in `tokenize`, `run` and `finish` in total.
        """
        if isinstance(workload, Shape):
            run = self.pipeline.forward(workload) if self.pipeline else self._forward(workload)
            return {"warmup": [_timed(run) for _ in range(warmup)], "seconds": [_timed(run) for _ in range(runs)]}
        if workload.scenario not in SCENARIOS:
            raise UsageError(f"unknown scenario {workload.scenario!r} (known: {', '.join(SCENARIOS)})")
        if self.pipeline:
            return repeat(workload, self.pipeline.answering(workload), warmup=warmup, runs=runs)
        return _time_texts(self._loaded(), workload, warmup=warmup, runs=runs)

    def answers(self, texts: Texts) -> list[int]:
        """Return the best token of each input of a fill-mask workload."""
        if self.pipeline:
            return self.pipeline.best(texts)
        rows = self._loaded().predict(texts.task, texts.inputs, **{**texts.parameters, "top_k": 1})
        return [row[0]["token"] for row in rows]

    def _loaded(self) -> Model:
        if self.model is None:
            raise UsageError("texts are timed with a bundle: a bare graph has no tokenizer")
        return self.model

    def _forward(self, shape: Shape) -> Callable[[], object]:
        graph, batch = self.graph, random_batch(shape)
        if graph is None:  # never: it is a pipeline then
            raise TypeError
        outputs = shape.outputs or graph.outputs
        return lambda: graph.run(batch, outputs)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def random_batch(shape: Shape) -> Batch:
    """Draw the token ids and the positions to decode of a shape."""
    rng = np.random.default_rng(shape.seed)
    size = (shape.rows, shape.length)
    positions = [
        row * shape.length + np.sort(rng.choice(shape.length, size=min(shape.masked, shape.length), replace=False))
        for row in range(shape.rows)
    ]
    return Batch(
        input_ids=rng.integers(shape.vocabulary, size=size),
        attention_mask=np.ones(size, dtype=np.int64),
        token_type_ids=np.zeros(size, dtype=np.int64),
        masked_positions=np.concatenate(positions).astype(np.int64),
    )


def repeat(
    texts: Texts,
    answer: Callable[[Sequence[Any]], object],
    *,
    warmup: int,
    runs: int,
    began_timing: Callable[[], None] | None = None,
) -> dict[str, list[float]]:
    """Have a scenario's inputs answered `warmup` times and then `runs` times.

    Args:
        texts: The scenario.
        answer: Answers a list of inputs.
        warmup: Passes before the timed ones.
        runs: Timed passes.
        began_timing: Called between the two.

    Returns:
        Seconds of each call, or in the Server scenario of each request from its arrival to its answer.
    """
    found: dict[str, list[float]] = {"warmup": [], "seconds": []}
    for number in range(warmup + runs):
        if number == warmup and began_timing:
            began_timing()
        if texts.scenario == "Server":
            seconds = _serve_arrivals(texts, answer)
        else:
            calls = [texts.inputs] if texts.scenario == "Offline" else [(each,) for each in texts.inputs]
            seconds = [_timed(lambda inputs=inputs: answer(inputs)) for inputs in calls]  # type: ignore[misc]
        found["warmup" if number < warmup else "seconds"] += seconds
    return found


def _serve_arrivals(texts: Texts, answer: Callable[[Sequence[Any]], object]) -> list[float]:
    seconds = []
    began = time.perf_counter()
    for number, arrival in enumerate(texts.arrivals):
        early = arrival - (time.perf_counter() - began)
        if early > 0:
            time.sleep(early)
        answer((texts.inputs[number % len(texts.inputs)],))
        seconds.append(time.perf_counter() - began - arrival)
    return seconds


class _Stopwatch:
    """Stands in for a model's graph and adds up the time spent in it."""

    def __init__(self, graph: Any) -> None:  # noqa: ANN401 — whatever the runtime's model holds
        self._graph = graph
        self.seconds = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._graph, name)

    def run_in_slices(self, feeds: Mapping[str, Any], outputs: Sequence[str], *, most: int) -> Any:  # noqa: ANN401 — handed on
        """Run it; positions beyond `most` are decoded while their answers are made, and counted there."""
        began = time.perf_counter()
        values = self._graph.run_in_slices(feeds, outputs, most=most)
        self.seconds += time.perf_counter() - began
        return values


class _TimedCall:
    """Stands in for a runtime call and adds up the time spent preparing inputs."""

    def __init__(self, call: Any) -> None:  # noqa: ANN401 — the runtime's Call
        self._call = call
        self.seconds = 0.0

    def prepare(self, inputs: Sequence[object]) -> list[Any]:
        began = time.perf_counter()
        works: list[Any] = self._call.prepare(inputs)
        self.seconds += time.perf_counter() - began
        return works


def _time_texts(model: Model, texts: Texts, *, warmup: int, runs: int) -> dict[str, Any]:
    call: Any = _TimedCall(model.bind(texts.task, **texts.parameters))
    watch: Any = _Stopwatch(model.graph)
    watched = model.with_graph(watch)

    def answer(inputs: Sequence[Any]) -> None:
        for each in watched.outcomes(call, inputs):
            if isinstance(each, BertportError):
                raise each

    def reset() -> None:
        call.seconds = watch.seconds = 0.0

    found = repeat(texts, answer, warmup=warmup, runs=runs, began_timing=reset)
    if texts.scenario == "Server":  # its seconds hold time spent waiting, so the stages do not add up to them
        return found
    total = sum(found["seconds"])
    stages = {"tokenize": call.seconds, "run": watch.seconds, "finish": total - call.seconds - watch.seconds}
    return {**found, "stages": stages}


def peak_bytes() -> int:
    """Return the most memory that this process has had resident.

    On Linux from /proc: there `getrusage` starts a process at the peak of the one that started it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024


def main() -> None:
    """Answer requests until stdin ends or `stop` comes."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # a native library that prints must not end up among the answers
        _serve(sys.stdin, answers)


def _serve(requests: IO[str], answers: IO[str]) -> None:
    timed: Timed | None = None
    for line in requests:
        request = json.loads(line)
        answer: dict[str, Any] = {"ok": True}
        try:
            match request:
                case {"do": "stop"}:
                    pass
                case {"do": "open", "subject": subject}:
                    began = time.perf_counter()
                    timed = Timed(from_json(subject))  # type: ignore[arg-type]  # the parent sends a subject here
                    answer["seconds"] = time.perf_counter() - began
                case {"do": "answer", "workload": workload} if timed:
                    answer["tokens"] = timed.answers(from_json(workload))  # type: ignore[arg-type]  # texts, as above
                case {"do": "time", "workload": workload, "warmup": warmup, "runs": runs} if timed:
                    answer.update(timed.time(from_json(workload), warmup=warmup, runs=runs))  # type: ignore[arg-type]
                case _:
                    answer = {"ok": False, "error": f"unknown request {line[:80]!r}", "kind": "UsageError"}
            answer["peak_bytes"] = peak_bytes()
        except Exception as error:  # noqa: BLE001 — whatever it is, the parent must hear of it and not wait
            answer = {"ok": False, "error": str(error) or repr(error), "kind": type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)
        if request.get("do") == "stop":
            return


if __name__ == "__main__":
    main()
