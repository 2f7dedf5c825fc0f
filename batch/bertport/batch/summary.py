"""The summary of a run, and the line that shows how far it is."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from bertport.runtime.commands.progress import bar, duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bertport.batch.record import Record

__all__ = ["Pace", "summarized"]

UNKNOWN = "unknown"
"""The variant of parts that were made before parts said so."""
MOST_NODES = 4
"""Nodes whose pace the line shows."""


def summarized(record: Record, *, seconds: float, driver_cpu: float, engine: str) -> dict[str, Any]:
    """Return the summary of a run that came to its end: all of it, also what earlier runs of the command did.

    Args:
        record: the run.
        seconds: wall-clock time of this run of the command.
        driver_cpu: CPU seconds of its own process.
        engine: the engine.
    """
    done = record.done.values()
    errors: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    variants: Counter[str] = Counter()
    workers: defaultdict[str, set[str]] = defaultdict(set)
    for stats in done:
        node = stats["node"]
        errors.update(stats["errors"])
        parts[node] += 1
        rows[node] += stats["rows"]
        variants[stats.get("variant", UNKNOWN)] += stats["rows"]
        workers[node].add(stats["worker"])
    tokens, padded = (sum(stats[name] for stats in done) for name in ("tokens", "padded"))
    cpu = {name: round(sum(stats["cpu"][name] for stats in done), 3) for name in ("all", "read", "write")}
    return {
        "run": record.id,
        "engine": engine,
        "parts": len(record.parts),
        "parts_done_before": record.resumed,
        "rows": rows.total(),
        "rows_written": sum(stats["written"] for stats in done),
        "errors": errors.total(),
        "errors_by_reason": dict(errors.most_common()),
        "variants": dict(variants.most_common()),
        "tokens": tokens,
        "padding": round(1 - tokens / padded, 4) if padded else 0.0,
        "seconds": round(seconds, 3),
        "worker_seconds": round(sum(stats["seconds"] for stats in done), 3),
        "core_hours": round(sum(stats["seconds"] * stats["cores"] for stats in done) / 3600, 6),
        "cpu_seconds": {"workers": cpu["all"], "reading": cpu["read"], "writing": cpu["write"], "driver": driver_cpu},
        "nodes": {
            node: {"parts": parts[node], "rows": rows[node], "workers": len(workers[node])} for node in sorted(parts)
        },
    }


class Pace:
    """Progress and rate of a run, since it began or went on.

    Args:
        record: the run.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._began = time.monotonic()
        self._whole = sum(part.weight for part in record.parts) or 1
        self._weights = {part.number: part.weight for part in record.parts}
        self._before = self._share_of(record.done)
        self._done = self._before
        self._rows = self._tokens = 0
        self._nodes: defaultdict[str, int] = defaultdict(int)

    def _share_of(self, numbers: Iterable[int]) -> float:
        return sum(self._weights[number] for number in numbers) / self._whole

    def take(self, stats: dict[str, Any]) -> None:
        """Count a part that was made."""
        self._done += self._weights[stats["part"]] / self._whole
        self._rows += stats["rows"]
        self._tokens += stats["tokens"]
        self._nodes[stats["node"]] += stats["rows"]

    def line(self) -> str:
        """Return the line: the share that is done, rows and tokens a second, time left, and rows a second by node."""
        seconds = max(1e-9, time.monotonic() - self._began)
        text = (
            f"{bar(min(1.0, self._done))}  {self._rows / seconds:,.0f} rows/s, {self._tokens / seconds:,.0f} tokens/s"
        )
        made = self._done - self._before
        if made > 0:
            text += f", {duration(seconds * max(0.0, 1 - self._done) / made)} left"
        if len(self._nodes) > 1:
            fastest = sorted(self._nodes.items(), key=lambda item: -item[1])
            shown = [f"{node} {rows / seconds:,.0f}" for node, rows in fastest[:MOST_NODES]]
            more = len(fastest) - MOST_NODES
            text += f" ({', '.join(shown)}{f' and {more} more nodes' if more > 0 else ''})"
        return text
