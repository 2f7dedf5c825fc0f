"""Rows of the embedding that no token has, behind the vocabulary and within it, are never answered with.

transformers' pipeline takes its probabilities over all rows, and so do we; it names such a row by an empty text.
"""

from __future__ import annotations

import pytest

from bertport.runtime.errors import UsageError
from bertport.runtime.heads import HEADS, MLM
from bertport.runtime.model import Model
from bertport.runtime.providers.table import PROVIDERS
from bertport.runtime.session import open_graph
from bertport.runtime.top_k import top_k_head
from tests.export import tokenizer_forms as forms
from tests.runtime.parity import assert_same_fillings

FORMS = (
    forms.duplicate_lines,
    forms.unigram,
    *(pytest.param(form, marks=pytest.mark.slow) for form in (forms.byte_level, forms.renamed_tokens)),
)


class Both(dict):
    """The two sides of a test, without a page-long repr."""

    def __repr__(self):
        return "Both"


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.__name__)
def both(request, make_checkpoint, tmp_path_factory):
    """A checkpoint with 700 rows, those without a token the likeliest, in transformers' pipeline and here."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import pipeline

    from bertport.export import export
    from bertport.runtime import load

    directory = make_checkpoint(tmp_path_factory.mktemp("rows") / "checkpoint", vocab_size=forms.ROWS)
    request.param(directory)
    torch.set_num_threads(1)
    pipe = pipeline("fill-mask", model=str(directory), device="cpu")
    named = set(pipe.tokenizer.get_vocab().values())
    path = directory / "model.safetensors"
    tensors = load_file(path)
    bias = tensors["cls.predictions.bias"]
    bias[[index for index in range(forms.ROWS) if index not in named]] += 3
    save_file(tensors, path, metadata={"format": "pt"})
    pipe = pipeline("fill-mask", model=str(directory), device="cpu")
    bundle = export(directory, directory.parent / "bundle")
    return Both(pipe=pipe, model=load(bundle.path), bundle=bundle, named=named, mask=pipe.tokenizer.mask_token)


@pytest.fixture(scope="module", params=["fp32", "portable", "chosen in the graph"])
def model(request, both):
    if request.param != "chosen in the graph":
        from bertport.runtime import load

        return load(both["bundle"].path, variant=request.param)
    bundle = both["bundle"]
    graph = open_graph(
        bundle.file(bundle.manifest.variants["fp32"].file), PROVIDERS["cpu"], appended=top_k_head(HEADS[MLM].output)
    )  # what a GPU gets
    return Model(bundle, "fp32", graph, both["model"].tokens)


TEXTS = ("the king of {} is old.", "{} {} é x", "a{}.")


def test_no_answer_names_them(both, model):
    texts = [text.replace("{}", both["mask"]) for text in TEXTS]
    expected, answers = both["pipe"](texts, top_k=forms.ROWS), model.fill_mask(texts, top_k=40)
    for text, theirs, ours in zip(texts, expected, answers, strict=True):
        several = isinstance(ours[0], list)
        for one, other in zip(theirs, ours, strict=True) if several else [(theirs, ours)]:
            unnamed = [answer["token"] for answer in one[:40] if answer["token"] not in both["named"]]
            assert len(unnamed) > 10, text  # they are the likeliest
            named = [answer for answer in one if answer["token"] in both["named"]]
            assert_same_fillings(named[:40], other)


def test_as_many_as_there_are_tokens(both, model):
    text, words = f"a {both['mask']}", len(both["named"])
    assert {answer["token"] for answer in model.fill_mask(text, top_k=words)} == both["named"]
    with pytest.raises(UsageError, match=rf"the vocabulary has {words} words"):
        model.fill_mask(text, top_k=words + 1)


def test_targets(both, model):
    vocabulary = sorted(both["named"])[-30:]
    targets = [token for token in both["pipe"].tokenizer.convert_ids_to_tokens(vocabulary) if token.strip()]
    text = f"a {both['mask']} b"
    expected = both["pipe"](text, targets=targets, top_k=20)
    assert_same_fillings(expected, model.fill_mask(text, targets=targets, top_k=20))
