"""A bundle whose labels are not as many as the columns of its head is told in a sentence, not answered from."""

from __future__ import annotations

import numpy as np
import pytest

from bertport.runtime.errors import BundleError
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.runtime.tasks.table import TASKS
from tests.runtime.tasks.heads import stating


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize(
    ("task", "head", "tokens"),
    [
        ("text-classification", SEQUENCE_CLASSIFICATION, ()),
        ("zero-shot-classification", SEQUENCE_CLASSIFICATION, ()),
        ("token-classification", TOKEN_CLASSIFICATION, (5,)),
    ],
)
def test_labels_that_are_not_as_many_as_columns(tiny_bundle, task, head, tokens, columns):
    manifest = stating(tiny_bundle, head, labels=("contradiction", "entailment"))
    finish = TASKS[task].finish(TASKS[task].options(), None, manifest)
    with pytest.raises(BundleError, match=rf"gives 2 labels to a head of {columns} columns: the bundle is damaged"):
        finish(np.zeros((*tokens, columns), np.float32), None)


@pytest.mark.parametrize("columns", [0, 2])
@pytest.mark.parametrize("labels", [None, ("relevance",)])
def test_a_ranking_takes_one_column(tiny_bundle, labels, columns):
    manifest = stating(tiny_bundle, SEQUENCE_CLASSIFICATION, labels=labels)
    finish = TASKS["text-ranking"].finish(TASKS["text-ranking"].options(), None, manifest)
    with pytest.raises(BundleError, match=f"one label, and that of tiny-bert gives {columns}: use a bundle that has"):
        finish(np.zeros(columns, np.float32), None)
