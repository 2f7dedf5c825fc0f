"""Bundles of seeded tiny models with a second variant, files of made-up labelled data, and the command."""

from __future__ import annotations

import random

import pytest
from click.testing import CliRunner

from bertport.runtime import cli
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.compare.conftest import WORDS, with_variants
from tests.conftest import built_once
from tests.heads import head_bundle

LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="session")
def evaluated_bundle(tmp_path_factory):
    """A function that gives a bundle of a tiny BERT with a head, with the variant `noisy`."""

    def bundle(head, **settings):
        _, source = head_bundle(tmp_path_factory, "bert", head, **settings)
        name = f"bundles/evaluated/{source.name}"
        return built_once(tmp_path_factory, name, lambda path: with_variants(source, path, "noisy"))

    return bundle


@pytest.fixture(scope="session")
def classifier(evaluated_bundle):
    """Classifier of three labels."""
    return evaluated_bundle(SEQUENCE_CLASSIFICATION)


@pytest.fixture
def invoke(monkeypatch):
    """Run a command; the entry point of an installation may be older than the checkout."""
    monkeypatch.setitem(cli.OWN, "evaluate", "bertport.compare.evaluate.cli:evaluate")

    def run(*arguments):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)

    return run


def sentences(count, seed=0):
    """Made-up texts, a few of them the same."""
    rng = random.Random(seed)  # noqa: S311 — no secret
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(count)]
