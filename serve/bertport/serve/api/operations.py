"""Addresses for operators: liveness, readiness, served models, metrics."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from bertport.runtime.errors import BertportError
from bertport.serve.api.tasks import wire_names
from bertport.serve.errors import Conflict, Forbidden
from bertport.serve.http.wire import encode

if TYPE_CHECKING:
    from typing import Any

    from starlette.requests import Request

    from bertport.serve.state import Service

__all__ = ["health", "info", "metrics", "models", "ready", "reload"]

_LOG = logging.getLogger(__name__)


async def health(request: Request) -> Response:  # noqa: ARG001 — the signature of a handler
    """Return that the process is alive."""
    return encode({"status": "ok"})


async def ready(request: Request) -> Response:
    """Return whether every variant has made real predictions and can make more, and the server is not stopping."""
    service: Service = request.state.service
    service.check_ready()
    failed = {"failed": sorted(service.registry.failed)} if service.registry.failed else {}
    return encode({"status": "ready"} | failed)


async def models(request: Request) -> Response:
    """List the bundles and their variants, the default ones first."""
    service: Service = request.state.service
    service.registry.check_loaded()
    return encode(_served(service))


async def info(request: Request) -> Response:
    """Return what is served, by which versions, within which limits."""
    import platform
    from importlib.metadata import version

    service: Service = request.state.service
    packages = ("bertport", "onnxruntime", "tokenizers", "numpy", "starlette", "uvicorn")
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except ModuleNotFoundError:  # ONNX Runtime has several wheels
            continue
    return encode(
        {
            "versions": versions | {"python": platform.python_version()},
            "ready": service.registry.ready,
            "limits": service.settings.to_json(),
            "models": _served(service),
        }
    )


async def metrics(request: Request) -> Response:
    """Return the counters in Prometheus' text format."""
    service: Service = request.state.service
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


async def reload(request: Request) -> Response:
    """Load the bundles anew; only where there is an API key, which was checked before."""
    service: Service = request.state.service
    if service.settings.api_key is None:
        raise Forbidden("reloading over HTTP needs a server with --api-key: start it so, or send it the signal SIGHUP")
    try:
        await service.reload()
    except Conflict:
        raise
    except Exception as error:
        unexpected = None if isinstance(error, BertportError) else error
        _LOG.error("reload failed: %s", error, exc_info=unexpected)
        raise Conflict(
            "the bundles cannot be reloaded, and the old ones stay in use: the server's log says more"
        ) from error
    return encode(_served(service))


def _served(service: Service) -> list[dict[str, Any]]:
    """Return what each bundle is and where it runs, the default one first."""
    return [served.describe(wire_names(served.tasks)) for served in service.registry.served.values()]
