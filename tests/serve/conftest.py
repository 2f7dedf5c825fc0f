"""A server on the tiny bundle, shared by the tests that only ask."""

from __future__ import annotations

import pytest

from bertport.runtime.heads import (
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)
from tests.heads import head_bundle
from tests.local_clients import hub_client_for_this_machine
from tests.serve.running import undisturbed

VARIANTS = ("--variant", "fp32", "--variant", "portable")
"""Two graphs of one model, without quantizing any."""

LABELS = ("contradiction", "neutral", "entailment")
"""Labels of the classifier."""
BUNDLES = {
    "classifier": (SEQUENCE_CLASSIFICATION, {"labels": LABELS}),
    "ranker": (SEQUENCE_CLASSIFICATION, {"labels": ("relevance",)}),
    "tagger": (TOKEN_CLASSIFICATION, {}),
    "answerer": (QUESTION_ANSWERING, {}),
    "chooser": (MULTIPLE_CHOICE, {}),
}
"""The bundles of fine-tuned heads by what they do."""


@pytest.fixture(scope="session")
def head_bundles(tmp_path_factory, sentence_bundle):
    """A bundle of each head, by what it does; not to be changed."""
    made = {
        name: head_bundle(tmp_path_factory, "bert", head, **settings)[1] for name, (head, settings) in BUNDLES.items()
    }
    return made | {"embedder": sentence_bundle}


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
