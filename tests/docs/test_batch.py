"""The reference of a batch's columns is what the table of tasks says."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_generated():
    program = runpy.run_path(str(DOCS / "generate_batch.py"))
    assert (DOCS / "reference" / "batch.md").read_text(encoding="utf-8") == program["page"]()
