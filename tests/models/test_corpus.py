"""Reading a corpus file: its sections and sentences, its cache, and what is wrong with a damaged one."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pretraining import corpus
from pretraining.corpus import load_corpus, read_sections, sentences, tokenize
from pretraining.errors import RecipeError


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
