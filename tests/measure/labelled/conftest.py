"""Seeded tiny classifiers and files of labelled data."""

import dataclasses
import json

import numpy as np
import pytest

from bertport.runtime import load
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.manifest import HeadEntry
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from tests.heads import head_bundle

WORDS = "the good bad book old new music word play game city water see love hate this is a not very".split()  # noqa: SIM905 — words read better so


def texts(count, seed=0):
    """Random texts of words that the vocabulary has."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 20))) for _ in range(count)]


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A bundle of three labels: negative, neutral, positive."""
    return head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)[1]


@pytest.fixture(scope="session")
def manifest():
    """The manifest of a classifier of three labels, as `classifier` has it; nothing is exported for it."""
    whole = Bundle.open(default_bundle()).manifest
    head = HeadEntry(
        output="sequence_logits",
        axes=("batch", "label"),
        labels=("negative", "neutral", "positive"),
        problem_type="single_label_classification",
    )
    return dataclasses.replace(whole, heads={SEQUENCE_CLASSIFICATION: head})


@pytest.fixture(scope="session")
def classifier_model(classifier):
    return load(classifier, threads=1)


@pytest.fixture
def write(tmp_path):
    """Write records as JSON lines and return the path."""

    def written(records, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return path

    return written
