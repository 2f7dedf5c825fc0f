"""Answers of the package for JavaScript beside those of the runtime, for every head and family that it takes."""

import re

import numpy as np
import pytest

from bench.checkout import ROOT
from bench.node.__main__ import ask
from bertport.runtime import load
from bertport.runtime.heads import (
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    RTD,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)
from tests import family_bundles
from tests.conftest import OLD
from tests.heads import head_bundle

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(600)]

ATOL = 1e-5
"""On probabilities and vectors: Node's ONNX Runtime is another build, and softmax is computed in float64 there."""
TEXTS = (
    "The man took off his hat and sat down by the fire.",
    "Caf\u00e9 na\u00efve \u4e2d\u6587\u65e5\u672c \U0001f600 isn't (here).",
    "\u1f08\u03b8\u1fc6\u03bd\u03b1\u03b9 \u039f\u0394\u039f\u03a3 and \u039f\u0394\u039f\u03a3.",
    "Paris, London\tand  Berlin\u00a0are\u200b cities\u2026 \U00020000x",
    "red " * 30 + "blue.",
)
KINDS = ("roberta", "xlm-roberta", "mpnet", "albert", "deberta", "deberta-v2", "modernbert")
"""Families of which each has a tokenizer of another kind; the others have BERT's."""
ASKED = {
    "bert": [
        ("fill-mask", ["Paris is the [MASK] of France.", "[MASK] isn't the [MASK]."], {"top_k": 3}),
        ("fill-mask", ["He bought some [MASK]."], {"targets": ["milk", "bread", "xylophones"]}),
        ("fill-mask", ["He bought some [MASK]."], {"targets": None, "top_k": 3}),
        ("next-sentence", [["He went to the store.", "He bought milk."], ["red", ""]], {}),
        ("features", [*TEXTS], {"pooling": "mean", "normalize": True}),
        ("features", [*TEXTS], {"pooling": "pooler"}),
        ("features", [["Two texts", "in one."]], {}),
    ],
    "albert": [("sentence-order", [["He went out.", "He came back."]], {})],
    SEQUENCE_CLASSIFICATION: [
        ("text-classification", [*TEXTS, ["A text", "and another"]], {}),
        ("text-classification", [TEXTS[0]], {"top_k": None, "function_to_apply": "sigmoid"}),
    ],
    TOKEN_CLASSIFICATION: [
        ("token-classification", [*TEXTS], {"ignore_labels": []}),
        ("token-classification", [*TEXTS], {"aggregation_strategy": "simple"}),
    ],
    QUESTION_ANSWERING: [
        ("question-answering", [{"question": "Who sat?", "context": text} for text in TEXTS], {"top_k": 3}),
        ("question-answering", [{"question": "Where?", "context": " ".join(TEXTS[:3]) * 4}], {"max_seq_len": 40}),
        (  # a question that leaves room for less of the context than two windows would have in common
            "question-answering",
            [{"question": "?" * 20, "context": " ".join(TEXTS[:3])}],
            {"max_seq_len": 40, "truncation": True},
        ),
        (
            "question-answering",
            [{"question": "Why?", "context": TEXTS[1]}],
            {"handle_impossible_answer": True, "align_to_words": False, "top_k": 5},
        ),
    ],
    RTD: [
        ("replaced-tokens", [*TEXTS], {}),
        ("replaced-tokens", [*TEXTS], {"ignore_labels": ["original"]}),
    ],
    MULTIPLE_CHOICE: [("multiple-choice", [{"prompt": TEXTS[0], "choices": ["He slept.", "He ran away."]}], {})],
    "ranking": [
        ("text-ranking", [{"query": "the fire", "documents": list(TEXTS)}], {"return_documents": True, "top_k": 2}),
        ("text-ranking", [["the fire", TEXTS[0]]], {}),
    ],
    "sentences": [
        ("embeddings", [*TEXTS[:2]], {"prompt_name": "query", "normalize": True}),
        ("embeddings", [*TEXTS[:2]], {"truncate_dim": 5, "prompt": ""}),
        ("embeddings", [*TEXTS[:2]], {"prompt": None, "prompt_name": None, "truncate_dim": None}),
    ],
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, tiny_bundle, sentence_bundle, family_bundle):
    """A bundle for each key of `ASKED`."""
    heads = (SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING, MULTIPLE_CHOICE)
    made = {head: head_bundle(tmp_path_factory, "bert", head)[1] for head in heads}
    made["ranking"] = head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=("fits",))[1]
    made[RTD] = family_bundles.family_bundle(tmp_path_factory, "electra", "ElectraForPreTraining")[1]
    return made | {"bert": tiny_bundle, "sentences": sentence_bundle, "albert": family_bundle("albert")}


def assert_alike(theirs, ours, where=""):
    """Compare answers: names and texts exactly, numbers within `ATOL`."""
    if isinstance(ours, dict):
        assert theirs.keys() == ours.keys(), where
        for key, value in ours.items():
            assert_alike(theirs[key], value, f"{where}.{key}")
    elif isinstance(ours, np.ndarray) or (isinstance(ours, list) and ours and isinstance(ours[0], float)):
        np.testing.assert_allclose(theirs, ours, atol=ATOL, err_msg=where)
    elif isinstance(ours, list):
        assert len(theirs) == len(ours), where
        for number, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            assert_alike(a, b, f"{where}[{number}]")
    elif isinstance(ours, float):
        assert theirs == pytest.approx(ours, abs=ATOL), where
    else:
        assert theirs == ours, where


def in_units(answers, text: str):
    """Return answers with places as JavaScript counts them: characters above U+FFFF are two."""
    if isinstance(answers, list):
        return [in_units(answer, text) for answer in answers]
    places = {name: len(text[: answers[name]].encode("utf-16-le")) // 2 for name in ("start", "end")}
    return answers | places


def expected(model, task, inputs, parameters):
    """Return the runtime's answers, with places in UTF-16 units."""
    answers = list(model.predict(task, inputs, **parameters))
    if task in {"token-classification", "replaced-tokens"}:
        return [in_units(answer, text) for answer, text in zip(answers, inputs, strict=True)]
    if task == "question-answering":
        return [in_units(answer, value["context"]) for answer, value in zip(answers, inputs, strict=True)]
    return answers


@pytest.mark.filterwarnings("ignore:the target:UserWarning")
def test_every_task_answers_as_the_runtime_does(package, bundles):
    requests = [
        {"bundle": str(bundle), "variant": variant, "asked": ASKED[name]}
        for name, bundle in bundles.items()
        for variant in ("portable", "fp32")
    ]
    for request, answers in zip(requests, ask(package, requests), strict=True):
        model = load(request["bundle"], variant="fp32", provider="cpu")
        for (task, inputs, parameters), theirs in zip(request["asked"], answers, strict=True):
            where = f"{request['variant']} {task} {parameters}"
            assert isinstance(theirs, list), theirs
            assert_alike(theirs, expected(model, task, inputs, parameters), where)


def test_every_task_that_the_package_claims_is_asked():
    page = (ROOT / "docs" / "reference" / "javascript.md").read_text(encoding="utf-8")
    table = page.partition("| task | not in this package |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if "`" in row]
    claimed = {
        name for tasks, without in rows if "all of it" not in without for name in re.findall(r"`([\w-]+)`", tasks)
    }
    assert "replaced-tokens" in claimed
    assert claimed == {task for asked in ASKED.values() for task, _, _ in asked}


def test_the_ids_of_every_kind_of_tokenizer_are_the_runtimes(package, family_bundle):
    bundles = [family_bundle(family) for family in KINDS]
    models = [load(bundle, variant="fp32", provider="cpu") for bundle in bundles]
    texts = [[*TEXTS, "", f"a {model.tokens.mask_token}."] for model in models]
    for some, model in zip(texts, models, strict=True):
        if model.tokens.takes_pairs and model.bundle.manifest.architecture.type_vocab_size > 1:
            some.append(["A text", "and another"])
    requests = [{"bundle": str(each), "asked": [["ids", some, {}]]} for each, some in zip(bundles, texts, strict=True)]
    for family, some, model, [answers] in zip(KINDS, texts, models, ask(package, requests), strict=True):
        assert isinstance(answers, list), answers
        given = [tuple(text) if isinstance(text, list) else text for text in some]
        ours = model.tokens.encode(given, truncation=True)
        for text, (ids, types), encoded in zip(some, answers, ours, strict=True):
            assert ids == encoded.ids.tolist(), (family, text)
            assert types == encoded.type_ids.tolist(), (family, text)


def test_masks_are_filled_as_the_runtime_does_by_every_kind_of_tokenizer(package, family_bundle):
    """Decoders differ: bytes, and words behind a mark or before one."""
    bundles = {family: family_bundle(family) for family in ("roberta", "xlm-roberta", "mpnet", "modernbert")}
    models = [load(bundle, variant="fp32", provider="cpu") for bundle in bundles.values()]
    texts = [["Paris is the M of caf\u00e9s.", "M isn't the M, red."] for _ in models]
    given = [[text.replace("M", model.mask_token) for text in some] for some, model in zip(texts, models, strict=True)]
    requests = [
        {"bundle": str(bundle), "variant": "portable", "asked": [["fill-mask", some, {"top_k": 3}]]}
        for bundle, some in zip(bundles.values(), given, strict=True)
    ]
    for family, some, model, [theirs] in zip(bundles, given, models, ask(package, requests), strict=True):
        assert isinstance(theirs, list), theirs
        assert_alike(theirs, list(model.predict("fill-mask", some, top_k=3)), family)


def test_a_bundle_of_format_1_answers(package):
    asked = [("fill-mask", ["paris is the [MASK] ."], {"top_k": 2}), ("next-sentence", [["a", "b"]], {})]
    [answers] = ask(package, [{"bundle": str(OLD), "variant": "portable", "asked": asked}])
    model = load(OLD, variant="portable", provider="cpu")
    for (task, inputs, parameters), theirs in zip(asked, answers, strict=True):
        assert_alike(theirs, list(model.predict(task, inputs, **parameters)), task)
