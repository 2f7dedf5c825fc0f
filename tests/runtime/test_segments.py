"""A tokenizer without token_type_ids (`model_input_names`) gives a model segment 0 everywhere, as in transformers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.export import tokenizer_forms as forms


@pytest.fixture(
    scope="module",
    params=[
        forms.without_segments,
        forms.complete,
        pytest.param(forms.other_class("DistilBertTokenizer"), marks=pytest.mark.slow),
    ],
)
def case(request, tiny_checkpoint, tmp_path_factory):
    """transformers' tokenizer and model of a checkpoint, and ours."""
    from transformers import AutoTokenizer, BertForPreTraining

    from bertport.export import export
    from bertport.runtime import load

    directory = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("segments") / "checkpoint")
    request.param(directory)
    bundle = export(directory, directory.parent / "bundle")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = BertForPreTraining.from_pretrained(directory).eval()
    return tokenizer, model, load(bundle.path), bundle.manifest


def of_transformers(tokenizer, model, first, second):
    import torch

    with torch.no_grad():
        outputs = model(**tokenizer(first, second, return_tensors="pt", truncation=True, max_length=160))
    return outputs.seq_relationship_logits.softmax(-1)[0].numpy(), outputs.prediction_logits[0].numpy()


PAIRS = [("the king went home", "he was old"), ("a", "b c d é 中"), ("word " * 3000, "the city " * 2000)]


def test_pairs_are_in_the_segments_that_transformers_gives(case):
    tokenizer, reference, model, manifest = case
    given = "token_type_ids" in tokenizer.model_input_names
    assert manifest.inputs["token_type_ids"].constant == (None if given else 0)
    answers = model.next_sentence(*map(list, zip(*PAIRS, strict=True)), truncation=True)
    for (first, second), answer in zip(PAIRS, answers, strict=True):
        expected, _ = of_transformers(tokenizer, reference, first, second)
        np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-5)
        # What the other segments would give is something else.
        tokenizer.model_input_names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (not given)
        other, _ = of_transformers(tokenizer, reference, first, second)
        tokenizer.model_input_names = ["input_ids", "attention_mask"] + ["token_type_ids"] * given
        assert abs(other - expected).max() > 1e-3
