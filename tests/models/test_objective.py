"""The objective is BERT's: what share of which tokens is masked how, and what the pairs of spans are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pretraining.corpus import Corpus
from pretraining.errors import RecipeError
from pretraining.objective import (
    IS_NEXT,
    IS_RANDOM,
    SHORTEST,
    BatchSource,
    SpecialTokens,
    make_batch,
    mask_row,
    sample_pair,
)

SPECIAL = SpecialTokens(cls=2, sep=3, mask=4, vocab_size=1000, ordinary=np.arange(5, 1000))


def row_of(length: int, seed: int) -> NDArray[np.int64]:
    row = np.random.default_rng(seed).integers(5, 1000, size=length)
    row[[0, length // 2, -1]] = SPECIAL.cls, SPECIAL.sep, SPECIAL.sep
    return row


@given(length=st.integers(4, 512), seed=st.integers(0, 2**32 - 1))
def test_masks_fifteen_percent_and_no_special_token(length: int, seed: int) -> None:
    original = row_of(length, seed)
    row = original.copy()
    positions, labels = mask_row(row, SPECIAL, np.random.default_rng(seed))
    assert len(positions) == max(1, round(0.15 * (length - 3)))
    assert len(set(positions.tolist())) == len(positions)
    assert np.array_equal(labels, original[positions])
    assert not np.isin(labels, [SPECIAL.cls, SPECIAL.sep]).any()
    untouched = np.setdiff1d(np.arange(length), positions)
    assert np.array_equal(row[untouched], original[untouched])


def test_of_the_masked_eighty_are_hidden_ten_random_and_ten_kept() -> None:
    rng = np.random.default_rng(0)
    fates = {"hidden": 0, "kept": 0, "random": 0}
    drawn: list[int] = []
    for seed in range(2000):
        row = row_of(128, seed)
        positions, labels = mask_row(row, SPECIAL, rng)
        hidden, kept = row[positions] == SPECIAL.mask, row[positions] == labels
        fates["hidden"] += int(hidden.sum())
        fates["kept"] += int(kept.sum())
        fates["random"] += int((~hidden & ~kept).sum())
        drawn += row[positions][~hidden & ~kept].tolist()
    # 38,000 draws: the standard deviation of the 0.1 shares is 0.0015, so 0.008 is five of them.
    total = sum(fates.values())
    shares = {name: count / total for name, count in fates.items()}
    assert shares == pytest.approx({"hidden": 0.8, "kept": 0.1, "random": 0.1}, abs=0.008)
    assert min(drawn) >= 5, "a random replacement is never a special token"
    assert len(set(drawn)) > 900, "random replacements come from the whole vocabulary"


def test_a_random_replacement_is_another_token() -> None:
    two = SpecialTokens(cls=0, sep=1, mask=2, vocab_size=5, ordinary=np.array([3, 4]))
    rng = np.random.default_rng(0)
    replaced = 0
    for _ in range(300):
        row = np.array([0, *[3] * 40, 1])
        positions, _ = mask_row(row, two, rng)
        replaced += int((row[positions] == 4).sum())
    # With one other entry, every random replacement shows: 10% of 300 x 6, give or take five deviations of 13.
    assert replaced == pytest.approx(180, abs=65)


@settings(max_examples=200)
@given(anchor=st.integers(0, 10**6), length=st.integers(SHORTEST, 512), seed=st.integers(0, 2**32 - 1))
def test_b_follows_a_token_for_token_or_is_from_another_section(
    corpus: Corpus, anchor: int, length: int, seed: int
) -> None:
    sentences = len(corpus.sentence_starts) - 1
    pair = sample_pair(corpus, anchor % sentences, length, np.random.default_rng(seed))
    bounds = corpus.sentence_starts[corpus.section_starts]
    for span, section in zip((pair.a, pair.b), pair.sections, strict=True):
        assert bounds[section] <= span.start < span.stop <= bounds[section + 1]
    assert (pair.a.stop - pair.a.start) + (pair.b.stop - pair.b.start) + 3 == length
    assert pair.b.start in corpus.sentence_starts, "B begins a sentence"
    assert pair.a.stop in corpus.sentence_starts, "A ends a sentence"
    if pair.label == IS_NEXT:
        assert pair.b.start == pair.a.stop
        assert pair.sections[0] == pair.sections[1]
    else:
        assert pair.label == IS_RANDOM
        assert pair.sections[0] != pair.sections[1]


def test_half_the_pairs_follow(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    sentences = len(corpus.sentence_starts) - 1
    labels = [sample_pair(corpus, int(rng.integers(sentences)), 64, rng).label for _ in range(4000)]
    assert np.mean(labels) == pytest.approx(0.5, abs=0.04)  # five standard deviations of 0.008


def test_spans_are_usually_longer_than_one_sentence(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    sentences = len(corpus.sentence_starts) - 1
    pairs = [sample_pair(corpus, int(rng.integers(sentences)), 128, rng) for _ in range(300)]
    longest = int(np.diff(corpus.sentence_starts).max())
    assert np.mean([pair.a.stop - pair.a.start > longest for pair in pairs]) > 0.7


@given(length=st.integers(SHORTEST, 300), rows=st.integers(1, 6), seed=st.integers(0, 1000))
def test_a_batch_is_two_segments_without_padding(
    corpus: Corpus, special: SpecialTokens, length: int, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    anchors = rng.integers(len(corpus.sentence_starts) - 1, size=rows)
    batch = make_batch(corpus, special, anchors, length, rng)
    assert batch.input_ids.shape == batch.token_type_ids.shape == (rows, length)
    original = batch.input_ids.copy()
    original.reshape(-1)[batch.masked_positions] = batch.masked_labels
    assert (original[:, 0] == special.cls).all()
    assert (original[:, -1] == special.sep).all()
    assert ((original == special.sep).sum(axis=1) == 2).all()
    assert (original != 0).all(), "no padding"
    for row, types in zip(original, batch.token_type_ids, strict=True):
        middle = int(np.flatnonzero(row == special.sep)[0])
        assert types.tolist() == [0] * (middle + 1) + [1] * (length - middle - 1)


def test_a_batch_depends_on_the_seed_and_its_number_alone(corpus: Corpus, special: SpecialTokens) -> None:
    def source(seed: int) -> BatchSource:
        return BatchSource(corpus, special, tokens_per_batch=1024, seed=seed)

    first = source(3)
    anchors = 0
    for step in range(5):
        batch, anchors = first.batch(step, anchors, 128)
    again, again_anchors = source(3).batch(4, anchors - len(batch.input_ids), 128)
    assert again_anchors == anchors
    assert np.array_equal(again.input_ids, batch.input_ids)
    other, _ = source(4).batch(4, anchors - len(batch.input_ids), 128)
    assert not np.array_equal(other.input_ids[:1, :12], batch.input_ids[:1, :12])


def test_every_sentence_begins_a_once_an_epoch_and_masks_are_drawn_anew(corpus: Corpus, special: SpecialTokens) -> None:
    source = BatchSource(corpus, special, tokens_per_batch=1024, seed=1)
    sentences = len(corpus.sentence_starts) - 1
    first, second = ([source._anchor(epoch * sentences + index) for index in range(sentences)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(sentences))
    assert first != second


def test_most_batches_are_full_length_and_some_short(corpus: Corpus, special: SpecialTokens) -> None:
    source = BatchSource(corpus, special, tokens_per_batch=512, seed=1)
    lengths = [source.batch(step, 0, 128)[0].input_ids.shape[1] for step in range(400)]
    assert np.mean([length < 128 for length in lengths]) == pytest.approx(0.1, abs=0.06)
    assert min(lengths) >= SHORTEST


def test_sections_too_short_for_a_pair_are_an_error_not_an_endless_search(special: SpecialTokens) -> None:
    starts = np.arange(0, 44, 4)
    tiny = Corpus(
        tokens=np.full(40, 9, dtype=np.int32),
        sentence_starts=starts,
        section_starts=np.array([0, 5, 10]),
        names=np.array(["a#0", "b#0"]),
    )
    with pytest.raises(RecipeError, match="no pair of spans of 128 tokens"):
        make_batch(tiny, special, np.array([0]), 128, np.random.default_rng(0))
