"""Which heads stored names make, and whether shapes agree: without any values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertport.export.checkpoint import tensors
from bertport.export.checkpoint.families import FAMILIES
from bertport.export.checkpoint.layout import layout_of
from bertport.export.checkpoint.tensors import check_shapes, require_heads
from bertport.runtime.errors import CheckpointError, MissingHeadError, UnknownNameError
from tests.conftest import tiny_config

LAYOUT = layout_of(FAMILIES["bert"], tiny_config())
PRETRAINED = ("mlm", "nsp", "pooler")
HEADS = {name: tuple(LAYOUT.heads[name].shapes) for name in PRETRAINED}
CLASSIFIER = ("classifier.weight", "classifier.bias")
DECODER = "cls.predictions.decoder.weight"
ENCODER = (LAYOUT.words, "bert.encoder.layer.0.output.LayerNorm.weight", "bert.encoder.layer.0.output.LayerNorm.bias")
ALL = (*ENCODER, *HEADS["mlm"], *HEADS["nsp"], *HEADS["pooler"])


def plan(names, config):
    """The plan of a checkpoint of BERT's."""
    return tensors.plan(names, config, FAMILIES["bert"], LAYOUT)


def test_the_layout_of_bert():
    assert LAYOUT.words == "bert.embeddings.word_embeddings.weight"
    assert LAYOUT.parts == {"embeddings", "encoder", "pooler"}
    assert HEADS == {
        "mlm": (
            "cls.predictions.bias",
            "cls.predictions.transform.dense.weight",
            "cls.predictions.transform.dense.bias",
            "cls.predictions.transform.LayerNorm.weight",
            "cls.predictions.transform.LayerNorm.bias",
        ),
        "nsp": ("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
        "pooler": ("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
    }
    assert {name for name, head in LAYOUT.heads.items() if head.rows == CLASSIFIER} == {
        "sequence-classification",
        "token-classification",
    }
    assert {name for name, head in LAYOUT.heads.items() if head.pooled} == {
        "nsp",
        "sequence-classification",
        "multiple-choice",
    }
    assert LAYOUT.heads["mlm"].tied == {DECODER: (tiny_config().vocab_size, 32)}
    assert LAYOUT.heads["mlm"].aliases == {"cls.predictions.decoder.bias": "cls.predictions.bias"}


@given(st.sets(st.sampled_from(sorted(HEADS))), st.booleans())
def test_the_heads_are_those_whose_tensors_are_there(heads, stored_decoder):
    names = [*ENCODER, *(name for head in heads for name in HEADS[head])]
    if stored_decoder and "mlm" in heads:
        names.append(DECODER)
    planned = plan(names, {})
    assert set(planned.heads) == heads - ({"nsp"} if "pooler" not in heads else set())
    kept = set(names) - (set(HEADS["nsp"]) if "pooler" not in heads else set())
    assert set(planned.renames.values()) == kept


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("bert.encoder.layer.0.output.LayerNorm.gamma", "bert.encoder.layer.0.output.LayerNorm.weight"),
        ("bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
        ("encoder.layer.0.output.LayerNorm.gamma", "bert.encoder.layer.0.output.LayerNorm.weight"),
        ("module.bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ("pooler.dense.weight", "bert.pooler.dense.weight"),
    ],
)
def test_renames(stored, name):
    names = [stored, *(tensor for tensor in ALL if tensor != name)]
    assert plan(names, {}).renames[stored] == name


def test_a_bare_encoder_has_no_prefix():
    planned = plan([name.removeprefix("bert.") for name in (*ENCODER, *HEADS["pooler"])], {})
    assert planned.heads == ("pooler",)


def test_a_missing_pooler_takes_nsp_with_it_and_says_so():
    planned = plan([*ENCODER, *HEADS["mlm"], *HEADS["nsp"]], {"architectures": ["BertForPreTraining"]})
    assert planned.heads == ("mlm",)
    assert "neither next-sentence prediction nor pooled features" in planned.notes[0]


@pytest.mark.parametrize(
    ("model_class", "heads"),
    [
        ("BertForSequenceClassification", ("sequence-classification", "pooler")),
        ("BertForTokenClassification", ("token-classification", "pooler")),
        ("BertForMultipleChoice", ("multiple-choice", "pooler")),
    ],
)
def test_tensors_of_several_heads_are_of_the_one_that_the_class_promises(model_class, heads):
    planned = plan([*ENCODER, *HEADS["pooler"], *CLASSIFIER], {"architectures": [model_class]})
    assert (planned.heads, planned.notes) == (heads, ())


@pytest.mark.parametrize("stated", [{}, {"architectures": ["BertModel"]}, {"architectures": ["BertForMaskedLM"]}])
def test_tensors_of_several_heads_are_left_out_without_a_class_that_promises_one(stated):
    planned = plan([*ALL, *CLASSIFIER], stated)
    assert planned.heads == PRETRAINED
    note = (
        "the tensors of sequence-classification or token-classification or multiple-choice are there, and no class in "
        "config.json says which they are: name it in architectures"
    )
    left = "left out, as part of neither the encoder nor a head: classifier.bias, classifier.weight"
    assert planned.notes == (left, note)


def test_a_head_with_names_of_its_own_is_told_by_them():
    planned = plan([*ALL, *CLASSIFIER, "qa_outputs.weight", "qa_outputs.bias"], {"architectures": ["BertModel"]})
    assert planned.heads == ("mlm", "nsp", "question-answering", "pooler")


def test_a_classifier_that_was_never_trained_is_not_invented():
    planned = plan([*ENCODER, *HEADS["pooler"]], {"architectures": ["BertForSequenceClassification"]})
    assert planned.heads == ("pooler",)
    assert "BertForSequenceClassification, but the weights hold no sequence-classification head" in planned.notes[0]


def test_a_classifier_in_part_is_refused():
    with pytest.raises(
        CheckpointError, match=r"sequence-classification head only in part: classifier\.bias is missing"
    ):
        plan([*ALL, "classifier.weight"], {"architectures": ["BertForSequenceClassification"]})


def test_a_missing_pooler_takes_a_classifier_of_bert_with_it():
    planned = plan([*ENCODER, *CLASSIFIER], {"architectures": ["BertForSequenceClassification"]})
    assert planned.heads == ()
    assert "neither sequence classification nor pooled features" in planned.notes[0]


def test_a_class_that_promises_more_than_there_is():
    planned = plan([*ENCODER, *HEADS["pooler"]], {"architectures": ["BertForMaskedLM"]})
    assert planned.heads == ("pooler",)
    assert planned.notes == (
        "config.json says BertForMaskedLM, but the weights hold no mlm head: the bundle is without it",
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_head_in_part_is_refused(head):
    for name in HEADS[head]:
        with pytest.raises(CheckpointError, match=f"the {head} head only in part: {name} is missing"):
            plan([tensor for tensor in ALL if tensor != name], {})


def test_an_untied_decoder_must_be_stored():
    with pytest.raises(CheckpointError, match=r"lack cls\.predictions\.decoder\.weight"):
        plan(ALL, {"tie_word_embeddings": False})
    planned = plan([*ALL, DECODER], {"tie_word_embeddings": False})
    assert not planned.tied


def test_constants_of_old_versions_are_passed_over_and_strangers_named():
    planned = plan([*ALL, "bert.embeddings.position_ids", "classifier.weight"], {})
    assert "bert.embeddings.position_ids" not in planned.renames
    assert planned.notes == ("left out, as part of neither the encoder nor a head: classifier.weight",)


def test_no_encoder():
    with pytest.raises(CheckpointError, match=r"hold no bert\.embeddings\.word_embeddings\.weight"):
        plan(["transformer.h.0.weight"], {})


def test_shapes():
    renames = {"a": "x", "b": "y"}
    check_shapes({"a": (1, 2), "b": (3,)}, {"x": (1, 2), "y": (3,)}, renames)
    with pytest.raises(CheckpointError, match=r"^b has the shape \[3\] and config\.json says \[4\]: .*; copy both"):
        check_shapes({"a": (1, 2), "b": (3,)}, {"x": (1, 2), "y": (4,)}, renames)
    with pytest.raises(CheckpointError, match=r"hold b, which config\.json has no place for: .*; copy both from"):
        check_shapes({"a": (1, 2), "b": (3,)}, {"x": (1, 2)}, renames)
    with pytest.raises(CheckpointError, match=r"lack z, which config\.json calls for: .*; copy both from"):
        check_shapes({"a": (1, 2), "b": (3,)}, {"x": (1, 2), "y": (3,), "z": (1,)}, renames)


def test_asking_for_a_head():
    require_heads(("mlm", "pooler"), ("mlm",), "it")
    with pytest.raises(
        MissingHeadError, match=r"'nsp' was asked for and it does not hold it \(it holds: mlm, pooler\)"
    ):
        require_heads(("mlm", "pooler"), ("nsp",), "it")
    with pytest.raises(UnknownNameError, match="unknown head 'nps'"):
        require_heads(("mlm",), ("nps",), "it")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_pooler_without_the_encoders_prefix_is_told(prefix):
    stored = [f"{prefix}{name}" for name in (*ENCODER, *(tensor.removeprefix("bert.") for tensor in HEADS["pooler"]))]
    planned = plan(stored, {})
    assert planned.heads == ("pooler",)
    assert f"the pooler is stored as {prefix}pooler.dense.bias, beside weights under bert.…" in planned.notes[-1]
    assert plan([f"{prefix}{name}" for name in (*ENCODER, *HEADS["pooler"])], {}).notes == plan(stored, {}).notes[:-1]
