"""`bertport serve`: the command."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from bertport.runtime.bundle.digest import ALGORITHM
from bertport.runtime.bundle.directory import expected_digest
from bertport.runtime.bundle.hub import find_bundle, is_hub_id
from bertport.runtime.commands import completion
from bertport.runtime.commands.options import LIBRARY, MEMORY, PROVIDER, REVISION, STREAMS, THREADS, FiniteRange, Once
from bertport.runtime.errors import MissingDependencyError, UsageError
from bertport.runtime.memory import check_usable, parse_memory, written
from bertport.runtime.providers.table import AUTO, PROVIDERS
from bertport.serve.http.allowed import split_hosts
from bertport.serve.settings import LIMITS, Asked, Limits, Settings, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["serve", "settings_of"]

DIGEST = re.compile(rf"(?P<place>.*)@{ALGORITHM}(?P<digits>[^/]*)", re.IGNORECASE | re.DOTALL)
"""A bundle and its digest, or what stands in its place."""

F = TypeVar("F", bound="Callable[..., Any]")


class Restriction(click.Option):
    """An option that restricts: its variable, where it is set, has to say something.

    click takes an empty variable for one that is not set, so a secret that failed to mount would leave the server open.
    """

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Read the variable."""
        variable = str(self.envvar)
        value = os.environ.get(variable)
        if value is not None and not value.strip():
            raise UsageError(f"{variable} is set and empty: give it a value, or unset it")
        return super().resolve_envvar_value(ctx)


def limits(command: F) -> F:
    """Add an option for each limit of the table."""
    for limit in reversed(LIMITS.values()):
        command = click.option(
            limit.flag,
            limit.name,
            type=limit.kind,
            default=limit.kind(limit.default),
            show_default=True,
            envvar=limit.variable,
            show_envvar=True,
            help=limit.help,
        )(command)
    return command


def option(*names: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 — click's own
    """Return an option that is an environment variable too."""
    variable = f"BERTPORT_{names[-1].lstrip('-').replace('-', '_').upper()}"
    return click.option(*names, envvar=settings.pop("envvar", variable), show_envvar=True, **settings)


def _known_provider(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse an unknown provider before anything is loaded; a library may hold others."""
    if context.params.get("provider_library") is not None:
        return name
    return str(click.Choice([*PROVIDERS, AUTO]).convert(name, parameter, context))


@click.command(name="serve")
@click.argument(
    "bundles",
    nargs=-1,
    metavar="[[NAME=]BUNDLE[@sha256:DIGEST]]...",
    shell_complete=completion.directories,
)
@option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    cls=Restriction,
    help="Address to listen on.",
)
@option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 for any that is free.")
@option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    envvar="BERTPORT_VARIANT",
    help="Variant to load, or `all`; may be repeated.  [default: every serving variant that suits the provider]",
    shell_complete=completion.variants,
)
@option(
    "--provider",
    cls=Once,
    default=(AUTO,),
    show_default=True,
    metavar="NAME",
    callback=_known_provider,
    help=PROVIDER,
    shell_complete=completion.providers,
)
@option("--provider-library", is_eager=True, metavar="PATH", help=LIBRARY)
@option("--threads", type=click.IntRange(1), metavar="N", help=THREADS)
@option("--streams", type=click.IntRange(1), metavar="N", help=STREAMS)
@option("--memory", metavar="SIZE", cls=Restriction, help=MEMORY)
@option(
    "--api-key",
    metavar="KEY",
    cls=Restriction,
    help="Key that clients have to send; prefer the variable.  [default: none]",
)
@option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    cls=Restriction,
    envvar="BERTPORT_CORS_ORIGIN",
    help="Origin of pages that may call the server; may be repeated.  [default: none]",
)
@option(
    "--warm-up/--no-warm-up",
    default=True,
    show_default=True,
    envvar="BERTPORT_WARM_UP",
    help="Run every batch length once before serving.",
)
@option(
    "--access-log/--no-access-log",
    default=True,
    show_default=True,
    envvar="BERTPORT_ACCESS_LOG",
    help="Log every request.",
)
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least severe messages that are logged.",
)
@option(
    "--keep-going/--no-keep-going",
    default=False,
    show_default=True,
    envvar="BERTPORT_KEEP_GOING",
    help="If a bundle cannot be loaded, serve the others and name it in /ready instead of ending.",
)
@option(
    "--drain-seconds",
    type=FiniteRange(0),
    default=0.0,
    show_default=True,
    help="Seconds after SIGTERM to go on accepting requests while /ready says no.",
)
@option(
    "--allowed-hosts",
    multiple=True,
    metavar="HOST",
    cls=Restriction,
    help="Host that requests may name, or `*` for any; may be repeated.  [default: on a loopback address localhost, "
    "127.0.0.1, [::1] and that address; on others any]",
)
@option(
    "--allow-download/--no-allow-download",
    default=False,
    show_default=True,
    cls=Restriction,
    envvar="BERTPORT_ALLOW_DOWNLOAD",
    help="Fetch a bundle that is named by its Hub id, owner/name; without it only the Hub's cache is read.",
)
@option("--revision", metavar="NAME", cls=Restriction, help=REVISION)
@limits
def serve(  # noqa: PLR0913 — each is one option
    *,
    bundles: tuple[str, ...],
    allow_download: bool,
    revision: str | None,
    variants: tuple[str, ...],
    cors_origins: tuple[str, ...],
    allowed_hosts: tuple[str, ...],
    memory: str | None,
    **given: Any,  # noqa: ANN401 — the other options, by name, as the table and the decorators above make them
) -> None:
    """Answer over HTTP from one or several bundles, the first being the default one.

    BUNDLE is a directory, or the id of a Hub repository, owner/name, if there is no directory of that name; with
    --allow-download the Hub is asked for it before the server starts, with the token of HF_TOKEN or `hf auth login`.

    A bundle with a digest after it, as `bertport verify` prints it, must have that digest at each load; without
    `sha256:` the digest would be a part of the path.

    Without BUNDLE the embedded one is served. Every option can be given as the environment variable that is named
    beside it. SIGTERM answers what was accepted and exits with 0; SIGHUP reloads the bundles without losing a
    request. Logs are lines of JSON on standard error. Needs the extras cpu and serve.
    """
    try:
        from bertport.serve.server import serve as run_server
    except ImportError as error:
        if (error.name or "").startswith("bertport"):
            raise
        raise MissingDependencyError("serve", (error.name or str(error)).partition(".")[0], "serve") from error
    run_server(
        _settings(
            bundles=bundles,
            variants=variants,
            cors_origins=cors_origins,
            allowed_hosts=allowed_hosts,
            memory=memory,
            allow_download=allow_download,
            revision=revision,
            **given,
        )
    )


def settings_of(arguments: Sequence[str]) -> tuple[Settings, frozenset[str]]:
    """Return the settings that the command's arguments ask for, environment variables included, and nothing served.

    Args:
        arguments: what stands behind `bertport serve` on a command line.

    Returns:
        The settings, and the names of the options that were given as arguments.

    Raises:
        UsageError: for what the command refuses.
    """
    try:
        context = serve.make_context("serve", list(arguments))
        with context:
            source = context.get_parameter_source
            given = (name for name in context.params if source(name) is ParameterSource.COMMANDLINE)
            return _settings(**context.params), frozenset(given)
    except click.ClickException as error:
        raise UsageError(error.format_message()) from error


def _settings(  # noqa: PLR0913 — the command's options
    *,
    bundles: tuple[str, ...],
    variants: tuple[str, ...],
    cors_origins: tuple[str, ...],
    allowed_hosts: tuple[str, ...],
    memory: str | None,
    allow_download: bool,
    revision: str | None,
    **given: Any,  # noqa: ANN401 — as of the command
) -> Settings:
    bound = None if memory is None else parse_memory(memory)
    if bound is not None:  # the models are given less than all of it, and look at their part
        check_usable(bound)
    limits_given = Limits(**_within(bound, {name: given.pop(name) for name in LIMITS}))
    return Settings(
        bundles=_found(tuple(map(_asked, bundles)), revision, download=allow_download) or (Asked(),),
        variants=variants,
        cors_origins=cors_origins,
        allowed_hosts=split_hosts(allowed_hosts),
        memory=bound,
        limits=limits_given,
        **given,
    )


def _found(bundles: tuple[Asked, ...], revision: str | None, *, download: bool) -> tuple[Asked, ...]:
    """Return bundles with a directory, whole and at one commit, in the place of each Hub id."""
    on_hub = [asked.path is not None and is_hub_id(asked.path) for asked in bundles]
    if revision is not None and not any(on_hub):
        raise UsageError("--revision was given, and no BUNDLE is a Hub id, written as owner/name: leave it out")
    return tuple(
        asked._replace(
            path=str(find_bundle(asked.path or "", revision=revision, download=download, digest=asked.digest))
        )
        if remote
        else asked
        for asked, remote in zip(bundles, on_hub, strict=True)
    )


def _within(memory: int | None, limits: dict[str, Any]) -> dict[str, Any]:
    """Lower limits on bytes that were not given to their shares of a bound of memory, and refuse larger ones."""
    if memory is None:
        return limits
    source = click.get_current_context().get_parameter_source
    for name, most in shares(memory).items():
        if source(name) is ParameterSource.DEFAULT:
            limits[name] = min(limits[name], most)
        elif limits[name] > most:
            raise UsageError(
                f"{LIMITS[name].flag} is {limits[name]:,} and --memory {written(memory)} leaves {most:,} for it: "
                "lower the one or raise the other"
            )
    return limits


def _asked(argument: str) -> Asked:
    """Split [NAME=]BUNDLE[@DIGEST].

    Names may have slashes, so a path with an equals sign is written with its name or ./ ahead; and one that ends like a
    digest, with a slash behind it. A digest without BUNDLE is that of the embedded one.
    """
    match = DIGEST.fullmatch(argument)
    place, digest = (match["place"], expected_digest(match["digits"])) if match else (argument, None)
    name, equals, path = place.partition("=")
    if not (equals and name and name[0] not in "./"):
        return Asked(path=place if place or digest is None else None, digest=digest)
    return Asked(name=name, path=path if path or digest is None else None, digest=digest)
