"""Reading a corpus file: its sections and sentences, its cache, and what is wrong with a damaged one."""

import hashlib
import json
import lzma
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import pack
from pretraining import corpus
from pretraining.corpus import load_corpus, read_sections, sentences, text_sha256, tokenize
from pretraining.errors import RecipeError
from pretraining.vocabulary import train_tokenizer


@given(st.text(alphabet="ab .!?\"'A1\n)", max_size=80))
def test_sentences_lose_nothing_but_white_space(paragraph: str) -> None:
    assert "".join("".join(sentences(paragraph)).split()) == "".join(paragraph.split())
    assert all(sentence.strip() for sentence in sentences(paragraph))


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = 'He said: "Go!" She went. In 1900 it cost 3.50 dollars... 2 men paid.'
    assert list(sentences(text)) == ['He said: "Go!"', "She went.", "In 1900 it cost 3.50 dollars...", "2 men paid."]


def test_tokens_lie_end_to_end_with_their_boundaries(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "text.jsonl"
    rows = [
        {"id": "a#1", "paragraphs": ["The farmer wrote a letter. The mayor waited.", "My uncle walked."]},
        {"id": "empty#1", "paragraphs": [" "]},
        {"id": "b#1", "paragraphs": ["The sailor looked for land."]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    corpus = tokenize(path, tokenizer)
    assert corpus.names.tolist() == ["a#1", "b#1"]
    assert corpus.section_starts.tolist() == [0, 3, 4]
    assert [corpus.section_of(sentence) for sentence in range(4)] == [0, 0, 0, 1]
    expected = ["the farmer wrote a letter.", "the mayor waited.", "my uncle walked.", "the sailor looked for land."]
    spans = zip(corpus.sentence_starts[:-1], corpus.sentence_starts[1:], strict=True)
    decoded = [tokenizer.decode(corpus.tokens[begin:end].tolist()).replace(" .", ".") for begin, end in spans]
    assert decoded == expected


def test_the_cache_gives_the_same_corpus_and_follows_the_file(
    tmp_path: Path, text_file: Path, tokenizer: Tokenizer
) -> None:
    first = load_corpus(text_file, tokenizer, tmp_path)
    again = load_corpus(text_file, tokenizer, tmp_path)
    assert np.array_equal(first.tokens, again.tokens)
    assert np.array_equal(first.names, again.names)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    other = tmp_path / text_file.name
    other.write_text(text_file.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert len(load_corpus(other, tokenizer, tmp_path).names) == 1


def test_a_packed_corpus_is_the_corpus_in_fewer_bytes(tmp_path: Path, text_file: Path, tokenizer: Tokenizer) -> None:
    packed = tmp_path / "text.npz"
    done = CliRunner().invoke(pack.main, [str(text_file), str(packed), "--tokenizer", str(saved(tokenizer, tmp_path))])
    assert done.exit_code == 0, done.output
    read, whole = load_corpus(packed, tokenizer, tmp_path / "none"), tokenize(text_file, tokenizer)
    for field in fields(whole):
        first, second = getattr(read, field.name), getattr(whole, field.name)
        assert first.dtype == second.dtype
        assert np.array_equal(first, second), field.name
    assert not (tmp_path / "none").exists()
    assert packed.stat().st_size < text_file.stat().st_size / 4
    assert text_sha256(packed) == text_sha256(text_file) == hashlib.sha256(text_file.read_bytes()).hexdigest()
    assert np.load(packed)["tokens"].dtype == np.uint8  # of a vocabulary of 200


def test_ids_of_a_large_vocabulary_have_sixteen_bits_and_those_of_a_larger_one_more(
    tmp_path: Path, text_file: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenize(text_file, tokenizer)
    for most, wanted in ((30_521, np.uint16), (119_546, np.uint32)):
        large = replace(whole, tokens=np.where(whole.tokens == whole.tokens[0], most, whole.tokens).astype(np.int32))
        monkeypatch.setattr(corpus, "tokenize", lambda *_, large=large: large)
        corpus.pack(text_file, tokenizer, tmp_path / "text.npz")
        assert np.load(tmp_path / "text.npz")["tokens"].dtype == wanted
        assert np.array_equal(load_corpus(tmp_path / "text.npz", tokenizer, tmp_path).tokens, large.tokens)


def test_a_packed_corpus_of_another_vocabulary_or_a_damaged_one_is_named(
    tmp_path: Path, text_file: Path, tokenizer: Tokenizer
) -> None:
    packed = tmp_path / "text.npz"
    corpus.pack(text_file, tokenizer, packed)
    with pytest.raises(
        RecipeError, match=r"text\.npz was packed with another vocabulary: make it again with models/pack"
    ):
        load_corpus(packed, train_tokenizer(["another text"], 100), tmp_path)
    whole = packed.read_bytes()
    for damaged in (whole[:-40], b"", b"{}", whole[:300] + b"damaged" + whole[307:]):
        packed.write_bytes(damaged)
        with pytest.raises(RecipeError, match=r"text\.npz is no packed corpus \(.+\): make it with models/pack"):
            load_corpus(packed, tokenizer, tmp_path)
    with packed.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(RecipeError, match="is no packed corpus"):
        load_corpus(packed, tokenizer, tmp_path)
    np.savez(packed, format=np.array("1"))
    with pytest.raises(RecipeError, match="its format is that of another version"):
        load_corpus(packed, tokenizer, tmp_path)


def test_a_file_is_packed_under_a_name_that_tells_what_it_is(
    tmp_path: Path, text_file: Path, tokenizer: Tokenizer
) -> None:
    where = saved(tokenizer, tmp_path)
    for source, target, sentence in (
        (
            text_file,
            "text.jsonl",
            "text.jsonl does not end in .npz, by which pretrain.py knows a packed corpus: add it",
        ),
        (where, "text.npz", "tokenizer.json, line 1: expected"),
    ):
        done = CliRunner().invoke(pack.main, [str(source), str(tmp_path / target), "--tokenizer", str(where)])
        assert done.exit_code
        assert sentence in done.stderr
        assert not (tmp_path / target).exists()


def saved(tokenizer: Tokenizer, directory: Path) -> Path:
    """Write a tokenizer's file; return it."""
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory / "tokenizer.json"


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"id": "x"}', '{"id": "x", "paragraphs": "text"}', '{"id": "x", "paragraphs": ["a", 3]}', "null"],
)
def test_a_damaged_line_is_named(tmp_path: Path, text_file: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    good = text_file.read_text(encoding="utf-8").splitlines()[:2]
    path.write_text("\n".join([*good, line]) + "\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"bad\.jsonl, line 3: expected"):
        list(read_sections(path))


@pytest.mark.parametrize("at_once", [corpus.AT_ONCE, 0])  # as a whole, and piece by piece
def test_a_compressed_file_is_read_and_one_cut_short_is_named(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(corpus, "AT_ONCE", at_once)
    whole, path = tmp_path / "whole.jsonl.xz", tmp_path / "cut.jsonl.xz"
    whole.write_bytes(lzma.compress(text_file.read_bytes()))
    assert list(read_sections(whole)) == list(read_sections(text_file))
    path.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(RecipeError, match=r"cut\.jsonl\.xz cannot be decompressed \(Compressed (data|file) ended"):
        list(read_sections(path))


def test_a_file_without_text_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("", encoding="utf-8")
    with pytest.raises(RecipeError, match="holds no text"):
        tokenize(path, tokenizer)
