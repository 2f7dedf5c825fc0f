"""The page of a batch's figures, from the files that the programs wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.batch.cluster import LONGEST_PAUSE, SAMPLE
from bench.checkout import ROOT, check_files, read_data, wrapped, write_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["PAGE", "data", "text", "write"]

PAGE = ROOT / "docs" / "research" / "batch.md"


def data(name: str) -> Path:
    """Return the file of a program's figures."""
    return ROOT / "docs" / "data" / f"batch-{name}.json"


def write(*, check: bool = False) -> None:
    """Write the page; with `check`, exit with a sentence where it is not what would be written."""
    found = {name: read_data(data(name), f"bench.batch {name}") for name in SECTIONS if data(name).exists()}
    made = {PAGE: text(found)}
    if check:
        check_files(made, "bench.batch page")
    else:
        write_files(made)


def text(found: dict[str, dict[str, Any]]) -> str:
    """Return the page that figures make, by program; of a program without figures it says so."""
    lines = ["# Batches on several nodes", ""]
    lines += wrapped(
        "`bertport batch` on one machine, and on nodes of Ray: raylets of that same machine, each with one CPU. "
        "`python -m bench.batch rate`, `many`, `driver` and `kills` measure in the environment of "
        "`python3 dev.py ray`, and `python -m bench.batch page` writes this page. Rows are sentences of the evaluation "
        "sample, repeated, unless another text is named."
    )
    for name, (title, section) in SECTIONS.items():
        missing = [f"Not measured yet: `python -m bench.batch {name}` does it."]
        lines += ["", f"## {title}", "", *(section(found[name]) if name in found else missing)]
        if name == "driver" and found.keys() >= {"driver", "many"}:
            lines += ["", *_memory([*found["driver"]["runs"].values(), found["many"]])]
    return "\n".join(lines) + "\n"


def _many(found: dict[str, Any]) -> list[str]:
    spent = found["cpu_seconds"]
    return wrapped(
        f"{found['rows']:,} rows of four words and a mask each through a tiny model, on two one-core workers, in "
        f"{found['parts']:,} parts: each row is there once, in order, {found['errors']:,} without an answer. The "
        f"driver held at most {_mib(found['driver_peak_bytes'])} (the limit is {_mib(found['most_driver_bytes'])}) and "
        f"used {spent['driver']:,.0f} CPU seconds beside the workers' {spent['workers']:,.0f}; the run took "
        f"{found['seconds'] / 60:,.1f} minutes.{_gone_on(found)} {_made(found)}"
    )


def _gone_on(found: dict[str, Any]) -> str:
    """Return which figures are of the last run alone, where an interrupted one had made parts."""
    before = found["parts_done_before"]
    if not before:
        return ""
    return f" {before:,} of the parts are of interrupted runs; the minutes and the driver's figures are the last one's."


def _driver(found: dict[str, Any]) -> list[str]:
    runs = found["runs"]
    spent = ", ".join(
        f"{run['cpu_seconds']['driver']:,.1f} for {run['rows']:,} rows in {run['parts']:,} parts "
        f"({run['seconds']:,.0f} s)"
        for run in runs.values()
    )
    return wrapped(
        f"CPU seconds of the driver with two one-core workers and a tiny model: {spent}. So its start takes "
        f"{found['start_seconds']:,.1f} s, a part {1e3 * found['part_seconds']:,.1f} ms, and waiting for workers "
        f"{100 * found['share_of_a_core']:,.1f}% of a core. {_made(found)}"
    )


def _memory(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the driver held in each run, and how that grew from the fewest rows to the most."""
    ordered = sorted(runs, key=lambda run: (run["rows"], run["parts"]))
    few, most = ordered[0], ordered[-1]
    held = ", ".join(
        f"{_mib(run['driver_peak_bytes'])} for {run['rows']:,} rows in {run['parts']:,} parts" for run in ordered
    )
    grown = most["driver_peak_bytes"] - few["driver_peak_bytes"]
    return wrapped(
        f"Its peak memory, with the longest run above: {held}. So {most['rows']:,} rows take "
        f"{_mib(abs(grown))} {'more' if grown >= 0 else 'less'} than {few['rows']:,}."
    )


def _kills(found: dict[str, Any]) -> list[str]:
    rows = "each row was there once" if found["each_row_once"] else "rows were missing or doubled"
    killed, equal = found["killed"], "were" if found["bit_for_bit_equal"] else "were not"
    return wrapped(
        f"{found['rows']:,} sentences through a tiny model in {found['parts']:,} parts, on two one-core workers. "
        f"Workers were killed {killed['worker']} times and the driver {killed['driver']} times (SIGKILL), at random "
        f"(seeded) moments within {LONGEST_PAUSE} seconds of a worker's start; after each death of the driver the "
        f"command was repeated. At the end {rows}, and the answers {equal} bit for bit those of one machine without "
        f"interruption. {_made(found)}"
    )


def _rate(found: dict[str, Any]) -> list[str]:
    """Return the table of rates and what it says."""
    lines = [
        "| engine | rows a second | workers' CPU s | reading | writing | driver's CPU s | driver's peak |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    names = {
        "local": "`local`, both cores",
        "ray 1": "`ray`, 1 one-core worker",
        "ray 2": "`ray`, 2 one-core workers",
    }
    for name, shown in names.items():
        cpu = found["cpu_seconds"][name]
        lines.append(
            f"| {shown} | {found['rows_per_second'][name]:,.0f} | {cpu['workers']:,.0f} | {cpu['reading']:.1f} | "
            f"{cpu['writing']:.1f} | {cpu['driver']:.1f} | {_mib(found['driver_peak_bytes'][name])} |"
        )
    share, furthest = (
        found["ray_2_of_local"],
        max(each["furthest_score"] for each in found["equal_to_predict"].values()),
    )
    verdict = "met" if share >= found["bar"] else "missed"
    said = (
        f"{found['rows']:,} sentences{_origin(found)}, fill-mask by the default model's {found['variant']}; "
        f"`Model.predict` on both cores: {found['predict']['rows_per_second']:,.0f} a second. Ray's two workers reach "
        f"{share:.0%} of `local` (target {found['bar']:.0%}: {verdict}), their start and that of Ray included. Reading "
        "and writing are part of the workers' CPU seconds; the peak is the driver's resident set. All answers are "
        f"`Model.predict`'s, row by row: scores within {furthest:.1e}. {_made(found)}"
    )
    return [*lines, "", *wrapped(said)]


def _origin(found: dict[str, Any]) -> str:
    """Return where the sentences are from, where they are not the evaluation sample's."""
    text = found.get("text", {"file": SAMPLE.name})
    return "" if text["file"] == SAMPLE.name else f" of {text['file']} ({text['sentences']:,} different ones)"


def _made(found: dict[str, Any]) -> str:
    """Return where and when figures were made, and what else the machine did."""
    first, last = found["load"]
    machine = found["machine"]
    return (
        f"({machine['cpu']}, {machine['physical_cores']} cores; {found['date'][:10]}, commit {found['commit'][:9]}; "
        f"load average {first:.1f} before and {last:.1f} after.)"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


SECTIONS = {
    "rate": ("Rate", _rate),
    "many": ("Very many rows", _many),
    "driver": ("The driver", _driver),
    "kills": ("Killed processes", _kills),
}
"""By program, in the order of the page: the section's title, and what makes its lines of figures."""
