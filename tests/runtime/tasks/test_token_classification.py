"""token-classification equals transformers' pipeline, field for field, for each kind of tokenizer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertport.runtime.errors import InputTextError, MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.heads import TOKEN_CLASSIFICATION
from bertport.runtime.tasks.inputs import MOST_ROWS
from bertport.runtime.tasks.token_classification import STRATEGIES, Options, finish, read
from bertport.runtime.text.tokenizer import Tokens
from tests.runtime.tasks.heads import stating
from tests.runtime.tasks.tokenizers import saved_tokenizer, tagging_pipeline

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "NUMBER", "B", "I-", "B-TOP-LEVEL", "I-TOP-LEVEL")
KINDS = ("bert", "roberta", "xlm-roberta", "deberta-v2")
"""A family of each kind of tokenizer: WordPiece, byte-level BPE, and Unigram with their own normal forms."""
MAX_LENGTH = 1000
"""Tokens, so that nothing is cut."""
WORDS = st.one_of(
    st.sampled_from(["london", "the king", "kingdoms", "don't", "[SEP]", "</s>", "###", "unfathomable", "a  b", "é"]),
    st.text("abc XYZ.,'-", max_size=10),
    st.text("éàüßœ ÀÉŽ中文日本語한국어😀👍🏽ﬁ²", max_size=8),
    st.text("\t\n\u2028\u3000 ", max_size=3),
)
TEXTS = st.lists(WORDS, max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A function that gives a family's tokenizer in transformers' pipeline, and ours of a longest input."""
    made = {}

    def of(family):
        if family not in made:
            theirs, source, stated = saved_tokenizer(tmp_path_factory.mktemp(family), family, MAX_LENGTH)
            made[family] = tagging_pipeline(theirs, LABELS), lambda most: Tokens(source, stated, most)
        return made[family]

    return of


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    """A manifest with the head and its labels."""
    return stating(tiny_bundle, TOKEN_CLASSIFICATION, labels=LABELS)


def of_pipeline(pipe, text, logits, split=None, **parameters):
    """Return the pipeline's answer to one text, whose logits come from a function of the number of tokens."""
    import torch

    [inputs] = pipe.preprocess(text, **(split or {"is_split_into_words": False}))
    inputs["logits"] = torch.from_numpy(logits(inputs["input_ids"].shape[1]))[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a tokenizer does not know words
        return pipe.postprocess([inputs], **parameters)


def drawn(seed, spread):
    """A function that gives logits of so many tokens: for all tokens one label, or each its own."""

    def logits(count):
        rng = np.random.default_rng(seed)
        return (spread * rng.normal(size=(count, len(LABELS))) + rng.normal(size=len(LABELS))).astype(np.float32)

    return logits


@pytest.mark.parametrize("family", KINDS)
@settings(max_examples=20)
@given(
    TEXTS,
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.3, 3.0]),
    st.sampled_from([["O"], [], ["PER", "O"], ["B-LOC", "I-LOC"]]),
)
@example("unfathomable kingdoms", 3, 3.0, [])
@example("", 0, 3.0, [])
@example("é中😀 london", 1, 3.0, [])
def test_answers_equal_the_pipeline(case, manifest, family, text, seed, spread, ignored):  # noqa: PLR0913, PLR0917 — drawn
    pipe, tokens_of = case(family)
    tokens = tokens_of(MAX_LENGTH)
    [encoded] = tokens.encode([text], spans=True)
    logits = drawn(seed, spread)
    for strategy in ("none", *STRATEGIES):
        options = Options(aggregation_strategy=strategy, ignore_labels=ignored)
        ours = finish(options, tokens, manifest)(logits(len(encoded.ids)), encoded)
        theirs = of_pipeline(pipe, text, logits, aggregation_strategy=strategy, ignore_labels=ignored)
        assert ours == theirs  # to the last bit of the scores
        assert all(type(tag["score"]) is float for tag in ours)


@pytest.mark.parametrize("family", KINDS)
@settings(max_examples=12)
@given(
    st.lists(WORDS, min_size=1, max_size=6),
    st.sampled_from([" ", "", "--"]),
    st.integers(0, 1000),
    st.sampled_from([3, 8, MAX_LENGTH]),
)
@example(["unfathomable kingdoms", "", "in", "l'été", "\N{SNOWMAN}"], " ", 3, MAX_LENGTH)
def test_words_of_the_caller_equal_the_pipeline(case, manifest, family, words, delimiter, seed, most):  # noqa: PLR0913, PLR0917 — drawn
    pipe, tokens_of = case(family)
    tokens = tokens_of(most)
    options = Options(aggregation_strategy="first", ignore_labels=(), is_split_into_words=True, delimiter=delimiter)
    text = read(options, tokens, manifest)(words)
    assert text == read(Options(delimiter=delimiter), tokens, manifest)({"words": words}) == delimiter.join(words)
    [encoded] = tokens.encode([text], spans=True, truncation=True)
    logits = drawn(seed, 3.0)
    pipe.tokenizer.model_max_length = most
    try:
        split = {"is_split_into_words": True, "delimiter": delimiter}
        for strategy in ("none", *STRATEGIES):
            parameters = {"aggregation_strategy": strategy, "ignore_labels": []}
            ours = finish(Options(**parameters), tokens, manifest)(logits(len(encoded.ids)), encoded)
            assert ours == of_pipeline(pipe, words, logits, split=split, **parameters)
    finally:
        pipe.tokenizer.model_max_length = MAX_LENGTH


def test_an_unknown_word_is_shown_as_the_text_has_it(case, manifest):
    tokens = case("bert")[1](MAX_LENGTH)
    [encoded] = tokens.encode(["the \N{SNOWMAN} king"], spans=True)
    rows = finish(Options(ignore_labels=()), tokens, manifest)(drawn(0, 1.0)(len(encoded.ids)), encoded)
    assert [tag["word"] for tag in rows] == ["the", "\N{SNOWMAN}", "king"]


@pytest.mark.parametrize("value", [None, 1, {}, {"text": 1}, {"text": "a", "more": "b"}, ["a"], ["a", "b"]])
def test_what_is_no_text(value):
    with pytest.raises(InputTextError, match="token-classification takes a text"):
        read(Options(), None, None)(value)


@pytest.mark.parametrize("words", [[], "the king", None, 1, [1], ["a", None], ["a"] * (MOST_ROWS + 1), {"text": "a"}])
def test_what_is_no_list_of_words(words):
    with pytest.raises(InputTextError, match="words is a list of"):
        read(Options(is_split_into_words=True), None, None)(words)
    with pytest.raises(InputTextError, match="words is a list of"):
        read(Options(), None, None)({"words": words})


def test_how_words_are_joined():
    with pytest.raises(UsageError, match="delimiter is a text of 16 characters at most, not"):
        read(Options(delimiter=" " * 17), None, None)
    with pytest.raises(UsageError, match="delimiter is a text of 16 characters at most, not None"):
        read(Options(delimiter=None), None, None)
    with pytest.raises(UsageError, match="is_split_into_words is True or False, not 1"):
        read(Options(is_split_into_words=1), None, None)


@pytest.mark.parametrize("strategy", ["SIMPLE", "mean", None, 1, ["none"]])
def test_a_strategy_that_there_is_not(case, manifest, strategy):
    tokens = case("bert")[1](MAX_LENGTH)
    message = r"unknown aggregation_strategy .* \(available: none, simple, first, average, max\)"
    with pytest.raises(UnknownNameError, match=message):
        finish(Options(aggregation_strategy=strategy), tokens, manifest)


@pytest.mark.parametrize("labels", ["O", None, 1, [1], ["O", None]])
def test_labels_to_ignore_that_are_none(case, manifest, labels):
    tokens = case("bert")[1](MAX_LENGTH)
    with pytest.raises(UsageError, match=r"ignore_labels is a list of labels \(O, B-PER, .*\), (not|and holds) "):
        finish(Options(ignore_labels=labels), tokens, manifest)


def test_a_bundle_without_labels(case, tiny_bundle):
    tokens = case("bert")[1](MAX_LENGTH)
    with pytest.raises(MissingHeadError, match="does not record what its token-classification labels mean"):
        finish(Options(), tokens, stating(tiny_bundle, TOKEN_CLASSIFICATION))
