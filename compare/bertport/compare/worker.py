"""A process that loads one model and times it on request: `python -m bertport.compare.worker`.

Each request is a JSON object on a line of stdin, each answer one on a line of stdout, with `ok`; what ONNX Runtime
or anything else prints goes to stderr. A process of its own per model gives each its own threads, memory and caches,
and lets the parent interleave them.

    {"do": "open", "subject": …}                          -> {"ok": true, "seconds": 0.1, "peak_bytes": …}
    {"do": "time", "workload": …, "warmup": 3, "runs": 5} -> {"ok": true, "warmup": […], "seconds": […], …}
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

from bertport.compare.bundled import graph_of
from bertport.compare.graph import Batch, OnnxGraph, open_onnx
from bertport.compare.workload import SCENARIOS, Shape, Subject, Texts, from_json
from bertport.runtime import load
from bertport.runtime.errors import BertportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertport.runtime.model import Model

__all__ = ["Timed", "main", "peak_bytes"]


class Timed:
    """One loaded model.

    Args:
        subject: What to load, and in which setting.
    """

    def __init__(self, subject: Subject) -> None:
        self.model: Model | None = None
        if subject.bundle is not None:
            self.model = load(
                subject.bundle, variant=subject.variant, provider=subject.provider, threads=subject.threads
            )
            self.graph = graph_of(self.model)
        elif subject.file is not None:
            self.graph = open_onnx(
                subject.file, provider=subject.provider, threads=subject.threads, config=subject.config
            )
        else:
            message = f"the subject {subject.name!r} names neither a file nor a bundle"
            raise UsageError(message)

    def time(self, workload: Shape | Texts, *, warmup: int, runs: int) -> dict[str, Any]:
        """Run a workload `warmup` times and then `runs` times.

        Returns:
            `warmup` and `seconds`, one number per run or, in SingleStream, per input of each run; and for texts the
            `stages` of the timed runs: seconds in `tokenize`, `run` and `finish` in total.
        """
        if isinstance(workload, Shape):
            once = _shape_runner(self.graph, workload)
            return {
                "warmup": [seconds for _ in range(warmup) for seconds in once()],
                "seconds": [seconds for _ in range(runs) for seconds in once()],
            }
        if self.model is None:
            message = "texts are timed with a bundle: a bare graph has no tokenizer"
            raise UsageError(message)
        return _time_texts(self.model, workload, warmup=warmup, runs=runs)


def _shape_runner(graph: OnnxGraph, shape: Shape) -> Callable[[], list[float]]:
    rng = np.random.default_rng(shape.seed)
    size = (shape.rows, shape.length)
    positions = [
        row * shape.length + np.sort(rng.choice(shape.length, size=min(shape.masked, shape.length), replace=False))
        for row in range(shape.rows)
    ]
    batch = Batch(
        input_ids=rng.integers(shape.vocabulary, size=size),
        attention_mask=np.ones(size, dtype=np.int64),
        token_type_ids=np.zeros(size, dtype=np.int64),
        masked_positions=np.concatenate(positions).astype(np.int64),
    )
    outputs = shape.outputs or graph.outputs

    def once() -> list[float]:
        began = time.perf_counter()
        graph.run(batch, outputs)
        return [time.perf_counter() - began]

    return once


class _Stopwatch:
    """Stands in for a model's graph and adds up the time spent in it."""

    def __init__(self, graph: Any) -> None:  # noqa: ANN401 — whatever the runtime's model holds
        self._graph = graph
        self.seconds = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._graph, name)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> Any:  # noqa: ANN401 — handed on
        began = time.perf_counter()
        values = self._graph.run(feeds, outputs)
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
    if texts.scenario not in SCENARIOS:
        message = f"unknown scenario {texts.scenario!r} (known: {', '.join(SCENARIOS)})"
        raise UsageError(message)
    calls = [texts.inputs] if texts.scenario == "Offline" else [(each,) for each in texts.inputs]
    call: Any = _TimedCall(model.bind(texts.task, **texts.parameters))
    inner = model.graph
    watch: Any = _Stopwatch(inner)
    model.graph = watch
    found: dict[str, list[float]] = {"warmup": [], "seconds": []}
    try:
        for number in range(warmup + runs):
            if number == warmup:
                call.seconds = watch.seconds = 0.0
            for inputs in calls:
                began = time.perf_counter()
                answers = list(model.outcomes(call, inputs))
                elapsed = time.perf_counter() - began
                found["warmup" if number < warmup else "seconds"].append(elapsed)
                for answer in answers:
                    if isinstance(answer, BertportError):
                        raise answer
    finally:
        model.graph = inner
    total = sum(found["seconds"])
    stages = {"tokenize": call.seconds, "run": watch.seconds, "finish": total - call.seconds - watch.seconds}
    return {**found, "stages": stages}


def peak_bytes() -> int:
    """Give the most memory that this process has had resident.

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
