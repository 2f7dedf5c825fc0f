"""Long texts of token-classification, read in windows: the entities of transformers' pipeline, field for field."""

from __future__ import annotations

import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertport.runtime.errors import InputTextError, UsageError
from bertport.runtime.heads import TOKEN_CLASSIFICATION
from bertport.runtime.tasks.table import Several, Work, bind
from bertport.runtime.tasks.token_classification import STRATEGIES, Options, merge, windows
from bertport.runtime.text.tokenizer import Tokens
from tests.runtime.tasks.heads import stating
from tests.runtime.tasks.tokenizers import saved_tokenizer, tagging_pipeline

KINDS = ("bert", "roberta", "xlm-roberta", "deberta-v2")
"""A family of each kind of tokenizer."""
LENGTH = 16
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "NUMBER")
TEXTS = st.lists(
    st.sampled_from(
        ["london", "the king", "kingdoms", "don't", "###", "unfathomable", "a  b", "é", "日本", "12.5", "\n"]
    ),
    min_size=1,
    max_size=40,
).map(" ".join)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A function that gives transformers' pipeline with a family's tokenizer, without a model, and ours."""
    made = {}

    def of(family, side):
        if (family, side) not in made:
            directory = tmp_path_factory.mktemp(family)
            theirs, source, stated = saved_tokenizer(directory, family, LENGTH, truncation_side=side)
            made[family, side] = tagging_pipeline(theirs, LABELS), Tokens(source, stated, LENGTH)
        return made[family, side]

    return of


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    """A manifest with the head and its labels."""
    return stating(tiny_bundle, TOKEN_CLASSIFICATION, labels=LABELS)


def logits_of(ids):
    """Logits `[tokens, labels]` that depend on the ids of a window."""
    seed = zlib.crc32(np.asarray(ids, dtype=np.int64).tobytes())
    return np.random.default_rng(seed).normal(scale=2, size=(len(ids), len(LABELS))).astype(np.float32)


def of_pipeline(pipe, text, stride, **parameters):
    """Return the pipeline's answer from the same logits; of padded windows it reads no more than a model does."""
    import torch

    windows = {"return_overflowing_tokens": True, "padding": True, "stride": stride}
    outputs = []
    for inputs in pipe.preprocess(text, is_split_into_words=False, tokenizer_params=windows):
        count = int(inputs["attention_mask"].sum())
        logits = torch.zeros((1, inputs["input_ids"].shape[1], len(LABELS)))
        logits[0, :count] = torch.from_numpy(logits_of(inputs["input_ids"][0, :count].numpy()))
        outputs.append({**inputs, "logits": logits})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a tokenizer does not know words
        return pipe.postprocess(outputs, **parameters)


def ours(tokens, manifest, text, **parameters):
    call = bind("token-classification", parameters, tokens, manifest)
    [prepared] = call.prepare([text])
    return prepared.combine([work.finish(logits_of(work.ids)) for work in prepared.works])


@settings(max_examples=100)
@given(
    family=st.sampled_from(KINDS),
    side=st.sampled_from(["left", "right"]),
    text=TEXTS,
    stride=st.integers(0, 9),
    strategy=st.sampled_from(list(STRATEGIES)),
    ignored=st.sampled_from([("O",), (), ("PER", "O")]),
)
def test_entities_of_windows_are_those_of_the_pipeline(case, manifest, family, side, text, stride, strategy, ignored):  # noqa: PLR0913, PLR0917 — drawn
    pipe, tokens = case(family, side)
    tags = ours(tokens, manifest, text, stride=stride, aggregation_strategy=strategy, ignore_labels=ignored)
    wanted = of_pipeline(pipe, text, stride, aggregation_strategy=strategy, ignore_labels=list(ignored))
    if wanted[1:] and wanted[0] == wanted[1]:  # it gives a first entity without characters twice, compared with itself
        assert wanted.pop(0)["start"] == wanted[0]["end"]
    assert tags == wanted


def entity(start, end, score, label="PER"):
    return {"entity_group": label, "score": score, "word": "", "start": start, "end": end}


def test_words_are_cut_into_windows_too(case, manifest):
    _, tokens = case("bert", "right")
    words = ["the", "kingdoms", "of", "london"] * 8
    chosen = {"aggregation_strategy": "first", "stride": 4}
    [whole] = bind("token-classification", chosen, tokens, manifest).prepare([{"words": words}])
    tags = whole.combine([work.finish(logits_of(work.ids)) for work in whole.works])
    assert len(whole.works) > 3
    assert tags == ours(tokens, manifest, " ".join(words), **chosen)


def test_of_two_that_overlap_the_longer_stays_and_then_the_surer():
    long, short, surer, apart = entity(0, 9, 0.1), entity(3, 7, 0.9), entity(0, 9, 0.2, "LOC"), entity(9, 12, 0.5)
    assert merge([[long, apart], [short]]) == [long, apart]
    assert merge([[short], [long]]) == [long]
    assert merge([[long], [surer]]) == merge([[surer], [long]]) == [surer]
    assert merge([[long], [long | {"entity_group": "LOC"}]]) == [long]  # the first of equals
    assert merge([[apart], [], [short]]) == [short, apart]
    assert merge([[long, short]]) == [long, short]  # of one window, which is as it is
    assert merge([[]]) == merge([[], []]) == []


def test_a_text_of_one_window_is_answered_as_without(case, manifest):
    _, tokens = case("bert", "right")
    simple = {"aggregation_strategy": "simple"}
    [with_stride] = bind("token-classification", simple | {"stride": 3}, tokens, manifest).prepare(["the king"])
    [without] = bind("token-classification", simple, tokens, manifest).prepare(["the king"])
    assert (type(with_stride), type(without)) == (Several, Work)
    logits = logits_of(without.ids)
    assert with_stride.combine([with_stride.works[0].finish(logits)]) == without.finish(logits)


def test_a_long_text_is_an_error_cut_or_read_whole(case, manifest):
    """As the caller chooses: nothing of it is lost unless that is asked for."""
    _, tokens = case("bert", "right")
    text = "the king of london " * 20
    [error] = bind("token-classification", {}, tokens, manifest).prepare([text])
    assert isinstance(error, InputTextError)
    assert str(error).startswith("the input has 82 tokens and the model takes 16: shorten it, or pass truncation=True")
    [cut] = bind("token-classification", {"truncation": True}, tokens, manifest).prepare([text])
    assert len(cut.ids) == LENGTH
    [whole] = bind("token-classification", {"aggregation_strategy": "max", "stride": 4}, tokens, manifest).prepare(
        [text]
    )
    assert len(whole.works) == 8
    assert sum(len(work.ids) - 2 for work in whole.works) == 80 + 7 * 4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stride": 3}, "aggregation_strategy 'none' makes no entities: choose simple, first, average, max"),
        ({"stride": "3", "aggregation_strategy": "max"}, "stride is a number of tokens, not '3'"),
        ({"stride": True, "aggregation_strategy": "max"}, "stride is a number of tokens, not True"),
        ({"stride": 14, "aggregation_strategy": "max"}, "would have 14 in common: choose a stride from 0 to 13"),
        ({"stride": -1, "aggregation_strategy": "max"}, "would have -1 in common: choose a stride from 0 to 13"),
        (
            {"stride": 3, "aggregation_strategy": "max", "truncation": True},
            "truncation cuts it off: ask for one of them",
        ),
    ],
)
def test_strides_that_cannot_be(case, manifest, parameters, message):
    with pytest.raises(UsageError, match=message):
        bind("token-classification", parameters, case("bert", "right")[1], manifest)


def test_a_stride_of_numpy_is_a_number(case):
    _, tokens = case("bert", "right")
    asked = (Options(stride=stride, aggregation_strategy="max") for stride in (np.int64(4), 4))
    assert len({windows(options, tokens) for options in asked}) == 1
