"""The tables of docs/research/quantization.md: each stands between two marks, written from a file of docs/data."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, origin
from bench.tasks.tables import CHANGES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "DATA",
    "PAGE",
    "TABLES",
    "accuracy_table",
    "operators_table",
    "speed_table",
    "static_table",
    "write_table",
    "write_tables",
]

DOCS = ROOT / "docs"
PAGE = DOCS / "research" / "quantization.md"
DATA = DOCS / "data"
LEAST_SHARE = 0.01
"""Operators that take less of every run are not listed."""
RETIRED = {"static, smooth 0.5": "`--smooth` does nothing any more (d5b61ea)"}
"""Ways that there were, and what has become of them."""
NONE: dict[str, Any] = {"count": 0, "ms": 0.0}
"""Figures of an operator in a run without it."""


def write_tables() -> None:
    """Write every table whose file is there."""
    for name, make in TABLES.items():
        file = DATA / f"quantization-{name}.json"
        if file.is_file():
            write_table(name, make(json.loads(file.read_text(encoding="utf-8"))))


def write_table(name: str, text: str, page: Path = PAGE) -> None:
    """Put a table between its marks in the page."""
    old = page.read_text(encoding="utf-8")
    begin, end = f"<!-- table: {name} -->\n", f"<!-- end: {name} -->"
    before, _, rest = old.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        sys.exit(f"{page} has no marks for the table {name!r}")
    page.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")


def accuracy_table(result: dict[str, Any]) -> str:
    """Return how near each way is, as Markdown."""
    text = result["text"]
    lines = [
        (
            f"{result['model']}, {text['masked_positions']:,} masked positions and {text['pairs']:,} pairs of "
            f"{text['name']}, on {_where(result)}; {origin(result)}. In brackets 95% intervals. `ships` is what "
            f"`bertport quantize` made then.{_since(result)}"
        ),
        "",
        "| way | what | top-1 agreement | KL (nats) | NSP flips | cosine | KL moved by the batch |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        mlm, nsp, hidden, stability = (row[name] for name in ("mlm", "nsp", "hidden", "stability"))
        moved = stability["batch_mates"]["kl"]["value"] if stability else None
        cells = [
            row["name"],
            row["what"],
            _estimate(mlm["top1_agreement"], ".2%") if mlm else "",
            _estimate(mlm["kl"], ".5f") if mlm else "",
            f"{nsp['flips']['value']:.2%}" if nsp else "",
            f"{hidden['cosine']['value']:.5f}" if hidden else "",
            "" if moved is None else f"{moved:.1e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_table(result: dict[str, Any]) -> str:
    """Return how fast each way is, as Markdown."""
    shapes = list(result["rows"][0]["times"])
    fp32 = result["rows"][0]["bytes"]
    lines = [
        (
            f"{result['model']}, {result['rounds']} rounds of 3 runs, on {_where(result)}; {origin(result)}. Medians; "
            f"the ratio to fp32 of the same run with its 95% interval.{_since(result)}"
        ),
        "",
        f"| way | size | {' | '.join(shapes)} |",
        f"|---|---|{'---|' * len(shapes)}",
    ]
    for row in result["rows"]:
        cells = [row["name"], f"{row['bytes'] / fp32:.3f}"]
        for timed in row["times"].values():
            ratio = timed["speedup"]
            times = f"{timed['ms']:.1f} ms"
            if row is not result["rows"][0]:
                times += f", **{ratio['value']:.2f}x** ({ratio['low']:.2f}-{ratio['high']:.2f})"
            cells.append(times)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def operators_table(rows: list[dict[str, Any]]) -> str:
    """Return what each operator of a run takes as Markdown: a table for each model, its forms beside each other."""
    models = dict.fromkeys(row["model"] for row in rows)
    return "\n\n".join(_operators_of([row for row in rows if row["model"] == model]) for model in models)


def _operators_of(forms: list[dict[str, Any]]) -> str:
    """Return a model's table: an operator in each line, a shape and form in each column."""
    runs = {f"{shape}, {form['form']}": form["shapes"][shape] for shape in forms[0]["shapes"] for form in forms}
    totals = {run: sum(operator["ms"] for operator in operators.values()) for run, operators in runs.items()}
    largest: dict[str, float] = {}
    for run, operators in runs.items():
        for name, operator in operators.items():
            largest[name] = max(largest.get(name, 0), operator["ms"] / totals[run])
    model, names = forms[-1]["model"], " / ".join(form["form"] for form in forms)
    lines = [
        (
            f"{model[:1].upper()}{model[1:]}, on one thread, {_where(forms[-1])}; {origin(forms[-1])}. Milliseconds, "
            "and the share of a run."
        ),
        "",
        f"| operator | calls, {names} | {' | '.join(runs)} |",
        f"|---|{'---:|' * (1 + len(runs))}",
    ]
    for name in sorted(largest, key=lambda name: -largest[name]):
        if largest[name] >= LEAST_SHARE:
            counts = " / ".join(str(next(iter(form["shapes"].values())).get(name, NONE)["count"]) for form in forms)
            times = [operators.get(name, NONE)["ms"] for operators in runs.values()]
            cells = [f"{ms:.2f} ({ms / totals[run]:.0%})" for run, ms in zip(runs, times, strict=True)]
            lines.append(f"| {name} | {counts} | {' | '.join(cells)} |")
    lines.append(f"| **all** | | {' | '.join(f'**{total:.2f}**' for total in totals.values())} |")
    return "\n".join(lines)


def static_table(result: dict[str, Any]) -> str:
    """Return the plain int8-static-cpu beside the one within the budget, as Markdown."""
    plain, held = (result["variants"][name] for name in ("plain", "held"))
    text, shapes = plain["text"], list(result["times"])
    lines = [
        (
            f"{text['masked_positions']:,} masked positions and {text['pairs']:,} pairs of {text['name']}, on "
            f"{_where(result)}; {origin(result)}. In brackets 95% intervals; speeds are medians of the same run."
        ),
        "",
        (
            f"| graph | channels in float | rotated | layers in higher precision | top-1 agreement | KL | NSP "
            f"flips | of plain's speed at {', '.join(shapes)} | of fp32's |"
        ),
        "|---|---:|---:|---:|---|---|---|---|---|",
    ]
    titles = {
        "plain": "`int8-static-cpu`, plain: neither remedy",
        "unrotated": "channels in float",
        "unkept": "rotation",
        "recipe": "both: the recipe",
        "held": f"within {held.get('budget')}",
        "int8-static plain": "`int8-static`, plain: neither remedy",
        "int8-static unrotated": "channels in float",
        "int8-static unkept": "rotation",
        "int8-static recipe": "both: the recipe",
    }
    refused = ""
    for name, title in titles.items():
        row = result["variants"][name]
        if "refused" in row:
            refused = f"No combination of layers held the budget: {row['refused']}."
            continue
        mlm, nsp = row["accuracy"]["mlm"], row["accuracy"]["nsp"]
        layers = row["higher_precision"]
        cells = [
            title,
            str(row["calibration"]["kept_in_float"]),
            str(row["calibration"]["rotated"]),
            f"{len(layers)} ({row['higher_is']})" if layers else "0",
            _estimate(mlm["top1_agreement"], ".2%"),
            _estimate(mlm["kl"], ".5f"),
            f"{nsp['flips']['value']:.2%}",
            "1" if name == "plain" else _ratios(result, name, "plain"),
            _ratios(result, name, "fp32"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(["", refused] if refused else [])])


def _ratios(result: dict[str, Any], name: str, reference: str) -> str:
    """Return how many times as fast a variant is as a reference, shape by shape; empty for one that was not timed."""
    if any(name not in figures for figures in result["times"].values()):
        return ""
    return ", ".join(_estimate(figures[name][f"over {reference}"], ".2f") for figures in result["times"].values())


TABLES = {
    f"{name}{kind}": make
    for name, make in (
        ("speed", speed_table),
        ("accuracy", accuracy_table),
        ("operators", operators_table),
        ("static", static_table),
    )
    for kind in ("", "-avx2")
}
"""By the name of the table, and of its file."""


def _since(result: dict[str, Any]) -> str:
    """Return what the variants of a table lack that recipes have now; nothing where they are today's."""
    names = [row["name"] for row in result["rows"]]
    changes = {name: [row for row in CHANGES if row.date > result["date"] and name in row.recipes] for name in names}
    said = [
        f"{name}: {', '.join(f'{row.what} ({row.commit})' for row in rows)}" for name, rows in changes.items() if rows
    ]
    said += [f"{name}: {what}" for name, what in RETIRED.items() if name in names]
    return f" **Recipes have changed since**, in {'; '.join(said)}." if said else ""


def _estimate(estimate: dict[str, Any], form: str) -> str:
    return f"{estimate['value']:{form}} ({estimate['low']:{form}}-{estimate['high']:{form}})"


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{machine['cpu']} ({machine['instruction_set']}), {machine['usable_cores']:g} cores, "
        f"ONNX Runtime {machine['versions']['onnxruntime']}"
    )
