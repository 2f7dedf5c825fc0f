"""The reference of an evaluation has every field of its schema."""

import json
import runpy
from pathlib import Path

import pytest

from bertport.compare.evaluate.schema import SCHEMA_FILE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program():
    """The program that writes the fields, its functions by name."""
    return runpy.run_path(str(ROOT / "docs" / "generate_evaluation.py"))


def test_the_committed_page_is_what_the_schema_says(program):
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "reference" / "evaluation.md").read_text(encoding="utf-8")
    assert page.partition(program["HEADING"])[2].strip() == program["fields"](schema).strip()
    for definition in (schema, *schema["$defs"].values()):
        for name, field in definition["properties"].items():
            assert f"| `{name}` | " in page
            assert field.get("description"), name
