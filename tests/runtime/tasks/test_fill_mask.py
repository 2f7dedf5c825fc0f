"""fill-mask equals transformers' pipeline on the same checkpoint, field for field."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bertport.runtime.errors import InputTextError, UsageError
from bertport.runtime.tasks.fill_mask import largest
from tests.runtime.parity import assert_same_fillings

PIECES = st.one_of(
    st.sampled_from(
        ["hello", "i'm", "the", "a man", "Paris", "was.", "don't", "##ing", "[SEP]", "[PAD]", "[UNK]", " "]
    ),
    st.text("abc XYZ.,!?'-[]#", max_size=12),
    st.text("éàüßñçøœ ÀÉŽ", max_size=12),
    st.text("中文日本語東京あいアイ한국어 ", max_size=12),
    st.text("😀👍🏽👨‍👩‍👧🇫🇷☃️ ", max_size=8),
    st.text("\x00\x01\t\n\r\x0b\x1b\x7f\x85\u200b\u200d\u2028\ufeff\ufffd ", max_size=8),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
# The fixtures are loaded once and nothing changes them.
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def masked(draw, most=3):
    """A text of strange pieces with one or more masks anywhere."""
    parts = draw(st.lists(PIECES, max_size=6))
    for _ in range(draw(st.integers(1, most))):
        parts.insert(draw(st.integers(0, len(parts))), "[MASK]")
    return draw(st.sampled_from(["", " "])).join(parts)


@SETTINGS
@given(masked(), st.integers(1, 8))
@example("[MASK]", 5)
@example("Hello I'm a [MASK] model.", 5)
@example("[MASK][MASK]", 1)
@example("[CLS] [MASK] [SEP] [PAD] [PAD]", 3)
def test_answers_equal_the_pipeline(model, pipe, text, top_k):
    assert_same_fillings(pipe(text, top_k=top_k), model.fill_mask(text, top_k=top_k))


@settings(SETTINGS, max_examples=12)
@given(st.lists(masked(), max_size=5))
def test_batches_equal_the_pipeline(model, pipe, texts):
    assert_same_fillings(pipe(texts) if texts else [], model.fill_mask(texts))


@settings(SETTINGS, max_examples=15)
@given(masked(most=2), st.text("ab é中", min_size=1, max_size=40), st.integers(1, 60))
def test_truncated_text_equals_the_pipeline(model, pipe, text, filler, repeats):
    text += f" {filler}" * repeats * 5
    assert_same_fillings(pipe(text, tokenizer_kwargs={"truncation": True}), model.fill_mask(text, truncation=True))


@SETTINGS
@given(masked(most=2), st.lists(PIECES, min_size=1, max_size=4), st.integers(1, 6))
@example("a [MASK]", ["hello", "hello", "Hello", ""], 5)
@example("a [MASK]", ["", " "], 5)
def test_targets_equal_the_pipeline(model, pipe, text, targets, top_k):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is one is tested below
        try:
            expected = pipe(text, targets=targets, top_k=top_k)
        except ValueError as error:
            with pytest.raises(UsageError, match=str(error)):
                model.fill_mask(text, targets=targets, top_k=top_k)
            return
        assert_same_fillings(expected, model.fill_mask(text, targets=targets, top_k=top_k))


@SETTINGS
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda text: "[MASK]" not in text))
@example("")
@example("[mask] (MASK) MASK")
def test_without_a_mask_both_refuse(model, pipe, text):
    with pytest.raises(Exception, match="No mask_token"):
        pipe(text)
    with pytest.raises(InputTextError, match=r"No mask_token \(\[MASK\]\) found on the input"):
        model.fill_mask(text)


def test_a_target_outside_the_vocabulary_is_warned_of(model):
    with pytest.warns(
        UserWarning, match="'parisian' is not in the vocabulary: its first piece 'paris' stands for it"
    ) as seen:
        model.fill_mask("a [MASK]", targets=["parisian", "hello"])
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="'' is not in the vocabulary: it is left out"):
        model.fill_mask("a [MASK]", targets=["", "hello"])


@pytest.mark.parametrize("target", ["\ud83d", "a\udcff", "king" * 50_000 + "\ud83d"])
@pytest.mark.parametrize("several", [True, False])
def test_a_target_that_is_no_text(model, target, several):
    with pytest.raises(
        UsageError, match=r"the target '.* is not Unicode text \(a lone surrogate at character \d+\): repair it"
    ) as error:
        model.fill_mask("a [MASK]", targets=["king", target] if several else target)
    str(error.value).encode("utf-8")
    assert len(str(error.value)) < 300


def test_a_long_target_costs_what_its_first_piece_does(model, characters):
    for character in (".", "a ", "中", "a"):
        characters.clear()
        text = character * (2_000_000 // len(character))
        with pytest.warns(UserWarning, match="is not in the vocabulary: its first piece") as seen:
            model.fill_mask("a [MASK]", targets=[text])
        assert len(str(seen[0].message)) < 200
        assert sum(characters) < 20_000


def test_one_target_may_be_a_string(model, pipe):
    assert_same_fillings(pipe("a [MASK]", targets="king"), model.fill_mask("a [MASK]", targets="king"))


def test_a_list_of_one_is_unwrapped(model):
    [single] = [model.fill_mask("a [MASK]")]
    assert model.fill_mask(["a [MASK]"]) == single
    assert model.fill_mask(["a [MASK]", "a [MASK]"]) == [single, single]
    assert model.fill_mask([]) == []


def test_a_text_that_is_too_long_is_refused_with_both_numbers(model):
    with pytest.raises(InputTextError, match=r"the input has 203 tokens and the model takes 160: .*truncation"):
        model.fill_mask("[MASK] " + "a " * 200)
    assert len(model.fill_mask("[MASK] " + "a " * 157)) == 5  # 160 tokens with the special ones


def test_a_mask_lost_to_truncation_is_its_own_error(model):
    for text in ("a " * 200 + "[MASK]", "[MASK] " + "a " * 200 + "[MASK]", "a " * 158 + "[MASK]"):
        with pytest.raises(InputTextError, match=r"truncation to 160 tokens cut off a \[MASK\]"):
            model.fill_mask(text, truncation=True)


def test_what_is_no_text_is_refused(model):
    with pytest.raises(InputTextError, match="lone surrogate at character 2"):
        model.fill_mask("a \ud800 [MASK]")
    with pytest.raises(InputTextError, match="input 2: the input is not Unicode"):
        model.fill_mask(["a [MASK]", "a \udfff [MASK]"])
    with pytest.raises(InputTextError, match="fill-mask takes a text"):
        model.fill_mask([3])


@pytest.mark.parametrize("top_k", [0, -1, 2.5, True, "3"])
def test_top_k_out_of_range_is_refused(model, top_k):
    with pytest.raises(UsageError, match="top_k is a number from 1 up"):
        model.fill_mask("a [MASK]", top_k=top_k)


def test_a_top_k_of_numpy_is_a_number(model):
    assert model.fill_mask("a [MASK]", top_k=np.int64(2)) == model.fill_mask("a [MASK]", top_k=2)


def test_top_k_is_capped_by_targets_and_refused_beyond_the_vocabulary(model):
    size = model.bundle.manifest.architecture.vocab_size
    assert len(model.fill_mask("a [MASK]", top_k=size)) == size
    assert len(model.fill_mask("a [MASK]", top_k=size + 1, targets=["king", "queen"])) == 2
    assert len(model.fill_mask("a [MASK]", top_k=None)) == 5
    with pytest.raises(UsageError, match=f"the vocabulary has {size} words"):
        model.fill_mask("a [MASK]", top_k=size + 1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 20), st.data())
def test_best_is_a_stable_sort(values, repeats, data):
    values *= repeats  # beyond one group
    scores = np.array(values, dtype=np.float32)
    count = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]
    assert largest(scores, count).tolist() == expected
