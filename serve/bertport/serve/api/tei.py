"""The addresses of Text Embeddings Inference: `/embed`, `/predict` and `/rerank`, for the first bundle that can."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from bertport.runtime.excerpts import excerpt
from bertport.serve.api import dispatch
from bertport.serve.api.fields import fields_of, flag, number, texts_of
from bertport.serve.api.payload import Payload, too_many
from bertport.serve.api.questions import MEANS
from bertport.serve.api.tasks import PROMPTED, TEXT, TEXTS, TRUNCATE, wire_names
from bertport.serve.errors import Empty, Unprocessable
from bertport.serve.http import wire
from bertport.serve.http.reading import read_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from bertport.serve.state import Service

__all__ = ["EMBED", "PREDICT", "RERANK", "embed", "predict", "rerank"]

FEATURES, CLASSES, RANKING = "feature-extraction", "text-classification", "text-ranking"
"""The tasks of the addresses, as the Hub's clients name them."""
EMBED: dict[str, dict[str, Any]] = {
    "inputs": {"oneOf": [TEXT, TEXTS]},
    **TRUNCATE,
    "normalize": {"type": "boolean", "default": True, "description": "scale vectors to length 1"},
    **PROMPTED,
}
"""JSON schema of each field of `/embed`."""

SENT_PAIR = '{"inputs": ["A", "B"]}, or {"inputs": [["A", "B"], ["C", "D"]]} for several'
"""Form of a pair of texts here, for error messages."""
PAIRED = TEXTS | {"maxItems": 2}
PREDICT: dict[str, dict[str, Any]] = {
    "inputs": {
        "oneOf": [TEXT, PAIRED, {"type": "array", "items": PAIRED, "minItems": 1}],
        "description": "a text; two texts are a pair; a list of lists of one or two texts is a batch",
    },
    **TRUNCATE,
    "raw_scores": {"type": "boolean", "default": False, "description": "logits, not what is made of them"},
}
"""JSON schema of each field of `/predict`."""
RERANK: dict[str, dict[str, Any]] = {
    "query": TEXT,
    "texts": TEXTS,
    **TRUNCATE,
    "raw_scores": {"type": "boolean", "default": False, "description": "logits, not their sigmoid"},
    "return_text": {"type": "boolean", "default": False, "description": "give each text too"},
}
"""JSON schema of each field of `/rerank`."""


async def embed(request: Request) -> Response:
    """Answer with a list of vectors, also for one text."""
    async with _asked(request, FEATURES, EMBED, ("inputs",)) as given:
        texts = texts_of("inputs", given["inputs"])
        parameters = {
            **_truncation(given),
            "normalize": flag(given, "normalize", default=True),
            "dimensions": number(given, "dimensions"),
            "prompt_name": given.get("prompt_name"),
        }
        question, vectors, expected = await _ask(request, FEATURES, texts, parameters)
        if question.task == "features":
            dispatch.tell(request, MEANS)
        return await wire.answer(request, vectors, expected=expected)


async def predict(request: Request) -> Response:
    """Answer with all labels of a text or pair, best first; of a batch with a list of such lists."""
    async with _asked(request, CLASSES, PREDICT, ("inputs",)) as given:
        inputs, one = _texts_or_pairs(given["inputs"])
        parameters = _cut(given)
        if flag(given, "raw_scores", default=False):
            parameters["function_to_apply"] = "none"
        question, answers, expected = await _ask(request, CLASSES, inputs, parameters)
        ranked = question.shape(answers)
        return await wire.answer(request, ranked[0] if one else ranked, expected=expected)


async def rerank(request: Request) -> Response:
    """Answer with the place of each text in the list given, and its score, the best first."""
    async with _asked(request, RANKING, RERANK, ("query", "texts")) as given:
        query, texts = given["query"], texts_of("texts", given["texts"], one=False)
        if not isinstance(query, str):
            raise Unprocessable(f"query is a text, not {excerpt(query, 40)}")
        if len(texts) > (most := request.state.service.settings.limits.max_items):
            raise too_many(len(texts), most)
        parameters = {
            **_cut(given),
            # The sigmoid also where the model itself states another function: this is what the address means.
            "function_to_apply": "none" if flag(given, "raw_scores", default=False) else "sigmoid",
            "return_documents": flag(given, "return_text", default=False),
        }
        _, [ranked], expected = await _ask(request, RANKING, [{"query": query, "documents": texts}], parameters)
        scored = [{"index": document.pop("corpus_id"), **document} for document in ranked]
        return await wire.answer(request, scored, expected=expected)


def _texts_or_pairs(value: object) -> tuple[list[Any], bool]:
    """Return the texts and pairs of `inputs`, and whether there is one alone: two texts in a list are a pair."""
    match value:
        case str() | [str(), *_]:
            return [_text_or_pair(value)], True
        case []:
            raise Empty("inputs is empty: send at least one text")
        case [*batch]:
            return [_text_or_pair(part) for part in batch], False
    raise Unprocessable(f"inputs is a text, a pair of texts or a list of such lists, not {excerpt(value, 40)}")


def _text_or_pair(value: object) -> Any:  # noqa: ANN401 — a text or a pair
    match value:
        case str(text) | [str(text)]:
            return text
        case [str(first), str(second)]:
            return [first, second]
    raise Unprocessable(
        f"inputs holds {excerpt(value, 40)}, which is neither a text nor a pair: a batch is a list of lists of one or "
        'two texts, such as [["A"], ["B", "C"]]'
    )


@asynccontextmanager
async def _asked(
    request: Request, task: str, known: Mapping[str, object], needed: tuple[str, ...]
) -> AsyncIterator[dict[str, Any]]:
    """Admit a request, find the first bundle that can do its task, or else the first, and read its fields."""
    service: Service = request.state.service
    context = request.state.context
    async with dispatch.in_time(context, service.settings.limits.request_timeout):
        with service.admission.enter():
            name = service.registry.first(lambda served: task in wire_names(served.tasks))
            context.served, context.worker = service.registry.find(name, dispatch.variant_of(request))
            with dispatch.using(context.worker):
                yield fields_of(await read_json(request), known, needed)


async def _ask(
    request: Request, task: str, inputs: list[Any], parameters: Mapping[str, object]
) -> tuple[Any, list[Any], int]:
    """Ask the variant of a request a task."""
    return await dispatch.ask(
        request, request.state.context.worker, task, Payload.of(inputs, parameters, pair=SENT_PAIR)
    )


def _truncation(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of truncation by the names that feature extraction has for them."""
    return {
        "truncate": flag(given, "truncate", default=False),
        "truncation_direction": given.get("truncation_direction"),
    }


def _cut(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameter of truncation by the name that other tasks have for it."""
    if given.get("truncation_direction", "right") not in ("right", "Right"):
        raise Unprocessable("truncation_direction is supported only as 'Right': shorten the text yourself")
    return {"truncation": flag(given, "truncate", default=False)}
