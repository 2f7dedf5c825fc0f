"""Labelled metrics of a bundle's variants, and of the baselines made from it, each against the bundle's reference."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from bertport.compare.entries import VARIANT
from bertport.compare.measurements import DataInfo, LabelledStep
from bertport.measure.labelled.data import ChangedDataError
from bertport.measure.labelled.figures import choose_metrics, paired_differences, task_figures
from bertport.measure.labelled.kinds import (
    CHOICE,
    CLASSIFICATION,
    MULTI_LABEL,
    RANKING,
    REGRESSION,
    SIMILARITY,
    SPANS,
    TAGS,
)
from bertport.measure.labelled.lengths import check_lengths
from bertport.measure.labelled.metrics import require_packages
from bertport.measure.labelled.predictions import TRUE, Predictions, parameters_of, predict_labelled, prompted
from bertport.measure.labelled.ranks import best_first
from bertport.measure.speed.process import Worker
from bertport.measure.speed.workload import SINGLE_STREAM, Texts
from bertport.measure.statistics import Settings
from bertport.runtime import load
from bertport.runtime.errors import BertportError, UsageError
from bertport.runtime.excerpts import as_unicode
from bertport.runtime.tasks.embeddings import facts
from bertport.runtime.tasks.vectors import SIMILARITY_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.compare.codec import JSON
    from bertport.compare.entries import ComparedBundle, Entry
    from bertport.compare.options import Options
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.labelled.figures import Chosen
    from bertport.measure.speed.loaded import Answer
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["LabelledBench", "data_info", "data_notes", "read_data"]

ASKED_AT_ONCE = 32
"""Examples that a baseline is sent at once."""


def read_data(options: Options, bundles: Sequence[ComparedBundle]) -> dict[str, LabelledData]:
    """Return the labelled data as each bundle reads it, by the bundle's label; nothing where none was given.

    Raises:
        MissingDependencyError: where scikit-learn or scipy is not installed.
        UsageError: where the bundles would be measured by different tasks or kinds of data, or for random weights; and
            what `DataChoice.read`, `choose_metrics` and `check_lengths` raise.
    """
    choice = options.labelled
    if choice is None or choice.data is None:
        return {}
    require_packages("compare --data")
    if options.random_weights:
        raise UsageError("--random-weights says that labelled metrics mean nothing: leave it or --data out")
    data = {compared.label: choice.read(compared.bundle.manifest, limit=options.limit) for compared in bundles}
    measured = {(of_bundle.task, of_bundle.kind): label for label, of_bundle in data.items()}
    if len(measured) > 1:
        words = ", ".join(f"{label} by {task} ({kind})" for (task, kind), label in measured.items())
        raise UsageError(f"the bundles would be measured by different tasks, {words}: compare bundles of one task")
    for compared in bundles:
        _chosen(options, data[compared.label])
        check_lengths(compared.bundle, data[compared.label], truncation=options.truncation)
    return data


def _chosen(options: Options, data: LabelledData) -> Chosen:
    """Return the metrics to compute: those that were named, the first of them the main one, or all of the task."""
    positive = options.labelled.positive if options.labelled else None
    return choose_metrics(data, options.metrics or None, positive=positive)


def data_notes(options: Options, data: Mapping[str, LabelledData]) -> tuple[str, ...]:
    """Return the sentences on what is odd about the labelled data, or taken in one of several ways, each once."""
    notes = [(*of_bundle.notes, *_chosen(options, of_bundle).notes) for of_bundle in data.values()]
    return tuple(dict.fromkeys(itertools.chain(*notes)))


def data_info(options: Options, data: Mapping[str, LabelledData]) -> DataInfo | None:
    """Return what the report says of the labelled data; None where there is none."""
    if not data or options.labelled is None:
        return None
    first = next(iter(data.values()))
    return DataInfo(
        name=first.name,
        fingerprint=first.fingerprint,
        task=first.task,
        kind=first.kind,
        examples=len(first),
        limit=options.limit,
        metrics=options.metrics,
        truncation=options.truncation,
        columns=dict(first.columns),
        label_map=dict(options.labelled.label_map),
        positive=options.labelled.positive,
        prompts=first.prompts.to_json() if first.prompts else None,
        notes=tuple(dict.fromkeys(note for of_bundle in data.values() for note in of_bundle.notes)),
    )


class LabelledBench:
    """Measurement of a bundle's rows on labelled data, one after the other; the reference's predictions are kept.

    Args:
        compared: The bundle.
        reference: Its row that the others are compared with.
        data: As the bundle reads it.
        options: Of the comparison.
    """

    def __init__(self, compared: ComparedBundle, reference: Entry, data: LabelledData, options: Options) -> None:
        self._compared, self._reference, self._data = compared, reference, data
        self._truncation, self._settings = options.truncation, Settings(seed=options.seed)
        self._chosen = _chosen(options, data)
        self._kept: Predictions | None = None

    def measure(self, entry: Entry, progress: Callable[[int, int], None]) -> LabelledStep:
        """Return a row's figures, and how they differ from the reference's; the reason where there are none.

        Raises:
            ChangedDataError: where the file has changed: `--resume` is to keep no reason that is of another file.
            BertportError: for the reference, without which the data says nothing.
        """
        try:
            return self._measured(entry, progress)
        except ChangedDataError as error:
            raise ChangedDataError(
                f"{as_unicode(str(self._data.file.path))} has changed since the comparison began: put it back as it "
                "was and go on with --resume, or begin anew"
            ) from error

    def _measured(self, entry: Entry, progress: Callable[[int, int], None]) -> LabelledStep:
        if entry == self._reference:
            figures = task_figures(self._of_reference(progress), self._data, self._settings, chosen=self._chosen)
            return LabelledStep(figures=figures)
        try:
            predictions = self._predictions(entry, progress)
        except ChangedDataError:
            raise
        except BertportError as error:
            self._data.check_unchanged()
            return LabelledStep(why=as_unicode(str(error)))
        reference = self._of_reference(progress)
        return LabelledStep(
            figures=task_figures(predictions, self._data, self._settings, chosen=self._chosen),
            differences=paired_differences(predictions, reference, self._data, self._settings, chosen=self._chosen),
        )

    def _of_reference(self, progress: Callable[[int, int], None]) -> Predictions:
        """Return the reference's predictions, made once."""
        if self._kept is None:
            self._kept = self._predictions(self._reference, progress)
        return self._kept

    def _predictions(self, entry: Entry, progress: Callable[[int, int], None]) -> Predictions:
        if entry.kind != VARIANT:
            manifest = self._compared.bundle.manifest
            return _of_baseline(entry, self._data, manifest, truncation=self._truncation, progress=progress)
        model = load(
            self._compared.bundle.path,
            variant=entry.variant,
            provider=entry.provider,
            provider_library=entry.spec.provider_library,
            threads=entry.spec.threads,
        )
        return predict_labelled(model, self._data, truncation=self._truncation, progress=progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """One row: how a baseline is asked for the examples of a task's kind of data."""

    parameters: Mapping[str, object] = field(default_factory=dict)
    """Parameters of its task."""
    ask: Callable[[JSON], tuple[JSON, ...]] = lambda inputs: (inputs,)
    """Returns the inputs that an example is to a baseline."""
    cuts: bool = False
    """Whether it takes the parameter `truncation`."""
    keep: Callable[[Sequence[Answer], LabelledData, Manifest], tuple[object, object]]
    """Returns `Predictions.values` and `Predictions.scores` of the answers to all of these inputs."""


def _of_baseline(
    entry: Entry, data: LabelledData, manifest: Manifest, *, truncation: bool, progress: Callable[[int, int], None]
) -> Predictions:
    """Return what a baseline predicts, in a process of its own.

    Raises:
        UsageError: for a kind of data that baselines are not asked for.
        WorkerError: when it cannot be loaded, or does not answer.
    """
    asking = ASKING.get((data.task, data.kind))
    if asking is None:
        raise UsageError(f"baselines are not asked for data of the kind {data.kind}")
    cut = {"truncation": True} if truncation and asking.cuts else {}
    parameters = {**asking.parameters, **parameters_of(data), **cut}
    answers: list[Answer] = []
    done = 0
    with Worker(entry.spec) as worker:
        every = data.examples()
        while examples := tuple(islice(every, ASKED_AT_ONCE)):
            inputs = tuple(given for example in examples for given in asking.ask(prompted(data, example)))
            asked = Texts(task=entry.spec.task, inputs=inputs, parameters=parameters, scenario=SINGLE_STREAM)
            answers += worker.answers(asked)
            done += len(examples)
            progress(done, len(data))
    values, scores = asking.keep(answers, data, manifest)
    return Predictions(
        task=data.task,
        kind=data.kind,
        variant=entry.name,
        fingerprint=data.fingerprint,
        values=values,
        scores=scores,
    )


def _scores(answers: Sequence[Answer], data: LabelledData) -> NDArray[np.float32]:
    """Return the scores of the labels, one per column `[examples, labels]`."""
    labels = data.labels or ()
    by_label = [{scored["label"]: scored["score"] for scored in answer} for answer in answers]
    return np.array([[scored[label] for label in labels] for scored in by_label], dtype=np.float32)


def _best(answers: Sequence[Answer], data: LabelledData, _: Manifest) -> tuple[object, object]:
    scores = _scores(answers, data)
    return scores.argmax(axis=1), scores


def _true(answers: Sequence[Answer], data: LabelledData, _: Manifest) -> tuple[object, object]:
    scores = _scores(answers, data)
    return scores >= TRUE, scores


def _number(answers: Sequence[Answer], _: LabelledData, __: Manifest) -> tuple[object, object]:
    return np.array([answer[0]["score"] for answer in answers], dtype=np.float64), None


def _words(inputs: JSON) -> tuple[JSON, ...]:
    match inputs:
        case {"words": [*words]}:
            return (words,)
    return (inputs,)


def _tags(answers: Sequence[Answer], data: LabelledData, _: Manifest) -> tuple[object, object]:
    """Return the label of each word's first token; `O` for a word without one, such as one that was cut off."""
    tags = []
    for answer, example in zip(answers, data.examples(), strict=True):
        words = [str(word) for word in example.inputs["words"]]
        begins = np.cumsum([0, *(len(word) + len(DELIMITER) for word in words[:-1])])
        labels = ["O"] * len(words)
        tokens = answer[0] if answer and isinstance(answer[0], list) else answer  # a list of words is a batch of one
        for token in reversed(tokens):
            labels[int(np.searchsorted(begins, token["start"], side="right")) - 1] = token["entity"]
        tags.append(tuple(labels))
    return tags, None


def _answers(answers: Sequence[Answer], _: LabelledData, __: Manifest) -> tuple[object, object]:
    best = [answer[0] if isinstance(answer, list) else answer for answer in answers]
    return [answer["answer"] for answer in best], np.array([answer["score"] for answer in best])


def _choices(answers: Sequence[Answer], _: LabelledData, __: Manifest) -> tuple[object, object]:
    return (
        np.array([answer["label"] for answer in answers]),
        np.array([max(answer["probabilities"]) for answer in answers]),
    )


def _orders(answers: Sequence[Answer], data: LabelledData, _: Manifest) -> tuple[object, object]:
    """Return the documents of each query, best first, and the score of each document in the order of the data."""
    scores = [
        np.array([document["score"] for document in sorted(answer, key=lambda document: int(document["corpus_id"]))])
        for answer in answers
    ]
    return [best_first(*of_query) for of_query in zip(scores, data.truths, strict=True)], scores


def _texts(inputs: JSON) -> tuple[JSON, ...]:
    match inputs:
        case [text, pair]:
            return text, pair
    return (inputs,)


def _alike(answers: Sequence[Answer], _: LabelledData, manifest: Manifest) -> tuple[object, object]:
    """Return how alike the two texts of each example are, by the function that the bundle states."""
    compare = SIMILARITY_FUNCTIONS[facts(manifest).similarity]
    vectors = np.array(answers, dtype=np.float32).reshape(len(answers) // 2, 2, -1)
    return np.array([float(compare(one[None], other[None])[0, 0]) for one, other in vectors], dtype=np.float64), None


DELIMITER = " "
"""Separator of the words of a text that is given in words."""
ASKING: dict[tuple[str, str], _Asking] = {
    ("text-classification", CLASSIFICATION): _Asking(parameters={"top_k": None}, cuts=True, keep=_best),
    ("text-classification", MULTI_LABEL): _Asking(parameters={"top_k": None}, cuts=True, keep=_true),
    ("text-classification", REGRESSION): _Asking(parameters={"top_k": None}, cuts=True, keep=_number),
    ("token-classification", TAGS): _Asking(
        parameters={"is_split_into_words": True, "delimiter": DELIMITER, "ignore_labels": []}, ask=_words, keep=_tags
    ),
    ("question-answering", SPANS): _Asking(keep=_answers),
    ("multiple-choice", CHOICE): _Asking(keep=_choices),
    ("text-ranking", RANKING): _Asking(keep=_orders),
    ("sentence-similarity", SIMILARITY): _Asking(ask=_texts, keep=_alike),
}
"""By task and kind of data."""
