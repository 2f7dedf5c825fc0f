"""A body in the Hub's format: read, bounded, and the task that it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.runtime.heads import EMBEDDING, MLM, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.serve.errors import BadRequest, Empty, TooLarge, Unprocessable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["BY_FIELD", "Payload", "choose", "many", "read_payload", "too_many"]

IGNORED = frozenset({"options", "model"})
"""Fields at the root that clients send and that mean nothing here."""
OF_FEATURES = frozenset(
    {"normalize", "truncate", "truncation_direction", "prompt_name", "pooling", "dimensions", "encoding_format"}
)
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
    has_parameters: bool
    """Whether the body has the field `parameters`, if only an empty one."""
    at_root: frozenset[str]
    """Names of the parameters written at the root."""
    pair: str = '{"inputs": {"text": "A", "text_pair": "B"}}, or a list of such pairs'
    """Form of a pair of texts at the address that was asked, for error messages."""

    @classmethod
    def of(cls, inputs: list[Any], parameters: Mapping[str, Any], *, pair: str | None = None) -> Payload:
        """Return the body of inputs with those of the parameters that are not None."""
        given = {name: parameter for name, parameter in parameters.items() if parameter is not None}
        body = cls(inputs=inputs, parameters=given, has_parameters=True, at_root=frozenset())
        return body if pair is None else replace(body, pair=pair)


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
        if isinstance(value, dict) and not {"text", *BY_FIELD} & value.keys():
            raise BadRequest('the body has no field "inputs": send {"inputs": …}')
        return Payload(inputs=value, parameters={}, has_parameters=False, at_root=frozenset())
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
        has_parameters="parameters" in value,
        at_root=frozenset(at_root),
    )


BY_FIELD = {
    "source_sentence": "sentence-similarity",
    "question": "question-answering",
    "query": "text-ranking",
    "choices": "multiple-choice",
    "text_pair": "text-classification",
}
"""The tasks whose inputs are objects, by a field that inputs of no other task have."""
BY_PARAMETER = {
    "candidate_labels": "zero-shot-classification",
    "function_to_apply": "text-classification",
    **dict.fromkeys(sorted(OF_TOKENS), "token-classification"),
    "pooling": "feature-extraction",
    "normalize": "feature-extraction",
}
"""The tasks of texts, by a parameter that no other task has."""
OF_TEXTS = {
    SEQUENCE_CLASSIFICATION: "text-classification",
    TOKEN_CLASSIFICATION: "token-classification",
    EMBEDDING: "feature-extraction",
}
"""The task that a text alone is for, by head: the first of these heads that the bundle has decides."""


def choose(payload: Payload, mask_token: str | None, heads: Collection[str]) -> str:
    """Return the task that a body is for, where neither address nor header names it.

    Every client posts to the same address; what tells bodies apart is the shape of their inputs, then a parameter that
    one task alone has. A text alone is for the head that a fine-tuned model has. Of a text without a mask, `fill_mask`
    sends an empty `parameters` and `feature_extraction` none.

    Args:
        payload: the body.
        mask_token: the bundle's mask; None where it has none.
        heads: the heads of the bundle.
    """
    texts = payload.inputs if isinstance(payload.inputs, list) else [payload.inputs]
    first = texts[0] if texts else None
    if isinstance(first, list):
        return "text-classification"
    if isinstance(first, dict) and (named := next((BY_FIELD[field] for field in BY_FIELD if field in first), None)):
        return named
    if named := next((BY_PARAMETER[name] for name in BY_PARAMETER if name in payload.parameters), None):
        return named
    if payload.at_root & OF_FEATURES:
        return "feature-extraction"
    own = next((task for head, task in OF_TEXTS.items() if head in heads), None)
    masked = mask_token is not None and any(mask_token in _text(text) for text in texts)
    if own is not None and not (masked and MLM in heads):
        return own
    return "fill-mask" if masked or payload.has_parameters else "feature-extraction"


def _text(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("text")
    return value if isinstance(value, str) else ""


def many(payload: Payload) -> tuple[list[Any], bool]:
    """Return the inputs as a list, and whether the body has one input outside a list."""
    if isinstance(payload.inputs, list):
        if not payload.inputs:
            raise Empty('"inputs" is empty: send at least one text')
        return payload.inputs, False
    return [payload.inputs], True


def too_many(count: int, most: int) -> TooLarge:
    """Return the refusal of a request with more texts than one may have."""
    return TooLarge(f"the request has {count} texts and may have {most}: send them in several requests")
