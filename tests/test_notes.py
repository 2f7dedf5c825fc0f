"""Release notes: what of CHANGELOG.md a release's page shows, and which tags are refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dev_notes

ROOT = Path(__file__).parents[1]
CHANGELOG = """# Changelog

## 1.1.0 (2030-02-01)

A line
and the next.

### Added

- one thing, in
  2.5 lines of
  *text* ([page](docs/page.md), [site](https://example.org))
- another
```sh
first
second
```

## 1.0.0 (2030-01-01)

- the first
"""


def test_a_section_has_its_lines_joined_and_its_links_made_whole():
    assert dev_notes.notes(CHANGELOG, "1.1.0", "https://example.org/o/n", "v1.1.0") == (
        "A line and the next.\n\n### Added\n\n"
        "- one thing, in 2.5 lines of *text* ([page](https://example.org/o/n/blob/v1.1.0/docs/page.md), [site](https://example.org))\n"
        "- another\n```sh\nfirst\nsecond\n```\n"
    )
    assert dev_notes.notes(CHANGELOG, "1.0.0") == "- the first\n"


def test_a_version_without_a_section_is_said_with_those_that_there_are():
    with pytest.raises(SystemExit, match=re.escape("no section 2.0.0, but 1.1.0, 1.0.0: give one of these")):
        dev_notes.notes(CHANGELOG, "2.0.0")


def test_a_tag_is_taken_when_everything_states_its_version(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dev_notes, "ROOT", tmp_path)
    monkeypatch.delenv("BERTPORT_REPOSITORY", raising=False)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.1.0\nlicense: y\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n')
    (tmp_path / "js").mkdir()
    for name in ("package.json", "package-lock.json"):
        (tmp_path / "js" / name).write_text('{"version": "1.1.0"}')
    dev_notes.main("--tag", "v1.1.0")
    assert capsys.readouterr().out.startswith("A line and the next.")
    with pytest.raises(SystemExit, match=r"v1\.2\.0 cannot be released: pyproject\.toml states 1\.1\.0"):
        dev_notes.main("--tag", "v1.2.0")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG.replace("(2030-02-01)", "(not released yet)"))
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 1.0.0\nlicense: y\n")
    with pytest.raises(
        SystemExit, match=r"no heading '## 1\.1\.0 \(YYYY-MM-DD\)'; CITATION\.cff states another version"
    ):
        dev_notes.main("--tag", "v1.1.0")
    (tmp_path / "js" / "package-lock.json").write_text('{"version": "1.0.0-dev.0"}')
    with pytest.raises(SystemExit, match=r"states another version; js/package-lock\.json states 1\.0\.0-dev\.0$"):
        dev_notes.main("--tag", "v1.1.0")


def test_the_command_prints_the_notes_of_this_version_and_refuses_what_it_does_not_know():
    environment = {**os.environ, "BERTPORT_REPOSITORY": "https://example.org/o/n"}

    def notes(*arguments):
        command = [sys.executable, "dev.py", "notes", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    done = notes()
    assert done.returncode == 0
    assert "### Added" in done.stdout
    links = re.findall(r"\]\(([^)]+)\)", done.stdout)
    assert links
    for link in (each for each in links if each.startswith("https://example.org/")):
        assert (ROOT / link.partition("/blob/")[2].partition("/")[2].partition("#")[0]).exists(), link
    assert notes("--all").stderr == "dev.py: notes takes a version, or --tag with a tag, and nothing else\n"
