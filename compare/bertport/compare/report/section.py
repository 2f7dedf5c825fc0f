"""A section of the report, and the one that says where and how it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.commands.progress import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.compare.report.tables import Table

__all__ = ["Section", "machine", "method"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section."""

    key: str
    """Its name for links and for the plots that belong to it."""
    title: str
    """Its heading."""
    paragraphs: tuple[str, ...] = ()
    """Text."""
    choices: tuple[tuple[str, str, str], ...] = ()
    """Goal, what is chosen for it, and the reason."""
    points: tuple[str, ...] = ()
    """A list."""
    tables: tuple[Table, ...] = ()
    """Tables."""
    code: str = ""
    """A command."""


def machine(document: Mapping[str, Any]) -> str:
    """Name the machine in one phrase."""
    found = document["machine"]
    return f"{found['cpu']}, {found['usable_cores']:g} cores usable, instruction set {found['instruction_set']}"


def method(document: Mapping[str, Any]) -> Section:
    """Say where and how it was measured."""
    settings = document["settings"]
    versions = {**document["machine"]["versions"], **document["packages"]}
    threads = settings["threads"] or "ONNX Runtime's choice (one for each physical core)"
    points = (
        _where(document),
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.",
        (
            f"Settings: {settings['name']}; threads: {threads}; seed {settings['seed']}; {settings['resamples']:,} "
            f"bootstrap resamples; intervals of {settings['confidence']:.0%}."
        ),
        _text(document["text"]),
        (
            "Each variant runs in a process of its own; the processes take turns, in alternating order, and rounds are "
            "what the intervals of speed resample. Intervals of quality resample texts."
        ),
        f"Measured {document['created']} in {duration(document['seconds'])}.",
    )
    return Section(key="method", title="Machine, versions, settings", points=points)


def _where(document: Mapping[str, Any]) -> str:
    found = document["machine"]
    memory = f", {found['memory_bytes'] / 2**30:.0f} GiB of memory" if found["memory_bytes"] else ""
    peak = f"{found['matmul_gflops']:.0f} GFLOP/s in fp32" if found["matmul_gflops"] else "not measured"
    busy = found["busy"]
    load = f" Processes that ran or waited, on average over the minute before: {busy:g}." if busy is not None else ""
    return (
        f"Machine: {machine(document)}; {found['physical_cores']} physical cores{memory}; {found['system']}. "
        f"Matmul peak: {peak}.{load}"
    )


def _text(text: Mapping[str, Any]) -> str:
    inputs = text["inputs"]
    lengths = inputs["percentiles"]
    cut = f", {inputs['cut']} cut" if inputs["cut"] else ""
    return (
        f"Text: {text['name']}, {text['texts']:,} texts, SHA-256 {text['sha256'][:16]}. Scenarios answer "
        f"{inputs['texts']} of them (task {inputs['task']}), {lengths['0']:.0f} to {lengths['100']:.0f} tokens long, "
        f"median {lengths['50']:.0f}{cut}. Real tokens: {inputs['real_tokens']:,}; padded to the longest of a batch of "
        f"8: {inputs['padded_tokens_in_batches_of_8']:,}; all padded to the longest: "
        f"{inputs['padded_tokens_to_longest']:,}."
    )
