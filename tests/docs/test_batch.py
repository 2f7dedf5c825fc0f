"""The reference of a batch's columns is what the table of tasks says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from bertport.batch.tasks import TASKS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_generated():
    program = runpy.run_path(str(DOCS / "generate_batch.py"))
    assert (DOCS / "reference" / "batch.md").read_text(encoding="utf-8") == program["page"]()


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_a_table_of_the_columns_that_it_writes(task):
    text = (DOCS / "reference" / "batch.md").read_text(encoding="utf-8")
    [section] = re.findall(rf"^## {task}$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    tables = [
        re.findall(r"^\| `(\w+)` \| ([\w<>]+) \|", table, re.MULTILINE) for table in section.split("| column |")[1:]
    ]
    for form in TASKS[task].forms:
        assert [(each.name, each.type) for each in TASKS[task].shape({}, form).columns] in tables
