"""The application: routes, and what surrounds every one of them."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
from typing import TYPE_CHECKING

import orjson
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route, Router

from bertport.runtime.errors import BertportError
from bertport.serve.api import huggingface, open_inference, openai, operations, page, tei
from bertport.serve.api.dialects import dialect_of
from bertport.serve.api.dispatch import VARIANT_HEADER
from bertport.serve.errors import BadRequest, ClientGone, NotFound, Problem, Unauthorized, problem_of
from bertport.serve.http.admission import Reservation
from bertport.serve.http.allowed import AllowedHosts
from bertport.serve.http.wire import read_out
from bertport.serve.observability.context import RequestContext
from bertport.serve.observability.metrics import OTHER
from bertport.serve.observability.tracing import tracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from bertport.serve.state import Service

__all__ = ["OPEN", "make_app"]

_LOG = logging.getLogger(__name__)

OPEN = frozenset({"/health", "/ready", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no API key: what asks whether a server is up has none."""
METRICS = "/metrics"
"""Path of the counters, which are answered whatever clients have not read."""

SANE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
"""Request ids that are taken over from the client: nothing that could break a line of a log or of a header."""
ERRORS = 400
"""From this status on, an answer is a sentence, too small to be counted."""
NOTE_HEADER = b"x-bertport-note"
"""Notes on a request's parameters for the client, beside the answer."""
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


def make_app(service: Service) -> ASGIApp:
    """Return the ASGI application."""
    routes = [
        # Most requests are for the first of the table, and each route that is tried takes its time.
        Route("/", huggingface.answer, methods=["POST"]),
        Route("/tasks/{task}", huggingface.answer, methods=["POST"]),
        Route("/v1/embeddings", openai.embeddings, methods=["POST"]),
        Route("/embed", tei.embed, methods=["POST"]),
        Route("/predict", tei.predict, methods=["POST"]),
        Route("/rerank", tei.rerank, methods=["POST"]),
        *page.routes(),
        Route("/models", operations.models),
        # Names keep their slashes, so what follows a name comes before it in the table.
        Route("/models/{name:path}/tasks/{task}", huggingface.answer, methods=["POST"]),
        Route("/models/{name:path}", huggingface.answer, methods=["POST"]),
        Route("/v2", open_inference.server),
        Route("/v2/health/live", open_inference.live),
        Route("/v2/health/ready", open_inference.ready),
        *_versioned("/ready", open_inference.model_ready, "GET"),
        *_versioned("/infer", open_inference.infer, "POST"),
        *_versioned("", open_inference.model, "GET"),
        Route("/health", operations.health),
        Route("/ready", operations.ready),
        Route("/info", operations.info),
        Route(METRICS, operations.metrics),
        Route("/reload", operations.reload, methods=["POST"]),
    ]
    app: ASGIApp = Front(Router(routes, redirect_slashes=False), service)
    if service.settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # clients in browsers add some of their own, as OpenAI's does x-stainless-lang
            expose_headers=[
                VARIANT_HEADER,
                open_inference.JSON_SIZE,
                "x-request-id",
                "retry-after",
                "server-timing",
                NOTE_HEADER.decode(),
            ],
        )
    return app


def _versioned(end: str, handler: Callable[[Request], Awaitable[Response]], method: str) -> list[Route]:
    """Return a model's address with and without a version."""
    return [
        Route(f"/v2/models/{{name:path}}{version}{end}", handler, methods=[method])
        for version in ("/versions/{version}", "")
    ]


class Front:
    """Surrounds every request: its id, the API key, errors as JSON, its line in the log, its count."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        key = service.settings.api_key
        self._key = None if key is None else key.encode()
        self._hosts = AllowedHosts(service.settings.allowed_hosts, service.settings.host)
        self._tracing = tracing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; never with a stack trace."""
        if scope["type"] != "http":  # the server does not offer websockets
            return
        headers, path = dict(scope["headers"]), _route(scope)
        context = RequestContext(
            request_id=_request_id(headers.get(b"x-request-id")),
            method=scope["method"],
            path=scope["path"],
            client=(scope.get("client") or ("",))[0],
        )
        scope["app"] = self._app  # so that the router raises what it does not find
        admission = self._service.admission
        body = Reservation(admission.bodies)
        answer = Reservation(
            admission.probes if path in OPEN else admission.metrics if path == METRICS else admission.answers
        )
        scope["state"] = {"service": self._service, "context": context, "body": body, "answer": answer}
        span = self._tracing.begin(headers, context) if self._tracing else None
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                body.release()  # what it was is in the answer by now, which its client may take minutes to read
                if not answer.size and message["status"] < ERRORS:
                    answer.grow(
                        next((int(length) for name, length in message["headers"] if name == b"content-length"), 0)
                    )
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(context, message["headers"])]
            await send(message)

        try:
            if path not in OPEN:
                self._hosts.check(scope["headers"], scope.get("http_version", "1.0"))
            self._authorize(scope["method"], path, headers.get(b"authorization"))
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # Ray Serve cancels a request whose client left
            context.reason, status = ClientGone.reason, status or ClientGone.status
            raise
        except Exception as error:  # noqa: BLE001 — whatever it is, the client gets JSON, and the log the rest
            problem = self._problem(error, context)
            context.reason = problem.reason
            if not status and not isinstance(problem, ClientGone):
                await _response(problem, path)(scope, receive, send_with_headers)
            status = status or dialect_of(path).status(problem)
        finally:
            body.release()
            try:
                self._count(context, status)
                if self._tracing:
                    self._tracing.end(span, context, status)
                context.served = context.worker = None  # a connection keeps this, and would keep what a reload replaces
                await read_out(scope, answer)
            finally:
                answer.release()

    def _authorize(self, method: str, path: str, given: bytes | None) -> None:
        """Compare the key in constant time; without one, whatever clients send along is ignored."""
        if self._key is None:
            return
        if method in ("GET", "HEAD") and path in OPEN | page.OPEN_PAGES:
            return
        scheme, _, token = (given or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._key):
            raise Unauthorized(
                "this server needs its API key: send the header Authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )

    def _headers(self, context: RequestContext, there: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name for name, _ in there}
        more = [(b"x-request-id", context.request_id.encode()), *SECURITY_HEADERS]
        if context.queued is not None and context.run is not None:
            timing = f"queue;dur={1e3 * context.queued:.2f}, run;dur={1e3 * context.run:.2f}"
            more.append((b"server-timing", timing.encode()))
        if context.worker is not None:
            name = "".join(each if each.isprintable() else "?" for each in context.worker.variant)  # no line ends in it
            more.append((VARIANT_HEADER.encode(), name.encode("latin-1", "replace")))
        if context.said is not None:
            more.append((NOTE_HEADER, context.said.encode("ascii", "replace")))
        if self._service.admission.draining:
            more.append((b"connection", b"close"))
        return [(name, value) for name, value in more if name not in present]

    def _problem(self, error: Exception, context: RequestContext) -> Problem:
        match error:
            case Problem():
                return error
            case HTTPException(status_code=404):
                return NotFound(f"there is nothing at {context.path[:100]}: see /docs")
            case HTTPException():
                problem = BadRequest(
                    f"{context.method} {context.path[:100]}: {error.detail}", headers=error.headers or {}
                )
                problem.status = error.status_code
                return problem
            case BertportError():
                _LOG.error("%s", error.message, extra={"request_id": context.request_id})
                return problem_of(error)
        _LOG.error("a request failed", exc_info=error, extra={"request_id": context.request_id})
        return Problem("the server failed: its log says more, under this request's id")

    def _count(self, context: RequestContext, status: int) -> None:
        service = self._service
        bundle = context.served.name if context.served else OTHER
        variant = context.worker.variant if context.worker else OTHER
        if context.reason is not None:
            service.metrics.failed(bundle, variant, context.task, context.reason)
        elif context.task:
            service.metrics.answered(bundle, variant, context.task, context.items, context.seconds)
        if service.settings.access_log:
            _LOG.info("request", extra={"fields": context.to_json(status)})


def _route(scope: Scope) -> str:
    """Return a request's path, below the prefix at which Ray Serve may answer for this application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _request_id(given: bytes | None) -> str:
    """Return a client's request id if it is sane, or a new one."""
    if given is not None and SANE.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(8)


def _response(problem: Problem, path: str) -> Response:
    dialect = dialect_of(path)
    body, status = dialect.body(problem), dialect.status(problem)
    return Response(orjson.dumps(body), status, headers=dict(problem.headers), media_type="application/json")
