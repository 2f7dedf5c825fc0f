"""Translation of a body to a task with inputs and parameters, and of the answers back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.excerpts import excerpt
from bertport.serve.api.fields import number
from bertport.serve.api.payload import many
from bertport.serve.errors import Unprocessable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.serve.api.payload import Payload

__all__ = [
    "MEANS",
    "Question",
    "embeddings",
    "judged_pairs",
    "mean_features",
    "mean_similarities",
    "plain",
    "question_answering",
    "replaced_tokens",
    "similarities",
    "text_classification",
    "token_classification",
    "zero_shot_classification",
]

MEANS = "the bundle was not trained to make vectors of texts: each is the mean over the hidden states of its tokens"
"""Note to clients of embeddings where a bundle has no head for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Task, inputs and parameters for the runtime."""

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


def embeddings(payload: Payload) -> Question:
    """Ask for the vector of each text that the model was trained to make; with a pooling, for features."""
    if "pooling" in payload.parameters:
        return mean_features(payload)
    return plain("embeddings")(replace(payload, parameters=_of_vectors(payload.parameters)))


def similarities(payload: Payload) -> Question:
    """Ask how alike a text is to each of several others, by the model's own function."""
    return plain("sentence-similarity")(replace(payload, parameters=_of_vectors(payload.parameters)))


def mean_features(payload: Payload) -> Question:
    """Ask for a vector of each text: the mean over its tokens, where no pooling is given."""
    return plain("features")(replace(payload, parameters=_of_features(payload.parameters)))


def mean_similarities(payload: Payload) -> Question:
    """Ask for the cosines of mean vectors: of a text with each of several others."""
    match payload.inputs:
        case {"source_sentence": str(source), "sentences": [*sentences], **other} if not other and sentences:
            pass
        case _:
            raise Unprocessable('sentence-similarity takes {"source_sentence": "A", "sentences": ["B", …]}')
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise Unprocessable('"sentences" is a list of texts')

    def cosines(vectors: list[Any]) -> list[float]:
        values: list[float] = (np.stack(vectors[1:]) @ vectors[0]).tolist()
        return values

    parameters = _of_features(payload.parameters) | {"normalize": True}
    return Question(task="features", inputs=[source, *sentences], parameters=parameters, shape=cosines)


def _of_vectors(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the runtime's parameters for the names that other servers' clients have for them."""
    given = dict(parameters)
    direction = given.pop("truncation_direction", "right")
    if not isinstance(direction, str) or direction.lower() != "right":
        raise Unprocessable("truncation_direction is supported only as 'right': shorten the text yourself")
    if (written := given.pop("encoding_format", "float")) != "float":
        raise Unprocessable(f"encoding_format is 'float' here, not {excerpt(written, 40)}: /v1/embeddings has base64")
    for theirs, ours in (("truncate", "truncation"), ("dimensions", "truncate_dim")):
        if theirs in given:
            given[ours] = given.pop(theirs)
    return given


def _of_features(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of features, for a bundle without vectors of its own: by default the mean over tokens."""
    given = _of_vectors(parameters)
    if "prompt_name" in given:
        raise Unprocessable("prompt_name is not supported: the bundle has no prompts; write the prompt into the text")
    if "truncate_dim" in given:
        raise Unprocessable("dimensions is not supported: the bundle's vectors were not trained to be cut")
    return {"pooling": "mean", **given}


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


def question_answering(payload: Payload) -> Question:
    """Ask for answers that contexts give to questions; `text` and `text_pair` are a question and its context.

    `max_question_len` changes nothing, as in transformers with a fast tokenizer: no question is cut.
    """
    inputs, one = many(payload)
    number(payload.parameters, "max_question_len")
    parameters = {name: value for name, value in payload.parameters.items() if name != "max_question_len"}
    asked = [
        {"question": given["text"], "context": given["text_pair"]}
        if isinstance(given, dict) and given.keys() == {"text", "text_pair"}
        else given
        for given in inputs
    ]
    return plain("question-answering")(replace(payload, inputs=asked[0] if one else asked, parameters=parameters))


def judged_pairs(task: str) -> Callable[[Payload], Question]:
    """Return text classification by a task that judges pairs, for bundles without a classifier.

    Args:
        task: the runtime's task, whose answers have the probabilities of their labels.
    """

    def ask(payload: Payload) -> Question:
        inputs, _ = many(payload)
        for pair in inputs:
            if isinstance(pair, str) or (isinstance(pair, dict) and "text_pair" not in pair):
                raise Unprocessable(f"text-classification judges a pair of texts: send {payload.pair}")
        parameters = dict(payload.parameters)
        applied = parameters.pop("function_to_apply", "softmax")
        if applied != "softmax":
            raise Unprocessable(f"function_to_apply is 'softmax' here, not {excerpt(applied, 40)}")
        top_k = number(parameters, "top_k")
        parameters.pop("top_k", None)

        def labels(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
            rows = sorted(answer["probabilities"].items(), key=lambda pair: -pair[1])
            return [{"label": label, "score": score} for label, score in rows[:top_k]]

        return Question(
            task=task, inputs=inputs, parameters=parameters, shape=lambda answers: list(map(labels, answers))
        )

    return ask


def replaced_tokens(payload: Payload) -> Question:
    """Ask of each token whether it stands in place of another, as token classification."""
    parameters = dict(payload.parameters)
    strategy = parameters.pop("aggregation_strategy", "none")
    if strategy != "none":
        raise Unprocessable(f"aggregation_strategy is 'none' here, a row for each token, not {excerpt(strategy, 40)}")
    if "stride" in parameters:
        raise Unprocessable("stride is not supported: send a long text in pieces")
    return plain("replaced-tokens")(replace(payload, parameters=parameters))
