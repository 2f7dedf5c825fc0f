"""The verbs for fine-tuned models: what people are shown, and one sentence where the bundle lacks the head."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bertport.runtime import cli
from bertport.runtime.commands import render_fine_tuned


def test_labels_stand_beside_bars_as_long_as_they_are_probable():
    rows = [{"label": "joy", "score": 0.75}, {"label": "anger", "score": 0.2499}, {"label": "爱", "score": 0.0001}]
    text, *lines = render_fine_tuned.labels("a\x1b[31m", rows, probable=True).splitlines()
    assert text == "a\\x1b[31m"
    assert lines == ["  joy    75.0%  " + 18 * "#", "  anger  25.0%  " + 6 * "#", "  爱     0.01%"]


def test_scores_that_are_no_probabilities_are_shown_as_they_are():
    shown = render_fine_tuned.labels("a", [{"label": "stars", "score": 0.5}], probable=False)
    assert shown == "a\n  stars  0.5000"


def test_entities_are_marked_in_their_text():
    text = "Ann and Bob\nsleep"
    row = {"score": 0.5, "word": "x"}
    rows = [row | {"entity_group": "PER", "start": start, "end": start + 3} for start in (0, 8)]
    shown = render_fine_tuned.entities(text, rows).splitlines()
    assert shown == ["[Ann PER] and [Bob PER]\\nsleep", "  PER  Ann  50.0%  0-3", "  PER  Bob  50.0%  8-11"]
    tokens = [row | {"entity": "B-PER", "index": 1, "start": 0, "end": 3}]
    assert render_fine_tuned.entities(text, tokens).startswith("[Ann B-PER] and Bob")
    assert render_fine_tuned.entities(text, []) == "Ann and Bob\\nsleep\n  no entities"


def test_a_span_inside_another_is_not_marked_again():
    assert render_fine_tuned.marked("abcdef", [(0, 3, "X"), (2, 4, "Y"), (4, 5, "Z")]) == "[abc X]d[e Z]f"


def test_a_ranking_shows_the_beginning_of_each_document():
    rows = [
        {"corpus_id": 10, "score": 0.98765, "text": "one\n two\x1b"},
        {"corpus_id": 9, "score": -1.5, "text": "a" * 81},
    ]
    assert render_fine_tuned.ranking("why", rows).splitlines() == [
        "why",
        "  1.   0.9877  [10]  one two\\x1b",
        "  2.  -1.5000   [9]  " + "a" * 77 + "...",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rank", "why"], "rank takes a query and documents, and there are none"),
        (
            ["rank", "why", "--documents", "/nowhere"],
            "cannot read /nowhere (No such file or directory): name",
        ),
        (
            ["rank", "why", "--documents", "BINARY"],
            "is no UTF-8): name a file of text in UTF-8, or - for",
        ),
        (["classify", "a", "b", "--pair", "c"], "--pair makes a pair of one text, and 2 were given: give one"),
        (
            ["classify", "a", "-l", "b", "--pair", "c"],
            "--label asks about one text with labels of yours: leave",
        ),
        (["classify", "a", "--multi-label"], "--multi-label is about labels of yours: name them with --label"),
        (["classify", "a", "-l", "b", "-k", "0"], "top_k is a number from 1 up, not 0"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, said):
    (tmp_path / "BINARY").write_bytes(b"\xff")
    place = [str(tmp_path / each) if each == "BINARY" else each for each in arguments]
    done = CliRunner().invoke(cli.app, place, catch_exceptions=False)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (["classify", "a"], "text-classification"),
        (["classify", "a", "-l", "b"], "zero-shot-classification"),
        (["tag", "a"], "token-classification"),
        (["rank", "a", "b"], "text-ranking"),
    ],
)
def test_a_bundle_without_the_head_says_what_it_answers(tiny_bundle, arguments, task):
    done = CliRunner().invoke(cli.app, [*arguments, "-m", str(tiny_bundle)], catch_exceptions=False)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"bertport: error: {task} needs the head")
    assert done.stderr.endswith("this one answers fill-mask, next-sentence, features\n")
