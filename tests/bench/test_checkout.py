"""Sections of pages follow from data: what is missing or differs ends a program with a sentence."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from bench import checkout


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nText.\n", encoding="utf-8")
    return page


def test_data_that_are_missing_end_in_a_sentence(page):
    with pytest.raises(SystemExit, match=r"^there is no figures\.json: run python -m bench\.some$"):
        checkout.read_data(page.with_name("figures.json"), "bench.some")
    elsewhere = page.parent.parent / "figures of nobody.json"
    with pytest.raises(SystemExit, match=r"^there is no /.*/figures of nobody\.json: run python -m bench\.some$"):
        checkout.read_data(elsewhere, "bench.some")


def test_data_that_are_cut_end_in_a_sentence(page):
    page.with_name("figures.json").write_text('{"rows": [1, ', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^figures\.json is no JSON \(.*\): .* run python -m bench\.some$"):
        checkout.read_data(page.with_name("figures.json"), "bench.some")


def test_a_number_of_an_option_is_one_or_more():
    assert checkout.number("12") == 12
    for text in ("0", "-3", "1.5", "x", "", "²"):
        with pytest.raises(ArgumentTypeError, match="is no whole number of 1 or more"):
            checkout.number(text)


def test_a_section_is_what_was_written_and_nothing_else(page):
    checkout.write_section(page, "| a |\n")
    checkout.write_section(page, "| b |\n")
    checkout.check_section(page, "| b |\n", "bench.some")
    assert page.read_text(encoding="utf-8").startswith("# Title\n\nText.\n")
    with pytest.raises(SystemExit, match=r"^page\.md is not what the data say: run python -m bench\.some$"):
        checkout.check_section(page, "| a |\n", "bench.some")


def test_a_page_has_sections_of_several_names(page):
    checkout.write_section(page, "| a |\n")
    checkout.write_section(page, "| b |\n", "more")
    checkout.write_section(page, "| c |\n")
    checkout.check_section(page, "| c |\n", "bench.some")
    checkout.check_section(page, "| b |\n", "bench.more", "more")
    assert page.read_text(encoding="utf-8").count("begin -->") == 2


def test_a_page_that_does_not_exist_is_not_what_the_data_say(page):
    with pytest.raises(SystemExit, match=r"^other\.md is not what the data say"):
        checkout.check_section(page.with_name("other.md"), "| a |\n", "bench.some")


def test_whole_pages_are_what_was_written_and_nothing_else(page):
    more = page.with_name("more.md")
    checkout.write_files({page: "a\n", more: "b\n"})
    checkout.check_files({page: "a\n", more: "b\n"}, "bench.some")
    for wrong in ({page: "a\n", more: "c\n"}, {page.with_name("more.mdx"): "b\n"}):
        with pytest.raises(SystemExit, match=r"^more\.mdx? is not what the data say: run python -m bench\.some$"):
            checkout.check_files(wrong, "bench.some")
