"""Tasks of fine-tuned heads on exported models of every family: the answers of transformers on the same checkpoints."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from bertport.runtime import load
from bertport.runtime.heads import MULTIPLE_CHOICE, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION
from tests.heads import combinations, head_bundle

ATOL = 1e-5
"""Tolerance of scores that the project promises; both sides compute in float32 and differ in the order of sums."""
KINDS = ("bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2")
"""Families that tell pairs by segments and without, and have WordPiece, byte-level BPE and Unigram."""
SHORT = ["the king went home", "", "don't [SEP] london, l'été 中文 \N{SNOWMAN}"]
LONG = "the kingdom of the sea " * 40
TEXTS = [*SHORT, LONG]
PAIRS = [("the king", "he was old"), ("a small house", ""), (LONG, "the sea"), ("the sea", LONG)]
NLI = ("contradiction", "neutral", "entailment")
TOPICS = ["music", "the city", "games of a king"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Tokenizer does not support real words:UserWarning")]


def families(head):
    """Return the families that have a head."""
    return [family for family, named in combinations() if named == head]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that gives the checkpoint of a family with a head, and the model of its bundle."""

    def both(family, head, **settings):
        checkpoint, bundle = head_bundle(tmp_path_factory, family, head, **settings)
        return str(checkpoint), load(bundle)

    return both


def pipeline(task: str, checkpoint: str) -> Any:
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeBERTa's modules call what PyTorch deprecates
        return transformers.pipeline(task, model=checkpoint, device="cpu")


def assert_same(ours, theirs):
    """Check that answers have the same structure, texts and numbers, and scores within `ATOL`."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert_same(ours[name], value)
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    elif isinstance(theirs, str | int):
        assert ours == theirs
    else:
        assert type(ours) is float
        assert ours == pytest.approx(float(theirs), abs=ATOL)


@pytest.mark.parametrize("family", families(SEQUENCE_CLASSIFICATION))
def test_labels_of_texts_and_pairs(made, family):
    checkpoint, model = made(family, SEQUENCE_CLASSIFICATION)
    pipe = pipeline("text-classification", checkpoint)
    inputs = [*TEXTS, *({"text": first, "text_pair": second} for first, second in PAIRS)]
    for parameters in ({}, {"top_k": None}, {"top_k": 2, "function_to_apply": "sigmoid"}):
        theirs = [pipe([one], truncation=True, **parameters)[0] for one in inputs]
        assert_same(list(model.predict("text-classification", inputs, truncation=True, **parameters)), theirs)


@pytest.mark.parametrize("family", families(TOKEN_CLASSIFICATION))
def test_labels_of_tokens(made, family):
    checkpoint, model = made(family, TOKEN_CLASSIFICATION)
    pipe = pipeline("token-classification", checkpoint)
    for strategy in ("none", "simple", "first", "average", "max"):
        parameters = {"aggregation_strategy": strategy, "ignore_labels": ["O", "LOC"]}
        ours = list(model.predict("token-classification", TEXTS, truncation=True, **parameters))
        assert_same(ours, [pipe(text, **parameters) for text in TEXTS])
    words = ["the", "king", "of", "l'été"]
    parameters = {"aggregation_strategy": "max", "is_split_into_words": True, "delimiter": "-"}
    assert_same(list(model.predict("token-classification", [words], **parameters)), pipe([words], **parameters))


@pytest.mark.parametrize("family", families(MULTIPLE_CHOICE))
def test_probabilities_of_choices(made, family):
    import torch
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    checkpoint, model = made(family, MULTIPLE_CHOICE)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    reference = AutoModelForMultipleChoice.from_pretrained(checkpoint).eval()
    asked = [{"prompt": "the king", "choices": SHORT}, {"prompt": LONG, "choices": ["a"]}]
    for question, answer in zip(asked, model.predict("multiple-choice", asked, truncation=True), strict=True):
        choices = question["choices"]
        # One by one: MobileBERT's embeddings of neighbours are those of padding, too.
        rows = [tokenizer([question["prompt"]], [one], truncation=True, return_tensors="pt") for one in choices]
        with torch.inference_mode():
            logits = [reference(**{name: values[None] for name, values in text.items()}).logits for text in rows]
        shares = torch.cat(logits, dim=-1)[0].softmax(-1)
        best = int(shares.argmax())
        expected = {"label": best, "choice": choices[best], "score": shares[best], "probabilities": shares.tolist()}
        assert_same(answer, expected)


@pytest.mark.parametrize("family", KINDS)
def test_labels_of_the_callers_choice(made, family):
    checkpoint, model = made(family, SEQUENCE_CLASSIFICATION, labels=NLI)
    pipe = pipeline("zero-shot-classification", checkpoint)
    texts = [text for text in TEXTS if text]  # the pipeline takes no empty text
    for several in (False, True):
        parameters = {"candidate_labels": TOPICS, "hypothesis_template": "about {}.", "multi_label": several}
        ours = list(model.predict("zero-shot-classification", texts, truncation=True, **parameters))
        assert_same(ours, pipe(texts, **parameters))


@pytest.mark.parametrize(
    ("family", "activation", "stated"),
    [
        *((family, None, {}) for family in KINDS),
        ("bert", "none", {"activation_fn": "torch.nn.modules.linear.Identity"}),
    ],
)
def test_a_ranking_is_that_of_sentence_transformers(made, family, activation, stated):
    from sentence_transformers import CrossEncoder

    changes = {"sentence_transformers": stated} if stated else {}
    checkpoint, model = made(family, SEQUENCE_CLASSIFICATION, labels=("LABEL_0",), **changes)
    assert model.bundle.manifest.heads[SEQUENCE_CLASSIFICATION].activation == activation
    encoder = CrossEncoder(checkpoint, device="cpu")
    asked = [{"query": "where is the king?", "documents": TEXTS}]
    [ranked] = model.predict("text-ranking", asked, return_documents=True, top_k=3, truncation=True)
    expected = encoder.rank("where is the king?", TEXTS, return_documents=True, top_k=3)
    assert_same(ranked, [{**document, "score": float(document["score"])} for document in expected])
    scores = list(model.predict("text-ranking", PAIRS, truncation=True))
    assert_same(scores, [float(score) for score in encoder.predict(PAIRS)])
