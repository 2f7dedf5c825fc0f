"""Heads that are trained for a task, measured from samples to verdicts, on a model that can be computed by hand."""

import dataclasses

import numpy as np
import pytest

from bertport.measure.budget import Budget, applicable, judge_all, parse_budget
from bertport.measure.quality.entities import entities
from bertport.measure.quality.fidelity import measure
from bertport.measure.quality.heads import HEADS, kinds_of, measured_rows, sample_kinds, unmeasured
from bertport.measure.quality.results import Conventions
from bertport.measure.quality.samples import CANDIDATES, CHOICES, GIVEN_PAIRS, PLAIN, QUESTIONS, pair_samples
from bertport.measure.quality.task_metrics import compare_spans, rank_correlation
from bertport.measure.quality.task_rows import SCORES, TASK_ROWS
from bertport.measure.quality.task_samples import GROUPS, given_pair_samples, task_samples
from bertport.measure.statistics import Settings
from bertport.measure.text import Text
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import HeadEntry
from bertport.runtime.heads import (
    EMBEDDING,
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    is_per_token,
    output_of,
)
from bertport.runtime.heads import HEADS as KNOWN

SETTINGS = Settings(resamples=100)
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WIDTHS = {SEQUENCE_CLASSIFICATION: 3, TOKEN_CLASSIFICATION: 5, QUESTION_ANSWERING: 2, MULTIPLE_CHOICE: 1, EMBEDDING: 16}


def entry(name, labels=None, problem_type=None):
    return HeadEntry(output=output_of(name), axes=KNOWN[name].axes, labels=labels, problem_type=problem_type)


CLASSES = entry(SEQUENCE_CLASSIFICATION, ("bad", "so so", "good"), "single_label_classification")
SEVERAL = dataclasses.replace(CLASSES, problem_type="multi_label_classification")
RELEVANCE = entry(SEQUENCE_CLASSIFICATION, ("LABEL_0",))
QUALITIES = entry(SEQUENCE_CLASSIFICATION, ("clear", "kind", "long"), "regression")
MANIFEST = {
    SEQUENCE_CLASSIFICATION: CLASSES,
    TOKEN_CLASSIFICATION: entry(TOKEN_CLASSIFICATION, TAGS, "single_label_classification"),
    QUESTION_ANSWERING: entry(QUESTION_ANSWERING),
    MULTIPLE_CHOICE: entry(MULTIPLE_CHOICE),
    EMBEDDING: entry(EMBEDDING),
}


class Bag:
    """A model whose tokens are vectors, with a head of a matrix each: logits of a text are of the mean of its tokens.

    Args:
        noise: How much is added to the vectors, of a seed of its own.
        scale: By what the matrix of each head is multiplied.
        widths: The number of values of each head.
    """

    def __init__(self, noise=0.0, scale=1.0, widths=WIDTHS):
        random = np.random.default_rng(5)
        self.vectors = random.normal(size=(80, 16)) + noise * np.random.default_rng(6).normal(size=(80, 16))
        self.matrices = {output_of(name): scale * random.normal(size=(16, width)) for name, width in widths.items()}
        self.outputs = tuple(self.matrices)

    def run(self, batch, outputs):
        tokens = self.vectors[batch.input_ids] * batch.attention_mask[..., None]
        means = tokens.sum(axis=1) / batch.attention_mask.sum(axis=1, keepdims=True)
        tokens = tokens + 2 * means[:, None]
        return {
            name: ((tokens if is_per_token(name) else means) @ self.matrices[name]).astype(np.float32)
            for name in outputs
        }

    def alone(self, name, sample):
        """Return the values of a head for one sample."""
        tokens = self.vectors[sample.input_ids]
        mean = tokens.mean(axis=0)
        return ((tokens + 2 * mean if is_per_token(output_of(name)) else mean) @ self.matrices[output_of(name)]).astype(
            np.float32
        )


REFERENCE, NOISY = Bag(), Bag(noise=0.15)


@pytest.fixture(scope="module")
def drawn(word_tokenizer, word_texts):
    kinds = kinds_of(row.name for row in TASK_ROWS)
    made = task_samples(kinds, word_texts, word_tokenizer)
    return [*made, *pair_samples(word_texts, word_tokenizer)]


def of_kind(drawn, *kinds):
    return [sample for sample in drawn if sample.kind in kinds]


def measured(samples, heads=MANIFEST, *, candidate=NOISY, reference=REFERENCE, stability=0):
    return measure(
        reference,
        candidate,
        samples,
        settings=SETTINGS,
        conventions=Conventions(heads=heads),
        stability=stability,
        tokens=200,
    )


def test_each_kind_of_head_has_one_row():
    assert measured_rows(MANIFEST) == tuple(MANIFEST)
    for scored in (RELEVANCE, QUALITIES):
        assert measured_rows({SEQUENCE_CLASSIFICATION: scored}) == (SCORES,)
    assert measured_rows({SEQUENCE_CLASSIFICATION: SEVERAL, "unheard of": SEVERAL}) == (SEQUENCE_CLASSIFICATION,)
    assert unmeasured({"pooler": CLASSES, SEQUENCE_CLASSIFICATION: RELEVANCE}, {SCORES: {"rank": 1}}) == ("pooler",)
    assert unmeasured(MANIFEST, {SEQUENCE_CLASSIFICATION: None}) == tuple(MANIFEST)
    assert applicable(parse_budget("class=0.9,score=0.1"), {SCORES}) == {"score": 0.1}


def test_samples_are_what_their_kinds_say(drawn, word_tokenizer, word_texts):
    kinds = {sample.kind for sample in drawn}
    assert kinds == kinds_of(row.name for row in TASK_ROWS)
    special = word_tokenizer.vocabulary.special
    for sample in of_kind(drawn, PLAIN):
        # every token but the special ones is of a word, and these are counted from 0
        assert [word for word in sample.words if word >= 0] == list(range(len(sample.input_ids) - 2))
        assert not set(sample.input_ids[sample.words >= 0].tolist()) & special
        assert sample.input_ids[sample.words < 0].tolist() == [2, 3]
    for sample in of_kind(drawn, QUESTIONS):
        context = sample.words >= 0
        assert context.sum() > 5
        assert np.diff(np.flatnonzero(context)).tolist() == [1] * (context.sum() - 1)
        assert sample.token_type_ids.tolist() == [0] * (len(context) - context.sum() - 1) + [1] * (context.sum() + 1)
        assert sample.input_ids[: np.flatnonzero(context)[0]][-2] == word_tokenizer.ids("?")[0]
    for kind, size in GROUPS.items():
        groups = {}
        for sample in of_kind(drawn, kind):
            groups.setdefault(sample.group, []).append(sample)
        assert {len(group) for group in groups.values()} == {size}
        for group in groups.values():
            heads = {tuple(sample.input_ids[sample.token_type_ids == 0].tolist()) for sample in group}
            assert len(heads) == 1
            assert len({sample.text for sample in group}) == 1
    assert max(len(sample.input_ids) for sample in drawn) <= 128
    whole = task_samples({PLAIN}, word_texts, word_tokenizer, whole=True)
    assert len(whole) == len(word_texts) < len(of_kind(drawn, PLAIN))
    few = task_samples(kinds, word_texts, word_tokenizer, positions=7, pairs=33)
    assert [len(of_kind(few, kind)) for kind in (PLAIN, QUESTIONS, CHOICES, CANDIDATES)] == [7, 33, 32, 32]
    assert task_samples({CHOICES}, word_texts[:1], word_tokenizer) == []  # no stranger is there
    again = task_samples(kinds, word_texts, word_tokenizer, positions=7, pairs=33)
    assert [one.input_ids.tolist() for one in few] == [one.input_ids.tolist() for one in again]


PAIRS_OF_A_FILE = [
    Text(text=f"{one} {two}", document=0, pair=(one, two))
    for one, two in ((" ".join(f"word{n}" for n in range(first)), "word7 word8") for first in range(3, 60))
]
"""Pairs whose first text grows."""


def test_pairs_of_a_file_are_read_as_they_are(word_tokenizer):
    made = list(given_pair_samples(PAIRS_OF_A_FILE, word_tokenizer, max_tokens=24))
    assert [sample.kind for sample in made] == [GIVEN_PAIRS] * len(PAIRS_OF_A_FILE)
    for sample in made:
        one, two = (word_tokenizer.ids(part) for part in PAIRS_OF_A_FILE[sample.text].pair)
        # of one that is too long the longer text is cut
        ids, types = word_tokenizer.around(one[: 24 - word_tokenizer.pair.added - len(two)], two)
        assert sample.input_ids.tolist() == ids.tolist()
        assert sample.token_type_ids.tolist() == types.tolist()
    both_long = Text(text="", document=0, pair=(PAIRS_OF_A_FILE[-1].pair[0],) * 2)
    [sample] = given_pair_samples([both_long], word_tokenizer, max_tokens=24)
    assert len(sample.input_ids) == 24
    assert (sample.token_type_ids == 1).sum() - 1 in {10, 11}
    assert len(task_samples({GIVEN_PAIRS}, PAIRS_OF_A_FILE, word_tokenizer, positions=5)) == 5
    assert list(given_pair_samples([Text(text="word1", document=0)], word_tokenizer)) == []


def test_questions_of_a_file_are_asked_as_they_are(word_tokenizer):
    made = task_samples({QUESTIONS}, PAIRS_OF_A_FILE, word_tokenizer, pairs=9)
    assert len(made) == 9
    for sample in made:
        question, context = (word_tokenizer.ids(part) for part in PAIRS_OF_A_FILE[sample.text].pair)
        assert sample.input_ids[sample.words >= 0].tolist() == context.tolist()
        assert sample.input_ids[1 : 1 + len(question)].tolist() == question.tolist()


@pytest.mark.parametrize(
    ("heads", "kinds"),
    [
        ({SEQUENCE_CLASSIFICATION: CLASSES}, {GIVEN_PAIRS}),
        ({SEQUENCE_CLASSIFICATION: RELEVANCE}, {GIVEN_PAIRS, CANDIDATES}),
        ({SEQUENCE_CLASSIFICATION: CLASSES, "nsp": entry("nsp")}, {GIVEN_PAIRS, "pairs"}),
        ({EMBEDDING: MANIFEST[EMBEDDING]}, {PLAIN}),
        ({QUESTION_ANSWERING: MANIFEST[QUESTION_ANSWERING]}, {QUESTIONS}),
    ],
)
def test_a_classifier_reads_the_pairs_of_a_file_and_none_that_are_made_up(tiny_bundle, heads, kinds, word_texts):
    manifest = dataclasses.replace(Bundle.open(tiny_bundle).manifest, heads=heads)
    assert sample_kinds(manifest, PAIRS_OF_A_FILE) == kinds
    assert sample_kinds(manifest, word_texts) == kinds_of(measured_rows(heads))
    assert GIVEN_PAIRS not in sample_kinds(manifest)


def test_each_text_of_a_pair_is_an_input_of_heads_that_read_one(word_tokenizer):
    made = task_samples({PLAIN}, PAIRS_OF_A_FILE, word_tokenizer, whole=True)
    assert len(made) == 2 * len(PAIRS_OF_A_FILE)


def test_what_is_said_of_a_head_that_hardly_decides(drawn):
    samples = of_kind(drawn, PLAIN, CHOICES)
    decided = measured(samples, reference=Bag(scale=30), candidate=Bag(noise=0.15, scale=30)).heads
    wavering = measured(samples, reference=Bag(scale=0.01), candidate=Bag(noise=0.15, scale=0.01)).heads
    for name in (SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, MULTIPLE_CHOICE):
        assert decided[name].lead.value > 0.1
        assert decided[name].doubts == ()
        assert wavering[name].lead.value < 0.1
        [doubt] = wavering[name].doubts
        assert doubt == (
            "fp32 hardly decides itself, like a head without training (its best answer leads by "
            f"{wavering[name].lead.value:.3f} of probability in the mean)"
        )


def test_what_is_said_of_a_head_that_gives_one_label(drawn):
    class AlwaysGood:
        outputs = (output_of(SEQUENCE_CLASSIFICATION),)

        def run(self, batch, outputs):
            return dict.fromkeys(outputs, np.full((len(batch.input_ids), 3), [0, 0, 9], dtype=np.float32))

    always_good = AlwaysGood()
    figures = measured(
        of_kind(drawn, PLAIN), {SEQUENCE_CLASSIFICATION: CLASSES}, reference=always_good, candidate=always_good
    ).heads[SEQUENCE_CLASSIFICATION]
    assert figures.doubts == ("fp32 gives no other label than 'good' here, so that nothing is known of others",)


def test_classes_and_their_agreement_by_label(drawn):
    samples = of_kind(drawn, "plain", "pairs")
    answers = [
        tuple(int(graph.alone(SEQUENCE_CLASSIFICATION, sample).argmax()) for graph in (REFERENCE, NOISY))
        for sample in samples
    ]
    figures = measured(samples).heads[SEQUENCE_CLASSIFICATION]
    assert figures.agreement.value == pytest.approx(np.mean([one == two for one, two in answers]))
    assert 0.5 < figures.agreement.value < 1
    assert figures.agreement.count == len(samples)
    for number, label in enumerate(CLASSES.labels):
        of_label = [two == number for one, two in answers if one == number]
        assert figures.by_label[label].value == pytest.approx(np.mean(of_label))
        assert figures.by_label[label].count == len(of_label)
    assert 0 < figures.mean_change.value < figures.largest_change < 1
    assert figures.distance == figures.kl.value > 0


def test_several_labels_of_a_text(drawn):
    samples = of_kind(drawn, "plain")
    values = [[graph.alone(SEQUENCE_CLASSIFICATION, sample) > 0 for sample in samples] for graph in (REFERENCE, NOISY)]
    figures = measured(samples, {SEQUENCE_CLASSIFICATION: SEVERAL}).heads[SEQUENCE_CLASSIFICATION]
    assert figures.agreement.value == pytest.approx(np.mean(np.all(np.equal(*values), axis=1)))
    given = np.array(values[0])
    for number, label in enumerate(SEVERAL.labels):
        assert figures.by_label[label].value == pytest.approx(np.array(values[1])[given[:, number], number].mean())


def test_scores_are_compared_in_units_of_their_spread(drawn):
    samples = of_kind(drawn, PLAIN, CANDIDATES)
    one, two = (Bag(noise, widths={SEQUENCE_CLASSIFICATION: 1}) for noise in (0, 0.15))
    heads = {SEQUENCE_CLASSIFICATION: RELEVANCE}
    fidelity = measured(samples, heads, reference=one, candidate=two)
    figures = fidelity.heads[SCORES]
    assert fidelity.heads[SEQUENCE_CLASSIFICATION] is None
    changes, groups = [], {}
    for kind in (PLAIN, CANDIDATES):
        chosen = of_kind(samples, kind)
        values = np.array(
            [[graph.alone(SEQUENCE_CLASSIFICATION, sample)[0] for graph in (one, two)] for sample in chosen]
        )
        changes += (np.abs(values[:, 0] - values[:, 1]) / values[:, 0].std()).tolist()
        if kind == CANDIDATES:
            for sample, pair in zip(chosen, values, strict=True):
                groups.setdefault(sample.group, []).append(pair)
    assert figures.change.value == pytest.approx(np.mean(changes))
    assert figures.largest_change == pytest.approx(max(changes))
    assert figures.distance == pytest.approx(np.mean(np.square(changes)))
    in_order = [rank_correlation(*np.transpose(group)) for group in groups.values()]
    assert figures.rank.value == pytest.approx(np.mean(in_order))
    assert figures.rank.count == len(groups) == figures.top1_agreement.count
    best = [np.argmax(group, axis=0) for group in groups.values()]
    assert figures.top1_agreement.value == pytest.approx(np.mean([first == second for first, second in best]))
    assert 0 < figures.top1_agreement.value < 1
    # all figures but those of the head's own values stay where the scores are shifted and scaled
    thrice = Bag(0, 3, {SEQUENCE_CLASSIFICATION: 1}), Bag(0.15, 3, {SEQUENCE_CLASSIFICATION: 1})
    scaled = measured(samples, heads, reference=thrice[0], candidate=thrice[1]).heads[SCORES]
    assert scaled.change.value == pytest.approx(figures.change.value, rel=1e-5)
    assert scaled.largest_difference == pytest.approx(3 * figures.largest_difference, rel=1e-5)


def test_scores_without_documents_or_without_spread(drawn):
    samples = of_kind(drawn, PLAIN)
    heads = {SEQUENCE_CLASSIFICATION: QUALITIES}
    figures = measured(samples, heads).heads[SCORES]
    assert figures.change.count == 3 * len(samples)
    assert figures.rank.count == figures.top1_agreement.count == 0
    fidelity = measured(samples, heads)
    asked = Budget.parse("rank=0.9,score=0.9,class=0.9")
    assert not asked.broken(fidelity)  # what was not measured is not broken, and is told apart
    assert [limit.name for limit in asked.of_nothing(fidelity)] == ["rank"]
    constant = Bag(scale=0)
    figures = measured(samples, heads, reference=constant, candidate=constant).heads[SCORES]
    assert (figures.change.value, figures.correlation) == (0, 1)
    figures = measured(samples, heads, reference=constant).heads[SCORES]
    assert figures.change.value == np.inf
    assert Budget.parse("score=0.1").broken(measured(samples, heads, reference=constant))


def test_a_candidate_that_scores_all_documents_alike_has_lost_their_order(drawn):
    samples, heads = of_kind(drawn, CANDIDATES), {SEQUENCE_CLASSIFICATION: RELEVANCE}
    one, alike = (Bag(scale=scale, widths={SEQUENCE_CLASSIFICATION: 1}) for scale in (1, 0))
    fidelity = measured(samples, heads, reference=one, candidate=alike)
    figures, queries = fidelity.heads[SCORES], len({sample.group for sample in samples})
    assert (figures.rank.value, figures.rank.count) == (0, queries)
    assert (figures.top1_agreement.value, figures.top1_agreement.count) == (0, queries)
    assert Budget.parse("rank=0.95").broken(fidelity)
    assert not measured(samples, heads, reference=alike, candidate=one).heads[SCORES].rank.count


def test_labels_of_tokens_and_their_entities(drawn):
    samples = of_kind(drawn, PLAIN)
    figures = measured(samples).heads[TOKEN_CLASSIFICATION]
    same, common, found = [], 0, 0
    for sample in samples:
        one, two = (graph.alone(TOKEN_CLASSIFICATION, sample)[1:-1].argmax(axis=1) for graph in (REFERENCE, NOISY))
        same += (one == two).tolist()
        spans = [set(entities([TAGS[tag] for tag in tags])) for tags in (one, two)]
        common, found = common + len(spans[0] & spans[1]), found + len(spans[0]) + len(spans[1])
    assert figures.agreement.value == pytest.approx(np.mean(same))
    assert figures.agreement.count == len(same)
    assert figures.entities.value == pytest.approx(2 * common / found)
    assert 0 < figures.entities.value < figures.agreement.value < 1
    assert set(figures.by_label) == set(TAGS)


def test_a_word_has_the_label_of_its_first_token(drawn):
    sample = of_kind(drawn, PLAIN)[0]
    logits = np.full((1, len(sample.input_ids), len(TAGS)), -9.0)
    logits[0, :, 0] = 0
    other = logits.copy()
    logits[0, 1:3, 1], other[0, 1:4, 1] = 5, 5
    row, head = HEADS[TOKEN_CLASSIFICATION], MANIFEST[TOKEN_CLASSIFICATION]
    words = sample.words.copy()
    assert row.compare(logits, other, sample, head)[0, -2:].tolist() == [2, 2.5]  # two B-PER, and three
    words[1:5] = 0
    parts = dataclasses.replace(sample, words=words)
    assert row.compare(logits, other, parts, head)[:, -2:].sum(axis=0).tolist() == [1, 1]
    assert row.compare(logits, other, parts, None)[:, -2:].sum() == 0  # without labels no entities
    assert row.compare(logits, other, parts, head)[:, 0].sum() == len(sample.input_ids) - 3


def test_answers_to_questions(drawn):
    samples = of_kind(drawn, QUESTIONS)
    figures = measured(samples).heads[QUESTION_ANSWERING]
    rows = [
        compare_spans(*(graph.alone(QUESTION_ANSWERING, sample) for graph in (REFERENCE, NOISY)), sample.words >= 0)[0]
        for sample in samples
    ]
    same, overlap, kl_start, kl_end, _ = np.mean(rows, axis=0)
    assert (figures.agreement.value, figures.overlap.value) == (pytest.approx(same), pytest.approx(overlap))
    assert 0 < same < overlap < 1
    assert figures.distance == pytest.approx((kl_start + kl_end) / 2)
    assert figures.agreement.count == len(samples)


def test_choices(drawn):
    from scipy import special, stats

    samples = of_kind(drawn, CHOICES)
    figures = measured(samples).heads[MULTIPLE_CHOICE]
    groups = {}
    for sample in samples:
        values = [graph.alone(MULTIPLE_CHOICE, sample)[0] for graph in (REFERENCE, NOISY)]
        groups.setdefault(sample.group, []).append(values)
    chosen = np.array(list(groups.values()), dtype=np.float64)
    best = chosen.argmax(axis=1)
    assert figures.agreement.value == pytest.approx(np.mean(best[:, 0] == best[:, 1]))
    assert 0 < figures.agreement.value < 1
    assert figures.agreement.count == len(groups)
    one, two = (special.softmax(chosen[..., side], axis=1) for side in (0, 1))
    assert figures.kl.value == pytest.approx(stats.entropy(one, two, axis=1).mean())
    assert figures.largest_change == pytest.approx(np.abs(one - two).max())


def test_vectors_and_their_neighbours(drawn):
    from sklearn.neighbors import NearestNeighbors

    samples = of_kind(drawn, PLAIN)
    figures = measured(samples).heads[EMBEDDING]
    sides = [np.array([graph.alone(EMBEDDING, sample) for sample in samples]) for graph in (REFERENCE, NOISY)]
    one, two = (
        NearestNeighbors(n_neighbors=10, metric="cosine").fit(side).kneighbors(return_distance=False) for side in sides
    )
    common = [len(set(first) & set(second)) / 10 for first, second in zip(one.tolist(), two.tolist(), strict=True)]
    assert figures.neighbours.value == pytest.approx(np.mean(common))
    assert 0 < figures.neighbours.value < 1
    assert figures.neighbours.count == len(samples)
    norms = [np.linalg.norm(side, axis=1) for side in sides]
    cosines = (sides[0] * sides[1]).sum(axis=1) / norms[0] / norms[1]
    assert (figures.cosine.value, figures.worst) == (pytest.approx(cosines.mean()), pytest.approx(cosines.min()))
    assert measured(samples[:40]).heads[EMBEDDING].neighbours.count == 0  # chance alone finds many among so few


@pytest.mark.parametrize(
    ("name", "head", "limits"),
    [
        (SEQUENCE_CLASSIFICATION, CLASSES, {"class"}),
        (SEQUENCE_CLASSIFICATION, RELEVANCE, {"score", "rank"}),
        (TOKEN_CLASSIFICATION, MANIFEST[TOKEN_CLASSIFICATION], {"tag", "entity"}),
        (QUESTION_ANSWERING, MANIFEST[QUESTION_ANSWERING], {"span"}),
        (MULTIPLE_CHOICE, MANIFEST[MULTIPLE_CHOICE], {"choice"}),
        (EMBEDDING, MANIFEST[EMBEDDING], {"embedding", "neighbours"}),
    ],
)
def test_a_damaged_head_breaks_its_own_budget(drawn, name, head, limits):
    widths = WIDTHS | ({SEQUENCE_CLASSIFICATION: 1} if head is RELEVANCE else {})
    reference, damaged = Bag(widths=widths), Bag(widths=widths)
    matrix = damaged.matrices[output_of(name)]
    matrix[::2] *= 3  # half of the rows, so that also the order of scores and the angles of vectors change
    [row] = measured_rows({name: head})
    budget = Budget(bounds=applicable(Budget.default().bounds, {row}))
    assert set(budget.bounds) == limits
    heads = MANIFEST | {name: head}
    assert budget.broken(measured(drawn, heads, reference=reference, candidate=reference)) == ()
    fidelity = measured(drawn, heads, reference=reference, candidate=damaged)
    assert len(budget.broken(fidelity)) == len(limits)
    assert set(budget.shares(fidelity)) == {row}
    assert all(0 < share < 1 for share in budget.shares(fidelity).values())
    assert {judged.verdict for judged in judge_all(budget.bounds, fidelity.to_json()).values()} == {"broken"}
    every = Budget(bounds=applicable(Budget.default().bounds, set(measured_rows(heads))))
    assert set(every.shares(fidelity)) == {row}  # no other head is blamed


def test_answers_do_not_depend_on_batch_mates(drawn):
    heads = MANIFEST | {SEQUENCE_CLASSIFICATION: RELEVANCE}
    bag = Bag(widths=WIDTHS | {SEQUENCE_CLASSIFICATION: 1})
    fidelity = measured(drawn, heads, reference=bag, candidate=bag, stability=12)
    for movement in (fidelity.stability.batch_mates, fidelity.stability.padding):
        assert movement["score_largest_difference"] < 1e-5
        assert movement["choice_largest_difference"] < 1e-5
        assert movement["tag_agreement"].value == movement["span_agreement"].value == 1
        assert movement["embedding_worst_cosine"] > 1 - 1e-6
        assert movement["class_agreement"] is None  # its values are scores here


def test_figures_become_json(drawn):
    values = measured(drawn).to_json()
    assert values[SEQUENCE_CLASSIFICATION]["by_label"]["good"].keys() >= {"value", "low", "high", "count"}
    assert values[SCORES] is None
    assert all(values[name] for name in MANIFEST)


def test_texts_without_sentence_ends_are_samples_too(word_tokenizer):
    texts = tuple(Text(text=" ".join(f"word{n + k}" for k in range(9)), document=0) for n in range(12))
    made = task_samples(kinds_of(row.name for row in TASK_ROWS), texts, word_tokenizer)
    assert {sample.kind for sample in made} == {PLAIN, QUESTIONS}
