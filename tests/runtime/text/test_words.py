"""A text that is split into words has the tokens that the tokenizer gives its words, however they are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertport.runtime.errors import InputTextError
from bertport.runtime.text.steps import drained
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens
from bertport.runtime.text.windows import Windows
from bertport.runtime.text.words import Words
from tests.families import TINY

FAMILIES = ("bert", "roberta", "xlm-roberta", "deberta-v2")
LENGTH = 40
LONGEST = 150
"""Characters of a word, and of a piece: of a word that is longer than one, the end is not told."""
WORDS = st.lists(
    st.sampled_from(["the", "kings", "don't", "", " ", "a b", "é\u0301", "\N{SNOWMAN}", "中文", "[SEP]", "x" * LONGEST])
    | st.text("ab é.", max_size=30),
    min_size=1,
    max_size=30,
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Ours and the package's tokenizer of each kind."""
    made = {}
    for family in FAMILIES:
        directory = tmp_path_factory.mktemp(family)
        TINY[family].write(directory)
        content = (directory / TOKENIZER).read_text(encoding="utf-8")
        made[family] = Tokens(content, {}, LENGTH), Tokenizer.from_str(content)
    return made


def starts_of(words, delimiter):
    """Return the index in the text of the first character of each word, counted one by one."""
    return [len(delimiter.join([*words[:number], ""])) for number in range(len(words))]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25)
@given(WORDS, st.sampled_from([" ", "", "\n--"]), st.sampled_from([LONGEST, 10_000]), st.booleans())
def test_tokens_are_those_of_the_words(pairs, family, words, delimiter, piece, truncation):  # noqa: PLR0913, PLR0917 — drawn
    tokens, tokenizer = pairs[family]
    text = Words(words, delimiter)
    assert (text, text.words) == (delimiter.join(words), tuple(words))
    starts = starts_of(words, delimiter)
    assert text.starts == tuple(starts)
    whole = tokenizer.encode(words, is_pretokenized=True)
    [encoded] = drained(tokens.encoding([text], truncation=truncation, spans=True, piece=piece))
    if len(whole) > LENGTH and not truncation:
        assert isinstance(encoded, InputTextError)
        assert f"tokens and the model takes {LENGTH}" in encoded.message
        return
    bare = tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False)
    kept = min(len(bare), LENGTH - (len(whole) - len(bare)))
    expected = [
        (starts[word] + begin, starts[word] + end)
        for word, (begin, end) in zip(bare.word_ids[:kept], bare.offsets[:kept], strict=True)
    ]
    special = encoded.spans[:, 0] < 0
    assert encoded.ids[~special].tolist() == bare.ids[:kept]
    assert list(map(tuple, encoded.spans[~special].tolist())) == expected
    assert encoded.text is text
    if kept == len(bare):
        assert encoded.ids.tolist() == whole.ids


@pytest.mark.parametrize("family", FAMILIES)
def test_words_longer_than_a_piece(pairs, family):
    tokens, tokenizer = pairs[family]
    words = ["king" * 20, "the", "sea of " * 9, "the"]
    whole = tokenizer.encode(words, is_pretokenized=True)
    [encoded] = drained(tokens.encoding([Words(words)], truncation=True, spans=True, piece=20))
    assert encoded.ids.tolist()[:-1] == whole.ids[: len(encoded.ids) - 1]
    last = whole.word_ids[len(encoded.ids) - 2]
    assert encoded.spans[-2].tolist()[0] >= starts_of(words, " ")[last]


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_of_words_are_those_of_their_tokens(pairs, family):
    tokens, tokenizer = pairs[family]
    words = [*["the", "kingdom", "a b"] * 40]
    bare = tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False)
    [windows] = drained(tokens.windows([Words(words)], Windows(length=LENGTH, stride=5)))
    shares = [window.ids[slice(*window.cut)] for window in windows]
    assert len(shares) > 2
    assert np.concatenate([shares[0], *(share[5:] for share in shares[1:])]).tolist() == bare.ids
    numbers = [window.words for window in windows]
    assert np.concatenate([numbers[0], *(some[5:] for some in numbers[1:])]).tolist() == bare.word_ids
    starts = starts_of(words, " ")
    assert windows[-1].spans[slice(*windows[-1].cut)][-1].tolist() == [
        starts[bare.word_ids[-1]] + bare.offsets[-1][0],
        starts[bare.word_ids[-1]] + bare.offsets[-1][1],
    ]


def test_words_that_are_no_unicode_text(pairs):
    tokens, _ = pairs["bert"]
    [error] = tokens.encode([Words(["a", "\ud800"])])
    assert "is not Unicode text (a lone surrogate at character 2)" in error.message


def test_of_many_words_no_more_are_tokenized_than_fit(pairs, characters):
    tokens, _ = pairs["bert"]
    for words in (["the king"] * 200_000, ["x y z . " * 200_000]):
        characters.clear()
        [encoded] = tokens.encode([Words(words)], truncation=True, spans=True)
        assert len(encoded.ids) == LENGTH
        assert sum(characters) < 20_000
