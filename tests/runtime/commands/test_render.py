"""What the command line says of a bundle."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.commands import render, terminal
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.runtime.tasks.heads import stating


@pytest.mark.parametrize(
    ("count", "end"),
    [(1, "0: LABEL_0"), (100, ", 99: LABEL_99"), (101, ", 99: LABEL_99 and 1 more"), (10**6, " and 999,900 more")],
)
def test_of_many_labels_the_first_are_listed(tiny_bundle, count, end):
    labels = tuple(f"LABEL_{column}" for column in range(count))
    bundle = replace(Bundle.open(tiny_bundle), manifest=stating(tiny_bundle, SEQUENCE_CLASSIFICATION, labels=labels))
    line = next(line for line in render.manifest(bundle).splitlines() if "labels" in line)
    assert line.split()[:3] == ["sequence-classification", "labels", "0:"]
    assert line.endswith(end)
    assert len(line) < 2000


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("word", 4),
        ("日本", 4),
        ("e\u0301", 1),
        ("ก\u0e31", 1),  # a vowel above, of combining class 0
        ("का\u0941", 2),  # a vowel that takes a column, and one that takes none
        ("각", 2),
        ("ᄀ\u1161\u11a8", 2),  # the same syllable in three letters
        ("\uff71", 1),
        ("\U0001f600", 2),
    ],
)
def test_a_text_takes_the_columns_that_a_terminal_gives_it(text, columns):
    assert terminal.width(text) == columns
    assert terminal.cut(text + text, columns) == text
    assert terminal.width(terminal.cut(text, columns - 1)) < columns


class Terminal(io.StringIO):
    def isatty(self):
        return True


ROWS = [("one", "a b c d e f g h i j k"), ("日本", "x")]


def test_a_long_cell_goes_on_below_itself_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "26")
    monkeypatch.setattr("sys.stdout", Terminal())
    assert render.table(ROWS) == "  one   a b c d e f g h i\n        j k\n  日本  x"
    monkeypatch.setenv("COLUMNS", "12")  # too narrow to be of use
    assert render.table(ROWS) == "  one   a b c d e f g h i j k\n  日本  x"
    monkeypatch.setattr("sys.stdout", io.StringIO())  # a pipe: a row is a line
    assert render.table(ROWS, headed=True, indent=0) == (
        "one   a b c d e f g h i j k\n----  ---------------------\n日本  x"
    )


@pytest.mark.parametrize("text", ["a" * 50, "日" * 20, "a " * 30, "  x" + "e\u0301" * 40, ""])
@pytest.mark.parametrize("room", [1, 2, 7, 16])
def test_wrapping_loses_nothing_but_spaces(text, room):
    lines = terminal.wrapped(text, room)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(terminal.width(line) <= max(room, 2) for line in lines)


@pytest.mark.parametrize(
    ("text", "words", "shown"),
    [
        ("He  Poured\tIT: [MASK] .", ["the"], ["He  Poured\\tIT: the ."]),
        ("([MASK])", ["the"], ["(the)"]),
        ("[MASK]", ["the"], ["the"]),
        ("Walk [MASK] Up", ["##ing"], ["Walking Up"]),
        ("A [MASK] Is [MASK]", ["the", "king"], ["A the Is [MASK]", "A [MASK] Is king"]),
    ],
)
def test_a_word_is_shown_in_its_place_in_the_users_own_text(model, text, words, shown):
    rows = [
        [{"score": 0.5, "token": token, "token_str": word, "sequence": "?"}]
        for word in words
        if (token := model.tokens.token_id(word)) is not None
    ]
    assert len(rows) == len(words)
    lines = render.fill_mask(text, rows[0] if len(rows) == 1 else rows, model.tokens).splitlines()
    assert [line.split("50.0%")[1].strip() for line in lines if "50.0%" in line] == shown
    # Where a text was cut, which of its masks was answered is not known: the model's own text is shown.
    assert "?" in render.fill_mask(f"{text} [MASK]", rows[0] if len(rows) == 1 else rows, model.tokens)
