"""The guide in a fresh environment: which pages, what they say that they need, and that each was run to its end."""

from __future__ import annotations

import json

import pytest

from bench.guide import DATA, GUIDE, PAGES, main


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_needs(name):
    text = (GUIDE / f"{name}.md").read_text(encoding="utf-8")
    for extra in PAGES[name].extras:
        assert f"`{extra}`" in text
    for package in PAGES[name].packages:
        assert f"pip install {package}`" in text or f"pip install '{package}'`" in text


def test_every_page_was_run_and_did_not_fail():
    pages = json.loads(DATA.read_text(encoding="utf-8"))["pages"]
    assert sorted(pages) == sorted(PAGES) == sorted(page.stem for page in GUIDE.glob("*.md"))
    assert {name: page["exit"] for name, page in pages.items()} == dict.fromkeys(PAGES, 0), "run python -m bench.guide"
    for name, page in pages.items():
        assert (tuple(page["extras"]), tuple(page["packages"])) == PAGES[name]


def test_an_environment_of_an_earlier_run_is_left_alone(tmp_path, capsys):
    (tmp_path / "venv").mkdir()
    with pytest.raises(SystemExit):
        main(["--work", str(tmp_path)])
    assert "holds the environment of an earlier run: name another directory, or remove it" in capsys.readouterr().err
