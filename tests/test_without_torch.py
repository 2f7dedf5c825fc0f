"""A fine-tuned checkpoint is exported, and an environment without torch answers as transformers does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from bertport.runtime import cli
from bertport.runtime.heads import MULTIPLE_CHOICE, QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.conftest import built_once
from tests.heads import head_checkpoint
from tests.wheels import bertport, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FAMILIES = ("bert", "roberta", "distilbert")
HEADS = (SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING, MULTIPLE_CHOICE)
ATOL = 1e-5
"""Tolerance of a probability: float32 in two libraries, after an export that was compared to 1e-4."""
TEXTS = ["The king went home to Paris.", "doctor and nurse", "What a lovely day in Berlin, said Hello"]
NLI = ("contradiction", "neutral", "entailment")


@pytest.fixture(scope="module")
def python():
    """The interpreter of an environment with ONNX Runtime, numpy, tokenizers and click."""
    return environment("cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that exports a checkpoint by the command line, once."""

    def bundle(checkpoint: Path) -> Path:
        def make(path: Path) -> None:
            done = CliRunner().invoke(cli.app, ["export", str(checkpoint), str(path)])
            assert done.exit_code == 0, done.stderr

        return built_once(tmp_path_factory, f"bundles/without-torch/{checkpoint.name}", make)

    return bundle


def predicted(python: Path, bundle: Path, task: str, inputs: list[Any], *parameters: str) -> list[Any]:
    """Return what `bertport predict` answers in the environment."""
    asked = [part for value in inputs for part in ("-i", value if isinstance(value, str) else json.dumps(value))]
    named = [part for each in parameters for part in ("-p", each)]
    done = bertport(python, "predict", task, "-m", bundle, *asked, *named)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["result"] for line in done.stdout.splitlines()]


def same(found: object, expected: Any) -> bool:
    """Return whether two answers are equal but for the last digits of their numbers."""
    match expected:
        case list() | tuple():
            return len(found) == len(expected) and all(map(same, found, expected))
        case dict():
            return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
        case str() | bool() | int():
            return found == expected
    return abs(found - float(expected)) <= ATOL


def pipeline(task: str, checkpoint: Path, **settings: object) -> Callable[..., Any]:
    import transformers

    return transformers.pipeline(task, model=str(checkpoint), device="cpu", **settings)


def labels_of_texts(checkpoint: Path) -> tuple[str, list[Any], list[str], list[Any]]:
    return "text-classification", TEXTS, ["top_k=null"], pipeline("text-classification", checkpoint)(TEXTS, top_k=None)


def labels_of_tokens(checkpoint: Path) -> tuple[str, list[Any], list[str], list[Any]]:
    pipe = pipeline("token-classification", checkpoint, aggregation_strategy="simple")
    return "token-classification", TEXTS, ["aggregation_strategy=simple"], pipe(TEXTS)


def answer(checkpoint: Path) -> tuple[str, list[Any], list[str], list[Any]]:
    """The best span of a short context, by the probabilities of its ends; transformers 5 has no pipeline for it."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    question, context, longest = "Where is the king?", "The king went home to Paris in March.", 15
    encoded = AutoTokenizer.from_pretrained(checkpoint)(question, context, return_tensors="pt")
    with torch.no_grad():
        output = AutoModelForQuestionAnswering.from_pretrained(checkpoint)(**encoded)
    inside = torch.tensor([part == 1 for part in encoded.sequence_ids()])
    inside[0] = True  # the special token that stands for no answer
    begins, ends = (
        logits[0].masked_fill(~inside, -torch.inf).softmax(-1) for logits in (output.start_logits, output.end_logits)
    )
    scores = torch.outer(begins, ends).triu().tril(longest - 1)
    scores[0] = 0
    first, last = divmod(int(scores.argmax()), len(begins))
    start, end = encoded.token_to_chars(first).start, encoded.token_to_chars(last).end
    answer = {"score": float(scores[first, last]), "start": start, "end": end, "answer": context[start:end]}
    asked = [{"question": question, "context": context}]
    return "question-answering", asked, ["align_to_words=false", f"max_answer_len={longest}"], [answer]


def choices(checkpoint: Path) -> tuple[str, list[Any], list[str], list[Any]]:
    import torch
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    prompt, listed = TEXTS[0], ["He was tired.", "The sea is red.", "a city"]
    encoded = AutoTokenizer.from_pretrained(checkpoint)([prompt] * 3, listed, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = AutoModelForMultipleChoice.from_pretrained(checkpoint)(
            **{name: tensor[None] for name, tensor in encoded.items()}
        )
    shares = output.logits[0].softmax(-1)
    best = int(shares.argmax())
    answer = {
        "label": best,
        "choice": listed[best],
        "score": float(shares[best]),
        "probabilities": shares.tolist(),
    }
    return "multiple-choice", [{"prompt": prompt, "choices": listed}], [], [answer]


ASKED = {
    SEQUENCE_CLASSIFICATION: labels_of_texts,
    TOKEN_CLASSIFICATION: labels_of_tokens,
    QUESTION_ANSWERING: answer,
    MULTIPLE_CHOICE: choices,
}
"""By head, what makes the task, its inputs, its parameters, and transformers' answers."""


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_without_torch_are_those_of_transformers(python, exported, tmp_path_factory, family, head):
    checkpoint = head_checkpoint(tmp_path_factory, family, head)
    task, inputs, parameters, expected = ASKED[head](checkpoint)
    found = predicted(python, exported(checkpoint), task, inputs, *parameters)
    assert same(found, expected), f"{found}\n{expected}"


def test_labels_of_the_callers_choice_are_those_of_transformers(python, exported, tmp_path_factory):
    checkpoint = head_checkpoint(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=NLI)
    topics = ["music", "the city", "games"]
    expected = pipeline("zero-shot-classification", checkpoint)(TEXTS, topics)
    found = predicted(
        python, exported(checkpoint), "zero-shot-classification", TEXTS, f"candidate_labels={json.dumps(topics)}"
    )
    assert same(found, expected), f"{found}\n{expected}"


def test_a_ranking_is_that_of_sentence_transformers(python, exported, tmp_path_factory):
    library = pytest.importorskip("sentence_transformers")
    checkpoint = head_checkpoint(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=["LABEL_0"])
    ranked = library.CrossEncoder(str(checkpoint), device="cpu").rank("Where is the king?", TEXTS)
    expected = [{"corpus_id": int(each["corpus_id"]), "score": float(each["score"])} for each in ranked]
    asked = [{"query": "Where is the king?", "documents": TEXTS}]
    assert same(predicted(python, exported(checkpoint), "text-ranking", asked), [expected])


def test_vectors_of_texts_are_those_of_sentence_transformers(python, exported, sentence_checkpoint):
    library = pytest.importorskip("sentence_transformers")
    expected = library.SentenceTransformer(str(sentence_checkpoint), device="cpu").encode(
        TEXTS, normalize_embeddings=True
    )
    found = predicted(python, exported(sentence_checkpoint), "embeddings", TEXTS, "normalize=true")
    assert same(found, expected.tolist())


def test_torch_and_transformers_are_not_there(python):
    program = "import importlib.util as u; print(*[n for n in ('torch', 'transformers', 'onnx') if u.find_spec(n)])"
    assert run(python, "-c", program).stdout.split() == []
