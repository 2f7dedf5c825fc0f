"""Entries out of the repository's past: what bench.performance had measured at each commit that changed its data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench.history.entries import SOURCES, Entry, Times, about, at_commit, git, path_of, read
from bench.performance.ratios import compare
from bertport.compare.evaluate.output import write_output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.history.entries import Reader

__all__ = ["collect", "entry_of", "sources_commit"]

DATA = ("docs/data/performance.json", "docs/data/performance-avx2.json", "docs/data/performance-vnni.json")
"""Files in which the figures are, or were."""
PEERS = {"fp32": "bertport fp32", "transformers": "transformers", "Optimum INT8": "optimum int8"}
"""Peers that INT8 is compared with, by name: for each a group of bench.performance."""
KEPT = ("cpu", "instruction_set", "usable_cores", "busy", "versions")
"""Keys of a machine's description that an entry keeps."""


def sources_commit(commit: str = "HEAD") -> str:
    """Return the last commit, at or before the one given, that changed the runtime or the embedded bundle."""
    return git("log", "-1", "--format=%H", commit, "--", *SOURCES)


def collect() -> list[Path]:
    """Add the entries that are missing to the files of their classes; return the files that changed."""
    changed: dict[Path, list[Entry]] = {}
    for name in DATA:
        for line in git("log", "--reverse", "--diff-filter=AM", "--format=%H %cI", "--", name).splitlines():
            commit, date = line.split()
            entry = entry_of(json.loads(git("show", f"{commit}:{name}")), commit, date)
            if entry is None:
                continue
            path = path_of(entry.machine["instruction_set"])
            entries = changed.get(path) or read(path)
            # A commit that changed the form of the data alone holds the same figures.
            if not any(entry.times == other.times for other in entries):
                changed[path] = sorted([*entries, entry], key=lambda each: each.date)
    for path, entries in changed.items():
        write_output(path, "".join(entry.line() for entry in entries))
    return sorted(changed)


def entry_of(data: dict[str, Any], commit: str, date: str, reader: Callable[[str], Reader] = at_commit) -> Entry | None:
    """Return what a run of bench.performance measured of the embedded model; None where it did not ask it.

    Args:
        data: The run's figures.
        commit: The commit that recorded them, where they name none.
        date: Its date, where they have none.
        reader: Returns, for a commit, a function that reads its files.
    """
    rows = [row for row in data["models"].get("default", {"rows": ()})["rows"] if row["task"] == "fill-mask"]
    times = []
    for peer, group in PEERS.items():
        both = compare(rows, ("bertport int8",), (group,))
        if both is not None:
            times.append(Times.of(both.times, ours="int8-dynamic", than=peer, workload="bench.performance"))
    if not times:
        return None
    measured = sources_commit(data.get("commit") or commit)
    machine = {key: data["machine"].get(key) for key in KEPT} | {"hidden": bool(data.get("hidden"))}
    return Entry(
        date=(data.get("date") or date).replace("Z", "+00:00"),
        commit=measured,
        source=f"bench.performance, recorded by {commit[:7]}",
        machine=machine,
        times=tuple(times),
        **about(reader(measured)),
    )
