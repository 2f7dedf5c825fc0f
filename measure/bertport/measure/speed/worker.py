"""A process that loads one model and times it on request: `python -m bertport.measure.speed.worker`.

Each request is a JSON object on a line of stdin, each answer one on a line of stdout, with `ok`; what ONNX Runtime
or anything else prints goes to stderr. A process of its own per model gives each its own threads, memory and caches,
and lets the parent interleave them.

    {"do": "open", "spec": …}                             -> {"ok": true, "seconds": 0.1, "peak_bytes": …}
    {"do": "time", "workload": …, "warmup": 3, "runs": 5} -> {"ok": true, "warmup": […], "seconds": […], …}
    {"do": "answer", "workload": …}                       -> {"ok": true, "answers": […]}
    {"do": "stop"}                                        -> {"ok": true}
    anything that fails                                   -> {"ok": false, "error": "…", "kind": "BundleError"}
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bertport.measure.quality.model import graph_of, open_onnx
from bertport.measure.speed.baselines import open_pipeline
from bertport.measure.speed.loaded import LoadedBundle, LoadedGraph
from bertport.measure.speed.workload import OFFLINE, SCENARIOS, SERVER, Shape, Texts, WorkerSpec, from_json
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertport.measure.speed.loaded import Loaded

__all__ = ["main", "open_model", "peak_bytes", "repeat", "time_workload"]


def open_model(spec: WorkerSpec) -> Loaded:
    """Load what a specification names.

    Raises:
        UsageError: when it names nothing.
    """
    if spec.opener is not None:
        module, _, name = spec.opener.partition(":")
        opened: Loaded = getattr(importlib.import_module(module), name)(spec)
        return opened
    if spec.baseline is not None:
        return open_pipeline(spec)
    settings: dict[str, Any] = {"provider": spec.provider, "threads": spec.threads}
    if spec.bundle is not None and spec.bare:
        with Bundle.open(spec.bundle).opening(str(spec.variant)) as graph:
            return LoadedGraph(open_onnx(graph, precision=spec.precision, config=spec.config, **settings))
    if spec.bundle is not None:
        model = load(spec.bundle, variant=spec.variant, provider_library=spec.provider_library, **settings)
        return LoadedBundle(model, graph_of(model))
    if spec.file is not None:
        return LoadedGraph(open_onnx(spec.file, precision=spec.precision, config=spec.config, **settings))
    raise UsageError(f"the specification {spec.name!r} names neither a file nor a bundle")


def time_workload(model: Loaded, workload: Shape | Texts, *, warmup: int, runs: int) -> dict[str, Any]:
    """Run a workload `warmup` times and then `runs` times.

    Returns:
        `warmup` and `seconds`, one number per run or, in SingleStream, per call of each run; and for texts of a bundle
        the `stages` of the timed runs, seconds in `tokenize`, `run` and `finish` in total, and the `tokens` of one run,
        padding included.
    """
    if isinstance(workload, Shape):
        run = model.forward(workload)
        return {"warmup": [_timed(run) for _ in range(warmup)], "seconds": [_timed(run) for _ in range(runs)]}
    if workload.scenario not in SCENARIOS:
        raise UsageError(f"unknown scenario {workload.scenario!r} (known: {', '.join(SCENARIOS)})")
    watch = model.stopwatch
    measured: dict[str, Any] = {
        **repeat(
            workload,
            model.answering(workload),
            warmup=warmup,
            runs=runs,
            began_timing=watch.reset if watch else None,
        )
    }
    if watch and workload.scenario != SERVER:  # whose seconds hold time spent waiting: the stages do not add up
        measured["stages"] = watch.stages(sum(measured["seconds"]))
        measured["tokens"] = watch.tokens // max(1, runs)  # the same texts make the same batches each time
    return measured


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def repeat(
    texts: Texts,
    answer: Callable[[Sequence[Any]], object],
    *,
    warmup: int,
    runs: int,
    began_timing: Callable[[], None] | None = None,
) -> dict[str, list[float]]:
    """Answer a scenario's inputs `warmup` times and then `runs` times.

    Args:
        texts: The scenario.
        answer: Answers a list of inputs.
        warmup: Passes before the timed ones; those of Server give each input once, one after the other.
        runs: Timed passes.
        began_timing: Called between the two.

    Returns:
        Seconds of each call, or in the Server scenario of each request from its arrival to its answer.
    """
    measured: dict[str, list[float]] = {"warmup": [], "seconds": []}
    for number in range(warmup + runs):
        if number == warmup and began_timing:
            began_timing()
        if texts.scenario == SERVER and number >= warmup:
            seconds = _serve_arrivals(texts, answer)
        else:
            size = len(texts.inputs) if texts.scenario == OFFLINE else texts.at_once
            calls = [texts.inputs[begin : begin + size] for begin in range(0, len(texts.inputs), size)]
            seconds = [_timed(lambda inputs=inputs: answer(inputs)) for inputs in calls]  # type: ignore[misc]
        measured["warmup" if number < warmup else "seconds"] += seconds
    return measured


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


def peak_bytes() -> int:
    """Return the most memory that this process has had resident; 0 where the operating system does not say.

    On Linux from /proc: there `getrusage` starts a process at the peak of the one that started it.
    """
    with suppress(OSError):  # gVisor has the file, but not the line
        if line := re.search(rb"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_bytes(), re.MULTILINE):
            return int(line[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Answer requests until stdin ends or `stop` comes."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # a native library that prints must not end up among the answers
        _serve(sys.stdin, answers)


def _serve(requests: IO[str], answers: IO[str]) -> None:
    model: Loaded | None = None
    for line in requests:
        request = json.loads(line)
        answer: dict[str, Any] = {"ok": True}
        try:
            match request:
                case {"do": "stop"}:
                    pass
                case {"do": "open", "spec": spec}:
                    began = time.perf_counter()
                    model = open_model(from_json(spec))  # type: ignore[arg-type]  # the parent sends one here
                    answer["seconds"] = time.perf_counter() - began
                case {"do": "answer", "workload": workload} if model:
                    answer["answers"] = model.answers(from_json(workload))  # type: ignore[arg-type]  # texts, as above
                case {"do": "time", "workload": workload, "warmup": warmup, "runs": runs} if model:
                    timed = time_workload(model, from_json(workload), warmup=warmup, runs=runs)  # type: ignore[arg-type]
                    answer.update(timed)
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
