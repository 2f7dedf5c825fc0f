"""The page docs/research/cold-start.md, made of the figures of bench.cold_start."""

from __future__ import annotations

from statistics import median
from typing import Any

MIB = 2**20
PAGE = """# Cold start

From the start of a process to the first fill-mask answer of the default model, and the largest resident set of that
process. Written by `python -m bench.cold_start`; the runs are in [data/cold-start.json](../data/cold-start.json).

{table}

Medians of {rounds} rounds in which the subjects alternate, each run a fresh process with a warm file cache; intervals
are 95% bootstrap intervals over rounds. transformers runs the checkpoint that is restored from the bundle.

{described}.

## The same answer

Text: `{text}`

{answers}

## Where bertport's time goes

Medians of fresh processes.

| stage | ms |
|---|---:|
{stages}
"""


def page(result: dict[str, Any]) -> str:
    """Return the page as Markdown, every figure of it drawn from `result`."""
    machine, loaded = result["machine"], result["loaded"]
    versions = machine["versions"] | result["versions"]
    described = (
        f"Bundle: {loaded['name']}; `load` takes its variant {loaded['variant']} ({loaded['recipe']}). "
        f"Machine: {machine['cpu']}, {machine['usable_cores']:g} cores usable, "
        f"instruction set {machine['instruction_set']}, {machine['system']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )
    stages = [f"| {name} | {value:.0f} |" for name, value in result["stages_ms"].items()]
    return PAGE.format(
        table="\n".join(table(result)),
        rounds=result["rounds"],
        described=described,
        text=result["text"],
        answers="\n".join(answers(result["answers"])),
        stages="\n".join(stages),
    )


def table(result: dict[str, Any]) -> list[str]:
    """Return one row per subject."""
    rows = [
        "| | seconds | CPU seconds | peak memory, MiB | times faster | share of memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in result["runs"].items():
        wall, cpu, peak = (median(run[field] for run in runs) for field in ("seconds", "cpu_seconds", "peak_bytes"))
        ratios = result["ratios"].get(name)
        faster, share = (interval(ratios[key]) if ratios else "1" for key in ("times_faster", "share_of_memory"))
        rows.append(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak / MIB:.0f} | {faster} | {share} |")
    return rows


def interval(estimate: dict[str, float]) -> str:
    """Return a figure with its interval."""
    return f"{estimate['value']:.3g} ({estimate['low']:.3g} to {estimate['high']:.3g})"


def answers(by_subject: dict[str, list[list[Any]]]) -> list[str]:
    """Return the words of each subject side by side."""
    names = list(by_subject)
    rows = zip(*by_subject.values(), strict=True)
    return [
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
        *("| " + " | ".join(f"{word} {score:.5f}" for word, score in row) + " |" for row in rows),
    ]
