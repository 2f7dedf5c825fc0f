"""Windows of long texts are those of transformers' fast tokenizers, however the text is read."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertport.runtime.errors import UsageError
from bertport.runtime.text.steps import drained
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens
from bertport.runtime.text.windows import Windows, places
from tests.families import TINY
from tests.runtime.text.test_reader import OF_KINDS

FAMILIES = ("mpnet", "roberta", "deberta", "modernbert", "xlm-roberta", "albert", "deberta-v2")
LENGTHS = st.integers(8, 24)
TEXTS = st.lists(st.sampled_from(OF_KINDS), max_size=40).map("".join)
QUESTIONS = st.lists(st.sampled_from(["the", " king", " of", "?", " spain", "\u0301"]), max_size=5).map("".join)
LONG = "The king of spain, of [MASK] é\u0301 and of\nthe  sea. " * 400
"""As many characters as are read in pieces."""


@pytest.fixture(scope="module")
def pairs(tiny_checkpoint, tmp_path_factory):
    """Ours and transformers' tokenizer of each kind, by name and by the side that truncation cuts off."""
    from transformers import PreTrainedTokenizerFast

    made = {}
    directories = {"bert": tiny_checkpoint}
    for family in FAMILIES:
        directories[family] = tmp_path_factory.mktemp(family)
        TINY[family].write(directories[family])
    for name, directory in directories.items():
        content = (directory / TOKENIZER).read_text(encoding="utf-8")
        for side in ("left", "right"):
            file = tmp_path_factory.mktemp("file") / TOKENIZER
            stated = {"direction": side.title(), "max_length": 9, "strategy": "LongestFirst", "stride": 0}
            file.write_text(json.dumps(json.loads(content) | {"truncation": stated}), encoding="utf-8")
            theirs = PreTrainedTokenizerFast(tokenizer_file=str(file))
            assert theirs.truncation_side == side
            made[name, side] = (Tokens(file.read_text(encoding="utf-8"), {}, 1000), theirs)
    return made


def cut(tokens, text, windows, **given):
    return drained(tokens.windows([text], windows, **given))[0]


def expected(theirs, text, windows):
    pair = not isinstance(text, str)
    rows = theirs(
        *([[part] for part in text] if pair else [[text]]),  # in lists: an empty second text is taken for none
        truncation=("only_first", "only_second")[windows.cut] if pair else True,
        max_length=windows.length,
        stride=windows.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    places = [
        [span if part is not None else (-1, -1) for span, part in zip(spans, encoding.sequence_ids, strict=True)]
        for spans, encoding in zip(rows["offset_mapping"], rows.encodings, strict=True)
    ]
    # Of a tokenizer that puts both texts into segment 0, windows behind the first have the segment 1 of no model.
    types = [ids if 1 in rows["token_type_ids"][0] else [0] * len(ids) for ids in rows["token_type_ids"]]
    return [
        rows["input_ids"],
        types,
        places,
        [_words(encoding, windows.cut if pair else 0) for encoding in rows.encodings],
    ]


def _words(encoding, cut):
    """Whether each token of the text that is cut, but for the first, is of another word than the one before it."""
    words = [word for word, part in zip(encoding.word_ids, encoding.sequence_ids, strict=True) if part == cut]
    return [one != other for one, other in itertools.pairwise(words)]


def told(pieces):
    return [
        [window.ids.tolist() for window in pieces],
        [window.type_ids.tolist() for window in pieces],
        [list(map(tuple, window.spans.tolist())) for window in pieces],
        [(np.diff(window.words) != 0).tolist() for window in pieces],
    ]


@settings(max_examples=300)
@given(
    data=st.data(),
    text=TEXTS,
    question=st.none() | QUESTIONS,
    length=LENGTHS,
    stride=st.integers(0, 12),
    piece=st.sampled_from([8, 40, 10_000]),
    whole=st.booleans(),
)
def test_windows_are_those_of_transformers(pairs, data, text, question, length, stride, piece, whole):  # noqa: PLR0913, PLR0917 — drawn
    name = data.draw(st.sampled_from(sorted(pairs)))
    tokens, theirs = pairs[name]
    if name[0] == "bert":  # of a word longer than a piece, its spans are not those of its tokens
        piece = max(piece, 800)
    tokens._encoder._usual = 100_000 if whole else 0
    which = data.draw(st.sampled_from([0, 1]))
    windows = Windows(length=length, stride=stride, cut=which)
    given = text if question is None else (text, question) if which == 0 else (question, text)
    counts = [
        len(theirs(part, add_special_tokens=False, verbose=False)["input_ids"]) for part in (text, question or "")
    ]
    added = theirs.num_special_tokens_to_add(pair=question is not None)
    room = length - added - counts[1]
    pieces = cut(tokens, given, windows, piece=piece)
    if counts[0] > room and room <= stride:  # where the tokenizer panics, or cuts the text that is not to be cut
        assert str(pieces).startswith(f"a window of {length} tokens has {length - room} beside the text that is cut")
        return
    if stride >= length - theirs.num_special_tokens_to_add():
        with pytest.raises(UsageError, match=f"would have {stride} in common: choose a stride from 0 to"):
            tokens.check(windows)
        return
    wanted = expected(theirs, given, windows)
    assert told(pieces) == wanted
    for window in pieces:
        assert window.text == given
        assert len(window.words) == window.cut[1] - window.cut[0]
        begin, end = window.cut
        other = [place for place, index in enumerate(window.spans[:, 0]) if index >= 0 and not begin <= place < end]
        assert len(other) + end - begin == (window.spans[:, 0] >= 0).sum()
    [only] = cut(tokens, given, Windows(length=length, stride=stride, cut=which, first=True), piece=piece)
    assert told([only]) == [values[:1] for values in wanted]


def test_a_long_text_is_cut_as_a_short_one_is(pairs):
    for tokens, theirs in pairs.values():
        windows = Windows(length=100, stride=30, cut=1)
        text = ("Who?", LONG)
        tokens._encoder._usual = 1000
        pieces = cut(tokens, text, windows)
        assert len(pieces) > 40
        assert told(pieces) == expected(theirs, text, windows)


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 19), st.booleans())
def test_places_cover_all_and_overlap_by_the_stride(count, room, stride, left):
    if stride >= room:
        return
    spans = places(count, room, stride, left=left)
    assert sorted({index for start, end in spans for index in range(start, end)}) == list(range(count))
    assert places(count, room, stride, left=left, most=2) == spans[:2]
    ordered = sorted(spans)
    assert spans == (ordered[::-1] if left else ordered)
    for (_, end), (start, _) in itertools.pairwise(ordered):
        assert end - start >= stride
    full = ordered[1:] if left else ordered[:-1]
    assert all(end - start == room for start, end in full)


def test_more_windows_than_there_may_be_are_one_sentence_and_are_not_read(pairs):
    for tokens, _ in pairs.values():
        tokens._encoder._usual = 1000
        steps = tokens.windows([LONG * 40], Windows(length=16, stride=10), most=20, piece=1000)
        count = 0
        while True:
            try:
                next(steps)
                count += 1
            except StopIteration as end:
                [error] = end.value
                break
        assert str(error).startswith(
            "the input has more than 20 windows of 16 tokens: shorten it, or ask for longer windows or a smaller stride"
        )
        assert count < 40  # of 600 pieces


def test_windows_that_overlap_by_much_are_too_many_before_much_is_read(pairs):
    for tokens, _ in pairs.values():
        tokens._encoder._usual = 1000
        windows = Windows(length=1000, stride=990)
        assert str(cut(tokens, LONG * 40, windows, most=20, piece=1000)).startswith(
            "the input has more than 20 windows"
        )
        assert sum(1 for _ in tokens.windows([LONG * 40], windows, most=20, piece=1000)) < 40  # of 600 pieces


def test_of_the_last_window_the_whole_text_is_read(pairs):
    """However few windows there may be, truncation on the left keeps the end of a text."""
    for (_, side), (tokens, theirs) in pairs.items():
        if side == "right":
            continue
        tokens._encoder._usual = 1000
        windows = Windows(length=16, stride=4, first=True)
        [only] = cut(tokens, LONG, windows, most=2)
        assert told([only]) == [values[:1] for values in expected(theirs, LONG, windows)]


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (Windows(length=0, stride=0), "a window would have 0 tokens and the model takes 1 to 1000"),
        (Windows(length=1001, stride=0), "a window would have 1001 tokens and the model takes 1 to 1000"),
        (Windows(length=9, stride=-1), "would have -1 in common: choose a stride from 0 to 6"),
        (Windows(length=9, stride=7), "windows of 9 tokens, 2 of them special, would have 7 in common: choose"),
    ],
)
def test_windows_that_cannot_be(pairs, windows, message):
    with pytest.raises(UsageError, match=message):
        pairs["bert", "right"][0].check(windows)


@pytest.mark.parametrize("usual", [0, 10_000])
def test_an_error_of_one_text_is_told_in_its_place(pairs, usual):
    tokens, _ = pairs["bert", "right"]
    tokens._encoder._usual = usual
    texts = ["a b", "\ud800", ("the " * 20, "a b c"), ("a", "b \udfff"), ("a", "")]
    good, bad, crowded, worse, empty = drained(tokens.windows(texts, Windows(length=16, stride=4, cut=1)))
    assert len(good) == len(empty) == 1
    assert (empty[0].cut, empty[0].ids.tolist()) == ((3, 3), tokens.encode([("a", "")])[0].ids.tolist())
    assert "lone surrogate at character 0" in str(bad)
    assert "lone surrogate at character 2" in str(worse)
    assert str(crowded).startswith("a window of 16 tokens has 23 beside the text that is cut and 4 in common with")
