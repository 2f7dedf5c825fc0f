"""A server on the tiny bundle, shared by the tests that only ask."""

from __future__ import annotations

import pytest

from tests.local_clients import hub_client_for_this_machine
from tests.serve.running import undisturbed

VARIANTS = ("--variant", "fp32", "--variant", "portable")
"""Two graphs of one model, without quantizing any."""


@pytest.fixture(scope="session")
def server(tiny_bundle):
    """A running server with two variants, under two names."""
    with undisturbed(f"tiny={tiny_bundle}", f"org/other={tiny_bundle}", *VARIANTS) as running:
        yield running


@pytest.fixture(scope="session")
def model(tiny_bundle):
    """The same bundle in this process."""
    from bertport.runtime import load

    return load(tiny_bundle, variant="fp32")


@pytest.fixture(scope="module", autouse=True)
def _clients():
    # For each module anew: another folder's fixture leaves the client as it comes.
    with hub_client_for_this_machine():
        yield
