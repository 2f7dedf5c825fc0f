"""Every task's predictions are what `Model.predict` gives, kept in the form that metrics take."""

from functools import partial

import numpy as np
import pytest

from bertport.measure.labelled.data import read_labelled
from bertport.measure.labelled.figures import choose_metrics, paired_differences, task_figures
from bertport.measure.labelled.lengths import check_lengths
from bertport.measure.labelled.predictions import predict_labelled
from bertport.measure.statistics import Settings
from bertport.runtime import load
from bertport.runtime.errors import BertportError, InputTextError
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.heads import head_bundle
from tests.measure.labelled.conftest import texts

pytestmark = pytest.mark.slow

SETTINGS = Settings(resamples=200)
COUNT = 12
TEXTS, OTHERS = texts(COUNT, seed=1), texts(COUNT, seed=2)
WHOLE = "the good old new music word play city water book not this is a king hello two".split()  # noqa: SIM905 — words read better so
"""Words that are a token each."""


@pytest.fixture
def model_of(tmp_path_factory):
    def model(head, **settings):
        return load(head_bundle(tmp_path_factory, "bert", head, **settings)[1], threads=1)

    return model


def measured(model, task, path):
    """Data, predictions and figures, the same predictions twice: they do not differ from themselves."""
    data = read_labelled(path, task, model.bundle.manifest)
    check_lengths(model.bundle, data)
    predictions = predict_labelled(model, data)
    assert len(predictions) == len(data)
    figures = task_figures(predictions, data, SETTINGS)
    for name, paired in paired_differences(predictions, predictions, data, SETTINGS).items():
        assert paired.difference.value == 0 or np.isnan(figures.metrics[name].value)
        assert paired.p_value == 1 or np.isnan(figures.metrics[name].value)
        alike = paired.agreement or paired.spearman
        assert alike.value == pytest.approx(1)
    for name, estimate in figures.metrics.items():
        assert np.isnan(estimate.value) or estimate.low <= estimate.value <= estimate.high, name
    return data, predictions, figures


def test_several_labels(model_of, write):
    model = model_of(SEQUENCE_CLASSIFICATION, problem_type="multi_label_classification")
    labels = model.bundle.manifest.heads[SEQUENCE_CLASSIFICATION].labels
    answers = list(model.predict("text-classification", TEXTS, top_k=None))
    chosen = [[label["label"] for label in answer if label["score"] >= 0.5] for answer in answers]
    _, predictions, figures = measured(
        model,
        "text-classification",
        write({"text": text, "label": label} for text, label in zip(TEXTS, chosen, strict=True)),
    )
    assert [{labels[column] for column in np.flatnonzero(row)} for row in predictions.values] == list(map(set, chosen))
    assert figures.metrics["accuracy"].value == figures.metrics["f1_micro"].value == 1


def test_numbers(model_of, write):
    model = model_of(SEQUENCE_CLASSIFICATION, labels=["LABEL_0"], problem_type="regression")
    pairs = [{"text": one, "text_pair": other} for one, other in zip(TEXTS, OTHERS, strict=True)]
    scores = [answer["score"] for answer in model.predict("text-classification", pairs)]
    rows = [pair | {"label": -score} for pair, score in zip(pairs, scores, strict=True)]
    _, predictions, figures = measured(model, "text-classification", write(rows))
    assert predictions.values.tolist() == scores
    assert figures.metrics["pearson"].value == pytest.approx(-1)
    assert figures.metrics["spearman"].value == pytest.approx(-1)


def first_token_labels(model, words):
    """The label of each word's first token, of the task's own rows; O where a word has no token."""
    [rows] = model.predict("token-classification", [{"words": words}], ignore_labels=[])
    labels, begin = [], 0
    for word in words:
        inside = [row["entity"] for row in rows if begin <= row["start"] < begin + len(word)]
        labels.append(inside[0] if inside else "O")
        begin += len(word) + 1
    return tuple(labels)


def test_words(model_of, write):
    model = model_of(TOKEN_CLASSIFICATION)
    sentences = [[*text.split()[:8], "\u200d", "Ünïted", "x" * 9] for text in TEXTS]
    expected = [first_token_labels(model, words) for words in sentences]
    rows = [{"tokens": words, "tags": list(tags)} for words, tags in zip(sentences, expected, strict=True)]
    _, predictions, figures = measured(model, "token-classification", write(rows))
    assert predictions.values == expected
    assert figures.metrics["entity_f1"].value == 1
    assert set(figures.labels) <= {"PER", "LOC"}
    assert all(label.f1 == 1 for label in figures.labels.values())


def test_words_beyond_the_model_are_read_in_windows(model_of, write):
    model = model_of(TOKEN_CLASSIFICATION)
    length = model.bundle.manifest.max_length
    words = np.random.default_rng(3).choice(WHOLE, size=2 * length).tolist()
    short = words[:20]
    rows = [{"tokens": short, "tags": ["O"] * 20}] * 8 + [{"tokens": words, "tags": ["O"] * len(words)}]
    _, predictions, _ = measured(model, "token-classification", write(rows))
    tags = predictions.values[-1]
    assert len(tags) == len(words)
    assert predictions.values[0] == first_token_labels(model, short)
    # Of the first window the first half is in no other, and of the last one the last half.
    room = length - 2
    assert tags[: room // 2] == first_token_labels(model, words[:room])[: room // 2]
    step = room - length // 4
    start = step * ((len(words) - room + step - 1) // step)
    assert tags[-8:] == first_token_labels(model, words[start:])[-8:]
    # Between two windows a word has the label of the one in which it is farther from an end.
    second = first_token_labels(model, words[step : step + room])
    middle = (step + room) // 2
    assert tags[middle + 1 : step + room // 2] == second[middle + 1 - step : room // 2]
    assert tags[step:middle] == first_token_labels(model, words[:room])[step:middle]


def test_in_windows_too_a_word_has_the_label_of_the_first_of_its_characters_tokens(tmp_path_factory, write):
    model = load(head_bundle(tmp_path_factory, "roberta", TOKEN_CLASSIFICATION)[1], threads=1)
    room = (model.bundle.manifest.max_length - 2) // 2  # words of one character, which is two bytes and so two tokens
    words = np.random.default_rng(3).choice(list("éöüñåçîâêô"), size=4 * room).tolist()
    rows = [{"tokens": words[:4], "tags": ["O"] * 4}] * 8 + [{"tokens": words, "tags": ["O"] * len(words)}]
    _, predictions, _ = measured(model, "token-classification", write(rows))
    # Of the first window the first half is in no other.
    assert predictions.values[-1][: room // 2] == first_token_labels(model, words[:room])[: room // 2]
    assert predictions.values[0] == first_token_labels(model, words[:4])


def test_answers(model_of, write):
    model = model_of(QUESTION_ANSWERING)
    asked = [
        {"question": one[:20], "context": f"{other} {' '.join(TEXTS)}"}
        for one, other in zip(TEXTS, OTHERS, strict=True)
    ]
    answers = list(model.predict("question-answering", asked))
    rows = [question | {"answers": {"text": [answer["answer"] or "x", "y"], "answer_start": [0, 0]}}
            for question, answer in zip(asked, answers, strict=True)]  # fmt: skip
    _, predictions, figures = measured(model, "question-answering", write(rows))
    assert predictions.values == [answer["answer"] for answer in answers]
    assert figures.metrics["exact_match"].value == figures.metrics["answer_f1"].value == 1


def test_choices(model_of, write):
    model = model_of(MULTIPLE_CHOICE)
    asked = [{"prompt": text, "choices": OTHERS[:3]} for text in TEXTS]
    answers = list(model.predict("multiple-choice", asked))
    rows = [question | {"label": answer["label"]} for question, answer in zip(asked, answers, strict=True)]
    _, predictions, figures = measured(model, "multiple-choice", write(rows))
    assert predictions.confidence.tolist() == [answer["score"] for answer in answers]
    assert figures.metrics["accuracy"].value == 1
    assert figures.calibration.confidence == pytest.approx(predictions.confidence.mean())


def test_ranked_documents(model_of, write):
    model = model_of(SEQUENCE_CLASSIFICATION, labels=["LABEL_0"])
    asked = [{"query": text, "documents": OTHERS} for text in TEXTS]
    answers = list(model.predict("text-ranking", asked))
    rows = [
        question | {"relevance": [int(place == answer[0]["corpus_id"]) for place in range(COUNT)]}
        for question, answer in zip(asked, answers, strict=True)
    ]
    _, predictions, figures = measured(model, "text-ranking", write(rows))
    assert [order.tolist() for order in predictions.values] == [
        [document["corpus_id"] for document in answer] for answer in answers
    ]
    assert [figures.metrics[name].value for name in ("ndcg@10", "mrr@10", "recall@10")] == [1, 1, 1]


def test_similar_texts(sentence_bundle, write):
    model = load(sentence_bundle, threads=1)
    asked = [{"source_sentence": one, "sentences": [other]} for one, other in zip(TEXTS, OTHERS, strict=True)]
    scores = [score for (score,) in model.predict("sentence-similarity", asked)]
    rows = [
        {"text": one, "text_pair": other, "score": score}
        for one, other, score in zip(TEXTS, OTHERS, scores, strict=True)
    ]
    _, predictions, figures = measured(model, "sentence-similarity", write(rows))
    assert predictions.values.tolist() == scores
    assert next(iter(figures.metrics)) == "spearman"
    assert figures.metrics["spearman"].value == pytest.approx(1)

    best = model.similarity(model.embed(TEXTS, prompt_name="query"), model.embed(OTHERS)).argmax(axis=1).tolist()
    rows = [
        {"query": text, "documents": OTHERS, "relevance": [int(place == first) for place in range(COUNT)]}
        for text, first in zip(TEXTS, best, strict=True)
    ]
    assert measured(model, "sentence-similarity", write(rows))[2].metrics["mrr@10"].value == 1


def test_texts_that_queries_lead_to(sentence_bundle, write):
    model = load(sentence_bundle, threads=1)
    queries = TEXTS[:10]
    rows = [{"query": text, "positives": [OTHERS[number], OTHERS[-1]]} for number, text in enumerate(queries)]
    data, predictions, _ = measured(model, "sentence-similarity", write(rows))
    corpus = [OTHERS[0], OTHERS[-1], *OTHERS[1:10]]
    assert list(data.corpus()) == corpus
    assert data.truths[3] == (4, 1)
    one = np.stack(list(model.predict("embeddings", queries, prompt_name="query")))
    other = np.stack(list(model.predict("embeddings", corpus)))
    assert [order.tolist() for order in predictions.values] == np.argsort(-(one @ other.T), axis=1)[:, :10].tolist()


def test_a_text_to_find_that_is_too_long_is_named_by_its_line(sentence_bundle, write):
    model = load(sentence_bundle, threads=1)
    for place, row in ((3, {"query": "a", "positives": [OTHERS[0], "word " * 600]}), (5, {"query": "word " * 600})):
        rows = [{"query": text, "positives": [other]} for text, other in zip(TEXTS, OTHERS, strict=True)]
        rows[place] |= row
        data = read_labelled(write(rows), "sentence-similarity", model.bundle.manifest)
        for look in (partial(check_lengths, model.bundle), partial(predict_labelled, model)):
            with pytest.raises(InputTextError, match=f"data.jsonl, line {place + 1}: "):
                look(data)


def test_documents_that_a_model_cannot_tell_apart_gain_nothing_by_their_place(sentence_bundle, write):
    model = load(sentence_bundle, threads=1)
    twins = [OTHERS[0], OTHERS[0].upper()]  # the tokenizer lower-cases
    ranking = [{"query": text, "documents": twins, "relevance": [1, 0]} for text in TEXTS]
    assert measured(model, "sentence-similarity", write(ranking))[2].metrics["mrr@10"].value == 0.5
    found = [{"query": text, "positives": [twins[number % 2]]} for number, text in enumerate(TEXTS)]
    assert measured(model, "sentence-similarity", write(found))[2].metrics["mrr@10"].value == 0.5


def test_metrics_are_chosen_before_anything_runs(model_of, write):
    model = model_of(SEQUENCE_CLASSIFICATION)
    data = read_labelled(
        write({"text": text, "label": 1} for text in TEXTS), "text-classification", model.bundle.manifest
    )
    assert [metric.name for metric in choose_metrics(data).metrics] == ["accuracy", "f1_macro", "matthews", "ece"]
    assert [metric.name for metric in choose_metrics(data, ["ece", "f1"], positive="neutral").metrics] == ["ece", "f1"]
    for names, positive, sentence in [
        (["spearman"], None, r"unknown metric of text-classification \(classification\) 'spearman' \(available: acc"),
        (None, "good", "unknown positive label 'good'"),
        (["accuracy"], "good", "a positive label is for f1, which is not among the metrics asked for: leave it out"),
        (["f1"], None, "f1 is of one label, and the bundle has 3: name that label with --positive, or take f1_macro"),
        (["f1"], "positive", "F1 of 'positive' is not defined: no example of data.jsonl has that label"),
    ]:
        with pytest.raises(BertportError, match=sentence):
            choose_metrics(data, names, positive=positive)
