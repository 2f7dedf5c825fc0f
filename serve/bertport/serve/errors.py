"""Errors of a request: a status, a reason for the metrics, and a sentence for the client."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bertport.runtime.errors import BertportError, BundleError, MissingHeadError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "REASONS",
    "BackendFailure",
    "BadRequest",
    "BodyTimeout",
    "ClientGone",
    "Conflict",
    "Empty",
    "Failed",
    "Forbidden",
    "Loading",
    "MissingHead",
    "NotFound",
    "Overloaded",
    "Problem",
    "TimeUp",
    "TooLarge",
    "Unauthorized",
    "Unprocessable",
    "UnsupportedEncoding",
    "problem_of",
]

LOADING_SECONDS = 2.0
"""Seconds that clients are told to wait while bundles are loaded: most are there by then, and asking again is free."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Problem(Exception):  # noqa: N818 — it is an answer, and most are the client's doing
    """An answer that is no result: `{"error": message, "error_type": reason}` with a status."""

    status = 500
    reason = "internal"

    def __init__(self, message: str, *, headers: Mapping[str, str] = NO_HEADERS) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers

    def to_json(self) -> dict[str, object]:
        """Return the body of the answer."""
        return {"error": self.message, "error_type": self.reason}


class BadRequest(Problem):
    """A body that cannot be read, or is empty."""

    status = 400
    reason = "bad_request"


class Empty(BadRequest):
    """A body with an empty list in place of texts."""


class Unauthorized(Problem):
    """A missing or wrong API key."""

    status = 401
    reason = "unauthorized"


class Forbidden(Problem):
    """Error for a request that the server was not told to allow."""

    status = 403
    reason = "forbidden"


class NotFound(Problem):
    """An unknown path, bundle or variant."""

    status = 404
    reason = "not_found"


class BodyTimeout(Problem):
    """A body that did not arrive in time."""

    status = 408
    reason = "body_timeout"


class Conflict(Problem):
    """Error for a request that cannot be met in the present state."""

    status = 409
    reason = "conflict"


class TooLarge(Problem):
    """More bytes or items than a request may have."""

    status = 413
    reason = "too_large"


class UnsupportedEncoding(Problem):
    """A content encoding other than gzip and deflate."""

    status = 415
    reason = "unsupported_encoding"


class Unprocessable(Problem):
    """A text or parameter that the task cannot take."""

    status = 422
    reason = "unprocessable"


class MissingHead(Unprocessable):
    """A task that the bundle has no head for."""


class BackendFailure(Problem):
    """The model failed on this input."""

    status = 424
    reason = "backend"


class Overloaded(Problem):
    """More work than the server takes on; try again after some seconds."""

    status = 429
    reason = "overloaded"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, headers={"retry-after": str(max(1, round(retry_after)))})


class ClientGone(Problem):
    """The client closed its connection before the answer, so this answer is not read."""

    status = 499
    reason = "client_gone"


class Loading(Problem):
    """The bundles are not loaded yet, or the server is stopping."""

    status = 503
    reason = "loading"

    def __init__(self, message: str, *, estimated_time: float = LOADING_SECONDS) -> None:
        super().__init__(message, headers={"retry-after": str(max(1, round(estimated_time)))})
        self.estimated_time = estimated_time

    def to_json(self) -> dict[str, object]:
        """Return the body of the answer, with the field that Hub clients know."""
        return super().to_json() | {"estimated_time": self.estimated_time}


class Failed(Problem):
    """A part of the server has ended, so that this cannot be answered until it is started anew."""

    status = 503
    reason = "failed"


class TimeUp(Problem):
    """The answer was not ready within the time per request."""

    status = 504
    reason = "time_up"


REASONS: tuple[str, ...] = tuple(sorted({Problem.reason, *(problem.reason for problem in Problem.__subclasses__())}))
"""Every reason, for metrics that are complete before the first request."""


def problem_of(error: BertportError) -> Problem:
    """Return the answer for an error of the runtime.

    The client's mistake is 422, an output that is no number 424, anything else 500 without details.
    """
    if isinstance(error, MissingHeadError):
        return MissingHead(error.message)
    if isinstance(error, UsageError):
        return Unprocessable(error.message)
    if isinstance(error, OutputError):
        return BackendFailure("the model gives no finite numbers for this input: choose another variant")
    if isinstance(error, BundleError):
        return Problem("the bundle cannot be read: the server's log says more")
    return Problem("the request failed: the server's log says more")
