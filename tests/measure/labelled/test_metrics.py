"""Metrics against scikit-learn, scipy, seqeval and the published descriptions, as they are and in resamples."""

import math
import re
import string
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from bertport.measure.budget import UNDECIDED
from bertport.measure.drops import judge_drop
from bertport.measure.labelled.answers import answer_f1, exact_match
from bertport.measure.labelled.figures import choose_metrics, paired_differences
from bertport.measure.labelled.metrics import METRICS
from bertport.measure.labelled.ranks import best_first
from bertport.measure.quality.entities import entities
from bertport.runtime.errors import UsageError
from tests.measure.labelled.judged import classified, judged, predicted

NAMES = ("a", "b", "c", "d")
ORACLES = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": lambda truth, values: sklearn_metrics.f1_score(truth == 1, values == 1, zero_division=np.nan),
    "f1_macro": lambda truth, values: sklearn_metrics.f1_score(truth, values, average="macro"),
    "matthews": sklearn_metrics.matthews_corrcoef,
}


def random_labels(seed, labels, count=60):
    rng = np.random.default_rng(seed)
    return classified(rng, count, labels)[:2]


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("seed", range(2))
def test_label_metrics_are_scikit_learns_in_resamples_too(name, labels, seed):
    truth, values = random_labels(seed, labels)
    metric, side = METRICS[name], judged("classification", truth, values, labels=NAMES[:labels], positive=1)
    assert metric.value(side) == pytest.approx(ORACLES[name](truth, values))
    sums = metric.sums(side)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        weights = np.bincount(rng.integers(60, size=60), minlength=60)
        drawn = np.repeat(np.arange(60), weights)
        figure = sums.figure(sums.contributions.T @ weights[:, None].astype(float))[0]
        assert figure == pytest.approx(ORACLES[name](truth[drawn], values[drawn]))


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_of_several_labels_is_scikit_learns(average):
    rng = np.random.default_rng(4)
    matrix, values = rng.random((2, 50, 4)) > 0.6
    side = judged("multi-label", [tuple(np.flatnonzero(row)) for row in matrix], values, labels=NAMES)
    metric = METRICS[f"f1_{average}"]
    expected = sklearn_metrics.f1_score(matrix, values, average=average, zero_division=0)
    assert metric.value(side) == pytest.approx(expected)
    assert metric.sums(side).value == pytest.approx(expected)
    assert METRICS["accuracy"].value(side) == sklearn_metrics.accuracy_score(matrix, values)


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_of_one_label_that_may_be_true_is_that_of_the_label(average):
    truth, values = np.random.default_rng(4).random((2, 50, 1)) > 0.6
    side = judged("multi-label", [tuple(np.flatnonzero(row)) for row in truth], values, labels=NAMES[:1])
    metric = METRICS[f"f1_{average}"]
    expected = sklearn_metrics.f1_score(truth[:, 0], values[:, 0])
    assert metric.value(side) == pytest.approx(expected)
    assert metric.sums(side).value == pytest.approx(expected)


def test_matthews_of_a_constant_prediction_is_0_and_f1_without_positives_is_not_defined():
    side = judged("classification", np.array([0, 1] * 5), np.zeros(10, dtype=int), labels=NAMES[:2], positive=1)
    assert METRICS["matthews"].value(side) == METRICS["matthews"].sums(side).value == 0
    assert METRICS["f1"].value(side) == METRICS["f1"].sums(side).value == 0
    never = judged("classification", np.zeros(10, dtype=int), np.zeros(10, dtype=int), labels=NAMES[:2], positive=1)
    assert math.isnan(METRICS["f1"].value(never))
    assert math.isnan(METRICS["f1"].sums(never).value)


@pytest.mark.parametrize(("name", "oracle"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_correlations_are_scipys_in_resamples_too(name, oracle, offset):
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 11, size=80) / 2
    values = truth + rng.normal(size=80).round(1) + offset
    side = judged("regression", truth.tolist(), values)
    assert METRICS[name].value(side) == pytest.approx(oracle(values, truth).statistic)
    sums = METRICS[name].sums(side)
    assert sums.value == pytest.approx(oracle(values, truth).statistic)
    weights = np.stack([np.bincount(rng.integers(80, size=80), minlength=80) for _ in range(8)], axis=1).astype(float)
    figures = sums.weighted(weights) if sums.weighted else sums.figure(sums.contributions.T @ weights)
    for column, figure in zip(weights.T, figures, strict=True):
        drawn = np.repeat(np.arange(80), column.astype(int))
        assert figure == pytest.approx(oracle(values[drawn], truth[drawn]).statistic, abs=1e-9)


def test_correlations_with_a_constant_are_not_defined():
    side = judged("regression", [0.0, 1.0, 2.0, 3.0], np.full(4, 0.1))
    for name in ("pearson", "spearman"):
        assert math.isnan(METRICS[name].value(side))
        assert math.isnan(METRICS[name].sums(side).value)
        values = np.array([-0.8, -1.3, -0.2, 0.4, 1.1, 0.1, -0.8])  # of which rounding leaves a spread
        sums = METRICS[name].sums(judged("regression", list(range(7)), values))
        only = np.array([[4.0], *[[0.0]] * 5, [3.0]])  # all that is drawn has the value -0.8
        figures = sums.weighted(only) if sums.weighted else sums.figure(sums.contributions.T @ only)
        assert np.isnan(figures).all()


def differing(kind, truths, reference, candidate, labels=None):
    """Return the differences of predictions from others."""
    data = judged(kind, truths, reference, labels=labels).data
    scores = [np.eye(len(labels))[side] if labels else None for side in (candidate, reference)]
    return paired_differences(predicted(data, candidate, scores[0]), predicted(data, reference, scores[1]), data)


def test_a_metric_that_the_reference_alone_has_is_lost():
    numbers = np.arange(10.0)
    for name, paired in differing("regression", numbers.tolist(), numbers, np.zeros(10)).items():
        assert (math.isnan(paired.difference.value), paired.undefined) == (True, "all predictions are the same"), name
    for sides in ((numbers, numbers[::-1]), (numbers, numbers), (np.zeros(10), np.zeros(10))):
        differences = differing("regression", numbers.tolist(), *sides)
        assert {paired.undefined for paired in differences.values()} == {None}


def test_what_rightly_predicts_no_label_that_never_occurs_has_lost_nothing():
    never, once = np.zeros(10, dtype=int), np.eye(10, dtype=int)[0]
    f1 = differing("classification", never, once, never, NAMES[:2])["f1"]
    assert (math.isnan(f1.difference.value), f1.undefined) == (True, None)


def test_a_drop_of_ranks_is_judged_by_the_queries_with_a_relevant_document():
    truths, orders = [(1.0, 0.0)] * 50 + [(0.0, 0.0)] * 950, [np.array([0, 1])] * 1000
    for paired in differing("ranking", truths, orders, orders).values():
        assert (paired.difference.count, paired.difference.clusters) == (50, 1000)
        assert judge_drop(0.005, paired).verdict == UNDECIDED  # of 50 that do not differ, 7% might


@pytest.mark.parametrize(
    ("kind", "truths", "name", "sentence"),
    [
        ("classification", [1] * 8, "f1", "F1 of 'a' is not defined: no example of"),
        ("classification", [1] * 8, "matthews", "matthews is 0 whatever is predicted: every example of .* label 'b'"),
        ("multi-label", [()] * 8, "f1_micro", "f1_micro is not defined: no example of .* has a label"),
        ("multi-label", [()] * 8, "f1_macro", "f1_macro is not defined: no example of .* has a label"),
        ("tags", [("O",)] * 8, "entity_f1", "entity_f1 is not defined: no example of .* has an entity"),
    ],
)
def test_a_metric_by_name_is_refused_where_the_truth_leaves_it_without_a_meaning(kind, truths, name, sentence):
    data = judged(kind, truths, np.zeros(8), labels=NAMES[:2]).data
    positive = "a" if name == "f1" else None
    with pytest.raises(UsageError, match=sentence):
        choose_metrics(data, [name], positive=positive)
    assert name in {metric.name for metric in choose_metrics(data, positive=positive).metrics}
    first = {"classification": 0, "multi-label": (0,), "tags": ("B-X",)}[kind]
    some = judged(kind, [first, *truths[1:]], np.zeros(8), labels=NAMES[:2]).data
    assert [metric.name for metric in choose_metrics(some, [name], positive=positive).metrics] == [name]


# Entities.

TAGS = st.lists(st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "LOC"))]))


@given(TAGS)
def test_entities_are_seqevals(tags):
    from seqeval.metrics.sequence_labeling import get_entities

    assert [(kind, first, last - 1) for kind, first, last in entities(tags)] == get_entities(tags)


@given(st.lists(st.tuples(st.sampled_from(["PER", "LOC"]), st.integers(1, 4), st.integers(0, 2)), max_size=6))
def test_entities_of_each_scheme_are_seqevals(drawn):
    """Of its strict schemes: its default does not know the last word of BILOU, and the only one."""
    from seqeval.scheme import BILOU, IOB2, IOBES, Entities

    for scheme, letters in ((IOB2, "BIIB"), (IOBES, "BIES"), (BILOU, "BILU")):
        first, inside, last, only = letters
        tags = []
        for kind, size, gap in drawn:
            prefixes = [only] if size == 1 else [first, *[inside] * (size - 2), last]
            tags += [*(f"{prefix}-{kind}" for prefix in prefixes), *["O"] * gap]
        found = [(span.tag, span.start, span.end) for span in Entities([tags], scheme).entities[0]]
        assert entities(tags) == found


@given(
    st.lists(st.lists(st.tuples(*[st.sampled_from(["O", "B-X", "I-X", "I-Y", "B", "I"])] * 2), max_size=8), min_size=1)
)
def test_entity_f1_is_seqevals_on_any_tags(pairs):
    from seqeval.metrics import f1_score

    truth = [tuple(tag for tag, _ in sentence) for sentence in pairs]
    values = [tuple(tag for _, tag in sentence) for sentence in pairs]
    figure = METRICS["entity_f1"].value(judged("tags", truth, values, labels=("O", "B-X", "I-X")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = f1_score([list(tags) for tags in truth], [list(tags) for tags in values])
    if any(entities(tags) for tags in (*truth, *values)):
        assert figure == pytest.approx(expected)
    else:
        assert math.isnan(figure)


# Answers.


def squad_tokens(answer):
    """The published evaluation's normalization: lower case, no punctuation, no articles, single spaces."""
    lower = "".join(character for character in answer.lower() if character not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", lower).split()


def squad_f1(answer, truth):
    same = sum((Counter(squad_tokens(answer)) & Counter(squad_tokens(truth))).values())
    if same == 0:
        return 0
    precision, recall = same / len(squad_tokens(answer)), same / len(squad_tokens(truth))
    return 2 * precision * recall / (precision + recall)


PHRASES = st.lists(st.sampled_from(["The", "a", "An", "cat", "cat's", "U.S.", "1990s", "—", "“", "theatre"])).map(
    " ".join
)


@given(PHRASES, st.lists(PHRASES, min_size=1, max_size=3))
def test_answers_are_compared_as_squad_does(answer, truths):
    assert answer_f1(answer, truths) == pytest.approx(max(squad_f1(answer, truth) for truth in truths))
    assert exact_match(answer, truths) == any(squad_tokens(answer) == squad_tokens(truth) for truth in truths)


@pytest.mark.optimum  # transformers 5 has dropped the module
@given(PHRASES, st.lists(PHRASES, min_size=1, max_size=3))
def test_answers_are_compared_as_transformers_does(answer, truths):
    from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, get_tokens

    assert exact_match(answer, truths) == max(compute_exact(truth, answer) for truth in truths)
    # Two answers of which nothing is left are the same to it, as in SQuAD 2; in version 1.1 they have an F1 of 0.
    assume(get_tokens(answer) or all(map(get_tokens, truths)))
    assert answer_f1(answer, truths) == pytest.approx(max(compute_f1(truth, answer) for truth in truths))


@pytest.mark.parametrize(
    ("answer", "truth", "same", "f1"),
    [
        ("the Denver Broncos.", "Denver Broncos", True, 1),
        ("Denver", "Denver Broncos", False, 2 / 3),
        ("in the theatre", "theatre", False, 2 / 3),
        ("10,000", "10000", True, 1),
        ("", "Denver", False, 0),
        ("the", "a", True, 0),  # nothing is left of either, and nothing in common has an F1 of 0
    ],
)
def test_examples_of_answers(answer, truth, same, f1):
    assert exact_match(answer, [truth]) is same
    assert answer_f1(answer, [truth]) == pytest.approx(f1)
    side = judged("spans", [("x", truth)], [answer])
    assert METRICS["exact_match"].value(side) == same
    assert METRICS["answer_f1"].value(side) == pytest.approx(f1)


# Ranked documents.


def test_ndcg_is_scikit_learns_without_ties():
    rng = np.random.default_rng(3)
    relevance = [rng.integers(0, 4, size=15) for _ in range(20)]
    scores = [rng.permutation(15).astype(float) for _ in range(20)]
    side = judged("ranking", [tuple(row) for row in relevance], [np.argsort(-row) for row in scores])
    kept = [
        sklearn_metrics.ndcg_score([truth], [score], k=10)
        for truth, score in zip(relevance, scores, strict=True)
        if truth.any()
    ]
    assert METRICS["ndcg@10"].value(side) == pytest.approx(np.mean(kept))


def test_of_the_same_score_the_least_relevant_comes_first():
    """So it is scikit-learn's figure with the ties broken that way, and at most its mean over all ways."""
    rng = np.random.default_rng(3)
    relevance = [tuple(row) for row in rng.integers(0, 4, size=(20, 15))]
    scores = rng.integers(0, 5, size=(20, 15)).astype(float)
    orders = [best_first(*of_query) for of_query in zip(scores, relevance, strict=True)]
    figure = METRICS["ndcg@10"].value(judged("ranking", relevance, orders))
    apart = scores - np.array(relevance) / 100
    assert figure == pytest.approx(sklearn_metrics.ndcg_score(relevance, apart, k=10))
    assert figure < sklearn_metrics.ndcg_score(relevance, scores, k=10) - 0.05
    first = judged("ranking", [(1.0, *[0.0] * 9)], [best_first(np.zeros(10), (1.0, *[0.0] * 9))])
    assert [METRICS[name].value(first) for name in ("mrr@10", "recall@10")] == [0.1, 1.0]


def test_ranks_by_hand():
    orders = [np.array([2, 0, 1]), np.array([0, 1, 2]), np.arange(12)]
    truths = [(0.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0,) * 9 + (1.0, 0.0, 2.0)]
    side = judged("ranking", truths, orders)
    assert METRICS["mrr@10"].value(side) == pytest.approx((1 / 3 + 1 / 10) / 2)  # a query without any is left out
    assert METRICS["recall@10"].value(side) == pytest.approx((1 + 1 / 2) / 2)
    ideal = 2 + 1 / np.log2(3)
    assert METRICS["ndcg@10"].value(side) == pytest.approx((1 / np.log2(4) + 1 / np.log2(11) / ideal) / 2)
    found = judged("retrieval", [(0, 4), (1,)], [np.array([4, 2, 3]), np.array([2, 3, 4])])
    assert METRICS["recall@10"].value(found) == 0.25
    assert METRICS["mrr@10"].value(found) == 0.5
    assert METRICS["ndcg@10"].value(found) == pytest.approx(1 / (1 + 1 / np.log2(3)) / 2)


# Probabilities.


def test_calibration_error_by_hand():
    scores = np.array([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [0.41, 0.59], [1.0, 0.0], [0.5, 0.5]])
    side = judged(
        "classification", np.array([0, 1, 1, 0, 0, 1]), scores.argmax(axis=1), labels=NAMES[:2], scores=scores
    )
    # Bins of 1/15: 0.9 and 0.92 are in the 14th (above 0.8667, up to 0.9333), 0.6 and 0.59 in the 9th, 1 in the 15th.
    expected = (abs(1.82 - 1) + abs(1.19 - 1) + 0 + abs(0.5 - 0)) / 6
    assert METRICS["ece"].value(side) == pytest.approx(expected)


def test_calibrated_probabilities_have_a_small_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, size=20_000)
    right = rng.random(20_000) < confidence
    scores = np.stack([confidence, 1 - confidence], axis=1)
    side = judged("classification", np.where(right, 0, 1), np.zeros(20_000, dtype=int), labels=NAMES[:2], scores=scores)
    assert METRICS["ece"].value(side) < 0.01
    side = judged("choice", np.where(right, 0, 1), np.zeros(20_000, dtype=int), scores=np.ones(20_000))
    assert METRICS["ece"].value(side) == pytest.approx(0.25, abs=0.01)
