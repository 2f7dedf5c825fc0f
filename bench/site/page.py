"""Section of docs/how-to/site.md on what was compared, from the data."""

from __future__ import annotations

from typing import Any

from bench.checkout import wrapped

__all__ = ["section"]

INTRODUCTION = """## What was compared

`python -m bench.site` writes this section and its figures, `docs/data/site.json`. It compares answers in headless
Chromium with Python's from the same variant, on 200 held-out texts with a masked word, from sites that `bertport site`
wrote. Words whose probabilities differ by less than 0.0001 count as equally probable; “largest difference” is that of
a probability. The column “logits” says for how many texts all 30,522 logits at the mask are within the variant's
[golden tolerance](../reference/golden.md#tolerances), and how far off the worst is. “One text” is the time per text
over 50 texts, asked one after another. The server sends the headers for threads. SwiftShader is a GPU in software,
used to compare answers, not times."""
VISITS = """A visit is timed from opening the address until the page has answered its first example, which is asked as
soon as the page allows. That includes loading the page and the model, installing the service worker, hashing every
file, and comparing the golden vectors if a short text takes no more than 250 ms. The server is on the
same machine and sends no headers: the first visit has one thread, and the second, from the browser's cache, all
threads."""
DEVICES = {"cpu": "WebAssembly", "gpu": "WebGPU (SwiftShader)"}


def section(data: dict[str, Any]) -> str:
    """Return the section that `python -m bench.site` writes."""
    versions = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    machine = (
        f"{data['machine']['cpu']} ({data['machine']['instruction_set']}), {data['machine']['busy']:.1f} other "
        f"processes running on average, {data['machine']['physical_cores']} cores"
    )
    visited = [row for row in data["rows"] if "page" in row]
    lines = [
        INTRODUCTION,
        "",
        *wrapped(f"Commit {data['commit'][:10]}, {data['date'][:10]}, {machine}; {versions}."),
        "",
        "| variant | by | best word | largest difference | logits | golden logits | one text | texts/s |",
        "|---|---|---|---|---|---|---|---|",
        *map(_compared, data["rows"]),
        "",
        *wrapped(" ".join(VISITS.split())),
        "",
        "| variant | first visit: ready | answered | slowest | vectors compared | second visit: answered | threads |",
        "|---|---|---|---|---|---|---|",
        *map(_visited, visited),
        "",
        *wrapped(
            f"Medians of {visited[0]['page']['visits']} visits, each with a browser of its own."
            f"{_crowded(data['machine'])}"
        ),
        "",
        *wrapped(_why(data["trace"])),
        "",
    ]
    return "\n".join(lines)


def _compared(row: dict[str, Any]) -> str:
    words, golden = row["fill-mask"], row["golden"]["outputs"]["logits"]
    ties = f" and {words['ties']} as probable" if words["ties"] else ""
    threads = f", {row['threads']} threads" if row["device"] == "cpu" else ""
    logits, speed = "not compared", "not quoted | |"
    if "logits" in row:
        far = row["logits"]
        logits = f"{far['within']} of {far['texts']}: {far['largest_difference']:.1g} of {far['tolerance']:g}"
        speed = f"{row['one_text_milliseconds']:.0f} ms | {row['texts_per_second']:.0f} |"
    return (
        f"| `{row['variant']}` | {DEVICES[row['device']]}{threads} | {words['equal']}{ties} of {words['texts']} | "
        f"{words['largest_difference']:.0e} | {logits} | {'hold' if row['golden']['holds'] else 'FAIL'}: "
        f"{golden['worst']:.1g} of {golden['tolerance']:g} | {speed}"
    )


def _visited(row: dict[str, Any]) -> str:
    first, second, count = row["page"]["first"], row["page"]["second"], row["page"]["visits"]
    threads = ", then ".join(visit["where"].removeprefix("on the CPU, ") for visit in (first, second))
    return (
        f"| `{row['variant']}` | {_seconds(first['ready'])} | **{_seconds(first['answered'])}** | "
        f"{_seconds(first['slowest'])} | {first['proven']} of {count} | {_seconds(second['answered'])} | "
        f"{threads} |"
    )


def _crowded(machine: dict[str, Any]) -> str:
    """Return what is said of times that were measured while others used the machine."""
    if machine["busy"] < machine["physical_cores"]:
        return ""
    return " More processes were running than there are cores: on an idle machine all times are shorter."


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s"


def _why(found: dict[str, Any]) -> str:
    first, step, steps = found["first"], found["first_step"], found["steps"]
    return (
        f"**Why INT8 differs.** For “{found['text']}”, the first value that differs is of a {first['operator']} "
        f"(by {first['difference']:.0e}). Where such a difference moves an "
        f"activation across the border of two 8-bit steps, it becomes another integer: first {step['other']} of "
        f"{step['of']:,} in `{step['value'].split('.treated')[0]}`, and after all layers {steps['other']:,} of "
        f"{steps['of']:,}, which moves a logit by {found['logits']:.2g}. The products themselves are right: from the "
        f"browser's own integers NumPy computes the same to within {found['products_from_numpy']:.0e}."
    )
