"""The table of tasks as the Hub's inference clients know them: from a body to the runtime's task, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import UnknownNameError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import DEFAULT_TOP_K, NSP, SOP
from bertport.runtime.tasks.poolings import POOLINGS, meanings
from bertport.runtime.tasks.table import TASKS
from bertport.serve.errors import BadRequest, TooLarge, Unprocessable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest

__all__ = [
    "MASK",
    "WIRE_TASKS",
    "Payload",
    "Question",
    "Tensor",
    "WireTask",
    "choose",
    "plain",
    "question",
    "read_payload",
    "too_many",
    "wire_names",
]

IGNORED = frozenset({"options", "model"})
"""Fields at the root that clients send and that mean nothing here."""
OF_FEATURES = frozenset({"normalize", "truncate", "truncation_direction", "prompt_name", "pooling"})
"""Parameters of feature extraction, which the Hub's clients write at the root."""
OF_TOKENS = frozenset({"aggregation_strategy", "ignore_labels", "stride"})
"""Parameters of token classification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A body in the Hub's format."""

    inputs: Any
    """One input, or a list of them."""
    parameters: Mapping[str, Any]
    """The task's parameters, those at the root included."""
    told: bool
    """Whether the body has the field `parameters`, if only an empty one."""
    at_root: frozenset[str]
    """Names of the parameters written at the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the runtime is asked."""

    task: str
    """The runtime's task."""
    inputs: list[Any]
    """Its inputs."""
    parameters: dict[str, Any]
    """Its parameters."""
    shape: Callable[[list[Any]], Any]
    """From its answers to the value that is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An output of a task in the Open Inference Protocol, FP32, beside its answers as JSON."""

    name: str
    """Name of the output."""
    task: str
    """The task that answers where a request asks for this output and names no task."""
    columns: Callable[[Manifest], int | None]
    """Its width in a bundle; None where the bundle cannot give it."""
    make: Callable[[list[Any]], NDArray[Any]]
    """From a task's answers to the array `[answers, columns]`."""
    given: Callable[[Question], bool] = lambda _: True
    """Whether a question's answers have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireTask:
    """One row: a task as clients name it."""

    name: str
    """The Hub's name, or the runtime's own."""
    summary: str
    """What it answers."""
    ask: Callable[[Payload], Question]
    """From a body to the question; raises Problem."""
    runtime: str
    """The runtime's task behind it."""
    instead: str | None = None
    """The runtime's task behind it where a bundle has the head of this one and not that of `runtime`; inputs,
    parameters and answers have the same form."""
    example: Any
    """A body, for the documentation."""
    parameters: Mapping[str, Mapping[str, Any]]
    """JSON schema of each parameter."""
    inputs: Mapping[str, Any]
    """JSON schema of one input."""
    tensors: tuple[Tensor, ...] = ()
    """Its outputs in the Open Inference Protocol, beside the answers as JSON."""


def wire_names(tasks: Collection[str]) -> list[str]:
    """Return the names by which clients ask for some of the runtime's tasks."""
    return [task.name for task in WIRE_TASKS.values() if task.runtime in tasks or task.instead in tasks]


def read_payload(value: object, max_items: int) -> Payload:
    """Read a body: an object with `inputs`, or the inputs themselves, as the Hub's first curl examples send them.

    Raises:
        BadRequest, Unprocessable: for a body that is none.
        TooLarge: for more texts than a request may have, before any of them is looked at.
    """
    payload = _payload(value)
    match payload.inputs:
        case list(several) | {"sentences": list(several)} if len(several) > max_items:
            raise too_many(len(several), max_items)
    return payload


def _payload(value: object) -> Payload:
    if not isinstance(value, dict) or "inputs" not in value:
        if isinstance(value, dict) and not {"source_sentence", "text", "text_pair"} & value.keys():
            raise BadRequest('the body has no field "inputs": send {"inputs": …}')
        return Payload(inputs=value, parameters={}, told=False, at_root=frozenset())
    parameters = value.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise Unprocessable('"parameters" is an object with the task\'s parameters')
    at_root = {key: field_value for key, field_value in value.items() if key not in {"inputs", "parameters"} | IGNORED}
    return Payload(
        inputs=value["inputs"],
        # Clients leave parameters that were not given out, or write null.
        parameters={
            key: parameter for key, parameter in ((parameters or {}) | at_root).items() if parameter is not None
        },
        told="parameters" in value,
        at_root=frozenset(at_root),
    )


def choose(payload: Payload, mask_token: str | None) -> str:
    """Return the task that a body is for, where neither address nor header names it.

    Every client posts to the same address; what tells bodies apart is the shape of their inputs. Of a text without a
    mask, `fill_mask` sends an empty `parameters` and `feature_extraction` none.
    """
    first = payload.inputs[0] if isinstance(payload.inputs, list) and payload.inputs else payload.inputs
    if isinstance(first, dict) and "source_sentence" in first:
        return "sentence-similarity"
    if isinstance(first, list) or (isinstance(first, dict) and "text_pair" in first):
        return "text-classification"
    if payload.parameters.keys() & OF_TOKENS:
        return "token-classification"
    if payload.at_root & OF_FEATURES or payload.parameters.keys() & {"pooling", "normalize"}:
        return "feature-extraction"
    texts = payload.inputs if isinstance(payload.inputs, list) else [payload.inputs]
    if payload.told or (mask_token is not None and any(mask_token in _text(text) for text in texts)):
        return "fill-mask"
    return "feature-extraction"


def _text(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("text")
    return value if isinstance(value, str) else ""


def _many(payload: Payload) -> tuple[list[Any], bool]:
    """Return the inputs as a list, and whether there was but one."""
    if isinstance(payload.inputs, list):
        if not payload.inputs:
            raise BadRequest('"inputs" is empty: send at least one text')
        return payload.inputs, False
    return [payload.inputs], True


def plain(task: str) -> Callable[[Payload], Question]:
    """Return the form of a runtime's task whose inputs, parameters and answers go through as they are.

    Args:
        task: the runtime's task.
    """

    def ask(payload: Payload) -> Question:
        inputs, one = _many(payload)
        return Question(
            task=task,
            inputs=inputs,
            parameters=dict(payload.parameters),
            shape=lambda answers: answers[0] if one else answers,
        )

    return ask


def _hub_parameters(parameters: Mapping[str, Any], default_pooling: str) -> dict[str, Any]:
    """Return the runtime's parameters for the Hub's names of them."""
    given = dict(parameters)
    if given.pop("prompt_name", None) is not None:
        raise Unprocessable("prompt_name is not supported: the bundle has no prompts; write the prompt into the text")
    direction = given.pop("truncation_direction", "right")
    if not isinstance(direction, str) or direction.lower() != "right":
        raise Unprocessable("truncation_direction is not supported beyond 'right': shorten the text yourself")
    if "truncate" in given:
        given["truncation"] = given.pop("truncate")
    given.setdefault("pooling", default_pooling)
    return given


def _feature_extraction(payload: Payload) -> Question:
    inputs, one = _many(payload)
    return Question(
        task="features",
        inputs=inputs,
        parameters=_hub_parameters(payload.parameters, "mean"),
        shape=lambda answers: answers[0] if one else answers,
    )


def _sentence_similarity(payload: Payload) -> Question:
    match payload.inputs:
        case {"source_sentence": str(source), "sentences": [*sentences], **other} if not other and sentences:
            pass
        case _:
            raise Unprocessable('sentence-similarity takes {"source_sentence": "A", "sentences": ["B", …]}')
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise Unprocessable('"sentences" is a list of texts')

    def similarities(vectors: list[Any]) -> list[float]:
        cosines: list[float] = (np.stack(vectors[1:]) @ vectors[0]).tolist()
        return cosines

    parameters = _hub_parameters(payload.parameters, "mean") | {"normalize": True}
    return Question(task="features", inputs=[source, *sentences], parameters=parameters, shape=similarities)


def _text_classification(payload: Payload) -> Question:
    inputs, _ = _many(payload)
    for pair in inputs:
        if isinstance(pair, str) or (isinstance(pair, dict) and "text_pair" not in pair):
            raise Unprocessable(
                "text-classification judges a pair of texts: "
                'send {"inputs": {"text": "A", "text_pair": "B"}}, or a list of such pairs'
            )
    parameters = dict(payload.parameters)
    applied = parameters.pop("function_to_apply", "softmax")
    if applied != "softmax":
        raise Unprocessable(f"function_to_apply is 'softmax' here, not {excerpt(applied, 40)}")
    top_k = parameters.pop("top_k", None)
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise Unprocessable(f"top_k is a number from 1 up, not {excerpt(top_k, 40)}")

    def labels(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = sorted(answer["probabilities"].items(), key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in rows[:top_k]]

    # `question` puts another task in the place of next-sentence where the bundle has that head alone.
    # A list of lists, also for one pair: the Hub's clients take the first.
    return Question(
        task="next-sentence", inputs=inputs, parameters=parameters, shape=lambda answers: list(map(labels, answers))
    )


def _token_classification(payload: Payload) -> Question:
    inputs, one = _many(payload)
    parameters = dict(payload.parameters)
    strategy = parameters.pop("aggregation_strategy", "none")
    if strategy != "none":
        raise Unprocessable(f"aggregation_strategy is 'none' here, a row for each token, not {excerpt(strategy, 40)}")
    if "stride" in parameters:
        raise Unprocessable("stride is not supported: send a long text in pieces")
    return Question(
        task="replaced-tokens",
        inputs=inputs,
        parameters=parameters,
        shape=lambda answers: answers[0] if one else answers,
    )


MASK = "[MASK]"
"""The mask of examples in the documentation, which is one for all bundles: /models tells the mask of each."""
TEXT = {"type": "string", "description": "a text"}
PAIR = {
    "type": "object",
    "properties": {"text": TEXT, "text_pair": TEXT},
    "required": ["text", "text_pair"],
    "additionalProperties": False,
}
TRUNCATION = {
    "truncation": {"type": "boolean", "default": False, "description": "cut a text that is too long instead of 422"}
}
NORMALIZE = {"normalize": {"type": "boolean", "default": False, "description": "scale vectors to length 1"}}
POOLING = {"type": "string", "enum": list(POOLINGS), "description": meanings()}

EMBEDDING = Tensor(
    name="embedding",
    task="feature-extraction",
    columns=lambda manifest: manifest.architecture.hidden_size,
    make=np.stack,
    given=lambda question: question.parameters.get("pooling", "none") != "none",
)


def label_count(head: str) -> Callable[[Manifest], int | None]:
    """Return the width of a head's scores: its number of labels, or None where a bundle has no such head."""

    def count(manifest: Manifest) -> int | None:
        entry = manifest.heads.get(head)
        return len(entry.labels) if entry and entry.labels else None

    return count


def _probabilities(answers: list[Any]) -> NDArray[Any]:
    """Return the probability of each label `[answers, labels]`."""
    return np.array([list(answer["probabilities"].values()) for answer in answers], dtype=np.float32)


PROBABILITIES = Tensor(name="probabilities", task="next-sentence", columns=label_count(NSP), make=_probabilities)
ORDER_PROBABILITIES = Tensor(
    name="order_probabilities", task="sentence-order", columns=label_count(SOP), make=_probabilities
)
IGNORED_LABELS = {
    "ignore_labels": {"type": "array", "items": {"type": "string"}, "description": "tokens with these are left out"}
}

WIRE_TASKS: dict[str, WireTask] = {
    wire_task.name: wire_task
    for wire_task in (
        WireTask(
            name="fill-mask",
            summary="the likeliest words for each mask of a text",
            ask=plain("fill-mask"),
            runtime="fill-mask",
            example={"inputs": f"He poured her a cup of {MASK}.", "parameters": {"top_k": 3}},
            parameters={
                "top_k": {"type": "integer", "minimum": 1, "default": DEFAULT_TOP_K},
                "targets": {"type": "array", "items": {"type": "string"}, "description": "only these words compete"},
                **TRUNCATION,
            },
            inputs=TEXT,
        ),
        WireTask(
            name="feature-extraction",
            summary="a vector for each text",
            ask=_feature_extraction,
            runtime="features",
            example={"inputs": "He poured her a cup of tea.", "normalize": True},
            parameters={
                "pooling": {**POOLING, "default": "mean"},
                **NORMALIZE,
                "truncate": {"type": "boolean", "default": False},
                "truncation_direction": {"type": "string", "enum": ["right", "Right"]},
            },
            inputs=TEXT,
            tensors=(EMBEDDING,),
        ),
        WireTask(
            name="sentence-similarity",
            summary="the cosine of a text's mean vector with that of each other text",
            ask=_sentence_similarity,
            runtime="features",
            example={"inputs": {"source_sentence": "A cup of tea.", "sentences": ["A mug of coffee.", "A fast car."]}},
            parameters={"truncate": {"type": "boolean", "default": False}},
            inputs={
                "type": "object",
                "properties": {
                    "source_sentence": TEXT,
                    "sentences": {"type": "array", "items": TEXT, "minItems": 1},
                },
                "required": ["source_sentence", "sentences"],
                "additionalProperties": False,
            },
            tensors=(EMBEDDING,),
        ),
        WireTask(
            name="text-classification",
            summary="whether the second text of a pair follows the first, or whether they are in order, as labels",
            ask=_text_classification,
            runtime="next-sentence",
            instead="sentence-order",
            example={"inputs": {"text": "He went to the store.", "text_pair": "He bought milk."}, "parameters": {}},
            parameters={
                "top_k": {"type": "integer", "minimum": 1},
                "function_to_apply": {"type": "string", "enum": ["softmax"]},
                **TRUNCATION,
            },
            inputs=PAIR,
            tensors=(PROBABILITIES,),
        ),
        WireTask(
            name="token-classification",
            summary="for each token of a text, whether it stands in place of another",
            ask=_token_classification,
            runtime="replaced-tokens",
            example={"inputs": "He poured her a cup of stone.", "parameters": {"aggregation_strategy": "none"}},
            parameters={
                "aggregation_strategy": {"type": "string", "enum": ["none"]},
                **IGNORED_LABELS,
                **TRUNCATION,
            },
            inputs=TEXT,
        ),
        WireTask(
            name="next-sentence",
            summary="whether the second text of a pair follows the first, with both probabilities",
            ask=plain("next-sentence"),
            runtime="next-sentence",
            example={"inputs": {"text": "He went to the store.", "text_pair": "He bought milk."}},
            parameters=TRUNCATION,
            inputs=PAIR,
            tensors=(PROBABILITIES,),
        ),
        WireTask(
            name="sentence-order",
            summary="whether two texts stand in the order in which they were written, with both probabilities",
            ask=plain("sentence-order"),
            runtime="sentence-order",
            example={"inputs": {"text": "He went to the store.", "text_pair": "He bought milk."}},
            parameters=TRUNCATION,
            inputs=PAIR,
            tensors=(ORDER_PROBABILITIES,),
        ),
        WireTask(
            name="replaced-tokens",
            summary="for each token of a text, whether it stands in place of another",
            ask=plain("replaced-tokens"),
            runtime="replaced-tokens",
            example={"inputs": "He poured her a cup of stone.", "parameters": {"ignore_labels": ["original"]}},
            parameters={**IGNORED_LABELS, **TRUNCATION},
            inputs=TEXT,
        ),
        WireTask(
            name="features",
            summary="a vector for each token of a text, or one for the whole",
            ask=plain("features"),
            runtime="features",
            example={"inputs": "He poured her a cup of tea.", "parameters": {"pooling": "none"}},
            parameters={"pooling": {**POOLING, "default": "none"}, **NORMALIZE, **TRUNCATION},
            inputs=TEXT,
            tensors=(EMBEDDING,),
        ),
    )
}
"""By name; the first five are what the Hub's clients call them, the others the runtime's own."""


def question(name: str, payload: Payload, max_items: int, heads: Collection[str]) -> Question:
    """Ask what a body asks, under the name of a task.

    Args:
        name: The task, as clients name it.
        payload: The body.
        max_items: Inputs that a request may have.
        heads: The heads of the bundle that is asked.

    Raises:
        UnknownNameError: for a task that there is not.
        Problem: for inputs or parameters that the task does not take.
        TooLarge: for more texts than a request may have.
    """
    if name not in WIRE_TASKS:
        raise UnknownNameError("task", name, WIRE_TASKS)
    if isinstance(payload.inputs, list) and len(payload.inputs) > max_items:
        raise too_many(len(payload.inputs), max_items)
    asked = WIRE_TASKS[name].ask(payload)
    if len(asked.inputs) > max_items:
        raise too_many(len(asked.inputs), max_items)
    other = WIRE_TASKS[name].instead
    if other is not None and TASKS[asked.task].usual_head not in heads and TASKS[other].usual_head in heads:
        asked = replace(asked, task=other)
    return asked


def too_many(count: int, most: int) -> TooLarge:
    """Return the refusal of a request with more texts than one may have."""
    return TooLarge(f"the request has {count} texts and may have {most}: send them in several requests")
