"""The section of docs/research/arm64.md that the data give."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["INFINITE", "section"]

INFINITE = "infinite"
"""Word of a row in place of a difference, for which JSON has no number: of another shape, or a value that is none."""

PATHS = {"asimddp": "dot product", "i8mm": "i8mm", "sve": "SVE"}
"""Features that choose a kernel, by Linux's names, and what a table calls them."""


def section(data: dict[str, Any], tests: dict[str, Any]) -> str:
    """Return the tables as Markdown: of the golden vectors, and of the runtime's tests."""
    lines = ["| emulated CPU | " + " | ".join(PATHS.values()) + " | outputs | equal | within | differ | refused |"]
    lines.append("|---|" + "---|" * len(PATHS) + "---:|" * 5)
    for cpu, guest in data["guests"].items():
        rows = [row for row in data["rows"] if row["cpu"] == cpu]
        counts = [sum(row["result"] == result for row in rows) for result in ("equal", "within", "differs", "refused")]
        shown = ["yes" if name in guest.get("features", []) else "no" for name in PATHS]
        lines.append(f"| `{cpu}` | " + " | ".join([*shown, *map(str, [len(rows), *counts])]) + " |")
    lines += ["", *_farthest(data), *_refused(data)]
    guest = next(iter(data["guests"].values()))
    versions = ", ".join(f"{name} {guest[name]}" for name in ("python", "onnxruntime", "numpy", "tokenizers"))
    lines += ["", f"{data['date'][:10]}, commit {data['commit'][:12]}: {versions}.", "", *_tests(tests)]
    return "\n".join(lines) + "\n"


def _tests(data: dict[str, Any]) -> list[str]:
    """Return the table of the runtime's tests, and the first words of each failure."""
    lines = ["| the runtime's tests | passed | skipped | failed | commit |", "|---|---:|---:|---:|---|"]
    failed = []
    for cpu, row in data["tests"].items():
        # Each that failed has a line, and so has a file whose process ended before it could count.
        shown = [*(row["counts"].get(name, 0) for name in ("passed", "skipped")), len(row["failures"])]
        lines.append(f"| `{cpu}` | " + " | ".join(map(str, shown)) + f" | {row['commit'][:12]} |")
        failed += [f"- `{cpu}`: {re.sub(r'[^ ]*/checkout/', '', line)}" for line in row["failures"]]
    return [*lines, *(["", *failed] if failed else [])]


def _farthest(data: dict[str, Any]) -> list[str]:
    """Return the table of the largest difference, as a share of its tolerance, of each variant on each CPU."""
    cpus = list(data["guests"])
    variants = dict.fromkeys(row["variant"] for row in data["rows"])
    lines = ["| variant | " + " | ".join(f"`{cpu}`" for cpu in cpus) + " |", "|---|" + "---:|" * len(cpus)]
    for variant in variants:
        cells = [_cell([row for row in data["rows"] if (row["cpu"], row["variant"]) == (cpu, variant)]) for cpu in cpus]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    said = "The largest difference as a share of its tolerance; in brackets the number of bundles that were run."
    return [*lines, "", said]


def _cell(rows: list[dict[str, Any]]) -> str:
    """Return what the table says of a variant on a CPU."""
    ran = [row for row in rows if row["difference"] is not None or row.get("word") == INFINITE]
    if not ran:
        return "refused" if any(row["result"] == "refused" for row in rows) else "not run"
    worst = max(math.inf if row["difference"] is None else row["difference"] / row["tolerance"] for row in ran)
    return f"{f'{worst:.0%}' if math.isfinite(worst) else INFINITE} ({len({row['bundle'] for row in ran})})"


def _refused(data: dict[str, Any]) -> list[str]:
    said = {row["said"]: row["variant"] for row in data["rows"] if row["result"] in ("refused", "differs")}
    return ["", *(f"- {variant}: {text}" for text, variant in said.items())] if said else []
