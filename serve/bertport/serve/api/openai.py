"""OpenAI's embeddings: `POST /v1/embeddings`, of the bundle that `model` names."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.excerpts import excerpt
from bertport.serve.api import dispatch
from bertport.serve.api.fields import fields_of, flag, number, texts_of
from bertport.serve.api.payload import Payload
from bertport.serve.api.questions import MEANS
from bertport.serve.api.tasks import PROMPTED, TEXT, TEXTS
from bertport.serve.errors import Unprocessable
from bertport.serve.http import wire
from bertport.serve.http.reading import read_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from bertport.serve.state import Service

__all__ = ["FIELDS", "embeddings"]

FORMATS = ("float", "base64")
FIELDS: dict[str, dict[str, Any]] = {
    "input": {"oneOf": [TEXT, TEXTS]},
    "model": {"type": "string", "description": "name of a bundle, as in /models; the first where it is left out"},
    "encoding_format": {"type": "string", "enum": list(FORMATS), "default": "float"},
    "dimensions": PROMPTED["dimensions"],
    "user": {"type": "string", "description": "ignored"},
    "truncate": {"type": "boolean", "default": False, "description": "cut a text that is too long instead of 400"},
    "prompt_name": PROMPTED["prompt_name"],
}
"""JSON schema of each field; the last two are this server's own."""


async def embeddings(request: Request) -> Response:
    """Answer with a vector of length 1 for each text, and the tokens that they have."""
    service: Service = request.state.service
    context = request.state.context
    async with dispatch.in_time(context, service.settings.limits.request_timeout):
        with service.admission.enter():
            given = fields_of(await read_json(request), FIELDS, ("input",))
            texts = texts_of("input", given["input"])
            written = given.get("encoding_format", FORMATS[0])
            if written not in FORMATS:
                raise Unprocessable(f"encoding_format is 'float' or 'base64', not {excerpt(written, 40)}")
            name = given.get("model") or None
            if name is not None and not isinstance(name, str):
                raise Unprocessable(f"model is the name of a bundle, not {excerpt(name, 40)}")
            context.served, context.worker = service.registry.find(name, dispatch.variant_of(request))
            with dispatch.using(context.worker):
                parameters = {
                    "normalize": True,
                    "truncate": flag(given, "truncate", default=False),
                    "dimensions": number(given, "dimensions"),
                    "prompt_name": given.get("prompt_name"),
                }
                question, vectors, expected = await dispatch.ask(
                    request, context.worker, "feature-extraction", Payload.of(texts, parameters)
                )
                if question.task == "features":
                    dispatch.tell(request, MEANS)
                write = _base64 if written == "base64" else lambda vector: vector
                rows = [
                    {"object": "embedding", "index": index, "embedding": write(vector)}
                    for index, vector in enumerate(vectors)
                ]
                usage = {"prompt_tokens": context.tokens, "total_tokens": context.tokens}
                value = {"object": "list", "data": rows, "model": context.served.name, "usage": usage}
                return await wire.answer(request, value, expected=expected)


def _base64(vector: Any) -> str:  # noqa: ANN401 — an array
    """Return a vector as its float32, the lowest byte first, in base64."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode()
