"""The JSON Schema of report.json, made from the types: `python -m bertport.compare.report.schema` writes it."""

from __future__ import annotations

from pathlib import Path

from bertport.compare.codec import JSON, json_schema, laid_out
from bertport.compare.report.document import SCHEMA_VERSION, Report

__all__ = ["SCHEMA_FILE", "main", "report_schema"]

SCHEMA_FILE = Path(__file__).parent / "resources" / "comparison.schema.json"
"""File of the schema, for readers without bertport."""


def report_schema() -> dict[str, JSON]:
    """Return the schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:bertport:comparison:{SCHEMA_VERSION}",
        "title": "Report of bertport compare",
        **json_schema(Report),
    }


def main() -> None:
    """Write the schema into its file."""
    SCHEMA_FILE.write_text(laid_out(report_schema()), encoding="utf-8")


if __name__ == "__main__":
    main()
