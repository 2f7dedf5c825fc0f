"""The lines of docs/data/history-CLASS.jsonl, and what of a line is read from the files of the embedded bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT
from bench.performance.classes import class_of

if TYPE_CHECKING:
    from pathlib import Path

    from bertport.measure.statistics import Estimate

__all__ = [
    "BUNDLE",
    "SOURCES",
    "Entry",
    "Reader",
    "Times",
    "about",
    "at_commit",
    "count_nodes",
    "environment",
    "git",
    "here",
    "path_of",
    "read",
]

BUNDLE = "models/default"
"""The bundle whose history is kept."""
SOURCES = ("runtime/bertport/runtime", BUNDLE)
"""The runtime and the embedded bundle: what an answer depends on."""
FIGURES = (
    ("mlm", "top1_agreement"),
    ("mlm", "top5_agreement"),
    ("mlm", "kl"),
    ("nsp", "flips"),
    ("nsp", "kl"),
    ("hidden", "cosine"),
)
"""Figures of fidelity that an entry keeps, by head and name."""

Reader = Callable[[str], bytes | None]
"""Return a file's bytes by its path in the checkout; None where there is no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Ratio of speeds of two rows that took turns."""

    ours: str
    """The row."""
    than: str
    """The other one."""
    workload: str
    """Workload that both answered."""
    value: float
    """Ratio: how many times as fast the row is as the other one."""
    low: float
    """Lower end of its interval (95%)."""
    high: float
    """Upper end."""

    @classmethod
    def of(cls, estimate: Estimate, *, ours: str, than: str, workload: str) -> Times:
        """Return an estimate with its names."""
        value, low, high = (round(float(number), 4) for number in (estimate.value, estimate.low, estimate.high))
        return cls(ours=ours, than=than, workload=workload, value=value, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: what was measured at one commit on one machine."""

    date: str
    """When, in ISO 8601."""
    commit: str
    """The last commit that changed what answers (`SOURCES`)."""
    source: str
    """The command that measured it."""
    machine: dict[str, Any]
    """The machine: `cpu`, `instruction_set`, `usable_cores`, `busy`, `versions`; `hidden` where bench.avx2 hid more."""
    times: tuple[Times, ...]
    """Ratios of speed."""
    same_words: float | None = None
    """Share of the texts whose best word is the release's; None where no release took turns."""
    digest: str | None = None
    """The bundle's digest; None for one of format 1."""
    fidelity: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each variant, figures against fp32 as its manifest has them."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each of the bundle's graphs and files of weights."""
    nodes: dict[str, int] = field(default_factory=dict)
    """Nodes of each graph."""

    def line(self) -> str:
        """Return the entry as a line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def of(cls, line: str) -> Entry:
        """Read a line."""
        values = json.loads(line)
        return cls(**{**values, "times": tuple(Times(**each) for each in values["times"])})

    def ratio(self, ours: str, than: str, workload: str | None = None) -> Times | None:
        """Return a ratio by its names, the first where `workload` is None; None where it was not measured."""
        fits = (
            each for each in self.times if (each.ours, each.than) == (ours, than) and workload in (None, each.workload)
        )
        return next(fits, None)


def path_of(instruction_set: str) -> Path:
    """Return the file of an instruction set's class of CPU."""
    return ROOT / "docs" / "data" / f"history-{class_of(instruction_set).name}.jsonl"


def read(path: Path) -> list[Entry]:
    """Read a file of entries, the oldest first; empty where there is none.

    Raises:
        SystemExit: with a sentence, where a line is no entry, such as one that was cut.
    """
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entries.append(Entry.of(line))
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"line {number} of {path} is no entry ({error}): take the file from git again, or remove the line")
    return sorted(entries, key=lambda entry: entry.date)


def git(*arguments: str) -> str:
    """Return what git prints in the checkout, without spaces around it.

    Raises:
        CalledProcessError: when git fails.
    """
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def here(name: str) -> bytes | None:
    """Read a file of the working tree."""
    path = ROOT / name
    return path.read_bytes() if path.is_file() else None


def at_commit(commit: str) -> Reader:
    """Return a function that reads files as they are at a commit."""

    def read_file(name: str) -> bytes | None:
        command = ["git", "show", f"{commit}:{name}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        return done.stdout if done.returncode == 0 else None

    return read_file


def about(reader: Reader) -> dict[str, Any]:
    """Return what a bundle's files say: `digest`, `fidelity`, `sizes` and `nodes`; empty where there is no bundle."""
    text = reader(f"{BUNDLE}/manifest.json")
    if text is None:
        return {}
    manifest = json.loads(text)
    variants = manifest["variants"]
    accuracies = {name: (row.get("fidelity") or {}).get("accuracy") for name, row in variants.items()}
    files = {name for row in variants.values() for name in (row["file"], *row.get("external_data", ()))}
    contents = {name: reader(f"{BUNDLE}/{name}") or b"" for name in sorted(files)}
    return {
        "digest": manifest.get("digest"),
        "fidelity": {name: _figures(accuracy) for name, accuracy in accuracies.items() if accuracy},
        "sizes": {name: len(content) for name, content in contents.items()},
        "nodes": {name: count_nodes(contents[name]) for name in sorted({row["file"] for row in variants.values()})},
    }


def _figures(accuracy: dict[str, Any]) -> dict[str, float]:
    values = {
        f"{head} {name}": accuracy[head][name]["value"]
        for head, name in FIGURES
        if (accuracy.get(head) or {}).get(name)
    }
    return {name: round(value, 6) for name, value in values.items()}


def count_nodes(content: bytes) -> int:
    """Count the nodes of an ONNX model, those of inner graphs and functions included."""
    import onnx

    def count(nodes: Any) -> int:  # noqa: ANN401 — a repeated field of protobuf
        inner = (attribute.g.node for node in nodes for attribute in node.attribute if attribute.HasField("g"))
        return len(nodes) + sum(count(each) for each in inner)

    model = onnx.load_model_from_string(content)
    return count(model.graph.node) + sum(count(function.node) for function in model.functions)


def environment(tree: Path) -> dict[str, str]:
    """Return the environment in which a checkout's runtime is what Python finds first.

    What PYTHONPATH has stays behind it: bench.avx2 puts its copies of libraries there.
    """
    places = filter(None, [str(tree / "runtime"), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "ORT_DISABLE_TELEMETRY": "1"}
