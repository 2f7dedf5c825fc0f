"""Predictions are those of `Model.predict`."""

import pytest

from bertport.measure.labelled.data import read_labelled
from bertport.measure.labelled.figures import paired_differences, task_figures
from bertport.measure.labelled.lengths import check_lengths
from bertport.measure.labelled.predictions import predict_labelled
from bertport.runtime.errors import BertportError
from tests.measure.labelled.conftest import texts

LABELS = ("negative", "neutral", "positive")


def test_a_classifiers_accuracy_from_a_file_to_a_figure(classifier_model, write):
    model = classifier_model
    asked = texts(40)
    answers = list(model.predict("text-classification", asked, top_k=None))
    best = [answer[0]["label"] for answer in answers]
    truths = [LABELS[(LABELS.index(label) + (number % 4 == 0)) % 3] for number, label in enumerate(best)]
    rows = [{"text": text, "label": label} for text, label in zip(asked, truths, strict=True)]
    data = read_labelled(write(rows), "text-classification", model.bundle.manifest)
    seen = []
    predictions = predict_labelled(model, data, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(done, len(predictions)) for done in range(1, 41)]
    assert [LABELS[column] for column in predictions.values] == best
    for answer, scores in zip(answers, predictions.scores, strict=True):
        assert {label["label"]: label["score"] for label in answer} == dict(zip(LABELS, scores.tolist(), strict=True))
    figures = task_figures(predictions, data)
    assert figures.metrics["accuracy"].value == 0.75
    assert figures.metrics["accuracy"].low < 0.75 < figures.metrics["accuracy"].high
    same = paired_differences(predictions, predictions, data)["accuracy"]
    assert (same.difference.value, same.p_value, same.agreement.value) == (0, 1, 1)


def test_a_text_that_is_too_long_is_refused_with_its_line_or_cut(classifier_model, write):
    rows = [{"text": "good", "label": 0}] * 9 + [{"text": "good " * 500, "label": 0}]
    data = read_labelled(write(rows), "text-classification", classifier_model.bundle.manifest)
    with pytest.raises(BertportError, match=r"line 10: .*tokens"):
        predict_labelled(classifier_model, data)
    with pytest.raises(BertportError, match=r"line 10: .*tokens"):
        check_lengths(classifier_model.bundle, data)
    check_lengths(classifier_model.bundle, data, truncation=True)
    assert len(predict_labelled(classifier_model, data, truncation=True)) == 10
