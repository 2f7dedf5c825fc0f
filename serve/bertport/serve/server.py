"""The process: a socket, the event loop, signals, and an end that loses no request."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import uvicorn

from bertport.runtime.errors import BertportError, PathError
from bertport.serve.app import make_app
from bertport.serve.engine.registry import find_bundles
from bertport.serve.errors import Conflict
from bertport.serve.http.drain import take_on_no_more
from bertport.serve.http.protocol import bounded
from bertport.serve.observability import logs
from bertport.serve.state import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from bertport.serve.settings import Settings

__all__ = ["serve"]

_LOG = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that the kernel holds until they are accepted."""
SPARE_FILES = 64
"""Files beside connections: the bundles', the event loop's, and connections that are refused and still closing."""
LINGER_SECONDS = 0.5
"""Seconds that a stopping server waits for requests on open connections: a client that has just had an answer may have
sent the next one."""
LAST_SECONDS = 5.0
"""Beyond the time per request, for answers to be read by their clients when the server stops."""


def serve(settings: Settings) -> None:
    """Serve until a signal says otherwise, and return when every request that was accepted has its answer.

    Raises:
        BertportError: when a bundle cannot be served, or the address cannot be listened on.
    """
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it reloads: before that, it would end the process
    # A mistake in what was asked ends the command before anything listens.
    find_bundles(settings, {} if settings.keep_going else None)
    logs.set_up(settings.log_level)
    # A target that is not in the vocabulary is a warning in Python; here it would fill the log, and Python's memory
    # of the warnings that it has shown.
    warnings.simplefilter("ignore", UserWarning)
    service = Service(settings)
    sock = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        make_app(service),
        http=bounded(_connections(settings.limits.max_connections), service.refused),
        ws="none",
        loop="auto",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.limits.request_timeout + LAST_SECONDS),
        backlog=BACKLOG,
    )
    server = Server(config, service, sock)
    server.run(sockets=[sock])
    if server.failure is not None:
        raise server.failure


class Server(uvicorn.Server):
    """uvicorn's server, which exits with 0 after SIGTERM, reloads on SIGHUP, and drains before it closes.

    Args:
        config: uvicorn's.
        service: what is served.
        sock: where it listens.
    """

    def __init__(self, config: uvicorn.Config, service: Service, sock: socket.socket) -> None:
        super().__init__(config)
        self.failure: BertportError | None = None
        self._service = service
        self._sock = sock
        self._loading: asyncio.Task[None] | None = None
        self._reload_asked = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install signal handlers: uvicorn's own raise the signal again at the end, which changes the exit status."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]]
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        if hasattr(signal, "SIGHUP"):  # not on Windows
            loop = asyncio.get_running_loop()
            handlers[signal.SIGHUP] = lambda *_: loop.call_soon_threadsafe(self._reload)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen at once, and load: clients that ask meanwhile are told how far it is."""
        await super().startup(sockets)
        host, port = self._sock.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _LOG.info("listening", extra={"fields": {"url": url}})
        self._loading = asyncio.create_task(self._load())

    async def on_tick(self, counter: int) -> bool:
        """Return, ten times a second, whether uvicorn is to end: also when a thread that all answers need has ended."""
        if self._service.failure is not None and self.failure is None:
            self.failure = BertportError(f"the server cannot go on: {self._service.failure}")
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and end."""
        service = self._service
        service.admission.draining = True
        service.registry.stop_loading()
        _LOG.info("stopping", extra={"fields": {"requests": service.admission.inside}})
        if self.failure is None:  # else there is nothing that the time to drain would be good for
            await self._drain(service.settings.drain_seconds)
        with suppress(OSError):
            # The kernel takes on no more, and what it took on is accepted, before the socket closes: what waits in
            # its queue then would be reset.
            take_on_no_more(self._sock)
        await asyncio.sleep(0.05)
        for server in self.servers:
            server.close()
        waited = 0.0
        while self.server_state.connections and waited < LINGER_SECONDS:
            await asyncio.sleep(0.05)
            waited += 0.05
        patience = service.settings.limits.request_timeout + LAST_SECONDS - 1
        late = asyncio.get_running_loop().call_later(patience, self._leave_unread)
        await super().shutdown(sockets)
        late.cancel()
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)
        await service.close()
        _LOG.info("stopped")

    async def _drain(self, seconds: float) -> None:
        """Go on accepting for some seconds, or until a second signal."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self.force_exit and (left := end - loop.time()) > 0:  # noqa: ASYNC110 — uvicorn sets it
            await asyncio.sleep(min(left, 0.1))

    def _leave_unread(self) -> None:
        """Close the connections whose clients still do not read: no answer is waited for any more."""
        left = [connection for connection in self.server_state.connections if connection.transport is not None]
        if left:
            _LOG.warning("closing connections whose clients do not read", extra={"fields": {"connections": len(left)}})
        for connection in left:
            connection.transport.abort()

    async def _load(self) -> None:
        service = self._service
        try:
            await service.registry.load()
        except Conflict:  # stopped before it was loaded
            return
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 — a server without bundles has nothing to do, whatever it is
            if not isinstance(error, BertportError):
                _LOG.critical("loading failed", exc_info=error)
                error = BertportError(f"the bundles cannot be loaded ({type(error).__name__}): the log says more")
            _LOG.error("%s", error.message)
            self.failure = error
            self.should_exit = True
            return
        names = {name: list(served.workers) for name, served in service.registry.served.items()}
        _LOG.info("ready", extra={"fields": {"models": names}})
        await self._reload_while_asked()

    def _stop(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 — the signature of a signal handler
        if self.should_exit:
            self.force_exit = True  # asked twice: end without waiting
        self.should_exit = True

    def _reload(self) -> None:
        self._reload_asked = True
        if self._loading is not None and self._loading.done():
            self._loading = asyncio.create_task(self._reload_while_asked())

    async def _reload_while_asked(self) -> None:
        """Load the bundles anew, and once more where a signal came meanwhile: it may tell of newer ones."""
        while self._reload_asked and not self.should_exit:
            if self._service.registry.busy:  # by /reload, which may have read an older bundle already
                await self._service.registry.settle()
                continue
            self._reload_asked = False
            try:
                await self._service.reload()
            except Exception as error:  # noqa: BLE001 — the old bundles go on, whatever it is
                unexpected = None if isinstance(error, BertportError | Conflict) else error
                _LOG.error("reload failed, and the old bundles stay in use: %s", error, exc_info=unexpected)
            else:
                _LOG.info("reloaded")


def _connections(most: int) -> int:
    """Return how many connections may be open, with room for as many made in the operating system's limit on files.

    Without a file number for it, no connection is accepted, and none can be told so.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = most + SPARE_FILES
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        with suppress(OSError, ValueError):  # it may not be raised here
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == unlimited or soft >= wanted:
        return most
    fewer = max(1, soft - SPARE_FILES)
    _LOG.warning("the limit on open files is %d, so that %d connections may be open and not %d", soft, fewer, most)
    return fewer


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, TypeError) as error:  # the last for a name that is none
        raise PathError(f"cannot listen on {host}:{port} ({error}): choose another --host or --port") from error
