"""The Hub's inference format: `POST /` and `POST /models/{name}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.serve.api import dispatch, tasks
from bertport.serve.http import wire
from bertport.serve.http.reading import read_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from bertport.serve.state import Service

__all__ = ["TASK_HEADER", "VARIANT_HEADER", "answer"]

VARIANT_HEADER = "x-bertport-variant"
TASK_HEADER = "x-bertport-task"


async def answer(request: Request) -> Response:
    """Answer a body in the Hub's format."""
    service: Service = request.state.service
    note = request.state.note
    limits = service.settings.limits
    async with dispatch.in_time(note, limits.request_timeout):
        with service.gate.enter():
            hosted, lane = service.hosts.find(
                request.path_params.get("name"),
                request.query_params.get("variant") or request.headers.get(VARIANT_HEADER),
            )
            note.hosted, note.lane = hosted, lane
            with dispatch.using(lane):
                payload = tasks.read_payload(await read_json(request), limits.max_items)
                name = (
                    request.path_params.get("task")
                    or request.query_params.get("task")
                    or request.headers.get(TASK_HEADER)
                    or tasks.choose(payload, lane.model.tokens.mask_token)
                )
                question, answers, expected = await dispatch.ask(request, lane, name, payload)
                return await wire.answer(request, question.shape(answers), expected=expected)
