"""The pages of performance in the checkout, one for each class of CPU, and the README's table, drawn from the data."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_files, write_files
from bench.performance.classes import CLASSES
from bench.performance.report import page

if TYPE_CHECKING:
    from pathlib import Path

    from bench.performance.classes import CpuClass

__all__ = ["check_pages", "quoted", "write_pages"]

PROGRAM = "bench.performance --pages"
README = ROOT / "README.md"
QUOTED = {"transformers": "transformers", "optimum int8": "Optimum's INT8"}
"""Groups that the README quotes for fill-mask, by what it calls them: how many times as fast bertport's INT8 is as the
best row of each."""
MODELS = {"base": "BERT-base", "default": "embedded model"}
"""The models that it quotes, by what it calls them."""
BEGINNING = "| fill-mask in INT8, times as fast as |"
"""Beginning of the README's table."""

UNMEASURED = """# Performance: {title}

**Not measured yet**: no machine of this class was at hand. On one, in an idle checkout,

```sh
{command}
```

takes about half an hour and writes this page, in the form of the pages for CPUs with {others}.{elsewhere}
"""
ELSEWHERE = {
    "amx": """

## Seen elsewhere

On 27 November 2026 another program timed graphs alone on two cores of an Intel Xeon with AMX, for the embedded model
and a BERT-base with seeded random weights. The table says how many times as fast as fp32 on ONNX Runtime's CPU provider
each is. These figures were not measured with this checkout, and this page makes no claim from them.

| | 1x16 | 1x128 | 8x128 | 1x512 |
| --- | ---: | ---: | ---: | ---: |
| embedded model, int8-dynamic | 1.5 to 1.7 | 1.06 to 1.23 | 1.31 | 1.05 to 1.13 |
| embedded model, int8-static-cpu | 1.4 | 1.8 | 2.2 | 1.7 |
| embedded model, fp32 graph through OpenVINO's plugin in bf16 | 1.0 to 1.2 | 2.5 | 2.4 to 2.7 | 2.3 |
| BERT-base, int8-dynamic | 1.57 | 1.80 | 2.80 | 2.52 |
| BERT-base, fp32 graph through OpenVINO's plugin in bf16 | 0.88 | 2.01 | 2.89 | 3.12 |"""
}
"""Sections on what is known of a class from elsewhere, by its name."""


def others(row: CpuClass) -> str:
    """Return links to the pages of the other classes."""
    links = [f"[{other.title}]({other.stem}.md)" for other in CLASSES.values() if other != row]
    return f"{', '.join(links[:-1])} and {links[-1]}"


def measured(row: CpuClass) -> dict[str, Any] | None:
    """Return what was measured of a class; None where nothing was."""
    path = ROOT / "docs" / "data" / f"{row.stem}.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def written() -> dict[Path, str]:
    """Return each class's page as its data give it."""
    pages = {}
    for row in CLASSES.values():
        result = measured(row)
        pages[ROOT / "docs" / "research" / f"{row.stem}.md"] = (
            page(result)
            if result
            else UNMEASURED.format(
                title=row.title, command=row.command, others=others(row), elsewhere=ELSEWHERE.get(row.name, "")
            )
        )
    return pages


def quoted() -> str:
    """Return the README's table: what fill-mask on real lengths reaches on each class of CPU."""
    results = {row: measured(row) for row in CLASSES.values()}
    head = [f"[{row.title}](docs/research/{row.stem}.md){_as_of(result)}" for row, result in results.items()]
    lines = [f"{BEGINNING} {' | '.join(head)} |", f"|---{'|---:' * len(head)}|"]
    for than, peer in QUOTED.items():
        cells = [_times(result, than) for result in results.values()]
        lines.append(f"| {peer}: {', '.join(MODELS.values())} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _as_of(result: dict[str, Any] | None) -> str:
    """Return what was measured, and when, where what is measured has changed since; nothing otherwise."""
    if result is None or not result.get("changed_since"):
        return ""
    return f" (bertport {result['machine']['versions']['bertport']}, {result['date'][:10]})"


def _times(result: dict[str, Any] | None, than: str) -> str:
    """Return how many times as fast fill-mask of each model is as the best of a group."""
    if result is None:
        return "not measured yet"
    times = {
        ratio["model"]: ratio["times"][0]
        for ratio in result["figures"]["ratios"]
        if (ratio["than"], ratio["task"], ratio["subject"]) == (than, "fill-mask", "bertport int8")
    }
    return ", ".join(f"{times[model]:.1f}" if model in times else "not measured" for model in MODELS)


def write_pages() -> None:
    """Write every page from its data, and the README's table."""
    write_files(written())
    README.write_text(_with_table(README.read_text(encoding="utf-8")), encoding="utf-8")


def _with_table(readme: str) -> str:
    rows = re.compile(rf"^{re.escape(BEGINNING)}.*\n(?:\|.*\n)*", re.MULTILINE)
    return rows.sub(lambda _: f"{quoted()}\n", readme)


def check_pages() -> None:
    """Compare every page, and the README's table, with what the data give.

    Raises:
        SystemExit: with a sentence, where they differ.
    """
    check_files(written(), PROGRAM)
    if f"\n{quoted()}\n" not in README.read_text(encoding="utf-8"):
        sys.exit(f"{README.name} does not quote what the data say: run python -m {PROGRAM}")
