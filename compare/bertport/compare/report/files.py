"""The files of a report, all drawn from its document."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from bertport.compare.report.html import html
from bertport.compare.report.markdown import markdown
from bertport.runtime.errors import PathError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["flat", "write_report"]

ESTIMATE = ("value", "low", "high", "count", "clusters")
"""Columns of an estimate."""
LEFT_OUT = ("per_text", "rounds", "pairs", "card")
"""Lists of single samples, which the JSON has and the CSV has not."""


def write_report(document: Mapping[str, Any], directory: Path) -> dict[str, Path]:
    """Write report.html, report.md, report.json and report.csv; each is renamed into place when it is whole.

    Raises:
        PathError: when the directory cannot be written.
    """
    texts = {
        "json": as_json(document),
        "csv": as_csv(document),
        "md": markdown(document),
        "html": html(document),
    }
    paths = {}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            path = directory / f"report.{suffix}"
            unfinished = directory / f".report.{suffix}.tmp"
            unfinished.write_text(text, encoding="utf-8", newline="")
            unfinished.replace(path)
            paths[suffix] = path
    except OSError as error:
        raise PathError(
            f"cannot write the report into {directory} ({error.strerror or error}): choose another --output"
        ) from error
    return {name: paths[name] for name in ("html", "md", "json", "csv")}


def as_json(document: Mapping[str, Any]) -> str:
    """Write JSON with each innermost list or object on one line: an estimate, a round's runs, a text's sums."""
    text = json.dumps(document, ensure_ascii=False, indent=1)
    # A line break in a string is written as an escape, so every one that stands there is layout.
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: re.sub(r"\n\s*", " ", found[0]), text) + "\n"


def as_csv(document: Mapping[str, Any]) -> str:
    """Return every figure of every row as a line: row, figure, value, ends of its interval, count and clusters.

    Figures that the budget bounds have another line, `budget.` and their limit, with the interval that they are judged
    by and the verdict.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["row", "bundle", "kind", "provider", "figure", *ESTIMATE, "verdict"])
    judged = {each["row"]: each["bounds"] for each in document["verdicts"]}
    for row in document["rows"]:
        start = [row["name"], row["bundle"], row["kind"], row["provider"]]
        for name, values in flat(row):
            writer.writerow([*start, name, *("" if each is None else each for each in values), ""])
        for each in judged.get(row["name"], ()):
            run = ["" if each["run"][name] is None else each["run"][name] for name in ESTIMATE]
            writer.writerow([*start, f"budget.{each['limit']}", *run, each["verdict"]])
    return out.getvalue()


def flat(value: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:  # noqa: ANN401 — JSON values
    """Yield the figures inside JSON values by their path: estimates whole, numbers alone."""
    empty = (None,) * 4
    if isinstance(value, dict):
        if set(ESTIMATE) <= set(value):
            yield path, tuple(value[name] for name in ESTIMATE)
            return
        for key, item in value.items():
            if key not in LEFT_OUT:
                yield from flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from flat(item, f"{path}.{number}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, (value, *empty)
