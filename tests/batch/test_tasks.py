"""The columns of each task's answers hold what `Model.predict` answers, value for value."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from bertport.batch import run
from bertport.batch.tasks import TASKS
from bertport.batch.tasks import TYPES as NAMES
from bertport.runtime import load
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from bertport.runtime.tasks.table import TASKS as RUNTIME
from tests.family_bundles import family_bundle
from tests.heads import head_bundle

A, B = "The old house was sold.", "He bought milk and bread in the city."
PAIRS = [{"text": A, "text_pair": B}, {"text": B, "text_pair": A}]
TEXTS = [{"text": A}, {"text": B}]
ENTAILMENT = {"labels": ("contradiction", "neutral", "entailment")}
CASES = {
    "fill-mask": ("tiny", [{"text": "the [MASK] was sold."}, {"text": "[MASK] house [MASK]"}], [{"top_k": 3}]),
    "next-sentence": ("tiny", PAIRS, [{}]),
    "features": ("tiny", TEXTS, [{}, {"pooling": "mean"}]),
    "text-classification": ((SEQUENCE_CLASSIFICATION, {}), [*PAIRS, *TEXTS], [{}, {"top_k": 2}]),
    "token-classification": (
        (TOKEN_CLASSIFICATION, {}),
        TEXTS,
        [{"ignore_labels": []}, {"aggregation_strategy": "simple", "ignore_labels": []}],
    ),
    "question-answering": (
        (QUESTION_ANSWERING, {}),
        [{"question": A, "context": B}, {"question": B, "context": A}],
        [{}, {"top_k": 2}],
    ),
    "multiple-choice": ((MULTIPLE_CHOICE, {}), [{"prompt": A, "choices": [B, A]}], [{}]),
    "zero-shot-classification": (
        (SEQUENCE_CLASSIFICATION, ENTAILMENT),
        [{"text": A, "candidate_labels": ["red", "green"]}],
        [{}],
    ),
    "text-ranking": (
        (SEQUENCE_CLASSIFICATION, {"labels": ("fits",)}),
        [{"query": A, "documents": [B, A]}],
        [{}, {"return_documents": True}],
    ),
    "embeddings": ("sentences", TEXTS, [{}]),
    "sentence-similarity": ("sentences", [{"source_sentence": A, "sentences": [B, A]}], [{}]),
    "sentence-order": (("albert", None), PAIRS, [{}]),
    "replaced-tokens": (("electra", "ElectraForPreTraining"), TEXTS, [{"ignore_labels": []}]),
    "token-classification of words": (
        (TOKEN_CLASSIFICATION, {}),
        [{"words": A.split()}, {"words": B.split()}],
        [{"ignore_labels": []}],
    ),
    "text-ranking of a pair": (
        (SEQUENCE_CLASSIFICATION, {"labels": ("fits",)}),
        [{"query": A, "document": B}, {"query": B, "document": A}],
        [{}],
    ),
}
"""By task, and form of its input where that is not the first of its row: a bundle, rows, and parameters."""


def flat(task, answer):
    """Return an answer's values in the order in which they are met, however they are nested; keys are left out."""
    if isinstance(answer, dict):
        return [each for value in answer.values() for each in flat(task, value)]
    if isinstance(answer, np.ndarray):
        return answer.reshape(-1).tolist()
    return [each for item in answer for each in flat(task, item)] if isinstance(answer, list) else [answer]


@pytest.fixture(scope="session")
def bundle_for(tiny_bundle, tmp_path_factory, request):
    def bundle(named):
        if named == "tiny":
            return tiny_bundle
        if named == "sentences":
            return request.getfixturevalue("sentence_bundle")
        head, settings = named
        if isinstance(settings, dict):
            return head_bundle(tmp_path_factory, "bert", head, **settings)[1]
        return family_bundle(tmp_path_factory, head, settings)[1]

    return bundle


def test_the_table_has_the_tasks_of_the_runtime():
    assert TASKS.keys() == RUNTIME.keys()
    for name, row in TASKS.items():
        for form in row.forms:
            for column in row.shape({}, form).columns:
                assert column.type in NAMES, (name, column.name)
                assert column.text


def test_every_form_of_every_task_has_a_case():
    held = {(case.partition(" of ")[0], _form(case).needs) for case in CASES}
    assert held == {(name, form.needs) for name, row in TASKS.items() for form in row.forms}


def _form(case):
    """Return the form that a case's rows have."""
    forms = TASKS[case.partition(" of ")[0]].forms
    return next(form for form in forms if all(set(form.needs) <= row.keys() for row in CASES[case][1]))


OWN = ("zero-shot-classification", "text-ranking", "text-ranking of a pair")
"""Cases whose bundles no other test makes: seconds each."""


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow if case in OWN else ()) for case in CASES])
def test_columns_hold_what_predict_answers(case, bundle_for, tmp_path):
    task, (named, rows, choices), form = case.partition(" of ")[0], CASES[case], _form(case)
    bundle = bundle_for(named)
    data = tmp_path / "in.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = load(bundle)
    asked = [list(row.values()) for row in rows] if form.pair else rows
    for number, parameters in enumerate(choices):
        out = tmp_path / f"out{number}"
        summary = run(bundle, task, data, out, parameters=parameters, carry=())
        table = pq.read_table(out)
        assert table.column("error").to_pylist() == [None] * len(rows)
        assert summary["rows"] == summary["rows_written"] == len(rows)
        columns = [column.name for column in TASKS[task].shape(parameters, form).columns]
        assert table.column_names == [*columns, "error"]
        for row, answer in zip(table.to_pylist(), model.predict(task, asked, **parameters), strict=True):
            # Every value of the answer is in some column; of a batch's own are labels of a judgement and numbers
            # of masks and of tokens.
            expected, found = flat(task, answer), flat(task, [row[name] for name in columns])
            numbers = [each for each in expected if isinstance(each, float)]
            np.testing.assert_allclose(
                sorted(each for each in found if isinstance(each, float)), sorted(numbers), atol=1e-6
            )
            missing = {each for each in expected if not isinstance(each, float)} - set(found)
            assert missing <= {each for each in rows[0].values() if isinstance(each, str)}  # the input, told again


def test_values_keep_their_columns_and_their_order(tiny_bundle, tmp_path):
    data = tmp_path / "in.jsonl"
    data.write_text('{"text": "[MASK] house [MASK]"}\n')
    run(tiny_bundle, "fill-mask", data, tmp_path / "out", parameters={"top_k": 2})
    [row] = pq.read_table(tmp_path / "out").to_pylist()
    first, second = load(tiny_bundle).fill_mask("[MASK] house [MASK]", top_k=2)
    assert row["mask"] == [0, 0, 1, 1]
    assert row["token_str"] == [word["token_str"] for word in [*first, *second]]
    assert row["sequence"] == [word["sequence"] for word in [*first, *second]]
    assert row["text"] == "[MASK] house [MASK]"
