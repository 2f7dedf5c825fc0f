"""Model cards: their examples answer, in Python and on the command line."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
import yaml
from click.testing import CliRunner

from bertport.export.card import LIMITS_OF_TUNED, LIMITS_OF_WORDS, model_card, restored_card
from bertport.export.checkpoint.heads import HEADS
from bertport.runtime import cli, load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.heads import EMBEDDING, MLM, NSP, RTD, SEQUENCE_CLASSIFICATION, SOP
from tests.family_bundles import family_bundle
from tests.heads import TUNED, head_bundle

EXAMPLES = [name for name, head in HEADS.items() if head.example]


@pytest.fixture
def bundle(request, tmp_path_factory, tiny_bundle):
    """A function that gives a bundle with a head."""

    def with_head(head):
        if head in TUNED:
            return head_bundle(tmp_path_factory, "bert", head)[1]
        if head == EMBEDDING:
            return request.getfixturevalue("sentence_bundle")
        if head in {MLM, NSP}:
            return tiny_bundle
        family, kind = {SOP: ("albert", "AlbertForPreTraining"), RTD: ("electra", "ElectraForPreTraining")}[head]
        return family_bundle(tmp_path_factory, family, kind)[1]

    return with_head


def test_every_head_with_a_task_of_its_own_has_an_example():
    assert set(EXAMPLES) == {*TUNED, MLM, NSP, SOP, RTD, EMBEDDING}


@pytest.mark.parametrize("head", EXAMPLES)
def test_the_examples_of_a_card_answer(bundle, head):
    place = bundle(head)
    model = load(place)
    call, command = HEADS[head].example
    assert len(eval(call, {"model": model}))  # noqa: S307 — the table's own
    program, *arguments = (str(place) if part == "BUNDLE" else part for part in shlex.split(command))
    assert program == "bertport"
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout


def test_limits_are_those_of_what_the_model_does(tiny_bundle, bundle):
    for place, said, other in (
        (tiny_bundle, LIMITS_OF_WORDS, LIMITS_OF_TUNED),
        (bundle(SEQUENCE_CLASSIFICATION), LIMITS_OF_TUNED, LIMITS_OF_WORDS),
    ):
        card = (place / "README.md").read_text(encoding="utf-8")
        assert said in card
        assert other not in card


def test_labels_with_control_characters_stay_in_their_line(bundle):
    manifest = Bundle.open(bundle(SEQUENCE_CLASSIFICATION)).manifest
    head = replace(manifest.heads[SEQUENCE_CLASSIFICATION], labels=("a\x1b[31m", "b\n# c", "\u202ed"))
    card = model_card(replace(manifest, heads={SEQUENCE_CLASSIFICATION: head}))
    assert "In `class_logits`, column 0 is `a\\x1b[31m`, 1 is `b\\n# c`, 2 is `\\u202ed`.\n" in card


def test_no_name_of_a_checkpoint_is_markup(tiny_bundle):
    manifest = Bundle.open(tiny_bundle).manifest
    name = "a`\n\n# b [c](http://d) <img src=e>"
    source = replace(manifest.source, name=name, revision=name)
    of_tagger = replace(manifest.heads[MLM], source=source)
    named = replace(manifest, name=name, source=source, licence=name, languages=(name,), heads={MLM: of_tagger})
    tokens = {"[MASK]": '")\nimport os  # `'}
    for card in (model_card(named, tokens, licences={MLM: f"{name}2"}), restored_card(named, name)):
        assert "\n# b" not in card
        assert "import os" not in card
        _, front, text = card.split("---\n", 2)
        assert yaml.safe_load(front)["license"] == name
        shown = re.sub(r"(`+) ?.*?[^`]\1(?!`)", "", text)  # what is no code
        assert "<img" not in re.sub(r"\\.", "", shown)
        assert "](" not in re.sub(r"\\.", "", shown)


@pytest.mark.parametrize(
    "text", ["no", "a: b", "- a", "a\n---\nb", '"\\', "\x7f\x85\x9b", "\u2028", "\ufeff", "\U000e0001", "\U0001f600 ü"]
)
def test_metadata_reads_back_whatever_was_stated(tiny_bundle, text):
    manifest = replace(Bundle.open(tiny_bundle).manifest, licence=text, languages=(text,))
    front = model_card(manifest, datasets=[text]).split("---\n", 2)[1]
    read = yaml.safe_load(front)
    assert (read["license"], read["language"], read["datasets"]) == (text, [text], [text])


def test_of_many_labels_the_first_are_listed(bundle):
    manifest = Bundle.open(bundle(SEQUENCE_CLASSIFICATION)).manifest
    head = replace(
        manifest.heads[SEQUENCE_CLASSIFICATION], labels=tuple(f"LABEL_{column}" for column in range(100_000))
    )
    card = model_card(replace(manifest, heads={SEQUENCE_CLASSIFICATION: head}))
    assert "column 0 is `LABEL_0`, 1 is `LABEL_1`, " in card
    assert ", 99 is `LABEL_99` and 99,900 more.\n" in card
