"""The README's lines: which are typed, and that each of today's was, with exit code 0."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.readme import DATA, README, Newcomer, typed

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """
```sh
python3 dev.py test   # CI's
ls mybundle           # lists it
```

```text
$ ls
```

```python
one = 1
two = 2
```
"""


def test_lines_of_the_shell_and_blocks_of_python_are_typed():
    assert typed(PAGE) == [("sh", "ls mybundle"), ("python", "one = 1\ntwo = 2")]


def test_every_line_of_the_readme_was_typed_and_did_not_fail():
    data = json.loads(DATA.read_text(encoding="utf-8"))
    done = {(line["language"], line["text"]): line["exit"] for line in data["lines"]}
    lines = typed(README.read_text(encoding="utf-8"))
    assert len(lines) > 8
    assert {line: done.get(line) for line in lines} == dict.fromkeys(lines, 0), "run python -m bench.readme"


@pytest.mark.parametrize(("language", "text", "code"), [("sh", "test -f README.md", 0), ("sh", "echo no; exit 3", 3)])
def test_a_line_is_typed_in_the_clone_and_its_exit_code_kept(
    tmp_path: Path, language: str, text: str, code: int
) -> None:
    newcomer = Newcomer.__new__(Newcomer)
    newcomer.home, newcomer.clone = tmp_path / "home", tmp_path
    (tmp_path / "README.md").touch()
    line = newcomer.type(language, text)
    assert line["exit"] == code
    assert line.get("said") == ("no\n" if code else None)
