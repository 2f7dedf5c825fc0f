"""docs/research/history.md and its plots, from docs/data/history-*.jsonl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.checkout import ROOT, check_files, write_files
from bench.history.entries import Entry, path_of, read
from bench.history.plot import Panel, Point, Series, draw
from bench.history.release import RELEASES
from bench.performance.classes import CLASSES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_pages", "histories", "write_pages"]

PAGE = ROOT / "docs" / "research" / "history.md"
PROGRAM = "bench.history pages"
VARIANT = "int8-dynamic"
SERIES = (
    *((release.name, release.name) for release in RELEASES),
    ("commit b86e1dc (0.2.0.dev0)", "b86e1dc"),
    ("fp32", "own fp32"),
    ("transformers", "transformers"),
    ("Optimum INT8", "Optimum INT8"),
)
"""References that INT8 is compared with: the name in an entry, and on the page. An entry of 29 November took turns with
a commit between two releases."""
AGREEMENT = "mlm top1_agreement"
KEPT = ("same word as fp32", "INT8, MB", "graph nodes")
"""Columns of what does not depend on the machine's speed."""
FILES = "onnx/model_int8_dynamic.onnx"
"""Prefix of the names of the INT8 graph's files."""

HEAD = """# Speed over time

How fast the embedded model's `int8-dynamic` was at each measurement, how often it chose fp32's word, and how large it
was, by class of CPU. Speed is a ratio of rows that took turns on the same machine: how many times as fast as the
runtime and bundle of the last release (of 29 November: of commit b86e1dc, 0.2.0.dev0), as fp32 of the same bundle, and
as peers. Seconds of different days and machines are not compared. Error bars are 95% intervals.

```sh
python -m bench.history append   # on an idle machine: a line in docs/data/history-CLASS.jsonl, and this page anew
python -m bench.history guard    # what CI asks: is anything worse than in the last line, or slower than the release?
```

`guard` fails if agreement is lower by 0.002, KL higher by a tenth, a file larger by 2%, or the graph has a node more.
It also fails if old and new take turns at 16 texts and the whole interval of the ratio lies below 0.9. It compares no
times in seconds. A change that is meant to cost something is recorded by `append`, in the same commit. Entries from
bench.performance were collected later (`python -m bench.history collect`); they compare fill-mask with peers, not with
a release.
"""


def histories() -> dict[str, list[Entry]]:
    """Return the entries of each class of CPU that has some, the oldest first."""
    found = {row.name: read(path_of(row.instruction_sets[0])) for row in CLASSES.values()}
    return {name: entries for name, entries in found.items() if entries}


def _points(entries: list[Entry], than: str) -> tuple[Point, ...]:
    ratios = ((at, entry.ratio(VARIANT, than)) for at, entry in enumerate(entries))
    return tuple(Point(at=at, value=each.value, low=each.low, high=each.high) for at, each in ratios if each)


def _agreement(entry: Entry) -> float | None:
    return entry.fidelity.get(VARIANT, {}).get(AGREEMENT)


def _megabytes(entry: Entry) -> float | None:
    sizes = [size for name, size in entry.sizes.items() if name.startswith(FILES)]
    return sum(sizes) / 1e6 if sizes else None


def _plot(title: str, entries: list[Entry]) -> str:
    speed = [Series(name=name, points=_points(entries, than)) for than, name in SERIES]
    agreement = [(at, _agreement(entry)) for at, entry in enumerate(entries)]
    size = [(at, _megabytes(entry)) for at, entry in enumerate(entries)]
    agreeing = tuple(Point(at=at, value=100 * value) for at, value in agreement if value is not None)
    bytes_of = tuple(Point(at=at, value=value) for at, value in size if value is not None)
    panels = [
        Panel(
            title="int8-dynamic, fill-mask: times as fast as",
            series=tuple(series for series in speed if series.points),
            height=190,
            form="{:.3g}",
        ),
        Panel(title="words chosen as by fp32, %", series=(Series(name="agreement", points=agreeing),), form="{:.4g}"),
        Panel(title="the INT8 graph's files, MB", series=(Series(name="size", points=bytes_of),), form="{:.3g}"),
    ]
    ticks = [f"{entry.date[5:10]} {entry.commit[:7]}" for entry in entries]
    return draw(f"Speed over time on CPUs with {title}", ticks, panels)


def _cell(entry: Entry, than: str) -> str:
    each = entry.ratio(VARIANT, than)
    return f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})" if each else ""


def _table(entries: list[Entry]) -> str:
    shown = [(than, name) for than, name in SERIES if any(entry.ratio(VARIANT, than) for entry in entries)]
    rows = [
        ["date", "commit", *(f"times {name}" for _, name in shown), *KEPT, "source"],
        ["---", "---", *("---:" for _ in shown), *("---:" for _ in KEPT), "---"],
    ]
    for entry in reversed(entries):
        agreement, size = _agreement(entry), _megabytes(entry)
        hidden = " (AVX2 alone by bench.avx2)" if entry.machine.get("hidden") else ""
        rows.append(
            [
                entry.date[:10],
                f"`{entry.commit[:7]}`",
                *(_cell(entry, than) for than, _ in shown),
                f"{agreement:.2%}" if agreement else "",
                f"{size:.1f}" if size else "",
                f"{entry.nodes[FILES]:,}" if FILES in entry.nodes else "",
                f"{entry.source}{hidden}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def written() -> dict[Path, str]:
    """Return the page and its plots as the data give them."""
    files, sections = {}, []
    for name, entries in histories().items():
        row = CLASSES[name]
        plot = ROOT / "docs" / "data" / f"history-{name}.svg"
        files[plot] = _plot(row.title, entries)
        sections.append(
            f"\n## {row.title}\n\n![Speed, agreement and size over time, {row.title}](../data/{plot.name})\n\n"
            f"{_table(entries)}\n"
        )
    return {**files, PAGE: HEAD + "".join(sections)}


def write_pages() -> None:
    """Write the page and its plots."""
    write_files(written())


def check_pages() -> None:
    """Compare the page and its plots with what the data give.

    Raises:
        SystemExit: with a sentence, where they differ.
    """
    check_files(written(), PROGRAM)
