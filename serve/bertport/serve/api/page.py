"""The page and its files: read once, at start, from a fixed list; no request names a file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bertport.serve.api import openapi
from bertport.serve.http.wire import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

__all__ = ["OPEN_PAGES", "routes"]

FILES = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/tasks.js": ("tasks.js", "text/javascript"),
    "/page/views.js": ("views.js", "text/javascript"),
}
"""By path: the file, and its type."""

OPEN_PAGES = frozenset({*FILES, "/docs", "/openapi.json"})
"""Paths that a browser may GET without an API key: they say nothing of the bundles, and the page asks for the key."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No other host, no inline script or style, no frame."""
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


def routes() -> list[Route]:
    """Return the routes of the page, of its files and of the documentation."""
    place = files("bertport.serve.api") / "page"
    pages = [
        Route(path, _sends((place / name).read_bytes(), kind), methods=["GET"]) for path, (name, kind) in FILES.items()
    ]
    return [*pages, Route("/docs", _docs, methods=["GET"]), Route("/openapi.json", _document, methods=["GET"])]


def _sends(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:  # noqa: ARG001 — the signature of a handler
        return Response(content, media_type=kind, headers=HEADERS)

    return send


async def _docs(request: Request) -> Response:  # noqa: ARG001 — the signature of a handler
    return HTMLResponse(openapi.page(), headers=HEADERS)


async def _document(request: Request) -> Response:  # noqa: ARG001 — the signature of a handler
    return Response(_encoded(), media_type="application/json")


@cache
def _encoded() -> bytes:
    """Return the document as it is sent: it does not change, and making it takes a millisecond."""
    return bytes(encode(openapi.document()).body)
