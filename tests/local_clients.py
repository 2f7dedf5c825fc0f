"""The Hub's client for a server on this machine, in a test run that is offline for every other host."""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager

ONLINE = {**os.environ, "HF_HUB_OFFLINE": "0"}
"""For a process that asks a server of ours with the Hub's client; `tests/conftest.py` switches it off."""
HTTP = ("requests", "httpx", "httpx2")
"""HTTP clients of huggingface_hub, by its major version."""


@contextmanager
def hub_client_for_this_machine():
    """Let huggingface_hub's sessions reach 127.0.0.1, and nothing else."""
    import huggingface_hub

    name = HTTP[int(huggingface_hub.__version__.partition(".")[0])]
    package = importlib.import_module(name)
    with _requests(package) if name == "requests" else _httpx(package):
        yield


@contextmanager
def _requests(package):
    from huggingface_hub import configure_http_backend

    class Refusing(package.adapters.HTTPAdapter):
        def send(self, request, *_, **__):
            raise package.ConnectionError(f"a test asked for {request.url}")

    def session():
        made = package.Session()
        made.mount("https://", Refusing())
        made.mount("http://", Refusing())
        made.mount("http://127.0.0.1", package.adapters.HTTPAdapter())
        return made

    configure_http_backend(session)
    try:
        yield
    finally:
        configure_http_backend()


@contextmanager
def _httpx(package):
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    class Refusing(package.BaseTransport):
        def handle_request(self, request):
            raise package.ConnectError(f"a test asked for {request.url}")

    def client():
        return package.Client(
            transport=Refusing(), mounts={"http://127.0.0.1": package.HTTPTransport()}, trust_env=False
        )

    set_client_factory(client)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
