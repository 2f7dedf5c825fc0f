"""The Hub's inference format: `POST /` and `POST /models/{name}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from bertport.runtime.errors import BertportError
from bertport.serve import answering, tasks
from bertport.serve.body import parse_json, read_body
from bertport.serve.problems import TooLarge, Unprocessable, problem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from bertport.runtime.tasks import Call, Work
    from bertport.serve.lane import Lane
    from bertport.serve.service import Service

__all__ = ["TASK_HEADER", "VARIANT_HEADER", "answer", "check_size", "check_targets", "encode"]

VARIANT_HEADER = "x-bertport-variant"
TASK_HEADER = "x-bertport-task"
NUMBER_BYTES = 12
"""Of a float32 in JSON, comma included: about."""


async def answer(request: Request) -> Response:
    """Answer a body in the Hub's format."""
    service: Service = request.state.service
    note = request.state.note
    limits = service.settings.limits
    async with answering.in_time(note, limits.request_timeout):
        with service.gate.enter() as hold:
            hosted, lane = service.hosts.find(
                request.path_params.get("name"),
                request.query_params.get("variant") or request.headers.get(VARIANT_HEADER),
            )
            note.hosted, note.lane = hosted, lane
            with answering.using(lane):
                payload = tasks.read_payload(parse_json(await read_body(request, hold, limits.max_payload_bytes)))
                name = (
                    request.path_params.get("task")
                    or request.query_params.get("task")
                    or request.headers.get(TASK_HEADER)
                    or tasks.choose(payload, lane.model.tokens.mask_token)
                )
                note.task = name if name in tasks.WIRE_TASKS else ""
                try:
                    question = tasks.question(name, payload, limits.max_items)
                    check_targets(question.parameters, limits.max_candidates)
                    call = lane.model.bind(question.task, **question.parameters)
                except BertportError as error:
                    raise problem_of(error) from error
                works = await answering.prepare(call, question.inputs, service.pool)
                check_size(call, works, question.parameters, lane, service)
                answers = await answering.run(request, service.hosts, note, lane, works)
                return encode(question.shape(answers))


def encode(value: object) -> Response:
    """Give JSON, arrays included."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def check_targets(parameters: dict[str, Any], most: int) -> None:
    """Refuse targets that are no words, or too many."""
    targets = parameters.get("targets")
    if targets is not None and not isinstance(targets, str | list):
        message = f"targets is a word or a list of words, not {targets!r:.40}"
        raise Unprocessable(message)
    if isinstance(targets, list) and len(targets) > most:
        message = f"there are {len(targets)} targets and there may be {most}"
        raise Unprocessable(message)


def check_size(call: Call, works: Sequence[Work], parameters: dict[str, Any], lane: Lane, service: Service) -> None:
    """Refuse, before it is computed, an answer that would be too large."""
    limits = service.settings.limits
    if call.task.decodes_masks:
        top_k = parameters.get("top_k") or 5
        words = top_k * sum(len(work.positions) for work in works)
        if words > limits.max_candidates:
            message = (
                f"the answer would have {words} words and may have {limits.max_candidates}: "
                "lower top_k, or send fewer masks at once"
            )
            raise Unprocessable(message)
    elif call.output == "last_hidden_state" and parameters.get("pooling", "none") == "none":
        size = NUMBER_BYTES * lane.model.bundle.manifest.architecture.hidden_size * sum(len(work.ids) for work in works)
        if size > limits.max_answer_bytes:
            message = (
                f"the answer would have about {size:,} bytes and may have {limits.max_answer_bytes:,}: "
                'send fewer texts at once, or ask for "pooling": "mean"'
            )
            raise TooLarge(message)
