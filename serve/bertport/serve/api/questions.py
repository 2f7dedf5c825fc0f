"""What the runtime is asked: from a body to a task, its inputs and its parameters, and from the answers back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.excerpts import excerpt
from bertport.serve.api.payload import many
from bertport.serve.errors import Unprocessable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.serve.api.payload import Payload

__all__ = [
    "Question",
    "feature_extraction",
    "judged_pairs",
    "plain",
    "replaced_tokens",
    "sentence_similarity",
    "text_classification",
    "token_classification",
    "zero_shot_classification",
]


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


def plain(task: str) -> Callable[[Payload], Question]:
    """Return the form of a runtime's task whose inputs, parameters and answers go through as they are.

    Args:
        task: the runtime's task.
    """

    def ask(payload: Payload) -> Question:
        inputs, one = many(payload)
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
    if given.pop("dimensions", None) is not None:
        raise Unprocessable("dimensions is not supported: the bundle's vectors were not trained to be cut")
    given.setdefault("pooling", default_pooling)
    return given


def feature_extraction(payload: Payload) -> Question:
    """Ask for a vector of each text: the mean over its tokens, where no pooling is given."""
    inputs, one = many(payload)
    return Question(
        task="features",
        inputs=inputs,
        parameters=_hub_parameters(payload.parameters, "mean"),
        shape=lambda answers: answers[0] if one else answers,
    )


def sentence_similarity(payload: Payload) -> Question:
    """Ask for the cosines of mean vectors: of a text with each of several others."""
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


def text_classification(payload: Payload) -> Question:
    """Ask for the labels of texts or pairs, best first: a list of them for each, also for one input."""
    inputs, _ = many(payload)
    # A list of lists, also for one text: the Hub's clients take the first.
    return Question(
        task="text-classification",
        inputs=inputs,
        parameters={"top_k": None, **payload.parameters},
        shape=lambda answers: [answer if isinstance(answer, list) else [answer] for answer in answers],
    )


def token_classification(payload: Payload) -> Question:
    """Ask for the entities of texts: neighbouring tokens of one label, where no strategy is given, as of the Hub."""
    entities = {"aggregation_strategy": "simple", **payload.parameters}
    return plain("token-classification")(replace(payload, parameters=entities))


def zero_shot_classification(payload: Payload) -> Question:
    """Ask how well candidate labels fit texts: a list of labels with their scores for each, as the Hub does."""
    asked = plain("zero-shot-classification")(payload)

    def ranked(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        pairs = zip(answer["labels"], answer["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]

    return replace(asked, shape=lambda answers: asked.shape(list(map(ranked, answers))))


def judged_pairs(task: str) -> Callable[[Payload], Question]:
    """Return text classification by a task that judges pairs, for bundles without a classifier.

    Args:
        task: the runtime's task, whose answers have the probabilities of their labels.
    """

    def ask(payload: Payload) -> Question:
        inputs, _ = many(payload)
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

        return Question(
            task=task, inputs=inputs, parameters=parameters, shape=lambda answers: list(map(labels, answers))
        )

    return ask


def replaced_tokens(payload: Payload) -> Question:
    """Ask of each token whether it stands in place of another, as token classification."""
    inputs, one = many(payload)
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
