"""Predictions are those of `Model.predict`."""

import dataclasses

import pytest

from bertport.measure.labelled.data import ChangedDataError, read_labelled
from bertport.measure.labelled.figures import paired_differences, task_figures
from bertport.measure.labelled.lengths import check_lengths
from bertport.measure.labelled.predictions import predict_labelled
from bertport.runtime.errors import BertportError, OutputError, ProviderError
from bertport.runtime.model import Model
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


class Failing:
    """A session whose runs fail as ONNX Runtime's do."""

    def __init__(self, error):
        self.error = error

    def run(self, *_):
        raise self.error


def test_a_run_that_fails_is_one_sentence(classifier_model, write):
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    data = read_labelled(
        write([{"text": "good", "label": 0}] * 9), "text-classification", classifier_model.bundle.manifest
    )
    said = (
        r"^variant 'fp32' of \S+ fails on data\.jsonl on the provider 'cpu' \(.*no kernel.*\): choose another "
        "variant or provider$"
    )
    for error, wanted in (
        (Fail("no kernel"), pytest.raises(ProviderError, match=said)),
        (RuntimeError("no kernel"), pytest.raises(ProviderError, match=said)),
        (TypeError("a bug"), pytest.raises(TypeError)),  # of this program, and not to be taken for a variant's
        (Fail("Failed to allocate memory"), pytest.raises(MemoryError)),
    ):
        model = Model(
            classifier_model.bundle,
            "fp32",
            dataclasses.replace(classifier_model.graph, session=Failing(error)),
            classifier_model.tokens,
        )
        with wanted:
            predict_labelled(model, data)


def test_what_fails_on_data_that_has_changed_is_no_fault_of_the_model(classifier_model, write):
    rows = [{"text": "good", "label": 0}] * 9
    data = read_labelled(write(rows), "text-classification", classifier_model.bundle.manifest)

    class Changing(Failing):
        def run(self, *_):
            write(rows[1:])
            raise self.error

    session = Changing(OutputError("no finite numbers"))
    graph = dataclasses.replace(classifier_model.graph, session=session)
    with pytest.raises(ChangedDataError):
        predict_labelled(Model(classifier_model.bundle, "fp32", graph, classifier_model.tokens), data)
