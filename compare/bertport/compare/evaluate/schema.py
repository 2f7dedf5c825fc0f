"""The JSON Schema of an evaluation, made from the types: `python -m bertport.compare.evaluate.schema` writes it."""

from __future__ import annotations

from pathlib import Path

from bertport.compare.codec import JSON, json_schema, laid_out
from bertport.compare.evaluate.document import SCHEMA_VERSION, Evaluation

__all__ = ["SCHEMA_FILE", "evaluation_schema", "main"]

SCHEMA_FILE = Path(__file__).parent / "resources" / "evaluation.schema.json"
"""File of the schema, for readers without bertport."""


def evaluation_schema() -> dict[str, JSON]:
    """Return the schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:bertport:evaluation:{SCHEMA_VERSION}",
        "title": "Evaluation of bertport evaluate",
        **json_schema(Evaluation),
    }


def main() -> None:
    """Write the schema into its file."""
    SCHEMA_FILE.write_text(laid_out(evaluation_schema()), encoding="utf-8")


if __name__ == "__main__":
    main()
