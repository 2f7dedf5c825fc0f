"""The rows of bench.performance: every way of running a model that is measured, with what it needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.measure.speed.workload import WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.performance.models import Prepared

__all__ = ["BATCHES", "BF16", "PEER_ROWS", "SHAPED", "SINGLE", "STREAMS", "TASKS", "Subject", "subjects_of"]

BATCHES = (1, 8, 32)
FILL_MASK, NEXT_SENTENCE, FEATURES = TASKS = ("fill-mask", "next-sentence", "features")
STREAMS = "streams"
"""End of the name of a group whose rows work on several batches at once."""
SINGLE = "single"
"""End of the name of a group whose rows are given one text at a time."""
BF16 = frozenset({"avx512_bf16", "amx_bf16"})
"""Flags of a CPU that multiplies in bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One row of the report."""

    name: str
    """Name under which it is listed."""
    group: str
    """Its group: other groups are compared with the best row of it."""
    peer: str
    """A row of bench.performance.peers.PEERS."""
    path: str
    """Directory that it loads."""
    variant: str | None = None
    """For bertport a variant, for others a file where there are several."""
    provider: str = "cpu"
    """For bertport, a row of the runtime's table of providers."""
    precision: str | None = None
    """Precision that a peer is told to compute in; None to leave that to it."""
    batch: int | None = None
    """Inputs in a batch; None where bertport makes batches of all of them."""
    streams: int = 1
    """Batches that are worked on at once."""
    python: str = sys.executable
    """Its interpreter."""

    @property
    def at_once(self) -> int | None:
        """Inputs given in one call; None for all."""
        return self.batch if self.streams == 1 else None

    def spec(self, threads: int) -> WorkerSpec:
        """Return what its process loads: rows that differ in the size of batches alone share a process."""
        config = {"precision": self.precision} if self.precision else {}
        if self.streams > 1:
            config |= {"streams": str(self.streams)} | ({"batch": str(self.batch)} if self.batch else {})
        return WorkerSpec(
            name=f"{self.peer} {Path(self.path).name} {self.variant or self.precision or ''}".strip(),
            opener="bench.performance.peers:open_peer",
            baseline=self.peer,
            file=self.path,
            variant=self.variant,
            provider=self.provider,
            threads=threads or None,
            config=config,
            python=None if self.python == sys.executable else self.python,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRow:
    """One row: what somebody else's library runs, in each size of batch."""

    group: str
    """Name of the group."""
    peer: str
    """A row of bench.performance.peers.PEERS."""
    form: str
    """Form that it loads: `bundle`, `checkpoint`, or one of the model's exports, and a directory of it."""
    environment: str | None = None
    """Environment that it runs in: a name among the interpreters; None for this one."""
    variant: str | None = None
    """A file of it, where there are several."""
    precision: str | None = None
    """Precision that it is told to compute in; None to leave that to it."""
    tasks: tuple[str, ...] = TASKS
    """Tasks that it can do."""
    streams: bool = False
    """Whether it is run with several streams, too."""
    bf16: bool = False
    """Whether it is of interest only where the CPU multiplies in bf16."""


PIPELINES = (FILL_MASK, FEATURES)
"""Tasks that Optimum's libraries have models for."""
PEER_ROWS = (
    PeerRow(group="transformers", peer="transformers", form="checkpoint"),
    PeerRow(
        group="transformers bf16",
        peer="transformers",
        form="checkpoint",
        precision="bf16",
        tasks=(FILL_MASK,),
        bf16=True,
    ),
    PeerRow(group="optimum fp32", peer="optimum", form="optimum/fp32", environment="optimum", tasks=PIPELINES),
    PeerRow(group="optimum int8", peer="optimum", form="optimum/int8", environment="optimum", tasks=PIPELINES),
    PeerRow(group="onnxruntime", peer="fused", form="bundle"),
    PeerRow(group="openvino", peer="openvino", form="bundle", environment="openvino", streams=True),
    PeerRow(
        group="openvino fp32",
        peer="openvino",
        form="bundle",
        environment="openvino",
        precision="f32",
        tasks=(FILL_MASK,),
        bf16=True,
    ),
    PeerRow(
        group="openvino int8",
        peer="openvino",
        form="optimum-intel/int8",
        environment="openvino",
        tasks=(FILL_MASK,),
        streams=True,
    ),
    PeerRow(
        group="openvino plugin",
        peer="openvino-plugin",
        form="bundle",
        environment="openvino-plugin",
        tasks=(FILL_MASK,),
    ),
    *(
        PeerRow(
            group=group,
            peer="optimum-intel",
            form=form,
            environment="optimum-intel",
            tasks=(FILL_MASK,),
        )
        for group, form in (("optimum-intel", "optimum-intel/fp32"), ("optimum-intel int8", "optimum-intel/int8"))
    ),
    *(
        PeerRow(
            group=f"sentence-transformers {name}",
            peer="sentence-transformers",
            form=form,
            environment=environment,
            variant=variant,
            tasks=(FEATURES,),
        )
        for name, form, environment, variant in (
            ("torch", "sentence-onnx", None, "torch"),
            ("onnx", "sentence-onnx", "sentence-transformers", "onnx:onnx/model.onnx"),
            ("onnx int8", "sentence-onnx", "sentence-transformers", "onnx:onnx/model_int8.onnx"),
            ("openvino", "sentence-openvino", "optimum-intel", "openvino:openvino/openvino_model.xml"),
            ("openvino int8", "sentence-openvino", "optimum-intel", "openvino:openvino/openvino_model_int8.xml"),
        )
    ),
)
"""Every peer, in the order of the page. bf16 is fill-mask's question, and what runs one graph in two ways has one row
in the other tasks."""
SHAPED = frozenset({"transformers", "optimum int8", "onnxruntime", "openvino", "openvino int8", "openvino plugin"})
"""Groups of peers that are timed at fixed shapes; of bertport's all are."""


def subjects_of(  # noqa: PLR0913 — the model, the task, and what the machine and the command allow
    model: Prepared,
    task: str,
    pythons: Mapping[str, str],
    *,
    batches: Sequence[int] = BATCHES,
    streams: int = 1,
    flags: Sequence[str] = (),
) -> list[Subject]:
    """Return the rows of a task.

    Args:
        model: The model.
        task: The task.
        pythons: Interpreters of peers, by name; rows of others are left out.
        batches: Sizes of batches that peers get.
        streams: How many batches are worked on at once in rows of several streams; 1 for no such rows.
        flags: Those of the CPU.
    """
    streams = streams if task == FILL_MASK else 1
    subjects = list(_ours(model, streams, pythons))
    for row in PEER_ROWS:
        python = pythons.get(row.environment) if row.environment else sys.executable
        path = _path(model, row.form)
        if python is None or path is None or task not in row.tasks or (row.bf16 and BF16.isdisjoint(flags)):
            continue
        for count in (1, streams) if row.streams and streams > 1 else (1,):
            subjects += [
                Subject(
                    name=f"{row.group}, batches of {batch}{_with(count)}",
                    group=row.group if count == 1 else f"{row.group} {STREAMS}",
                    peer=row.peer,
                    path=str(path),
                    variant=row.variant,
                    precision=row.precision,
                    batch=batch,
                    streams=count,
                    python=python,
                )
                for batch in batches
            ]
    return subjects


def _with(streams: int) -> str:
    return f", {streams} streams" if streams > 1 else ""


def _path(model: Prepared, form: str) -> Path | None:
    """Return the directory that a row loads; None where it was not made."""
    name, _, part = form.partition("/")
    if name in {"bundle", "checkpoint"}:
        return model.bundle if name == "bundle" else model.checkpoint
    return model.exports[name] / part if name in model.exports else None


def _ours(model: Prepared, streams: int, pythons: Mapping[str, str]) -> Iterator[Subject]:
    """Yield bertport's rows: each variant with all texts in a call and with one, and the session alone."""
    for variant, called in _called(model.variants).items():
        provider = "openvino" if called == "bf16" else "cpu"
        python = pythons.get("openvino-plugin") if provider == "openvino" else sys.executable
        if python is None:
            continue
        for peer, name in (("bertport", "bertport"), ("bare", "tokenizer and session alone")):
            if peer == "bare" and (model.name == "base" or called not in {"fp32", "int8"}):
                continue  # what bertport adds to a session does not depend on the model's size
            for batch in (None, 1):
                for count in (1, streams) if streams > 1 and peer == "bertport" and provider == "cpu" else (1,):
                    single = f" {SINGLE}" if batch else ""
                    yield Subject(
                        name=f"{name} {called}{', one at a time' if batch else ''}{_with(count)}",
                        group=f"{peer} {called}{single}{f' {STREAMS}' if count > 1 else ''}",
                        peer=peer,
                        path=str(model.bundle),
                        variant=variant,
                        provider=provider,
                        batch=batch,
                        streams=count,
                        python=python,
                    )


def _called(variants: Sequence[str]) -> dict[str, str]:
    """Return what each variant is called: the first 8-bit one, which `load` takes, is `int8`."""
    names: dict[str, str] = {}
    for variant in variants:
        first = variant.startswith("int8") and "int8" not in names.values()
        names[variant] = "int8" if first else variant
    return names
