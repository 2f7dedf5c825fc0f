"""Errors in the form that the clients of each address know, by the address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.serve.errors import (
    BackendFailure,
    Empty,
    Failed,
    Loading,
    MissingHead,
    NotFound,
    Overloaded,
    Problem,
    TimeUp,
    Unauthorized,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OPENAI", "TEI", "Dialect", "dialect_of"]

SERVERS = 500
"""From this status on, the server is at fault."""
UNPROCESSABLE, BAD = 422, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One row: how errors are written."""

    name: str
    """The server whose clients know this form."""
    paths: frozenset[str]
    """The addresses that they ask."""
    body: Callable[[Problem], dict[str, Any]]
    """From a problem to the JSON of its answer."""
    status: Callable[[Problem], int] = lambda problem: problem.status
    """From a problem to the status of its answer."""


def _openai_body(problem: Problem) -> dict[str, Any]:
    kind = "server_error" if problem.status >= SERVERS else "invalid_request_error"
    codes = {Unauthorized: "invalid_api_key", NotFound: "model_not_found", Overloaded: "rate_limit_exceeded"}
    code = codes.get(type(problem), problem.reason)
    return {"error": {"message": problem.message, "type": kind, "param": None, "code": code}}


def _tei_body(problem: Problem) -> dict[str, Any]:
    match problem:
        case Empty():
            kind = "Empty"
        case Overloaded():
            kind = "Overloaded"
        case Loading() | Failed():
            kind = "Unhealthy"
        case BackendFailure() | MissingHead() | TimeUp():
            kind = "Backend"
        case _:
            kind = "Backend" if problem.status >= SERVERS else "Validation"
    return problem.to_json() | {"error_type": kind}


HUB = Dialect(name="Hub", paths=frozenset(), body=lambda problem: problem.to_json())
"""Every other address: `{"error": sentence, "error_type": reason}`."""
OPENAI = Dialect(
    name="OpenAI",
    paths=frozenset({"/v1/embeddings"}),
    body=_openai_body,
    # Its clients know 400 for all that is wrong with a request.
    status=lambda problem: BAD if problem.status == UNPROCESSABLE else problem.status,
)
TEI = Dialect(
    name="Text Embeddings Inference",
    paths=frozenset({"/embed", "/rerank", "/predict"}),
    body=_tei_body,
    # Its clients know 424 for a model of another kind.
    status=lambda problem: BackendFailure.status if isinstance(problem, MissingHead) else problem.status,
)


def dialect_of(path: str) -> Dialect:
    """Return the dialect of an address."""
    return next((dialect for dialect in (OPENAI, TEI) if path in dialect.paths), HUB)
