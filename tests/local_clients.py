"""The Hub's client for a server on this machine, in a test run that is offline for every other host."""

from __future__ import annotations

import os
from contextlib import contextmanager

ONLINE = {**os.environ, "HF_HUB_OFFLINE": "0"}
"""For a process that asks a server of ours with the Hub's client; `tests/conftest.py` switches it off."""


@contextmanager
def hub_client_for_this_machine():
    """Let huggingface_hub's sessions reach 127.0.0.1, and nothing else."""
    import requests
    from huggingface_hub import configure_http_backend
    from requests.adapters import HTTPAdapter

    class Refusing(HTTPAdapter):
        def send(self, request, *_, **__):
            raise requests.ConnectionError(f"a test asked for {request.url}")

    def session():
        made = requests.Session()
        made.mount("https://", Refusing())
        made.mount("http://", Refusing())
        made.mount("http://127.0.0.1", HTTPAdapter())
        return made

    configure_http_backend(session)
    try:
        yield
    finally:
        configure_http_backend()
