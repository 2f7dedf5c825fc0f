"""Labelled metrics of a bundle's variants, and of the baselines made from it, each against the bundle's reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bertport.compare.codec import as_unicode
from bertport.compare.entries import VARIANT
from bertport.compare.measurements import DataInfo, LabelledStep
from bertport.measure.labelled.figures import paired_differences, task_figures
from bertport.measure.labelled.kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION
from bertport.measure.labelled.predictions import TRUE, Predictions, predict_labelled
from bertport.measure.speed.process import Worker
from bertport.measure.speed.workload import SINGLE_STREAM, Texts
from bertport.measure.statistics import Settings
from bertport.runtime import load
from bertport.runtime.errors import BertportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.compare.codec import JSON
    from bertport.compare.entries import ComparedBundle, Entry
    from bertport.compare.options import Options
    from bertport.measure.labelled.data import LabelledData
    from bertport.measure.speed.loaded import Answer

__all__ = ["LabelledBench", "data_info", "read_data"]

ASKED_AT_ONCE = 32
"""Examples that a baseline is sent at once."""


def read_data(options: Options, bundles: Sequence[ComparedBundle]) -> dict[str, LabelledData]:
    """Return the labelled data as each bundle reads it, by the bundle's label; nothing where none was given.

    Raises:
        UsageError: where the bundles would be measured by different tasks or kinds of data, or for random weights; and
            what `DataChoice.read` raises.
    """
    choice = options.labelled
    if choice is None or choice.data is None:
        return {}
    if options.random_weights:
        raise UsageError("--random-weights says that labelled metrics mean nothing: leave it or --data out")
    data = {compared.label: choice.read(compared.bundle.manifest, limit=options.limit) for compared in bundles}
    measured = {(of_bundle.task, of_bundle.kind): label for label, of_bundle in data.items()}
    if len(measured) > 1:
        words = ", ".join(f"{label} by {task} ({kind})" for (task, kind), label in measured.items())
        raise UsageError(f"the bundles would be measured otherwise, {words}: compare those of one task")
    return data


def data_info(options: Options, data: Mapping[str, LabelledData]) -> DataInfo | None:
    """Return what the report says of the labelled data; None where there is none."""
    if not data or options.labelled is None:
        return None
    first = next(iter(data.values()))
    return DataInfo(
        name=as_unicode(first.name),
        fingerprint=first.fingerprint,
        task=first.task,
        kind=first.kind,
        examples=len(first),
        limit=options.limit,
        truncation=options.truncation,
        columns=dict(first.columns),
        label_map=dict(options.labelled.label_map),
        positive=options.labelled.positive,
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
        self._kept: Predictions | None = None

    def measure(self, entry: Entry, progress: Callable[[int, int], None]) -> LabelledStep:
        """Return a row's figures, and how they differ from the reference's; the reason where there are none.

        Raises:
            BertportError: for the reference, without which the data says nothing, such as a text that is too long.
        """
        if entry == self._reference:
            return LabelledStep(figures=task_figures(self._of_reference(progress), self._data, self._settings))
        try:
            predictions = self._predictions(entry, progress)
        except BertportError as error:
            return LabelledStep(why=str(error))
        return LabelledStep(
            figures=task_figures(predictions, self._data, self._settings),
            differences=paired_differences(predictions, self._of_reference(progress), self._data, self._settings),
        )

    def _of_reference(self, progress: Callable[[int, int], None]) -> Predictions:
        """Return the reference's predictions, made once."""
        if self._kept is None:
            self._kept = self._predictions(self._reference, progress)
        return self._kept

    def _predictions(self, entry: Entry, progress: Callable[[int, int], None]) -> Predictions:
        done, count = 0, len(self._data)

        def advance() -> None:
            nonlocal done
            done += 1
            progress(done, count)

        if entry.kind != VARIANT:
            return _of_baseline(entry, self._data, truncation=self._truncation, advance=advance)
        model = load(
            self._compared.bundle.path, variant=entry.variant, provider=entry.provider, threads=entry.spec.threads
        )
        return predict_labelled(model, self._data, truncation=self._truncation, advance=advance)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """One row: how a baseline is asked for a kind of data."""

    parameters: Mapping[str, object] = field(default_factory=dict)
    """Parameters of its task."""
    keep: Callable[[Sequence[Answer], LabelledData], tuple[NDArray[np.generic], NDArray[np.float32] | None]]
    """Returns `Predictions.values` and `Predictions.scores` of its answers."""


def _of_baseline(entry: Entry, data: LabelledData, *, truncation: bool, advance: Callable[[], None]) -> Predictions:
    """Return what a baseline predicts, in a process of its own.

    Raises:
        UsageError: for a kind of data that baselines are not asked for.
        WorkerError: when it cannot be loaded, or does not answer.
    """
    asking = ASKING.get(data.kind)
    if asking is None:
        raise UsageError(f"baselines are not asked for data of the kind {data.kind}")
    parameters = dict(asking.parameters) | ({"truncation": True} if truncation else {})
    answers: list[Answer] = []
    with Worker(entry.spec) as worker:
        for inputs in _parted(data):
            texts = Texts(task=data.task, inputs=inputs, parameters=parameters, scenario=SINGLE_STREAM)
            answers += worker.answers(texts)
            for _ in inputs:
                advance()
    values, scores = asking.keep(answers, data)
    return Predictions(
        task=data.task,
        kind=data.kind,
        variant=entry.name,
        fingerprint=data.fingerprint,
        values=values,
        scores=scores,
    )


def _parted(data: LabelledData) -> Iterator[tuple[JSON, ...]]:
    """Yield the data's inputs, some at a time."""
    inputs: list[JSON] = []
    for example in data.examples():
        inputs.append(example.inputs)
        if len(inputs) == ASKED_AT_ONCE:
            yield tuple(inputs)
            inputs = []
    if inputs:
        yield tuple(inputs)


def _scores(answers: Sequence[Answer], data: LabelledData) -> NDArray[np.float32]:
    """Return the scores of the labels, one per column `[examples, labels]`."""
    labels = data.labels or ()
    by_label = [{scored["label"]: scored["score"] for scored in answer} for answer in answers]
    return np.array([[scored[label] for label in labels] for scored in by_label], dtype=np.float32)


def _best(answers: Sequence[Answer], data: LabelledData) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    scores = _scores(answers, data)
    return scores.argmax(axis=1), scores


def _true(answers: Sequence[Answer], data: LabelledData) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    scores = _scores(answers, data)
    return scores >= TRUE, scores


def _number(answers: Sequence[Answer], _: LabelledData) -> tuple[NDArray[np.generic], None]:
    return np.array([answer[0]["score"] for answer in answers], dtype=np.float64), None


ASKING: dict[str, _Asking] = {
    CLASSIFICATION: _Asking(parameters={"top_k": None}, keep=_best),
    MULTI_LABEL: _Asking(parameters={"top_k": None}, keep=_true),
    REGRESSION: _Asking(parameters={"top_k": None}, keep=_number),
}
"""By kind of data."""
