"""Predictions of a model on labelled data, by the runtime's own batches and in bounded memory."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.labelled.kinds import (
    CHOICE,
    CLASSIFICATION,
    MULTI_LABEL,
    RANKING,
    REGRESSION,
    RETRIEVAL,
    SIMILARITY,
    SPANS,
    TAGS,
)
from bertport.measure.labelled.ranks import CUT, best_first
from bertport.runtime.errors import BertportError, InputTextError, ProviderError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.runtime.session import is_of_onnxruntime
from bertport.runtime.tasks.embeddings import facts
from bertport.runtime.tasks.labels import activation_named, activation_of, columns, labelled, probabilities
from bertport.runtime.tasks.table import Windowing
from bertport.runtime.tasks.vectors import SIMILARITY_FUNCTIONS
from bertport.runtime.text.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from bertport.measure.labelled.data import Example, LabelledData
    from bertport.runtime.model import Model
    from bertport.runtime.tasks.table import Call
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.words import Words

__all__ = [
    "TRUE",
    "Predictions",
    "corpus_of",
    "inputs_of",
    "parameters_of",
    "predict_labelled",
    "prompted",
    "tag_in_windows",
]

TRUE = 0.5
"""Probability from which on one of several labels that may all be true is taken for true."""
QUERIES = 256
"""Queries that are compared with all texts at once."""
OVERLAP = 4
"""Consecutive windows of a long text share one in so many of their tokens, for context on both sides."""
NONE = -1
"""Column of a word that has no token, and so no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Predictions of a variant on labelled data: of each example only what metrics need."""

    task: str
    """The task."""
    kind: str
    """The kind of data."""
    variant: str
    """The bundle's variant."""
    fingerprint: str
    """Fingerprint of the data."""
    values: Any
    """Predicted values, one per example, to be compared with the truth: of classification and choice an array of
    columns (int64), of several labels one of truth values `[examples, labels]`, of numbers one of float64; of the
    others a list: tuples of tags, texts of answers, orders of documents (arrays of their numbers, best first; of
    retrieval the first ten)."""
    scores: Any = None
    """The numbers behind it: of classification and of several labels probabilities `[examples, labels]` (float32), of
    choices and answers that of the one taken `[examples]`, of documents a list of their scores; None of the others."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.values)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of what is taken, `[examples]`: of classification and of choices."""
        scores = np.asarray(self.scores, dtype=np.float64)
        return scores if scores.ndim == 1 else scores.max(axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """Call of the model for one kind of data of a task, and what is kept of the answers."""

    call: Callable[[Model, LabelledData, bool], Call]
    """Returns the task as it is asked, with or without cutting long texts."""
    keep: Callable[[list[Any], LabelledData], tuple[Any, Any]]
    """Returns `Predictions.values` and `Predictions.scores` of the answers, one per example."""
    inputs: Callable[[Any], Any] = lambda inputs: inputs
    """Returns what the task takes for an example's inputs."""
    brief: Callable[[Any], Any] = lambda answer: answer
    """Returns of an answer what is kept until all are there."""
    windowed: Callable[[Call], Call] | None = None
    """Returns the task as it is asked again for texts that are too long; None where these are refused."""


def predict_labelled(
    model: Model,
    data: LabelledData,
    *,
    truncation: bool = False,
    progress: Callable[[int, int], None] = lambda done, count: None,  # noqa: ARG005 — nobody looks on
) -> Predictions:
    """Predict every example of the data; what is predicted is what `Model.predict` gives.

    Inputs are read as they are needed: memory holds the texts of two windows of the runtime, and of each example what
    metrics need. Tagged words that are too many are read in windows that overlap, and so are contexts of questions; any
    other text that is too long is refused, or cut where that is asked for.

    Args:
        model: The model.
        data: The data.
        truncation: Cut texts that are too long instead of refusing them.
        progress: Told after each example how many are done, and of how many.

    Raises:
        InputTextError: for a text that the model cannot take, such as one that is too long; the sentence names the
            line.
        OutputError: for an example that the model gives no finite numbers for.
        ProviderError: where ONNX Runtime raises.
        ChangedDataError: where the file has changed since it was checked.
    """
    with _explained(model, data):
        if data.kind == RETRIEVAL:
            values, scores = _retrieve(model, data, truncation=truncation, progress=progress)
        else:
            asking = ASKING[data.task, data.kind]
            call = asking.call(model, data, truncation)
            values, scores = asking.keep(list(_answers(model, call, asking, data, progress)), data)
    return Predictions(
        task=data.task,
        kind=data.kind,
        variant=model.variant,
        fingerprint=data.fingerprint,
        values=values,
        scores=scores,
    )


@contextmanager
def _explained(model: Model, data: LabelledData) -> Iterator[None]:
    """Turn an error of ONNX Runtime in a run into one sentence, and any that other data is the reason of into that."""
    try:
        yield
    except BertportError:
        data.check_unchanged()
        raise
    except Exception as error:  # ONNX Runtime's errors share no base but Exception
        if not is_of_onnxruntime(error):
            raise
        raise ProviderError(
            f"variant {model.variant!r} of {model.bundle.manifest.name} fails on {data.name} on the provider "
            f"{model.graph.provider.name!r} ({excerpt(one_line(error), 300)}): choose another variant or provider"
        ) from error


def prompted(data: LabelledData, example: Example) -> Any:  # noqa: ANN401 — of each kind of data another
    """Return the inputs of an example, each text with the prompt that it begins with."""
    return data.prompts.before(example.inputs) if data.prompts else example.inputs


def inputs_of(data: LabelledData, example: Example) -> object:
    """Return what the data's task takes for an example, of retrieval what embeddings takes; prompts are in it."""
    inputs = prompted(data, example)
    return inputs if data.kind == RETRIEVAL else ASKING[data.task, data.kind].inputs(inputs)


def parameters_of(data: LabelledData) -> dict[str, object]:
    """Return the parameters of a task whose inputs have their prompts already."""
    return {"prompt": ""} if data.prompts else {}


def corpus_of(data: LabelledData) -> Iterator[str]:
    """Yield the texts that queries lead to, each with what documents begin with."""
    prompt = data.prompts.document if data.prompts else ""
    return (prompt + text for text in data.corpus())


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Inputs that are read as they are needed: of known number, so that the runtime takes full windows of them."""

    read: Callable[[], Iterable[Any]]
    """Returns the inputs, from the first on."""
    count: int
    """Number of inputs."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return iter(self.read())


def _answers(
    model: Model, call: Call, asking: _Asking, data: LabelledData, progress: Callable[[int, int], None]
) -> Iterator[Any]:
    """Yield what is kept of the answer to each example."""
    waiting: deque[Any] = deque()

    def read() -> Iterator[Any]:
        for example in data.examples():
            waiting.append(inputs_of(data, example))
            yield waiting[-1]

    for index, outcome in enumerate(model.outcomes(call, _Inputs(read, len(data)))):
        answer, inputs = outcome, waiting.popleft()
        if isinstance(answer, InputTextError) and asking.windowed is not None:
            (answer,) = model.outcomes(asking.windowed(call), [inputs])
        if isinstance(answer, BertportError):
            raise type(answer)(f"{data.where(index)}: {answer.message}")
        yield asking.brief(answer)
        progress(index + 1, len(data))


# Labels of texts.


def _classify(model: Model, _: LabelledData, truncation: bool) -> Call:  # noqa: FBT001 — a field of a table
    """Return text-classification, whose answers are the scores of all labels `[labels]`."""
    call = model.resolve("text-classification", top_k=None, truncation=truncation)
    manifest = model.bundle.manifest
    entry, labels = labelled(SEQUENCE_CLASSIFICATION, manifest)
    activation = activation_named(activation_of(entry, len(labels)))
    return replace(call, finish=lambda logits, _: activation(columns(logits, labels, manifest)).copy())


def _best(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    scores = np.stack(answers)
    return scores.argmax(axis=1), scores


def _true(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    scores = np.stack(answers)
    return scores >= TRUE, scores


def _number(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    return np.concatenate(answers).astype(np.float64), None


# Labels of words.


@dataclass(frozen=True, slots=True)
class _TokenLabels:
    """The labels of the tokens of one window."""

    words: tuple[int, ...]
    """Index in the text of the first character of each word."""
    starts: NDArray[np.int64]
    """Index in the text of the first character of each token, `[tokens]`: special ones are left out, and of several
    that begin at one character all but the first."""
    columns: NDArray[np.int64]
    """The likeliest label of each, `[tokens]`."""


def _tag(model: Model, _: LabelledData, truncation: bool) -> Call:  # noqa: ARG001, FBT001 — a field of a table
    """Return token-classification, whose answers are the labels of words: each that of its first token.

    Nothing is cut: a text that is too long is read in windows.
    """
    call = model.resolve("token-classification")
    manifest = model.bundle.manifest
    labels = labelled(TOKEN_CLASSIFICATION, manifest)[1]

    def finish(logits: NDArray[np.float32], encoded: Encoded) -> _TokenLabels:
        places = np.flatnonzero(encoded.spans[:, 0] >= 0)
        # Windows are merged by characters, and a character may be several tokens: its bytes, or a space before it.
        starts, first = np.unique(encoded.spans[places, 0], return_index=True)
        best = probabilities(columns(logits, labels, manifest)).argmax(axis=-1)
        text: Words = encoded.text  # type: ignore[assignment]  # `Cells` reads no other input of this task
        return _TokenLabels(text.starts, starts, best[places[first]])

    return replace(call, finish=finish)


def tag_in_windows(call: Call) -> Call:
    """Return token-classification of a text in windows that overlap."""
    length = call.tokens.max_length
    windows = Windows(length=length, stride=length // OVERLAP)
    call.tokens.check(windows)
    return replace(call, windowing=Windowing(windows=windows, merge=_merged))


def _merged(windows: list[_TokenLabels]) -> _TokenLabels:
    """Return the labels of a text's tokens: each from the window in which it is farthest from an end."""
    starts = np.concatenate([window.starts for window in windows])
    labels = np.concatenate([window.columns for window in windows])
    inside = [np.minimum(np.arange(len(window.starts)), np.arange(len(window.starts))[::-1]) for window in windows]
    order = np.lexsort((-np.concatenate(inside), starts))
    first = np.unique(starts[order], return_index=True)[1]
    return _TokenLabels(windows[0].words, starts[order][first], labels[order][first])


def _word_labels(tokens: _TokenLabels) -> NDArray[np.int32]:
    """Return the label of each word: that of its first token, `[words]`."""
    words = np.searchsorted(tokens.words, tokens.starts, side="right") - 1
    labels = np.full(len(tokens.words), NONE, dtype=np.int32)
    there, first = np.unique(words, return_index=True)
    labels[there] = tokens.columns[first]
    return labels


def _tags(answers: list[Any], data: LabelledData) -> tuple[Any, Any]:
    names = [*(data.labels or ()), "O"]  # the last stands for NONE
    return [tuple(names[column] for column in labels.tolist()) for labels in answers], None


# Answers, choices, documents, pairs.


def _plain(model: Model, data: LabelledData, truncation: bool) -> Call:  # noqa: FBT001 — a field of a table
    return model.resolve(data.task, truncation=truncation, **parameters_of(data))


def _whole(model: Model, data: LabelledData, truncation: bool) -> Call:  # noqa: ARG001, FBT001 — a field of a table
    """Return a task that reads long texts in windows by itself."""
    return model.resolve(data.task)


def _texts(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    return [text for text, _ in answers], np.array([score for _, score in answers])


def _choices(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    return np.array([label for label, _ in answers]), np.array([score for _, score in answers])


def _orders(answers: list[Any], data: LabelledData) -> tuple[Any, Any]:
    """Return the documents of each query, best first, and the score of each document in the order of the data."""
    return [best_first(scores, truth) for scores, truth in zip(answers, data.truths, strict=True)], answers


def _document_scores(ranked: list[Any]) -> NDArray[np.float64]:
    scores = np.zeros(len(ranked))
    for document in ranked:
        scores[document["corpus_id"]] = document["score"]
    return scores


def _numbers(answers: list[Any], _: LabelledData) -> tuple[Any, Any]:
    return np.array([score for (score,) in answers], dtype=np.float64), None


def _retrieve(
    model: Model, data: LabelledData, *, truncation: bool, progress: Callable[[int, int], None]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
    """Return the ten texts that are most like each query, best first, and how alike they are."""
    compare = SIMILARITY_FUNCTIONS[facts(model.bundle.manifest).similarity]
    call = model.resolve("embeddings", truncation=truncation, **parameters_of(data))
    count = 1 + max(max(truth) for truth in data.truths)
    texts = np.stack(list(_vectors(model, call, _Inputs(lambda: corpus_of(data), count), data.where_text)))
    queries = _Inputs(lambda: (inputs_of(data, example) for example in data.examples()), len(data))
    values: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.float32]] = []

    def answer() -> None:
        for alike in compare(np.stack(waiting), texts):
            relevant = np.zeros(count, dtype=np.bool_)
            relevant[list(data.truths[len(values)])] = True
            best = best_first(alike, relevant)[:CUT]
            values.append(best)
            scores.append(alike[best])
        waiting.clear()

    for done, vector in enumerate(_vectors(model, call, queries, data.where), 1):
        waiting.append(vector)
        if len(waiting) == QUERIES:
            answer()
        progress(done, len(data))
    if waiting:
        answer()
    return values, scores


def _vectors(model: Model, call: Call, inputs: _Inputs, where: Callable[[int], str]) -> Iterator[NDArray[np.float32]]:
    """Yield the vector of each text; `where` returns what a sentence calls the text of a number."""
    for index, outcome in enumerate(model.outcomes(call, inputs)):
        if isinstance(outcome, BertportError):
            raise type(outcome)(f"{where(index)}: {outcome.message}")
        yield outcome


ASKING = {
    ("text-classification", CLASSIFICATION): _Asking(call=_classify, keep=_best),
    ("text-classification", MULTI_LABEL): _Asking(call=_classify, keep=_true),
    ("text-classification", REGRESSION): _Asking(call=_classify, keep=_number),
    ("token-classification", TAGS): _Asking(call=_tag, keep=_tags, brief=_word_labels, windowed=tag_in_windows),
    ("question-answering", SPANS): _Asking(
        call=_whole, keep=_texts, brief=lambda answer: (answer["answer"], answer["score"])
    ),
    ("multiple-choice", CHOICE): _Asking(
        call=_plain, keep=_choices, brief=lambda answer: (answer["label"], answer["score"])
    ),
    ("text-ranking", RANKING): _Asking(call=_plain, keep=_orders, brief=_document_scores),
    ("sentence-similarity", RANKING): _Asking(
        call=_plain,
        keep=_orders,
        inputs=lambda inputs: {"source_sentence": inputs["query"], "sentences": inputs["documents"]},
        brief=np.asarray,
    ),
    ("sentence-similarity", SIMILARITY): _Asking(
        call=_plain,
        keep=_numbers,
        inputs=lambda inputs: {"source_sentence": inputs[0], "sentences": [inputs[1]]},
    ),
}
"""Calls of the model by task and kind of data; retrieval is not among them, as it compares all queries with all
texts."""
