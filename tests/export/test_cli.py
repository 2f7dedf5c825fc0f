"""`bertport export` itself: what goes where, and the card it writes."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re

import pytest
from click.testing import CliRunner

from bertport.export.card import model_card
from bertport.export.cli import listener
from bertport.export.metadata import read_front_matter
from bertport.export.progress import Event
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.cli import app
from bertport.runtime.commands.progress import Progress


def test_json_and_progress(tiny_checkpoint, tmp_path):
    result = CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == Bundle.open(tmp_path / "out").manifest.to_json()
    stages = [
        "reading the checkpoint",
        "comparing the tokenizer",
        "tracing",
        "making the graphs",
        "comparing with PyTorch",
        "writing the bundle",
    ]
    lines = result.stderr.splitlines()
    assert len(lines) == len(stages), lines
    for stage, line in zip(stages, lines, strict=True):
        assert re.fullmatch(rf"{stage}: \d+\.\d s", line)


def test_notes_go_to_stderr(make_checkpoint, tmp_path):
    source = make_checkpoint(tmp_path / "source", "BertForMaskedLM")
    result = CliRunner().invoke(app, ["export", str(source), str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    assert "note: the weights hold no pooler: the bundle has no pooled features" in result.stderr.splitlines()
    assert result.stdout == f"{tmp_path / 'out'}: mlm\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_steps_in_place():
    terminal = Terminal()
    lines = listener(Progress(terminal))
    for event in (
        Event(kind="begin", text="comparing"),
        Event(kind="step", text="batch 1, length 128"),
        Event(kind="note", text="something"),
        Event(kind="end", text="comparing", seconds=1.25),
    ):
        lines(event)
    shown = terminal.getvalue()
    assert shown.count("\n") == 2
    assert "\rcomparing: batch 1, length 128 …" in shown
    assert shown.endswith("comparing: 1.2 s\n")
    # A shorter line covers the longer one that it replaces.
    assert re.search(r"\r {25,}\rnote: something\n", shown)


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    return Bundle.open(tiny_bundle).manifest


def test_the_card_is_in_the_bundle(tiny_bundle, manifest):
    assert (tiny_bundle / "README.md").read_text(encoding="utf-8") == model_card(manifest)


def test_the_card_has_what_a_reader_looks_for(manifest, tiny_bundle):
    card = model_card(manifest)
    for heading in ("Heads", "Languages", "Use", "Graphs", "Limitations and bias", "Licence", "Citation"):
        assert f"\n## {heading}\n" in card
    for text in (
        "`BertForPreTraining`",
        "2 layers of width 32",
        "up to 160 tokens",
        "lower-cases its input",
        "devlin2019",
    ):
        assert text in card
    assert "column 0 is `is_next`, 1 is `not_next`" in card
    assert read_front_matter(tiny_bundle) == (("en",), "apache-2.0")


def test_the_card_speaks_only_of_what_is_there(manifest):
    bare = dataclasses.replace(manifest, heads={}, languages=(), licence=None, lowercase=None)
    card = model_card(bare)
    for text in ("fill_mask(", "fill-mask", "next_sentence", "next-sentence", "seq_relationship"):
        assert text not in card.replace(card[card.index("Not in the checkpoint") :].split("\n")[0], "")
    assert "Not in the checkpoint, and so not here: `mlm`, `nsp`, `pooler`." in card
    assert "does not state" in card
    assert "model.features(" in card


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlanguage: de\nlicense: mit\n---\n# x", (("de",), "mit")),
        ("---\nlanguage:\n- en\n- no\nlicense:\n- mit\n---\n", (("en", "no"), "mit")),
        ("---\ntags: [a]\n---\n", ((), None)),
        ("# only a title", ((), None)),
        ("---\n: : :\n---\n", ((), None)),
        ("---\n- a list\n---\n", ((), None)),
        ("---\r\nlanguage: no\r\nlicense: [mit]\r\n---\r\n# x", (("no",), "mit")),
        ("---\nlanguage: en\ndate: 2024-02-30\nversion: 0x_\n---\n", (("en",), None)),
        ("---\nlanguage: ~\nlanguages: [de, null]\nlicense: null\n---\n", (("de",), None)),
        ("---\nlicense: 0x_\n---\n", ((), "0x_")),
        ("---\nlicense: {a: b}\nlanguage: [en, [de]]\n---\n", ((), None)),
        ("---\nlicense: !!python/object/apply:os.getcwd []\n---\n", ((), None)),
        ("---\nlicense: " + "[" * 5000 + "\n---\n", ((), None)),
        ('---\nlicense: "\\ud83d"\n---\n', ((), None)),
        ('---\nlicense: "mit\\n\\n# Owned"\nlanguage: ["e\\nn"]\n---\n', ((), None)),
        ("---\nlicense: " + "x" * 10_000 + "\nlanguage: [" + "a," * 10_000 + "]\n---\n", ((), None)),
        ("---\nx: &x [a, a]\nlicense: *x\n---\n", ((), None)),
        ("---\nlicense: mit\n" + "# much\n" * 40_000 + "---\n", ((), None)),
        ("---\nlicense: mit\n---\n" + "much ü\n" * 40_000, ((), "mit")),
    ],
)
def test_front_matter(text, expected, tmp_path):
    (tmp_path / "README.md").write_text(text, newline="")
    assert read_front_matter(tmp_path) == expected
    (tmp_path / "README.md").unlink()
    assert read_front_matter(tmp_path) == ((), None)


def test_an_alias_bomb_states_nothing(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "README.md").write_text("\n".join(["---", *lines, "license: {x: *a8}", "---"]))
    assert read_front_matter(tmp_path) == ((), None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_card_that_is_no_file_states_nothing(tmp_path):
    os.mkfifo(tmp_path / "README.md")
    assert read_front_matter(tmp_path) == ((), None)


def test_the_cards_front_matter_is_read_again_as_it_was_stated(manifest, tmp_path):
    stated = ("no", "zh-Hant", "a: b", "# c", "ü"), "other: [1]"
    card = model_card(dataclasses.replace(manifest, languages=stated[0], licence=stated[1]))
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert read_front_matter(tmp_path) == stated
