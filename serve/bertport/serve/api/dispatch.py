"""From inputs to answers: tokenize, queue, wait; and give up when the client does or the time is over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import BertportError, InputTextError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import (
    DEFAULT_TOP_K,
    EMBEDDING,
    HIDDEN_STATES,
    POOLER,
    QUESTION_ANSWERING,
    head_of,
    is_per_token,
    output_of,
)
from bertport.runtime.tasks import fill_mask
from bertport.runtime.tasks.inputs import MOST_ROWS, Parts
from bertport.runtime.tasks.table import Several, joined, rows, texts_of, weight
from bertport.runtime.text.steps import drained
from bertport.serve.api import tasks
from bertport.serve.errors import BodyTimeout, Overloaded, TimeUp, TooLarge, Unprocessable, problem_of
from bertport.serve.http.wire import JSON_NUMBER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from starlette.requests import Request

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.table import Call, Prepared, Read, Work
    from bertport.runtime.text.steps import Steps
    from bertport.serve.api.payload import Payload
    from bertport.serve.api.questions import Question
    from bertport.serve.engine.pieces import Pieces
    from bertport.serve.engine.worker import Job, ModelWorker, RawWork
    from bertport.serve.observability.context import RequestContext
    from bertport.serve.settings import Limits
    from bertport.serve.state import Service

__all__ = ["INLINE_CHARACTERS", "VARIANT_HEADER", "ask", "in_time", "run", "tell", "using", "variant_of"]

VARIANT_HEADER = "x-bertport-variant"
INLINE_CHARACTERS = 4000
"""Texts up to this size are tokenized in the event loop, in about a millisecond at most: handing them to another
thread costs as much. Longer ones would delay every other request."""
TEXT_WEIGHT = 64
"""Weight of a text beside its characters, in characters; a target that is in no vocabulary weighs as much."""
WORD_BYTES = 160
"""Bytes of a word in an answer of fill-mask, beside the text that it stands in."""
WORD_TOKENS = 64
"""Tokens that the texts of an answer's words may have on average, where there are as many words as there may be."""
TOKEN_BYTES = 8
"""Bytes of a token in that text, about."""
INLINE_ROWS = 32
"""Rows whose answers are put together in the event loop."""
ANSWER_BYTES = 120
"""Bytes of an answer that is labels, beside them."""
LABEL_BYTES = 40
"""Bytes of a label with its score, beside its characters, each at most six bytes as JSON."""
ROW_BYTES = 160
"""Bytes of a row of a token: its label and its other fields."""
VECTORS = frozenset({HIDDEN_STATES, output_of(POOLER), output_of(EMBEDDING)})
"""The outputs whose answers are vectors."""


@asynccontextmanager
async def in_time(context: RequestContext, seconds: float) -> AsyncIterator[None]:
    """Bound a request's time; the phase that it was in when the time was over decides the error.

    Raises:
        BodyTimeout, Overloaded, TimeUp: when the time is over.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        if context.phase == "body":
            raise BodyTimeout(
                f"the request did not arrive within {seconds:g} seconds", headers={"connection": "close"}
            ) from None
        if context.phase in ("prepare", "queue"):
            where = "to be tokenized" if context.phase == "prepare" else "in the queue"
            raise Overloaded(
                f"the request waited {seconds:g} seconds {where}: try again later", retry_after=seconds
            ) from None
        raise TimeUp(f"the answer was not ready within {seconds:g} seconds: send less at once") from None


def variant_of(request: Request) -> str | None:
    """Return the variant that a request names, in its query or else in a header; None where it names none."""
    named: str | None = request.query_params.get("variant") or request.headers.get(VARIANT_HEADER)
    return named


@contextmanager
def using(worker: ModelWorker) -> Iterator[None]:
    """Keep a worker open while a request needs it."""
    worker.users += 1
    try:
        yield
    finally:
        worker.users -= 1


async def ask(
    request: Request,
    worker: ModelWorker,
    name: str,
    payload: Payload,
    accept: Callable[[Question], None] = lambda _: None,
) -> tuple[Question, list[Any], int]:
    """Ask a variant what a body asks.

    Args:
        request: the request that the work belongs to.
        worker: the variant.
        name: the wire task.
        payload: the body, read.
        accept: raises a Problem where the question does not suit; called before anything is tokenized.

    Returns:
        The question, its answers in order, and the bytes that they take as JSON, about; the request holds as many.

    Raises:
        Problem: why there are none.
    """
    service: Service = request.state.service
    context: RequestContext = request.state.context
    limits = service.settings.limits
    context.phase = "prepare"
    context.task = name if name in tasks.WIRE_TASKS else ""
    try:
        question = tasks.question(name, payload, limits.max_items, worker.model.bundle.manifest.heads)
        accept(question)
        _check_targets(question.parameters, limits.max_candidates)
        size = _check_characters(chain.from_iterable(map(_strings, question.inputs)), limits.max_text_characters)
        strings = chain.from_iterable(
            _strings(parameter, limits.max_candidates) for parameter in question.parameters.values()
        )
        parameters_size = _check_characters(strings, limits.max_text_characters)
        if parameters_size <= INLINE_CHARACTERS or question.task != "fill-mask" or "targets" not in question.parameters:
            call = worker.model.resolve(question.task, **question.parameters)
        else:
            targets = fill_mask.finding_targets(question.parameters["targets"], worker.model.tokens)
            resolved = await service.pieces.run(targets, parameters_size)
            call = worker.model.resolve(question.task, **question.parameters | {"targets": resolved})
    except BertportError as error:
        raise problem_of(error) from error
    if call.note:
        tell(request, call.note)
    read, weighed = _read(call, question.inputs, limits)
    prepared = await _prepare(call, read, max(size, weighed), service.pieces, limits)
    works = [work for outcome in prepared for work in rows(outcome)]
    expected, arrays = _sizes(call, works, question.parameters, worker, limits)
    if any(isinstance(outcome, Several) for outcome in prepared):
        expected += size  # their answers may repeat what was given
    request.state.answer.grow(expected + arrays)
    answers = await run(request, worker, works, items=sum(map(len, map(texts_of, read))))
    if len(works) <= INLINE_ROWS:
        return question, drained(_joining(prepared, answers)), expected
    return question, await service.pieces.run(_joining(prepared, answers), len(works)), expected


def _read(call: Call, inputs: Sequence[object], limits: Limits) -> tuple[list[Read], int]:
    """Return the inputs read, with no more rows than a request may have, and what they weigh together.

    Raises:
        TooLarge: when they make more rows, or longer ones together, than a request may have; nothing is tokenized yet.
    """
    read: list[Read] = []
    count = characters = weighed = 0
    for value in inputs:
        read.append(call.reading(value))
        count += len(texts_of(read[-1]))
        if count > limits.max_items:
            raise TooLarge(
                f"the request makes {count:,} texts to run, one for each part that is judged, and may make "
                f"{limits.max_items:,}: send fewer at once"
            )
        weighed += (one := weight(read[-1]))
        if isinstance(read[-1], Parts):
            characters += one
        if characters > limits.max_payload_bytes:  # what no body of single texts can have
            raise TooLarge(
                f"the request makes texts of more than {limits.max_payload_bytes:,} characters in all, since a text is "
                "run once for each part that is judged with it: shorten it, or send fewer parts at once"
            )
    return read, weighed


def tell(request: Request, note: str) -> None:
    """Tell the client something beside the answer, and the log once for each bundle."""
    context: RequestContext = request.state.context
    context.said = note
    request.state.service.tell(context.served.name if context.served else "", note)


async def _prepare(call: Call, read: Sequence[Read], size: int, pieces: Pieces, limits: Limits) -> list[Prepared]:
    """Tokenize inputs that were read, and that have so many characters in their rows, or were given in so many.

    Raises:
        Unprocessable: for the first input that the task cannot take.
        TooLarge: when their windows are more than a request may have.
    """
    if size <= INLINE_CHARACTERS:
        outcomes = drained(call.tokenizing(read, most=limits.max_items))
    else:
        outcomes = await pieces.run(call.tokenizing(read, most=limits.max_items), size)
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, InputTextError):
            where = f"input {number}: " if len(outcomes) > 1 else ""
            raise Unprocessable(where + outcome.message)
    count = sum(len(rows(outcome)) for outcome in outcomes)
    if count > limits.max_items:
        raise TooLarge(
            f"the request's texts have {count:,} windows and may have {limits.max_items:,}: send fewer or shorter ones "
            "at once, or ask for longer windows or a smaller stride"
        )
    return outcomes


def _joining(prepared: Sequence[Prepared], answers: Iterable[Any]) -> Steps[list[Any]]:
    """Return the answers of inputs, joined from those of their rows, in steps of one input."""
    coming = iter(answers)
    whole = []
    for outcome in prepared:
        whole.append(joined(outcome, coming))
        if isinstance(outcome, Several):
            yield
    return whole


async def run(
    request: Request, worker: ModelWorker, works: Sequence[Work | RawWork], *, items: int | None = None
) -> list[Any]:
    """Queue work and wait for its answers.

    Args:
        request: the request that the work belongs to.
        worker: the variant.
        works: the rows.
        items: texts that they are, fewer than rows where some are windows of one text; None for as many.

    Raises:
        Overloaded: when there is no room for it.
        BackendFailure: when the model failed.
        Failed: when the variant can answer no more.
        ClientGone: when the client left, after which what has not begun never runs.
    """
    context: RequestContext = request.state.context
    job = worker.submit(works, ahead=request.state.service.registry.ahead(worker))
    context.phase, context.items, context.tokens = "queue", len(works) if items is None else items, job.tokens
    left = asyncio.ensure_future(_disconnect(request))
    left.add_done_callback(lambda task: _left(task, job))  # asyncio.wait on both would cost each request more
    try:
        return await job.future
    finally:
        left.cancel()
        _learn(context, job)
        if job.missing:
            worker.cancel(job)


def _learn(context: RequestContext, job: Job) -> None:
    if job.started:
        # What still waits of it when its time is over waits because of others: that is overload, not its own size.
        context.phase = "queue" if job.queued_items else "run"
        context.queued, context.run = job.started - job.added, job.run_seconds


async def _disconnect(request: Request) -> None:
    """Wait until the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _left(task: asyncio.Task[None], job: Job) -> None:
    """End a job whose client has left; an error on its connection is no other end."""
    if not task.cancelled():
        task.exception()
    job.leave()


def _strings(value: object, most: int = MOST_ROWS) -> Iterator[str]:
    """Yield the texts of an input or parameter, those in its lists and objects too.

    Of a list with more parts than any task takes there are none: its task refuses it.
    """
    match value:
        case str():
            yield value
        case dict() | list() if len(value) <= most:
            for part in value.values() if isinstance(value, dict) else value:
                if isinstance(part, str):
                    yield part
                elif isinstance(part, dict | list):
                    yield from _strings(part, most)


def _check_characters(texts: Iterable[str], most: int) -> int:
    """Return the characters of all texts, and what each costs beside them.

    Raises:
        TooLarge: when one of them has too many.
    """
    size = 0
    for text in texts:
        if len(text) > most:
            raise TooLarge(f"a text has {len(text):,} characters and may have {most:,}: send the part that is needed")
        size += len(text) + TEXT_WEIGHT
    return size


def _check_targets(parameters: dict[str, Any], most: int) -> None:
    """Refuse targets that are no words, or too many."""
    targets = parameters.get("targets")
    if targets is not None and not isinstance(targets, str | list):
        raise Unprocessable(f"targets is a word or a list of words, not {excerpt(targets, 40)}")
    if isinstance(targets, list) and len(targets) > most:
        raise Unprocessable(f"there are {len(targets)} targets and there may be {most}: send fewer")


def _sizes(
    call: Call, works: Sequence[Work], parameters: dict[str, Any], worker: ModelWorker, limits: Limits
) -> tuple[int, int]:
    """Return the bytes of an answer as JSON, about, and of the arrays that it is written from.

    Raises:
        Unprocessable, TooLarge: when the answer would be too large, before it is computed.
    """
    manifest = worker.model.bundle.manifest
    if call.task.decodes_masks:
        top_k = parameters.get("top_k") or DEFAULT_TOP_K
        words = top_k * sum(len(work.positions) for work in works)
        if words > limits.max_candidates:
            raise Unprocessable(
                f"the answer would have {words} words and may have {limits.max_candidates}: "
                "lower top_k, or send fewer masks at once"
            )
        tokens = sum(top_k * len(work.positions) * len(work.ids) for work in works)
        if tokens > WORD_TOKENS * limits.max_candidates:
            raise Unprocessable(
                f"the answer would have {words} words, each in its whole text, {tokens:,} tokens in all, and may have "
                f"{WORD_TOKENS * limits.max_candidates:,}: lower top_k, shorten the text, or send fewer masks at once"
            )
        size = WORD_BYTES * words + TOKEN_BYTES * tokens
        return min(size, limits.max_answer_bytes), size  # beside the words' own texts, which it is written from
    if call.output == output_of(QUESTION_ANSWERING):
        # As many spans of each window are looked at.
        spans = (parameters.get("top_k") or 1) * len(works)
        if spans > limits.max_candidates:
            raise Unprocessable(
                f"the answer is chosen of {spans:,} spans, top_k of each window, and may be of "
                f"{limits.max_candidates:,}: lower top_k, or send fewer or shorter contexts at once"
            )
        return min(spans * ANSWER_BYTES, limits.max_answer_bytes), 0
    if call.output not in VECTORS:
        size = len(works) * _label_bytes(manifest, call.output)
        if is_per_token(call.output):
            size = ROW_BYTES * sum(len(work.ids) for work in works)
        if size > limits.max_answer_bytes:
            raise TooLarge(
                f"the answer would have about {size:,} bytes and may have {limits.max_answer_bytes:,}: "
                "send fewer texts at once"
            )
        return size, 0
    entry = manifest.heads.get(EMBEDDING)
    embedding = entry.embedding if entry and call.output == output_of(EMBEDDING) else None
    width = embedding.dimension if embedding else manifest.architecture.hidden_size
    pooled = call.output != HIDDEN_STATES or parameters.get("pooling", "none") != "none"
    numbers = width * (len(works) if pooled else sum(len(work.ids) for work in works))
    if JSON_NUMBER * numbers > limits.max_answer_bytes:
        raise TooLarge(
            f"the answer would have about {JSON_NUMBER * numbers:,} bytes and may have {limits.max_answer_bytes:,}: "
            'send fewer texts at once, or ask for "pooling": "mean"'
        )
    return JSON_NUMBER * numbers, 4 * numbers


def _label_bytes(manifest: Manifest, output: str) -> int:
    """Return the bytes of an answer that has all labels of a head, about."""
    head = head_of(output)
    entry = manifest.heads.get(head.name) if head else None
    return ANSWER_BYTES + sum(LABEL_BYTES + 6 * len(label) for label in (entry and entry.labels) or ())
