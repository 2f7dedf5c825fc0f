"""The page docs/research/cold-start.md, made of the figures of bench.cold_start, and the targets for them."""

from __future__ import annotations

from statistics import median
from typing import Any

__all__ = ["REFERENCE", "complaints", "page"]

REFERENCE = "transformers pipeline"
"""Name of the row that others are compared with."""
FASTER, SHARE, FP32_SHARE = 10, 1 / 4, 1 / 3
"""Least number of times as fast as the reference, and the largest share of its memory; that of fp32."""
IMPORT_MS = 40
"""Most milliseconds of `import bertport.runtime`."""
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
{imported}"""
IMPORTED = """
`import bertport.runtime` alone takes {value:.0f} ms (median of {count} processes, {low:.0f} to {high:.0f}) and loads
{numpy}; the limit is {bar} ms.
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
    described += f". Commit {result['commit'][:12]}, {result['date'][:10]}"
    stages = [f"| {name} | {value:.0f} |" for name, value in result["stages_ms"].items()]
    return PAGE.format(
        table="\n".join(table(result)),
        rounds=result["rounds"],
        described=described,
        text=result["text"],
        answers="\n".join(answers(result["answers"])),
        stages="\n".join(stages),
        imported=imported(result),
    )


def imported(result: dict[str, Any]) -> str:
    """Return the paragraph on the import alone."""
    times = result["import_ms"]
    return IMPORTED.format(
        value=median(times),
        count=len(times),
        low=min(times),
        high=max(times),
        numpy="NumPy" if result["import_loads_numpy"] else "no NumPy",
        bar=IMPORT_MS,
    )


def complaints(result: dict[str, Any]) -> list[str]:
    """Return a sentence for each target that the data miss: of the variant that `load` takes, and of the import."""
    variant, found = result["loaded"]["variant"], []
    ours = result["ratios"][f"bertport, {variant}"]
    faster, share = ours["times_faster"]["value"], ours["share_of_memory"]["value"]
    most = FP32_SHARE if variant == "fp32" else SHARE
    if faster < FASTER:
        found.append(f"{variant} answers {faster:.1f} times as fast as the {REFERENCE}, and {FASTER} is the least")
    if share > most:
        found.append(f"{variant} takes {share:.2f} of the {REFERENCE}'s memory, and {most:.2f} is the most")
    milliseconds = median(result["import_ms"])
    if milliseconds > IMPORT_MS:
        found.append(f"import bertport.runtime takes {milliseconds:.0f} ms, and {IMPORT_MS} is the most")
    if result["import_loads_numpy"]:
        found.append("import bertport.runtime loads NumPy, which only answering takes")
    return found


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
