"""The Hub's inference format: `POST /` and `POST /models/{name}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.serve.api import dispatch
from bertport.serve.api.payload import choose, read_payload
from bertport.serve.http import wire
from bertport.serve.http.reading import read_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from bertport.serve.state import Service

__all__ = ["TASK_HEADER", "answer"]

TASK_HEADER = "x-bertport-task"


async def answer(request: Request) -> Response:
    """Answer a body in the Hub's format."""
    service: Service = request.state.service
    context = request.state.context
    limits = service.settings.limits
    async with dispatch.in_time(context, limits.request_timeout):
        with service.admission.enter():
            served, worker = service.registry.find(request.path_params.get("name"), dispatch.variant_of(request))
            context.served, context.worker = served, worker
            with dispatch.using(worker):
                payload = read_payload(await read_json(request), limits.max_items)
                name = (
                    request.path_params.get("task")
                    or request.query_params.get("task")
                    or request.headers.get(TASK_HEADER)
                    or choose(payload, worker.model.mask_token, worker.model.bundle.manifest.heads)
                )
                question, answers, expected = await dispatch.ask(request, worker, name, payload)
                return await wire.answer(request, question.shape(answers), expected=expected)
