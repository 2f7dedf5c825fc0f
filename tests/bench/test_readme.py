"""The README's lines: which are typed, and that each of today's was, with exit code 0."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bench.readme import DATA, README, Newcomer, main, typed

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


def test_a_server_that_does_not_answer_in_time_is_asked_again_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([TimeoutError("timed out"), contextlib.nullcontext(SimpleNamespace(status=200))])

    def asked(*_: object, **__: object) -> object:
        answer = next(answers)
        if isinstance(answer, TimeoutError):
            raise answer
        return answer

    monkeypatch.setattr("bench.readme.urllib.request.urlopen", asked)
    newcomer = Newcomer.__new__(Newcomer)
    newcomer.home, newcomer.clone = tmp_path / "home", tmp_path
    newcomer.home.mkdir()
    said = '{"message":"listening","url":"http://127.0.0.1:8080"}\n'
    (tmp_path / "said").write_text(said, encoding="ascii")
    assert newcomer.serve("sh -c 'cat said; exec sleep 60'") == (-15, said)


def test_a_clone_of_an_earlier_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").mkdir()
    with pytest.raises(SystemExit):
        main(["--checkpoint", "checkpoint", "--data", "mine.csv", "--work", str(tmp_path)])
    assert "holds the clone of an earlier run: name another directory, or remove it" in capsys.readouterr().err
