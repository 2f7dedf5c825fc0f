"""Hosts that a request may name: on loopback this machine's own, so that no page's name can be pointed at it."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from bertport.runtime.errors import UsageError
from bertport.serve.errors import BadRequest, Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ALL", "AllowedHosts", "split_hosts"]

ALL = "*"
"""Every host."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that are accepted when listening on loopback, beside the address itself."""

NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
"""Name of a host, as RFC 3986 and the internet write it, lower case; an IPv4 address looks the same."""
HEADER = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{0,5})?")
"""Host header of a request, lower case."""
MOST = 255
"""Characters of a host."""


class AllowedHosts:
    """The check of a request's Host header.

    A page of any site can have its own name resolved to 127.0.0.1 and then ask a server there as if it were its own
    (DNS rebinding). Such requests carry the page's name.

    Args:
        allowed: the hosts; none for what suits the address.
        address: what the server listens on.

    Raises:
        UsageError: for a name that is no host.
    """

    def __init__(self, allowed: Iterable[str], address: str) -> None:
        given = {_allowed(host) for host in allowed}
        if not given:
            given = {*LOOPBACK, _plain(address.lower())} if _is_loopback(address) else {ALL}
        self._allowed = None if ALL in given else frozenset(given)

    def check(self, headers: Iterable[tuple[bytes, bytes]], http_version: str) -> None:
        """Check a request.

        Args:
            headers: of the request, their names in lower case.
            http_version: of the request; before 1.1 it may do without the header, and no browser sends such.

        Raises:
            BadRequest: for no header, for several, and for one that is no host.
            Forbidden: for a host that is not allowed.
        """
        hosts = [value for name, value in headers if name == b"host"]
        if not hosts and http_version in ("1.0", "0.9"):
            return
        if len(hosts) != 1:
            raise BadRequest(f"the request has {len(hosts)} Host headers: send one")
        host = _host(hosts[0].decode("latin-1"))
        if host is None:
            raise BadRequest("the Host header is not a host: send a name or an address, and a port if it is not 80")
        if self._allowed is not None and host not in self._allowed:
            raise Forbidden(f"the host {host[:100]!r} is not one of this server's: name it with --allowed-hosts")


def split_hosts(given: Sequence[str]) -> tuple[str, ...]:
    """Return hosts that may have been given several at once, with spaces or commas between them."""
    return tuple(part for argument in given for part in re.split(r"[\s,]+", argument) if part) or tuple(given)


def _allowed(given: str) -> str:
    if given == ALL:
        return ALL
    host = _plain(given.strip().lower())
    if len(host) <= MOST and (NAME.fullmatch(host) or _is_ipv6(host)):
        return host
    raise UsageError(f"--allowed-hosts is {given[:60]!r}: give a host without a scheme or port, or {ALL} for all")


def _host(value: str) -> str | None:
    """Return a header's host without its port; None for what is none."""
    match = HEADER.fullmatch(value.strip(" \t").lower()) if len(value) <= MOST + len("[]:65535") else None
    if match is None:
        return None
    host = _plain(match["host"])
    return host if NAME.fullmatch(host) or (match["host"][0] == "[" and _is_ipv6(host)) else None


def _plain(host: str) -> str:
    """Return a host without brackets and the final dot; an IPv6 address in its shortest form."""
    host = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host.removesuffix(".")
    return str(IPv6Address(host)) if _is_ipv6(host) else host


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    """Return whether an address, or all that a name stands for, is this machine's own."""
    if address.lower().removesuffix(".") == "localhost":
        return True
    try:
        addresses = [ip_address(address)]
    except ValueError:
        try:
            addresses = [ip_address(entry[4][0]) for entry in socket.getaddrinfo(address, None)]
        except (OSError, UnicodeError, ValueError):
            return False  # nothing can listen there
    return all((getattr(ip, "ipv4_mapped", None) or ip).is_loopback for ip in addresses)
