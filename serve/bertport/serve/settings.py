"""Server settings: limits, each a flag and an environment variable, as one table."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from bertport.runtime.errors import UsageError
from bertport.serve.http.allowed import AllowedHosts

__all__ = ["LIMITS", "Asked", "Limit", "Limits", "Settings", "for_models", "shares"]

MIB = 1 << 20
MOST = 1 << 40
"""Largest value of a limit: what is more is none, and an infinite one fits no clock."""
SPECIAL_ORIGINS = ("*", "null")
"""Every origin, and that of pages that have none, such as files."""
ORIGIN = re.compile(r"(?!https?://.*[^!-@\[-~]|http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://[^/?#,@\s]+")
"""An origin as browsers send it: that of a web page has its host in lower case, and never the usual port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One row: a limit of the server."""

    name: str
    """Field of `Limits`; the flag and the environment variable are made of it."""
    default: float
    """Value where none is given."""
    kind: type[int | float]
    """Whether it counts or measures."""
    least: float
    """Smallest value that makes sense."""
    help: str
    """Description of what it bounds, for `--help`."""

    @property
    def flag(self) -> str:
        """Name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"BERTPORT_{self.name.upper()}"


LIMITS: dict[str, Limit] = {
    limit.name: limit
    for limit in (
        Limit(
            name="max_concurrent_requests",
            default=512,
            kind=int,
            least=1,
            help="Requests at once whose bodies have arrived; more are answered 429.",
        ),
        Limit(
            name="max_queue_items",
            default=2048,
            kind=int,
            least=1,
            help="Texts that wait for a variant; more are answered 429.",
        ),
        Limit(
            name="max_batch_tokens",
            default=0,
            kind=int,
            least=0,
            help="Tokens in a batch; 0 is what suits the provider (cpu: 1024).",
        ),
        Limit(name="max_items", default=256, kind=int, least=1, help="Texts in a request; more are answered 413."),
        Limit(
            name="max_payload_bytes",
            default=2 * MIB,
            kind=int,
            least=1,
            help="Bytes of a request's body, unpacked; more are answered 413.",
        ),
        Limit(
            name="max_body_bytes_held",
            default=256 * MIB,
            kind=int,
            least=1,
            help="Bytes of all bodies in the server at once; more are answered 429.",
        ),
        Limit(
            name="max_answer_bytes",
            default=64 * MIB,
            kind=int,
            least=1,
            help="Bytes of an answer, estimated before and counted as it is written; more are answered 413.",
        ),
        Limit(
            name="max_answer_bytes_held",
            default=256 * MIB,
            kind=int,
            least=1,
            help="Bytes of all answers that are made or not yet read by their clients; more are answered 429.",
        ),
        Limit(
            name="max_text_characters",
            default=1 << 17,
            kind=int,
            least=1,
            help="Characters of a text, also of one that is to be cut; more are answered 413.",
        ),
        Limit(
            name="max_candidates",
            default=4096,
            kind=int,
            least=1,
            help="Words in an answer of fill-mask, all masks together; more are answered 422.",
        ),
        Limit(
            name="max_connections",
            default=4096,
            kind=int,
            least=1,
            help="Open connections; more are answered 429 and closed.",
        ),
        Limit(
            name="request_timeout",
            default=30.0,
            kind=float,
            least=0.001,
            help="Seconds for a request, from its first byte to its answer.",
        ),
    )
}
"""By name, in the order of the help."""


SHARES = {"max_body_bytes_held": 16, "max_payload_bytes": 64, "max_answer_bytes": 32, "max_answer_bytes_held": 16}
"""Limits on bytes that are parts of a bound of memory: what it is divided by. A body is held twice while it is read, as
bytes and as values."""
RESERVED = 3 / 16
"""Share of a bound of memory for all that requests hold, beside the models."""


def shares(memory: int) -> dict[str, int]:
    """Return the most that limits on bytes may be under a bound of memory, and what they default to."""
    return {name: min(int(LIMITS[name].default), memory // divisor) for name, divisor in SHARES.items()}


def for_models(memory: int) -> int:
    """Return what a bound of memory leaves to the models and the process itself."""
    return int(memory * (1 - RESERVED))


def _count(name: str) -> int:
    return int(LIMITS[name].default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits in force; `LIMITS` says what each means."""

    max_concurrent_requests: int = _count("max_concurrent_requests")
    max_queue_items: int = _count("max_queue_items")
    max_batch_tokens: int = _count("max_batch_tokens")
    max_items: int = _count("max_items")
    max_payload_bytes: int = _count("max_payload_bytes")
    max_body_bytes_held: int = _count("max_body_bytes_held")
    max_answer_bytes: int = _count("max_answer_bytes")
    max_answer_bytes_held: int = _count("max_answer_bytes_held")
    max_text_characters: int = _count("max_text_characters")
    max_candidates: int = _count("max_candidates")
    max_connections: int = _count("max_connections")
    request_timeout: float = LIMITS["request_timeout"].default

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other or make no sense."""
        for limit in LIMITS.values():
            value = getattr(self, limit.name)
            if not value >= limit.least:
                raise UsageError(f"{limit.flag} is {value} and has to be {limit.least:g} or more")
            if value > MOST:
                raise UsageError(f"{limit.flag} is {value:g} and has to be {MOST:,} or less")
        if self.max_items > self.max_queue_items:
            raise UsageError(
                f"--max-items is {self.max_items} and the queue takes {self.max_queue_items}: "
                "a full request could never enter; lower the one or raise --max-queue-items"
            )
        if self.max_payload_bytes > self.max_body_bytes_held:
            raise UsageError(
                "--max-payload-bytes is more than --max-body-bytes-held, and such a body could never enter: lower the "
                "one or raise the other"
            )
        if 2 * self.max_answer_bytes > self.max_answer_bytes_held:
            raise UsageError(
                "--max-answer-bytes is more than half of --max-answer-bytes-held, and an answer is held twice while "
                "it is written: lower the one or raise the other"
            )


class Asked(NamedTuple):
    """A bundle to serve."""

    name: str | None = None
    """Name for clients; None for the bundle's own name."""
    path: str | None = None
    """Its directory; None for the embedded one."""
    digest: str | None = None
    """The digest that it must have, at each load; None for any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the server."""

    bundles: tuple[Asked, ...] = (Asked(),)
    """The bundles to serve, the default one first."""
    variants: tuple[str, ...] = ()
    """Variants to load of each bundle; none for every one that suits the provider, `all` for portable ones too."""
    provider: str = "auto"
    """The execution provider."""
    provider_library: str | None = None
    """Path of the plugin that holds it; None for that of its package."""
    threads: int | None = None
    """Threads of the CPU; None for one per physical core."""
    streams: int | None = None
    """Batches that run at once under `cpu`; None for as many as suit the machine."""
    memory: int | None = None
    """Bytes that the process may hold in memory; None for no bound."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on; 0 for any that is free."""
    api_key: str | None = field(default=None, repr=False)
    """Bearer token that clients have to send; None for no check."""
    cors_origins: tuple[str, ...] = ()
    """Origins of pages that may call the server from a browser; none by default."""
    warm_up: bool = True
    """Whether every bucket is run once before the server says that it is ready."""
    access_log: bool = True
    """Whether each request is logged."""
    log_level: str = "info"
    """Least severe messages that are logged."""
    keep_going: bool = False
    """Whether the bundles that can be loaded are served where others cannot."""
    drain_seconds: float = 0.0
    """Seconds in which the server still accepts connections after SIGTERM, while it says that it is not ready."""
    limits: Limits = field(default_factory=Limits)
    """The limits."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that requests may name; none for this machine's own when listening on loopback, and all otherwise; `*` for
    all."""

    def __post_init__(self) -> None:
        """Refuse what would restrict nothing though it is there to restrict, and an origin that no page has.

        Raises:
            UsageError: for an API key, a host to listen on, an allowed host or an origin that is empty, and the like.
        """
        if self.api_key is not None:
            key = self.api_key.strip()
            if not key or not key.isascii() or not key.isprintable():
                raise UsageError(
                    "the API key is empty or not printable ASCII: give one that fits into a header, or none"
                )
            object.__setattr__(self, "api_key", key)
        if not self.host.strip():
            raise UsageError(
                "--host is empty, which would be every address: give the one to listen on, or 0.0.0.0 for all"
            )
        if not 0 <= self.drain_seconds <= MOST:
            raise UsageError(f"--drain-seconds is {self.drain_seconds:g} and has to be between 0 and {MOST:,}")
        AllowedHosts(self.allowed_hosts, self.host)
        for origin in self.cors_origins:
            if origin not in SPECIAL_ORIGINS and not ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"--cors-origin is {origin[:60]!r}, which no browser sends: give a scheme, a host in lower case, "
                    "and a port unless it is the usual one, as in https://page.example:8443, with nothing after it"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the limits by name."""
        return {field.name: getattr(self.limits, field.name) for field in fields(self.limits)}
