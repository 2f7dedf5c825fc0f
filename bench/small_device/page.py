"""The section of docs/how-to/small-device.md that the data give."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.checkout import wrapped

__all__ = ["section"]

FEW = ("tokenizers", "click")
AIM = 96 << 20
"""Bytes that a process with low memory was to hold at most, at its first answer."""
COLUMNS = (
    "first answer",
    "work until then",
    "on a quarter of a core",
    "peak memory",
    "without mapped files",
    "each next answer",
)
NUMBERS = {4: "four", 5: "five", 6: "six"}


def section(data: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    small, whole = data["small"], data["whole"]
    total = _bytes(small)
    versions = ", ".join(f"{name} {package['version']}" for name, package in small.items() if name != "bertport")
    machine = data["machine"]
    packed = f"{_mb(data['bundles']['default'])}; {_mb(data['bundles']['int8-dynamic'])}"
    count = len(data["runs"]) // 4
    most = max(bound["bytes"] for bound in data["bounds"]) >> 20
    source = (
        f"Medians of {count} processes of each kind, in turns. Peak memory counts the pages of mapped files, which "
        "other processes share and the system may drop; the next column leaves them out, after the first answer. "
        "The last column is CPU time. "
        f"Python {machine['versions']['python']}, {versions}; {machine['cpu']} ({machine['instruction_set']}), "
        f"{machine['busy']:.1f} other processes running on average, {machine['physical_cores']} cores; "
        f"{data['date'][:10]}, commit {data['commit'][:12]}, "
        "`python -m bench.small_device`, figures in `docs/data/small-device.json`."
    )
    few = sum(small[name]["bytes"] for name in FEW)
    lines = [
        "| | packages | MB |",
        "|---|---:|---:|",
        f"| the {NUMBERS.get(len(small), len(small))} packages | {len(small)} | {_mb(total)} |",
        f"| ONNX Runtime alone | 1 | {_mb(small['onnxruntime']['bytes'])} |",
        f"| numpy with its OpenBLAS | 1 | {_mb(small['numpy']['bytes'])} |",
        f"| bertport with the default model | 1 | {_mb(small['bertport']['bytes'])} |",
        f"| {', '.join(FEW)} | {len(FEW)} | {_mb(few)} |",
        f"| with all that pip adds (`bertport[cpu]`) | {len(whole)} | {_mb(_bytes(whole))} |",
        f"| the wheel, which is the download | 1 | {_mb(data['wheel_bytes'])} |",
        f"| the default bundle; packed with `int8-dynamic` alone | | {packed} |",
        "",
        "From the start of a process to its first answer from `int8-dynamic`, with one thread, and each later answer:",
        "",
        f"| | {' | '.join(COLUMNS)} |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(_row(data["runs"], data["answers"], low=low) for low in (False, True)),
        "",
        *wrapped(source),
        "",
        *wrapped(
            "Where memory is bounded, the system drops pages of files when it needs them. The least memory of a "
            "container (a control group without swap) in which all of some processes gave the first answer and "
            f"{data['few_answers']} more, none of its files in memory beforehand but libc, as after a device's start:"
        ),
        "",
        f"| | least memory | first answer | each next answer | with {most} MiB: first answer | each next answer |",
        "|---|---:|---:|---:|---:|---:|",
        *(_bound(data["bounds"], data["few_answers"], low=low) for low in (False, True)),
        "",
        *wrapped(_aim(data)),
    ]
    return "\n".join(lines) + "\n"


def _aim(data: dict[str, Any]) -> str:
    """Return whether a process with low memory holds no more than it was to hold."""
    low = [run for run in data["runs"] if run["low_memory"] and not run["limited"]]
    peak, least = _median(low, "peak_bytes"), _least(data["bounds"], low=True)["bytes"]
    kept = "met" if least <= AIM else f"missed by {(least - AIM) >> 20} MiB"
    tried = f"{least >> 20} MiB {'are' if least <= AIM else 'is the least that was'} enough"
    return (
        f"The target is a first answer within {AIM >> 20} MiB with `low_memory`. It is {kept}: {tried}. Without a "
        f"bound, and with files in memory already, the peak is {peak / 2**20:.0f} MiB here, as this kernel, "
        f"{' '.join(data['machine']['system'].split()[:2])}, then maps more of their pages than are used."
    )


def _least(bounds: list[dict[str, Any]], *, low: bool) -> dict[str, Any]:
    """Return the least bound within which all processes answered."""
    held = [bound for bound in bounds if bound["low_memory"] is low and len(bound["runs"]) == bound["of"]]
    return min(held, key=lambda bound: int(bound["bytes"]))


def _bound(bounds: list[dict[str, Any]], count: int, *, low: bool) -> str:
    least = _least(bounds, low=low)
    roomy = max((bound for bound in bounds if bound["low_memory"] is low), key=lambda bound: int(bound["bytes"]))
    times = []
    for bound in (least, roomy):
        answers = _median(bound["runs"], "answers_cpu_seconds") / count * 1e3
        times.append(f"{_median(bound['runs'], 'seconds'):.1f} s | {answers:.0f} ms")
    return f"| {_name(low=low)} | {least['bytes'] >> 20} MiB | {' | '.join(times)} |"


def _row(runs: list[dict[str, Any]], count: int, *, low: bool) -> str:
    free = [run for run in runs if run["low_memory"] is low and not run["limited"]]
    limited = [run for run in runs if run["low_memory"] is low and run["limited"]]
    answers = _median(free, "answers_cpu_seconds") / count * 1e3
    return (
        f"| {_name(low=low)} | {_median(free, 'seconds'):.2f} s | {_median(free, 'cpu_seconds'):.2f} s | "
        f"{_median(limited, 'seconds'):.1f} s | {_median(free, 'peak_bytes') / 2**20:.0f} MiB | "
        f"{_median(free, 'own_bytes') / 2**20:.0f} MiB | {answers:.1f} ms |"
    )


def _name(*, low: bool) -> str:
    return "`low_memory`" if low else "as it comes"


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(median(run[key] for run in runs))


def _bytes(packages: dict[str, dict[str, Any]]) -> int:
    return sum(int(package["bytes"]) for package in packages.values())


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}"
