"""The pages of performance in the checkout, one for each class of CPU, and the README's line, drawn from the data."""

from __future__ import annotations

import json
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
QUOTED = ("transformers", "optimum int8")
"""Groups that the README quotes for fill-mask: how many times as fast bertport's INT8 is as the best row of each."""
MODELS = {"base": "BERT-base", "default": "embedded model"}
"""The models that it quotes, by what it calls them."""
BEGINNING = "Speed-up of fill-mask in INT8 over transformers and over Optimum's INT8"
"""Beginning of the README's line."""

UNMEASURED = """# Performance: {title}

**Not measured yet**: no machine of this class was at hand. On one, in an idle checkout,

```sh
{command}
```

takes a quarter of an hour at most and writes this page in the form of those of CPUs with {others}.{elsewhere}
"""
ELSEWHERE = {
    "amx": """

## Seen elsewhere

On 27 November 2026 another program timed graphs alone on two cores of an Intel Xeon with AMX, of the embedded model and
of a BERT-base with seeded random weights: how many times as fast as fp32 on ONNX Runtime's CPU provider each is. These
figures are no measurement of this checkout, and no claim about it follows from them.

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
    """Return the README's line: what fill-mask on real lengths reaches on each class of CPU."""
    said = []
    for row in CLASSES.values():
        result = measured(row)
        said.append(f"[{row.title}](docs/research/{row.stem}.md) {_figures(result) if result else 'not measured yet'}")
    return f"{BEGINNING}, by class of CPU: {'; '.join(said)}."


def _figures(result: dict[str, Any]) -> str:
    times = {
        (ratio["model"], ratio["than"]): ratio["times"][0]
        for ratio in result["figures"]["ratios"]
        if (ratio["task"], ratio["subject"]) == ("fill-mask", "bertport int8")
    }
    return ", ".join(
        f"{name} {' and '.join(f'{times[model, than]:.1f}' for than in QUOTED)}"
        for model, name in MODELS.items()
        if model in result["models"]
    )


def write_pages() -> None:
    """Write every page from its data, and the README's line."""
    write_files(written())
    README.write_text(_with_line(README.read_text(encoding="utf-8")), encoding="utf-8")


def _with_line(readme: str) -> str:
    return "\n".join(quoted() if line.startswith(BEGINNING) else line for line in readme.split("\n"))


def check_pages() -> None:
    """Compare every page, and the README's line, with what the data give.

    Raises:
        SystemExit: with a sentence, where they differ.
    """
    check_files(written(), PROGRAM)
    if quoted() not in README.read_text(encoding="utf-8").splitlines():
        sys.exit(f"{README.name} does not quote what the data say: run python -m {PROGRAM}")
