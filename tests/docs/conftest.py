"""Pages show clients of a server that their examples start on this machine."""

from __future__ import annotations

import pytest

from tests.local_clients import hub_client_for_this_machine


@pytest.fixture(autouse=True)
def _clients():
    with hub_client_for_this_machine():
        yield
