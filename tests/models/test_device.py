"""Pairs and masks drawn in tensor operations are distributed as those of the objective, whatever the device."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pretraining import device
from pretraining.corpus import Corpus
from pretraining.device import DeviceBatch, DeviceSource
from pretraining.errors import RecipeError
from pretraining.objective import IS_NEXT, IS_RANDOM, SHORTEST, BatchSource, SpecialTokens, sample_pair

CPU = torch.device("cpu")
SPECIAL = SpecialTokens(cls=2, sep=3, mask=4, vocab_size=1000, ordinary=np.arange(5, 1000))
ROWS = 4000


def source_of(corpus: Corpus, special: SpecialTokens, *, tokens_per_batch: int = 1024, seed: int = 1) -> DeviceSource:
    return DeviceSource(corpus, special, tokens_per_batch=tokens_per_batch, seed=seed, device=CPU)


def original(batch: DeviceBatch) -> torch.Tensor:
    """Return a batch's tokens before they were masked."""
    ids = batch.input_ids.clone()
    ids.view(-1)[batch.masked_positions] = batch.masked_labels
    return ids


@settings(max_examples=30)
@given(step=st.integers(0, 10**6), length=st.integers(SHORTEST + 1, 512), seed=st.integers(0, 2**32 - 1))
def test_a_batch_is_two_spans_of_the_corpus_and_fifteen_percent_of_each_row_are_masked(
    corpus: Corpus, special: SpecialTokens, step: int, length: int, seed: int
) -> None:
    batch, after = source_of(corpus, special, tokens_per_batch=512, seed=seed).batch(step, step * 7, length)
    rows, length = batch.input_ids.shape
    assert (rows, after) == (512 // length, step * 7 + rows)
    ids, sentences = original(batch), set(corpus.sentence_starts.tolist())
    assert (ids[:, 0] == special.cls).all()
    assert ((ids == special.sep).sum(1) == 2).all()
    assert (ids[:, -1] == special.sep).all()
    text = corpus.tokens.tolist()
    for row, types in zip(ids.tolist(), batch.token_type_ids.tolist(), strict=True):
        middle = row.index(special.sep)
        assert types == [0] * (middle + 1) + [1] * (length - middle - 1)
        assert any(text[end - middle + 1 : end] == row[1:middle] for end in sentences), "A ends a sentence"
        b = row[middle + 1 : -1]
        assert any(text[begin : begin + len(b)] == b for begin in sentences), "B begins a sentence"
    places = batch.masked_positions
    assert (places.diff() > 0).all()
    assert torch.bincount(places // length, minlength=rows).tolist() == [max(1, round(0.15 * (length - 3)))] * rows
    assert not np.isin(batch.masked_labels, [special.cls, special.sep]).any()


@given(length=st.integers(SHORTEST, 512), seed=st.integers(0, 1000))
def test_b_follows_a_or_is_from_another_section(corpus: Corpus, special: SpecialTokens, length: int, seed: int) -> None:
    anchors = torch.from_numpy(np.random.default_rng(seed).integers(len(corpus.sentence_starts) - 1, size=20))
    pairs = source_of(corpus, special).draw_pairs(anchors, length)
    bounds = corpus.sentence_starts[corpus.section_starts]
    drawn = (tensor.tolist() for tensor in (pairs.a, pairs.a_length, pairs.b, pairs.labels))
    for a, a_length, b, label in zip(*drawn, strict=True):
        spans = (a, a + a_length), (b, b + length - 3 - a_length)
        sections = [int(np.searchsorted(bounds, begin, side="right")) - 1 for begin, _ in spans]
        for section, (begin, end) in zip(sections, spans, strict=True):
            assert bounds[section] <= begin < end <= bounds[section + 1]
        assert (sections[0] == sections[1]) == (label == IS_NEXT) == (a + a_length == b)
        assert label in {IS_NEXT, IS_RANDOM}


@pytest.mark.parametrize("length", [32, 128, 512])
def test_pairs_are_distributed_as_those_of_the_objective(corpus: Corpus, special: SpecialTokens, length: int) -> None:
    rng = np.random.default_rng(0)
    anchors = rng.integers(len(corpus.sentence_starts) - 1, size=ROWS)
    one_by_one = [sample_pair(corpus, int(anchor), length, rng) for anchor in anchors]
    together = source_of(corpus, special).draw_pairs(torch.from_numpy(anchors), length)
    labels = together.labels.numpy()
    assert labels.mean() == pytest.approx(0.5, abs=0.04)  # five standard deviations of 0.008
    for label in (IS_NEXT, IS_RANDOM):
        mine = labels == label
        chosen = [pair for pair in one_by_one if pair.label == label]
        for tensor, values in (
            (together.a_length, [pair.a.stop - pair.a.start for pair in chosen]),
            (together.a, [pair.a.start for pair in chosen]),
            (together.b, [pair.b.start for pair in chosen]),
        ):
            assert distance(tensor.numpy()[mine], np.array(values)) < 0.07  # 2.2 of its scale, 0.032: one in 10,000


def distance(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return the largest difference of two samples' cumulative shares, Kolmogorov's and Smirnov's."""
    both = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(sample), both, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def test_of_the_masked_eighty_are_hidden_ten_random_and_ten_kept_everywhere_in_a_row(corpus: Corpus) -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 1000, size=(2000, 128)))
    ids[:, [0, 64, 127]] = torch.tensor([SPECIAL.cls, SPECIAL.sep, SPECIAL.sep])
    masked = ids.clone()
    positions, labels = source_of(corpus, SPECIAL).mask(masked)
    found = masked.view(-1)[positions]
    assert torch.equal(labels, ids.view(-1)[positions])
    hidden, kept = found == SPECIAL.mask, found == labels
    drawn = found[~hidden & ~kept]
    shares = {"hidden": hidden, "kept": kept, "random": ~hidden & ~kept}
    # 38,000 draws: the standard deviation of the 0.1 shares is 0.0015, so 0.008 is five of them.
    assert {name: share.float().mean().item() for name, share in shares.items()} == pytest.approx(
        {"hidden": 0.8, "kept": 0.1, "random": 0.1}, abs=0.008
    )
    assert drawn.min() >= 5, "a random replacement is never a special token"
    assert len(drawn.unique()) > 900, "random replacements come from the whole vocabulary"
    untouched = torch.ones(ids.numel(), dtype=torch.bool)
    untouched[positions] = False
    assert torch.equal(masked.view(-1)[untouched], ids.view(-1)[untouched])
    by_place = torch.bincount(positions % 128, minlength=128).numpy() / 2000
    assert by_place[[0, 64, 127]].tolist() == [0, 0, 0]
    assert np.delete(by_place, [0, 64, 127]) == pytest.approx(19 / 125, abs=0.04)  # five deviations of 0.008


def test_a_random_replacement_is_another_token(corpus: Corpus) -> None:
    two = SpecialTokens(cls=0, sep=1, mask=2, vocab_size=5, ordinary=np.array([3, 4]))
    ids = torch.full((300, 42), 3)
    ids[:, [0, -1]] = torch.tensor([two.cls, two.sep])
    source_of(corpus, two).mask(ids)
    # With one other entry, every random replacement shows: 10% of 300 x 6, give or take five deviations of 13.
    assert (ids == 4).sum().item() == pytest.approx(180, abs=65)


def test_batches_have_the_lengths_and_the_order_of_the_objective_s_and_depend_on_seed_and_number(
    corpus: Corpus, special: SpecialTokens
) -> None:
    hosts = BatchSource(corpus, special, tokens_per_batch=512, seed=3)
    mine = source_of(corpus, special, tokens_per_batch=512, seed=3)
    used = 0
    for step in range(60):
        (host, after), (drawn, mine_after) = hosts.batch(step, used, 128), mine.batch(step, used, 128)
        assert (host.input_ids.shape, after) == (tuple(drawn.input_ids.shape), mine_after)
        again, _ = source_of(corpus, special, tokens_per_batch=512, seed=3).batch(step, used, 128)
        assert torch.equal(again.input_ids, drawn.input_ids)
        used = after
    other, _ = source_of(corpus, special, tokens_per_batch=512, seed=4).batch(59, 0, 128)
    assert not torch.equal(other.input_ids[:1, :12], drawn.input_ids[:1, :12])


def test_sections_too_short_for_a_pair_are_an_error_not_an_endless_search(
    special: SpecialTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "MOST_DRAWS", 100)
    tiny = Corpus(
        tokens=np.full(40, 9, dtype=np.int32),
        sentence_starts=np.arange(0, 44, 4),
        section_starts=np.array([0, 5, 10]),
        names=np.array(["a#0", "b#0"]),
    )
    with pytest.raises(RecipeError, match="no pair of spans of 128 tokens"):
        source_of(tiny, special).batch(1, 0, 128)
