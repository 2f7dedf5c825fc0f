"""Section of docs/how-to/site.md on what was compared, from the data."""

from __future__ import annotations

from typing import Any

__all__ = ["section"]

INTRODUCTION = """## What was compared

`python -m bench.site` writes this section and its figures, `docs/data/site.json`. It compares answers in headless
Chromium with Python's from the same variant, on 200 held-out texts with a masked word. Words whose probabilities differ
by less than 0.0001 count as equally probable. The first answer is from an empty cache and a server on the same machine,
with the headers for threads; one text is one of 50, asked one after the other. SwiftShader is a GPU in software: it is
here to compare answers, not times."""
DEVICES = {"cpu": "WebAssembly", "gpu": "WebGPU (SwiftShader)"}


def section(data: dict[str, Any]) -> str:
    """Return the section that `python -m bench.site` writes."""
    versions = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    machine = f"{data['machine']['cpu']} ({data['machine']['instruction_set']})"
    lines = [
        INTRODUCTION,
        "",
        f"Commit {data['commit'][:10]}, {data['date'][:10]}, {machine}; {versions}.",
        "",
        "| variant | by | best word | furthest probability | golden logits | first answer | one text | texts/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        words, logits, times = row["fill-mask"], row["golden"]["outputs"]["logits"], row["milliseconds"]
        ties = f" and {words['ties']} as probable" if words["ties"] else ""
        holds = "hold" if row["golden"]["holds"] else "FAIL"
        timed = row["device"] == "cpu"
        threads = f", {row['threads']} threads" if timed else ""
        speed = (
            f"{times['first_answer'] / 1000:.1f} s | {times['one_text']:.0f} ms | {row['texts_per_second']:.0f} |"
            if timed
            else "not quoted | | |"
        )
        lines.append(
            f"| `{row['variant']}` | {DEVICES[row['device']]}{threads} | {words['equal']}{ties} of {words['texts']} | "
            f"{words['largest_difference']:.0e} | {holds}: {logits['worst']:.1g} of {logits['tolerance']:g} | {speed}"
        )
    found = data["trace"]
    first, step, steps = found["first"], found["first_step"], found["steps"]
    why = (
        f"**Why INT8 differs.** For “{found['text']}”, the first value that differs is of a {first['operator']} "
        f"(by {first['difference']:.0e}). Where that moves an "
        f"activation across the border of two 8-bit steps, it becomes another integer: first {step['other']} of "
        f"{step['of']:,} in `{step['value'].split('.treated')[0]}`, and after all layers {steps['other']:,} of "
        f"{steps['of']:,}, which moves a logit by {found['logits']:.2g}. The products themselves are right: for the "
        f"browser's own integers NumPy gives the same to {found['products_from_numpy']:.0e}."
    )
    lines += [
        "",
        why,
        "",
    ]
    return "\n".join(lines)
