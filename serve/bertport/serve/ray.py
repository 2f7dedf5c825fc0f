"""The server on Ray Serve: replicas as the load needs them, and a change of bundle that loses no request.

`application` is what `serve.run` takes; `build` is what a command line or a configuration file of Ray Serve names;
`deploy` runs an application and returns when it answers, or says in a sentence why the old one goes on.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import without_gpu
from bertport.runtime.errors import BertportError, MissingDependencyError, PathError, ProviderError, UsageError
from bertport.runtime.excerpts import one_line
from bertport.runtime.providers.table import PROVIDERS
from bertport.serve.cli import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    Bundles = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    """One bundle or several."""

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from bertport.serve.settings import Asked, Settings
    from bertport.serve.state import Service

__all__ = ["Replica", "application", "build", "deploy"]

DEPLOYMENT = "bertport"
"""Name of the deployment, and of the application where no other is given."""
REFUSED = frozenset({"host", "port", "drain_seconds", "max_connections"})
"""Options of `bertport serve` about its socket: here Ray Serve's proxies listen."""
RESTRICTIONS = ("allowed_hosts", "api_key", "cors_origin", "memory", "revision")
"""Options that restrict: null, which a template writes for a variable that is not set, would lift them."""
EVERYWHERE = "0.0.0.0"  # noqa: S104 — nothing listens there: a proxy's clients may name any host
TARGET = 16
"""Requests in a replica that it is scaled for: enough for its batches, and answered within some of them."""
ROOM = 4
"""Times the target that a replica takes on; what is beyond waits in the proxies and goes to the next that is free."""
SURGE_PERCENT = 25
"""Share of the replicas that a change starts beside the old ones, which answer until these are ready; one at least."""
TRIES = 3
"""Times that a replica is started before a change is given up. A file system that was late may be there by then."""
LAST_SECONDS = 5.0
"""Beyond the time per request, for the requests of a replica that is stopped."""
SECONDS = 600.0
"""Default of the seconds that `deploy` waits."""
SAID = re.compile(r"^(?:\w+\.)*(?:\w*Error|RayActorError\b.*): (?P<sentence>.+)$", re.MULTILINE)
"""The last line of a traceback."""
USAGE = "RAY_USAGE_STATS_ENABLED"


class Closing:
    """The application, which closes what it asks when Ray Serve ends its replica.

    Args:
        answer: the application.
        service: what it asks.
    """

    def __init__(self, answer: ASGIApp, service: Service) -> None:
        self._answer = answer
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or see the replica's life through."""
        if scope["type"] != "lifespan":

            async def send_without_id(message: Message) -> None:
                if (
                    message["type"] == "http.response.start"
                ):  # a proxy gave the request its id, and says it to the client
                    message["headers"] = [each for each in message["headers"] if each[0] != b"x-request-id"]
                await send(message)

            await self._answer(scope, receive, send_without_id)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        self._service.admission.draining = True
        await self._service.close()
        await send({"type": "lifespan.shutdown.complete"})


class Replica:
    """One process that answers: `bertport serve` without its socket; it is there when each variant has answered.

    Args:
        settings: of the server.

    Raises:
        BertportError: where a bundle cannot be served.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        from bertport.serve.app import make_app
        from bertport.serve.state import Service

        self._service = Service(settings)
        self._answer = make_app(self._service)
        try:
            await self._service.registry.load()
            self._service.check_ready()
        except BertportError as error:
            raise error.with_traceback(None) from None

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application that answers requests."""
        return Closing(self._answer, self._service)

    async def check_health(self) -> None:
        """Check that `/ready` would say yes; Ray Serve replaces a replica that raises here.

        Raises:
            Problem: as `/ready` answers it.
        """
        self._service.check_ready()


def application(  # noqa: PLR0913 — settings, each with a default
    bundles: Bundles = (),
    *,
    min_replicas: int = 1,
    max_replicas: int | None = None,
    target_requests: float = TARGET,
    upscale_seconds: float = 5.0,
    downscale_seconds: float = 300.0,
    gpus: float = 0.0,
    **options: Any,  # noqa: ANN401 — those of the command line, by name
) -> Any:  # noqa: ANN401 — Ray's class
    """Return the server as an application for `ray.serve.run`; each bundle is checked here and pinned by its digest.

    Args:
        bundles: as `bertport serve` takes them, `[NAME=]BUNDLE[@sha256:DIGEST]`, the default one first; the embedded
            one where there are none. Each path has to be there on every node; one that is not on this machine needs
            its digest.
        min_replicas: replicas that are always there.
        max_replicas: replicas under load; None for as many as always.
        target_requests: requests in a replica, running or waiting, beyond which another is started.
        upscale_seconds: how long there have to be more before that.
        downscale_seconds: how long there have to be fewer before one is stopped.
        gpus: what of a GPU each replica has for itself; with none, the provider `auto` is `cpu`.
        options: of `bertport serve`, by their names with underscores: `variant="int8-dynamic"`, `threads=2`, a list for
            what may be repeated. `threads` is also the number of cores that a replica asks Ray for, 1 by default.

    Raises:
        UsageError: for an option that is unknown or about a socket, and for a number that cannot be.
        PathError, BundleError: for a bundle that is not there, or damaged.
        MissingDependencyError: without Ray Serve.
    """
    most = min_replicas if max_replicas is None else max_replicas
    if not 1 <= min_replicas <= most:
        raise UsageError(
            f"min_replicas is {min_replicas} and max_replicas {most}: give 1 or more, and no fewer for the most"
        )
    if not (target_requests > 0 and math.isfinite(ROOM * target_requests)):
        raise UsageError(f"target_requests is {target_requests} and has to be more than 0, and finite")
    for name, value in (("upscale_seconds", upscale_seconds), ("downscale_seconds", downscale_seconds), ("gpus", gpus)):
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} is {value} and has to be 0 or more, and finite")
    serve = _ray_serve()
    settings = _settings(bundles, options, gpus)
    at_once = max(1, round(ROOM * target_requests))
    if at_once > settings.limits.max_concurrent_requests:
        raise UsageError(
            f"target_requests is {target_requests:g}, for which a replica takes on up to {at_once}, and "
            f"max_concurrent_requests is {settings.limits.max_concurrent_requests}: lower the one or raise the other"
        )
    ingress = serve.ingress()(Replica)
    deployment = serve.deployment(
        ingress,
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": settings.threads, "num_gpus": gpus},
        max_ongoing_requests=at_once,
        graceful_shutdown_timeout_s=settings.limits.request_timeout + LAST_SECONDS,
        health_check_period_s=5,
        max_constructor_retry_count=TRIES,
        max_surge_percent=SURGE_PERCENT,
        **_replicas(min_replicas, most, target_requests, upscale_seconds, downscale_seconds),
    )
    return deployment.bind(settings)


def build(args: Mapping[str, Any]) -> Any:  # noqa: ANN401 — Ray's class
    """Return the application from the arguments of `serve run bertport.serve.ray:build`, or of a configuration file.

    Args:
        args: those of `application`, by name; on the command line `bundles=NAME=/path max_replicas=4`, several bundles
            with spaces between them.

    Raises:
        UsageError: as `application` raises it, for a number that is none, and for a restriction that is null.
    """
    lifted = [name for name in RESTRICTIONS if name in args and args[name] is None]
    if lifted:
        raise UsageError(f"{lifted[0]} is null: give it a value, or leave it out")
    given = {name: value for name, value in args.items() if value is not None}  # YAML's null stands for the default
    bundles = given.pop("bundles", ())
    for name, kind in _NUMBERS.items():
        if name in given:
            try:
                given[name] = kind(given[name])
                whole = kind is float or given[name] == float(args[name])  # int cuts what is behind a point
            except (TypeError, ValueError, OverflowError):
                whole = False
            if not whole:
                wanted = "a whole number" if kind is int else "a number"
                raise UsageError(f"{name} is {args[name]!r:.100} and has to be {wanted}")
    return application(bundles.split() if isinstance(bundles, str) else bundles, **given)


_NUMBERS = {
    "min_replicas": int,
    "max_replicas": int,
    "target_requests": float,
    "upscale_seconds": float,
    "downscale_seconds": float,
    "gpus": float,
}


def deploy(
    bundles: Bundles = (),
    *,
    name: str = DEPLOYMENT,
    route_prefix: str = "/",
    wait_seconds: float = SECONDS,
    **options: Any,  # noqa: ANN401 — those of `application`
) -> None:
    """Run the application, or put it in the place of the one of this name, and return when only the new one answers.

    Args:
        bundles: as `application` takes them.
        name: of the application.
        route_prefix: under which address it answers.
        wait_seconds: how long to wait for that.
        options: of `application`.

    Raises:
        UsageError: as `application` raises it, and for seconds that are none.
        BertportError: where the new one cannot serve, or is not there in time; the old one goes on. Also where somebody
            deletes it meanwhile.
    """
    if not wait_seconds >= 0:
        raise UsageError(f"wait_seconds is {wait_seconds} and has to be 0 or more")
    target = application(bundles, **options)
    serve = _ray_serve()
    serve.run_many([serve.RunTarget(target, name=name, route_prefix=route_prefix)], wait_for_applications_running=False)
    end = time.monotonic() + wait_seconds
    while True:
        now = serve.status().applications.get(name)
        if now is None:
            raise ProviderError(f"the application {name!r} was deleted while it started: deploy it again")
        if now.status == "RUNNING":
            return
        if now.status in {"DEPLOY_FAILED", "UNHEALTHY"}:
            said = " ".join(each.message for each in now.deployments.values()) or now.message
            raise ProviderError(f"{_sentence(said)} (the replicas that were there before go on)")
        if time.monotonic() > end:
            said = " ".join(each.message for each in now.deployments.values())
            raise ProviderError(
                f"the application {name!r} is not there after {wait_seconds:g} seconds ({said or now.status}): give "
                "the cluster room for one replica more, or wait longer"
            )
        time.sleep(0.2)


def _sentence(said: str) -> str:
    """Return the sentence at the end of the traceback in Ray Serve's message, or the message in one line."""
    found = SAID.findall(said)
    return str(found[-1]) if found else one_line(said)


def _replicas(least: int, most: int, target: float, upscale: float, downscale: float) -> dict[str, Any]:
    if least == most:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": target,
            "upscale_delay_s": upscale,
            "downscale_delay_s": downscale,
            "metrics_interval_s": 1.0,
            "look_back_period_s": max(2.0, upscale),
        }
    }


def _settings(bundles: Bundles, options: Mapping[str, Any], gpus: float) -> Settings:
    """Return the settings of each replica, with bundles that were checked."""
    arguments = [part for name, value in options.items() for part in _argument(name, value)]
    asked = [os.fspath(each) for each in ([bundles] if isinstance(bundles, str | os.PathLike) else bundles)]
    settings, given = settings_of([*arguments, "--", *asked])
    if refused := REFUSED.intersection(given):
        raise UsageError(
            f"{', '.join(sorted(refused))} cannot be set, as Ray Serve's proxies listen: set it in ray.serve.start"
        )
    row = PROVIDERS.get(settings.provider)
    if row is not None and not row.on_cpu and not gpus:
        raise UsageError(
            f"the provider {settings.provider!r} needs a GPU and gpus is 0, so none is reserved for a replica: give "
            "gpus=1"
        )
    library = settings.provider_library
    return dataclasses.replace(
        settings,
        provider=settings.provider if gpus else without_gpu(settings.provider, library),
        bundles=tuple(map(_pinned, settings.bundles)),
        provider_library=None if library is None else str(Path(library).absolute()),
        threads=settings.threads or 1,
        host=EVERYWHERE,
    )


def _argument(name: str, value: object) -> list[str]:
    """Return an option as the command line writes it."""
    flag = f"--{name.replace('_', '-')}"
    match value:
        case None:
            return []
        case True:
            return [flag]
        case False:
            return [f"--no-{name.replace('_', '-')}"]
        case list() | tuple():
            return [f"{flag}={each}" for each in value]
    return [f"{flag}={value}"]


def _pinned(asked: Asked) -> Asked:
    """Return a bundle with its absolute path and digest; every file of one that is here is hashed."""
    path = Path(default_bundle() if asked.path is None else asked.path)
    if asked.path is not None and not path.exists():
        if asked.digest is None:
            raise PathError(
                f"{path} is not on this machine, so its digest is not known: give it after the path, as "
                f"{path}@sha256:…, or a path that every node and this machine have"
            )
        return asked._replace(path=str(Path(os.path.abspath(path))))  # noqa: PTH100 — links are the node's own
    bundle = Bundle.open(path, digest=asked.digest)
    bundle.verify()
    return asked._replace(
        path=None if asked.path is None else os.path.abspath(path),  # noqa: PTH100 — as above
        digest=bundle.digest,
    )


def _ray_serve() -> ModuleType:
    """Import Ray Serve, which tells nobody of its use unless that was asked for."""
    os.environ.setdefault(USAGE, "0")
    try:
        from ray import serve
    except ImportError as error:
        raise MissingDependencyError("bertport.serve.ray", "ray", "ray") from error
    return serve  # type: ignore[no-any-return]
