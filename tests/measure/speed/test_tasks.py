"""The table of timed tasks: which one bundles are timed by, what it asks of a text, and what its best answers are."""

import dataclasses

import numpy as np
import pytest

from bertport.measure.speed.loaded import plain
from bertport.measure.speed.tasks import TIMED, Drawn, timed_task
from bertport.runtime.bundle.manifest import HeadEntry
from bertport.runtime.heads import (
    EMBEDDING,
    HEADS,
    MLM,
    MULTIPLE_CHOICE,
    NSP,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)

TEXT = "one two three four five six seven eight nine ten"
WORDS = [(begin, begin + len(word)) for word in TEXT.split() for begin in (TEXT.index(word),)]


def drawn(word=2, mask="<mask>"):
    return Drawn(text=TEXT, words=WORDS, word=word, mask=mask)


@pytest.mark.parametrize(
    ("heads", "mask", "task"),
    [
        ([{MLM, NSP}], "[MASK]", "fill-mask"),
        ([{MLM, SEQUENCE_CLASSIFICATION}], "[MASK]", "fill-mask"),
        ([{MLM, SEQUENCE_CLASSIFICATION}], None, "text-classification"),
        ([{SEQUENCE_CLASSIFICATION}, {MLM, SEQUENCE_CLASSIFICATION}], "[MASK]", "text-classification"),
        ([{TOKEN_CLASSIFICATION}], "[MASK]", "token-classification"),
        ([{QUESTION_ANSWERING}], "[MASK]", "question-answering"),
        ([{MULTIPLE_CHOICE}], "[MASK]", "multiple-choice"),
        ([{EMBEDDING}], "[MASK]", "embeddings"),
        ([{EMBEDDING}, {SEQUENCE_CLASSIFICATION}], "[MASK]", "features"),
        ([set()], "[MASK]", "features"),
    ],
)
def test_bundles_are_timed_by_the_first_task_that_all_can_do(heads, mask, task):
    assert timed_task([dict.fromkeys(own) for own in heads], mask).name == task


@pytest.mark.parametrize(
    ("labels", "problem_type", "task"),
    [
        (("LABEL_0",), "multi_label_classification", "text-ranking"),
        (("LABEL_0",), "regression", "text-classification"),
        (("bad", "good"), "single_label_classification", "text-classification"),
        (None, None, "text-classification"),
    ],
)
def test_a_classifier_of_one_label_that_is_no_regression_is_timed_by_ranking(labels, problem_type, task):
    head = HeadEntry(output="class_logits", axes=("batch", "label"), labels=labels, problem_type=problem_type)
    assert timed_task([{SEQUENCE_CLASSIFICATION: head}], None).name == task


def test_every_row_names_a_head_that_there_is():
    assert {row.head for row in TIMED.values()} - HEADS.keys() == {None}
    assert all(bool(row.best) is bool(row.compared) for row in TIMED.values())


def test_what_is_asked_of_a_text():
    assert TIMED["fill-mask"].ask(drawn()) == "one two <mask> four five six seven eight nine ten"
    assert TIMED["text-classification"].ask(drawn()) == TEXT
    row = TIMED["question-answering"]
    asked = row.ask(drawn())
    assert asked == {"question": "one two three four five six seven eight?", "context": TEXT}
    assert row.texts(asked) == ((asked["question"], TEXT),)
    row = TIMED["multiple-choice"]
    asked = row.ask(drawn())
    first, second = "one two three four five", "six seven eight nine ten"
    assert asked == {"text": first, "choices": [second, first]}
    assert row.texts(asked) == ((first, second), (first, first))
    row = TIMED["text-ranking"]
    asked = row.ask(dataclasses.replace(drawn(), others=("an other", "text")))
    query = "one two three four five six seven eight"
    assert asked == {"query": query, "documents": [TEXT, "an other", "text"]}
    assert row.texts(asked) == ((query, TEXT), (query, "an other"), (query, "text"))


ANSWERS = {
    # fill-mask and text-classification answer with a list in one library and with its best in another
    "fill-mask": ([[{"token": 7, "score": 0.5}], {"token": 9, "score": 0.1}], ["7", "9"]),
    "text-classification": ([[{"label": "good", "score": 0.5}], {"label": "bad", "score": 0.1}], ["good", "bad"]),
    "token-classification": (
        [[], [{"entity": "B-PER", "start": 0, "end": 4}, {"entity": "O", "start": 5, "end": 6}]],
        ["", "B-PER 0-4; O 5-6"],
    ),
    "multiple-choice": ([{"label": 1, "choice": "b"}, {"label": 0, "choice": "a"}], ["1", "0"]),
    "text-ranking": ([[{"corpus_id": 2, "score": 3.0}, {"corpus_id": 0, "score": 1.0}]], ["2"]),
    "question-answering": ([{"start": 3, "end": 9}, [{"start": 0, "end": 2}]], ["3-9", "0-2"]),
    # the first two point the same way, whatever their lengths; the third is nearer to the second's twin than to none
    "embeddings": ([[1.0, 0.0], [5.0, 0.1], [0.0, 1.0], [0.0, 0.0]], ["1", "0", "1", "0"]),
}


@pytest.mark.parametrize("task", ANSWERS)
def test_the_best_answers(task):
    answers, best = ANSWERS[task]
    assert TIMED[task].best(answers) == best


def test_answers_become_values_of_json():
    answer = {"vector": np.array([1.5, 2], dtype=np.float32), "scores": [np.float32(0.5)], "word": "a"}
    value = plain(answer)
    assert value == {"vector": [1.5, 2.0], "scores": [0.5], "word": "a"}
    assert type(value["scores"][0]) is float
