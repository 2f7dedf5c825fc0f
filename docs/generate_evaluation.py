"""Write the fields of an evaluation into docs/reference/evaluation.md: `python docs/generate_evaluation.py`.

They follow from the JSON Schema that ships; `--check` only compares. What stands above the heading is written by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bertport.compare.evaluate.schema import SCHEMA_FILE

PAGE = Path(__file__).parent / "reference" / "evaluation.md"
HEADING = "## The fields\n"
"""Heading below which the page is generated."""


def main() -> None:
    """Write the page; with `--check`, exit with 1 where it is not what would be written."""
    text = PAGE.read_text(encoding="utf-8")
    by_hand = text.partition(HEADING)[0]
    wanted = f"{by_hand}{HEADING}\n{fields(json.loads(SCHEMA_FILE.read_text(encoding='utf-8')))}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        sys.exit("docs/reference/evaluation.md is not what the schema says: run python docs/generate_evaluation.py")


def fields(schema: dict[str, Any]) -> str:
    """Return a table of fields for each object, the whole document's first."""
    parts = [_table("The document", schema)]
    parts += [_table(f"`{name}`", definition) for name, definition in schema["$defs"].items()]
    return "\n".join(parts)


def _table(title: str, definition: dict[str, Any]) -> str:
    rows = [
        f"| `{name}` | {_kind(field)} | {field.get('description', '')} |"
        for name, field in definition["properties"].items()
    ]
    head = [f"### {title}\n", f"{definition['description']}\n", "| field | is | meaning |", "|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _kind(field: dict[str, Any]) -> str:
    """Return the type of a field for people."""
    match field:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            kind = f"[`{name}`](#{name.lower()})"
        case {"anyOf": [*kinds]}:
            kind = " or ".join(map(_kind, kinds))
        case {"enum": [*values]}:
            kind = " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"type": "array", "items": dict(items)}:
            kind = f"list of {_kind(items)}"
        case {"type": "object", "additionalProperties": dict(items)}:
            kind = f"object of {_kind(items)} by name"
        case {"type": [*names]}:
            kind = " or ".join(names)
        case _:
            kind = str(field["type"])
    return kind


if __name__ == "__main__":
    main()
