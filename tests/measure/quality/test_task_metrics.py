"""The arithmetic of heads that are trained for a task, against SciPy, scikit-learn and counting by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertport.measure.quality.entities import entities
from bertport.measure.quality.task_metrics import (
    CLASS_COLUMNS,
    LONGEST_ANSWER,
    best_span,
    compare_classes,
    compare_entities,
    compare_spans,
    given_labels,
    nearest,
    rank_correlation,
    ranks,
    token_f1,
)

RANDOM = np.random.default_rng(8)
LOGITS = RANDOM.normal(size=(40, 5)).astype(np.float32) * 3
NOISY = (LOGITS + RANDOM.normal(size=LOGITS.shape)).astype(np.float32)


def columns(rows):
    return dict(zip(CLASS_COLUMNS, rows.T, strict=True))


def test_classes_are_compared_as_distributions():
    from scipy import special, stats

    one, two = (special.softmax(logits.astype(np.float64), axis=1) for logits in (LOGITS, NOISY))
    compared = columns(compare_classes(LOGITS, NOISY))
    np.testing.assert_array_equal(compared["same"], one.argmax(axis=1) == two.argmax(axis=1))
    assert 0 < compared["same"].mean() < 1
    np.testing.assert_allclose(compared["kl"], stats.entropy(one, two, axis=1), atol=1e-12)
    np.testing.assert_allclose(compared["change"], np.abs(one - two).max(axis=1), atol=1e-12)
    ordered = np.sort(one, axis=1)
    np.testing.assert_allclose(compared["lead"], ordered[:, -1] - ordered[:, -2], atol=1e-12)


def test_several_labels_are_compared_as_sets():
    from scipy import special, stats

    one, two = (special.expit(logits.astype(np.float64)) for logits in (LOGITS, NOISY))
    compared = columns(compare_classes(LOGITS, NOISY, several=True))
    np.testing.assert_array_equal(compared["same"], ((one > 0.5) == (two > 0.5)).all(axis=1))
    assert 0 < compared["same"].mean() < 1
    divergences = stats.entropy([one, 1 - one], [two, 1 - two], axis=0).sum(axis=1)
    np.testing.assert_allclose(compared["kl"], divergences, atol=1e-12)
    np.testing.assert_allclose(compared["lead"], np.abs(2 * one - 1).min(axis=1), atol=1e-12)


def test_agreement_by_label_is_a_recall_of_the_references_labels():
    from sklearn.metrics import recall_score

    given = given_labels(LOGITS, NOISY)
    for label, recall in enumerate(recall_score(LOGITS.argmax(axis=1), NOISY.argmax(axis=1), average=None)):
        assert given[given[:, 0] == label, 1].mean() == pytest.approx(recall)
    given = given_labels(LOGITS, NOISY, several=True)
    for label, recall in enumerate(recall_score(LOGITS > 0, NOISY > 0, average=None)):
        assert given[given[:, 0] == label, 1].mean() == pytest.approx(recall)


def bio(spans, size, begin="B", inside="I"):
    labels = ["O"] * size
    for name, first, behind in spans:
        labels[first:behind] = [f"{begin}-{name}", *[f"{inside}-{name}"] * (behind - first - 1)]
    return labels


@st.composite
def spans_of_words(draw):
    """Entities of some words, which may stand side by side."""
    places = sorted(draw(st.sets(st.integers(0, 20), min_size=2, max_size=8)))
    spans = [
        (draw(st.sampled_from(["PER", "LOC", "creative-work"])), first, behind)
        for first, behind in pairwise(places)
        if draw(st.booleans())
    ]
    return spans, places[-1] + 1


@given(spans_of_words())
@settings(max_examples=60, deadline=None)
def test_entities_are_those_that_the_labels_were_made_of(drawn):
    spans, size = drawn
    assert entities(bio(spans, size)) == spans
    plain = [label if label == "O" else label[2:] for label in bio(spans, size)]
    apart = {span for span in spans if not any(span[1] == other[2] and span[0] == other[0] for other in spans)}
    if len(apart) == len(spans):  # a scheme without prefixes cannot tell neighbours of one label apart
        assert entities(plain) == entities(bio(spans, size, begin="I")) == spans


def test_schemes_of_entities():
    three = [("LOC", 0, 1), ("LOC", 1, 2), ("PER", 2, 5)]
    assert entities(["S-LOC", "S-LOC", "B-PER", "I-PER", "E-PER", "O"]) == three
    assert entities(["U-LOC", "U-LOC", "B-PER", "I-PER", "L-PER", "O"]) == three
    assert entities(["U-LOC", "L-PER", "I-PER"]) == [("LOC", 0, 1), ("PER", 1, 2), ("PER", 2, 3)]
    assert entities(["I-PER", "I-LOC", "B-LOC", "X-RAY", "-", "B-"]) == [
        ("PER", 0, 1),
        ("LOC", 1, 2),
        ("LOC", 2, 3),
        ("X-RAY", 3, 4),
        ("-", 4, 5),
        ("_", 5, 6),
    ]
    assert entities([]) == entities(["O", "O"]) == []
    common, found = compare_entities(["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "O", "B-LOC"])
    assert (common, found) == (1, 2)


@given(st.integers(0, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_best_span_is_the_likeliest_of_all(size, seed):
    logs = np.random.default_rng(seed).normal(size=(2, size + 1)) * 3
    every = {
        (first, last): logs[0, first + 1] + logs[1, last + 1]
        for first in range(size)
        for last in range(first, min(size, first + LONGEST_ANSWER))
    }
    every[None] = logs[:, 0].sum()
    assert best_span(logs) == max(every, key=every.__getitem__)


def test_spans_are_compared_by_their_tokens():
    assert token_f1((2, 5), (4, 9)) == pytest.approx(2 * 2 / (4 + 6))
    assert (token_f1((1, 1), (1, 1)), token_f1((1, 2), (3, 4)), token_f1(None, None), token_f1(None, (0, 3))) == (
        1,
        0,
        1,
        0,
    )
    reference = np.full((12, 2), -4.0)
    reference[6, 0] = reference[8, 1] = 5
    context = np.arange(12) > 4
    moved = reference.copy()
    moved[9, 1] = 9
    assert compare_spans(reference, reference, context).tolist() == [[1, 1, 0, 0, 0]]
    same, overlap, kl_start, kl_end, unanswered = compare_spans(reference, moved, context)[0]
    assert (same, overlap, kl_start, unanswered) == (0, pytest.approx(6 / 7), 0, 0)
    assert kl_end > 1
    # what the question's tokens say is of no account, and the first token stands for no answer
    asked = reference.copy()
    asked[2] = 50
    assert compare_spans(reference, asked, context).tolist() == [[1, 1, 0, 0, 0]]
    asked[0] = 50
    assert compare_spans(asked, reference, context)[0, [0, 1, 4]].tolist() == [0, 0, 1]


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_ranks_and_their_correlation_are_scipys(values, seed):
    from scipy import stats

    one = np.array(values, dtype=np.float64)
    two = np.random.default_rng(seed).integers(-3, 3, size=len(values)).astype(np.float64)
    np.testing.assert_allclose(ranks(one) + 1, stats.rankdata(one))
    if len(set(values)) > 1 and len(set(two.tolist())) > 1:
        assert rank_correlation(one, two) == pytest.approx(stats.spearmanr(one, two).statistic)
    assert rank_correlation(one, one * 3 + 1) == 1
    if len(set(values)) > 1:
        assert np.isnan(rank_correlation(one, np.zeros(len(values))))


def test_neighbours_are_those_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    vectors = RANDOM.normal(size=(70, 6)).astype(np.float32)
    wanted = NearestNeighbors(n_neighbors=11, metric="cosine").fit(vectors).kneighbors(return_distance=False)
    neighbours = nearest(vectors, 11, block=16)
    assert [set(row) for row in neighbours.tolist()] == [set(row) for row in wanted.tolist()]
    assert nearest(np.zeros((3, 2), dtype=np.float32), 1).shape == (3, 1)  # no direction, no error
