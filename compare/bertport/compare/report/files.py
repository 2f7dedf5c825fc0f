"""The files of a report: report.html, report.md, report.json and report.csv."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from bertport.compare.codec import encode, laid_out
from bertport.compare.report.html import html
from bertport.compare.report.markdown import markdown
from bertport.runtime.errors import PathError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertport.compare.codec import JSON
    from bertport.compare.report.document import Report

__all__ = ["REPORT_FILES", "as_csv", "as_json", "write_report"]

REPORT_FILES = tuple(f"report.{suffix}" for suffix in ("html", "md", "json", "csv"))
"""Names of a report's files."""
ESTIMATE = ("value", "low", "high", "count", "clusters")
"""Columns of an estimate."""
LEFT_OUT = ("per_text", "rounds", "pairs", "card")
"""Lists of single samples, which the JSON has and the CSV has not."""


def write_report(report: Report, directory: Path) -> dict[str, Path]:
    """Write report.html, report.md, report.json and report.csv; each is renamed into place when it is whole.

    Raises:
        PathError: when the directory cannot be written.
    """
    texts = {
        "json": as_json(report),
        "csv": as_csv(report),
        "md": markdown(report),
        "html": html(report),
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


def as_json(report: Report) -> str:
    """Return report.json: an estimate, a round's runs, a text's sums are a line each."""
    return laid_out(encode(report))


def as_csv(report: Report) -> str:
    """Return every figure of every row as a line: row, figure, value, ends of its interval, count and clusters.

    Figures that the budget bounds have another line, `budget.` and their limit, with the interval that they are judged
    by and the verdict.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["row", "bundle", "kind", "provider", "figure", *ESTIMATE, "verdict"])
    judged = {verdict.row: verdict.bounds for verdict in report.verdicts}
    for row in report.rows:
        start = [row.name, row.bundle, row.kind, row.provider]
        for name, values in _figures(encode(row)):
            writer.writerow([*start, name, *("" if value is None else value for value in values), ""])
        for bound in judged.get(row.name, ()):
            run = (bound.run.value, bound.run.low, bound.run.high, bound.run.count, bound.run.clusters)
            cells = ("" if value is None else value for value in map(encode, run))
            writer.writerow([*start, f"budget.{bound.limit}", *cells, bound.verdict])
    return out.getvalue()


def _figures(value: JSON, path: str = "") -> Iterator[tuple[str, tuple[JSON, ...]]]:
    """Yield the figures inside JSON values by their path: estimates whole, numbers alone."""
    empty = (None,) * 4
    if isinstance(value, dict):
        if set(ESTIMATE) <= set(value):
            yield path, tuple(value[name] for name in ESTIMATE)
            return
        for key, item in value.items():
            if key not in LEFT_OUT:
                yield from _figures(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _figures(item, f"{path}.{number}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, (value, *empty)
