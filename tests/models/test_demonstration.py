"""The demonstration as a user runs it, on a tiny encoder and a corpus of a few chapters written by hand."""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file

import demonstration
from bertport.export import restore
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from pretraining.errors import RecipeError
from subjects.passages import split_passages
from tests.conftest import contents

RIVER = ("water river fish ship green tree bird mountain blue salt", "the fish ran down the river to the water")
MONEY = ("buy sell bought store market number million thousand state people", "people sell bread at the store")
STREET = ("street house city train car road school doctor queen king", "the doctor went home by train")
BOOKS = {"astronomy": RIVER, "principles-economics-bundle": MONEY, "introduction-sociology": STREET}


def write_corpus(path: Path, books: dict[str, tuple[str, str]] = BOOKS, chapters: int = 5) -> Path:
    """Write a corpus of textbooks, of which each keeps to words of its own, with a novel among them."""
    sections = [{"id": "books/a-novel#0", "paragraphs": ["He was a great man and she was his queen. " * 4]}]
    for book, (words, sentence) in books.items():
        for chapter in range(chapters):
            turned = words.split()[chapter:] + words.split()[:chapter]
            paragraphs = [f"{' '.join(turned)}. {sentence}, {' '.join(turned[part:])}." for part in range(6)]
            sections.append({"id": f"openstax/{book}/m{chapter}#0", "paragraphs": [*paragraphs, "Too short."]})
    path.write_text("".join(json.dumps(section) + "\n" for section in sections), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(demonstration.main, [str(argument) for argument in arguments])


def test_chapters_are_either_trained_on_or_held_out(tmp_path: Path) -> None:
    split = split_passages(write_corpus(tmp_path / "corpus.jsonl"), training=60, heldout=9, seed=1)
    assert split.subjects == ("astronomy", "economics", "sociology")
    assert (len(split.training), len(split.heldout)) == (60, 9)
    held = {passage.chapter for passage in split.heldout}
    assert len(held) == 3  # one of five of each book
    assert not held & {passage.chapter for passage in split.training}
    assert all(20 <= len(passage.text.split()) <= 40 for passage in (*split.training, *split.heldout))
    assert not any("queen. He" in passage.text for passage in (*split.training, *split.heldout))


@pytest.mark.parametrize(
    ("books", "chapters", "said"),
    [
        ({}, 1, "has passages of 0 textbooks"),
        ({"astronomy": RIVER}, 3, "has passages of 1 textbooks"),
        (BOOKS, 1, "has one chapter on astronomy"),
    ],
)
def test_a_corpus_that_cannot_do(tmp_path: Path, books: dict[str, tuple[str, str]], chapters: int, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        split_passages(write_corpus(tmp_path / "corpus.jsonl", books, chapters), training=9, heldout=9, seed=1)


def test_a_compressed_corpus_is_the_same_corpus(tmp_path: Path) -> None:
    plain = write_corpus(tmp_path / "corpus.jsonl")
    packed = tmp_path / "corpus.jsonl.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    one, other = (split_passages(path, training=60, heldout=9, seed=1) for path in (plain, packed))
    assert one == other


def test_too_few_passages_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    with pytest.raises(RecipeError, match=r"the 2 passages to train on have none on \w+: take more of them"):
        split_passages(corpus, training=2, heldout=9, seed=1)
    done = run("--corpus", corpus, "--output", tmp_path / "output", "--heldout", "7")
    assert done.exit_code == 2
    assert "7 is not in the range x>=8" in done.output
    done = run("--corpus", corpus, "--output", tmp_path / "output", "--heldout", "9", "--passages", "2", "--seed", "2")
    assert done.exit_code == 1
    assert "the 2 passages to train on have none on " in done.output
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--accuracy-budget", "nonsense=1"), "nonsense"),
        (("--accuracy-budget", "accuracy.drop=0.01"), "accuracy.drop bounds what is measured on labelled data, and "),
        (("--figures", "nowhere/figures.json"), "figures.json (No such file or directory): name a file in a directory"),
    ],
)
def test_a_budget_and_a_file_are_checked_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("--corpus", write_corpus(tmp_path / "corpus.jsonl"), "--output", tmp_path / "output", *options)
    assert done.exit_code == 1
    assert said in done.output
    assert not (tmp_path / "output").exists()


def test_too_few_passages_to_measure_on_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    books = {name: BOOKS[name] for name in ("astronomy", "introduction-sociology")}
    corpus = write_corpus(tmp_path / "corpus.jsonl", books, chapters=2)
    sections = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    short = [section | {"paragraphs": section["paragraphs"][:3]} for section in sections]
    corpus.write_text("".join(json.dumps(section) + "\n" for section in short), encoding="utf-8")
    done = run("--corpus", corpus, "--output", tmp_path / "output")
    assert done.exit_code == 1
    assert "has 6 passages in the chapters that are held out, and 8 are needed to measure on: add some" in done.output
    assert not (tmp_path / "output").exists()


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    done = run("--corpus", write_corpus(tmp_path / "corpus.jsonl"), "--output", tmp_path)
    assert done.exit_code == 1
    assert "is not empty: name a directory that is to be made" in done.output


@pytest.mark.slow
def test_from_a_corpus_to_a_bundle_of_both_heads(tiny_bundle: Path, tmp_path: Path) -> None:
    encoder = shutil.copytree(tiny_bundle, tmp_path / "encoder")
    before, output = contents(encoder), tmp_path / "output"
    done = run(
        *("--corpus", write_corpus(tmp_path / "corpus.jsonl"), "--output", output, "--bundle", encoder),
        *("--heldout", "9", "--accuracy-budget", "none", "--figures", tmp_path / "figures.json"),
    )
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert list(figures["seconds"])[-2:] == ["quantizing", "evaluating"]
    assert figures["evaluation"]["data"]["examples"] == 9
    assert f"the most frequent subject, is right on {figures['most_frequent']:.1%}" in done.output
    assert contents(encoder) == before
    assert "Always saying " in done.output
    assert "int8-dynamic" in done.output  # measured on labels beside fp32

    restored = load_file(restore(encoder, tmp_path / "restored") / "model.safetensors")
    tensors = load_file(output / "classifier" / "model.safetensors")
    weights, bias = tensors.pop("classifier.weight"), tensors.pop("classifier.bias")
    assert tensors.keys() == {name for name in restored if name.startswith("bert.")}
    assert all(np.array_equal(tensor, restored[name]) for name, tensor in tensors.items())

    manifest = Bundle.open(output / "bundle").manifest
    assert list(manifest.heads) == ["mlm", "nsp", "sequence-classification", "pooler"]
    assert manifest.heads["sequence-classification"].labels == ("astronomy", "economics", "sociology")
    card = (output / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "OpenStax textbooks (astronomy, economics, sociology)" in card
    assert "## Quantized variants" in card

    model = load(output / "bundle", variant="fp32")
    lines = [json.loads(line) for line in (output / "heldout.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [line["text"] for line in lines]
    assert [answer["label"] for answer in model.classify(texts)] == [line["label"] for line in lines]
    [scores] = model.classify(texts[:1], top_k=None, function_to_apply="none")
    expected = weights @ load(encoder, variant="fp32").features(texts[0], pooling="pooler") + bias
    # Matrices of the bundle are stored in 16 bits, those of the encoder are not.
    np.testing.assert_allclose([score["score"] for score in scores], sorted(expected, reverse=True), atol=0.05)
    assert model.fill_mask("the [MASK] of the river")
    assert "follows" in model.next_sentence("he went home.", "she went home.")
