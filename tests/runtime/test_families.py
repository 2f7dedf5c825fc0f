"""Encoders of other families answer as transformers does: masks of any name, heads of their own, no segments."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bertport.runtime import load
from bertport.runtime.cli import app
from bertport.runtime.errors import InputTextError, MissingHeadError, UsageError
from tests.family_bundles import family_bundle
from tests.runtime.parity import ATOL

# transformers' DeBERTa and ModernBERT ask PyTorch for what it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

FILLING = [
    "roberta",
    *(
        pytest.param(family, marks=pytest.mark.slow)
        for family in (
            *("xlm-roberta", "camembert", "distilbert", "electra", "mpnet", "deberta"),
            *("deberta-v2", "modernbert", "albert", "mobilebert", "ernie"),
        )
    ),
]
TEXTS = [
    "The capital of France is {}.",
    "the king  {} went home",
    "{}",
    "the {} and the {} é",
    "Hello{} world!",
    " {} at the beginning and at the end {} ",
]
DISCRIMINATOR = "ElectraForPreTraining"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A function that gives a family's checkpoint and the runtime on its bundle."""

    def opened(family, model_class=None):
        checkpoint, bundle = family_bundle(tmp_path_factory, family, model_class)
        return checkpoint, load(bundle, variant="fp32", provider="cpu")

    return opened


def assert_same_words(words, expected):
    assert len(words) == len(expected)
    for ours, theirs in zip(words, expected, strict=True):
        if isinstance(ours, list):
            assert_same_words(ours, theirs)
            continue
        assert ours.keys() == theirs.keys()
        assert ours["score"] == pytest.approx(theirs["score"], abs=ATOL)
        assert {**ours, "score": 0} == {**theirs, "score": 0}


@pytest.mark.parametrize("family", FILLING)
def test_masks_are_filled_as_transformers_fills_them(family, loaded):
    """Field for field, whatever the mask is and whether it takes the space before it; alone and in a batch."""
    from transformers import pipeline

    checkpoint, model = loaded(family)
    texts = [text.replace("{}", model.mask_token) for text in TEXTS]
    reference = pipeline("fill-mask", model=str(checkpoint), device="cpu")
    assert reference.tokenizer.mask_token == model.mask_token
    expected = [reference(text) for text in texts]
    assert_same_words([model.fill_mask(text) for text in texts], expected)
    [*prepared] = model.bind("fill-mask").prepare(texts)
    assert len({len(work.ids) for work in prepared}) > 2  # so that there is padding
    assert_same_words(model.run(prepared), expected)


@pytest.mark.parametrize("family", FILLING)
def test_hidden_states_are_those_of_transformers(family, loaded):
    """Of texts and of pairs, with the padding of a batch; a family without segments takes pairs too."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    checkpoint, model = loaded(family)
    tokenizer, encoder = AutoTokenizer.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()
    pairs = [("the king went home", "he was old"), ("a", "b"), ("the city", "a small house in the city " * 3)]
    works = model.bind("features").prepare([*(first for first, _ in pairs), *pairs])
    inputs = [*((first,) for first, _ in pairs), *pairs]
    for vectors, texts in zip(model.run(works), inputs, strict=True):
        with torch.no_grad():
            expected = encoder(**tokenizer(*[[text] for text in texts], return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vectors, expected.numpy(), atol=ATOL)


def test_the_longest_input_is_what_the_manifest_says(loaded):
    _, model = loaded("roberta")
    longest = " king" * (model.tokens.max_length - 2)
    assert len(model.features(longest)) == model.tokens.max_length == model.bundle.manifest.max_length
    with pytest.raises(InputTextError, match=f"has {model.tokens.max_length + 1} tokens and the model takes"):
        model.features(f"{longest} king")
    assert len(model.features(f"{longest} king", truncation=True)) == model.tokens.max_length


def test_the_mask_of_another_model_is_not_this_one_s(loaded):
    _, model = loaded("roberta")
    with pytest.raises(InputTextError, match=r"No mask_token \(<mask>\) found on the input: write <mask> where"):
        model.fill_mask("the king [MASK] home")


def test_a_model_without_segments_judges_no_pairs(loaded):
    _, model = loaded("roberta")
    assert model.describe()["tasks"] == ["fill-mask", "features"]
    for task in ("next-sentence", "sentence-order"):
        with pytest.raises(MissingHeadError, match=f"{task} needs the head"):
            model.bind(task)


def test_sentence_order_is_that_of_transformers(loaded):
    import torch
    from transformers import AlbertForPreTraining, AutoTokenizer

    checkpoint, model = loaded("albert")
    network, tokenizer = (
        AlbertForPreTraining.from_pretrained(checkpoint).eval(),
        AutoTokenizer.from_pretrained(checkpoint),
    )
    pairs = [("the king went home", "he was old"), ("a", "b " * 20), ("he was old", "the king went home")]
    answers = model.sentence_order(*map(list, zip(*pairs, strict=True)))
    for (first, second), answer in zip(pairs, answers, strict=True):
        with torch.no_grad():
            logits = network(**tokenizer([first], [second], return_tensors="pt")).sop_logits
        in_order, swapped = logits.softmax(-1)[0].tolist()
        assert answer["probabilities"] == pytest.approx({"in_order": in_order, "swapped": swapped}, abs=ATOL)
        assert answer["in_order"] is (in_order > swapped)
        assert answer["label"] == ("in_order" if in_order > swapped else "swapped")
    assert model.sentence_order(*pairs[0])["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=ATOL)
    assert "next-sentence" not in model.describe()["tasks"]
    with pytest.raises(UsageError, match="sentence-order takes two texts or two lists of one length, not "):
        model.sentence_order("a", ["b"])


REPLACED = ["The king went home, Xqz é!", "a", "", "He [SEP] bought milk \u4e2d\u6587"]


def test_replaced_tokens_are_those_of_transformers(loaded):
    """The sigmoid of ELECTRA's logit, in the rows of the token-classification pipeline."""
    import torch
    from transformers import AutoTokenizer, ElectraForPreTraining

    checkpoint, model = loaded("electra", DISCRIMINATOR)
    network = ElectraForPreTraining.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for text, rows in zip(REPLACED, model.replaced_tokens(REPLACED), strict=True):
        encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True, return_special_tokens_mask=True)
        [spans], [special] = encoded.pop("offset_mapping").tolist(), encoded.pop("special_tokens_mask").tolist()
        with torch.no_grad():
            [replaced] = torch.sigmoid(network(**encoded).logits).tolist()
        places = [place for place, skipped in enumerate(special) if not skipped]
        assert [tag["index"] for tag in rows] == places
        words = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0].tolist())
        for tag, place in zip(rows, places, strict=True):
            share = max(replaced[place], 1 - replaced[place])
            assert list(tag) == ["entity", "score", "index", "word", "start", "end"]
            assert tag["entity"] == ("replaced" if replaced[place] > 0.5 else "original")
            assert tag["score"] == pytest.approx(share, abs=ATOL)
            assert tag["word"] == words[place]
            assert [tag["start"], tag["end"]] == spans[place]


def test_the_pipeline_of_token_classification_gives_the_same_rows(loaded):
    """With a classifier of two labels that computes the discriminator's logit: its fields are what ours are called."""
    import torch
    from torch import nn
    from transformers import AutoTokenizer, ElectraForPreTraining, ElectraForTokenClassification, pipeline

    checkpoint, model = loaded("electra", DISCRIMINATOR)
    names = {0: "original", 1: "replaced"}
    labels = {"id2label": names, "label2id": {label: index for index, label in names.items()}}
    classifier = ElectraForTokenClassification.from_pretrained(checkpoint, **labels).eval()
    discriminator = ElectraForPreTraining.from_pretrained(checkpoint).eval()

    class Stacked(nn.Module):
        def forward(self, states):
            logits = discriminator.discriminator_predictions(states)
            return torch.stack((torch.zeros_like(logits), logits), dim=-1)

    classifier.classifier = Stacked()
    reference = pipeline(
        "token-classification", model=classifier, tokenizer=AutoTokenizer.from_pretrained(checkpoint), device="cpu"
    )
    for text in (*REPLACED[:2], REPLACED[3], "the king and the queen " * 30):
        tags, expected = model.replaced_tokens(text, truncation=True), reference(text)
        assert_same_words(tags, expected)
        for ignored in ("original", "replaced"):
            kept = [tag for tag in tags if tag["entity"] != ignored]
            assert model.replaced_tokens(text, truncation=True, ignore_labels=[ignored]) == kept


def test_what_no_label_can_be_is_refused(loaded):
    _, model = loaded("electra", DISCRIMINATOR)
    with pytest.raises(UsageError, match=r"ignore_labels is a list of labels \(original, replaced\), not 'original'"):
        model.replaced_tokens("a", ignore_labels="original")
    with pytest.raises(UsageError, match=r"ignore_labels is a list of labels .*, and holds 3"):
        model.replaced_tokens("a", ignore_labels=[3])
    with pytest.raises(InputTextError, match=r"replaced-tokens takes a text, or \{\"text\": …\}, not \['a', 'b'\]"):
        list(model.predict("replaced-tokens", [["a", "b"]]))


def test_the_commands_answer_as_the_model_does(loaded):
    from click.testing import CliRunner

    for family, model_class, arguments, expected in (
        ("albert", None, ["sentence-order", "the king went home", "he was old"], ("in_order", " before ")),
        ("electra", DISCRIMINATOR, ["replaced-tokens", "the king went home"], ("king", "4-8")),
        ("roberta", None, ["fill-mask", "the king <mask> home", "--top-k", "2"], ("the king <mask> home",)),
    ):
        _, model = loaded(family, model_class)
        asked = [*arguments, "-m", str(model.bundle.path), "--variant", "fp32", "--provider", "cpu"]
        shown = CliRunner().invoke(app, asked)
        assert shown.exit_code == 0, shown.output
        assert all(part in shown.stdout for part in expected)
        answer = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
        if family == "albert":
            assert answer == model.sentence_order(*arguments[1:])
        elif family == "electra":
            assert answer == model.replaced_tokens(arguments[1:])
            labels = CliRunner().invoke(app, ["inspect", str(model.bundle.path)]).stdout
            assert "replaced-token labels  0: original, 1: replaced" in labels
            assert "next-sentence labels" not in labels


def test_doctor_asks_with_the_model_s_own_mask(loaded):
    from bertport.runtime.doctor import examine

    _, model = loaded("roberta")
    report = examine(str(model.bundle.path), seconds=0.01)
    assert report["ok"]
    assert report["speed"]["task"] == "fill-mask"
