"""The tables of heads and families: what they name exists in transformers, and BERT is as it always was."""

from __future__ import annotations

import pytest
import transformers

from bertport.export.checkpoint.families import FAMILIES, classes, family_of, family_of_class, promises
from bertport.export.checkpoint.heads import HEADS, output_names
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.runtime.heads import HEADS as RUNTIME


def test_every_class_is_one_of_transformers():
    for family in FAMILIES.values():
        with quiet():  # DeBERTa's modules call what PyTorch deprecates
            made = [getattr(transformers, name) for name in classes(family)]
        assert {f"{model_class.base_model_prefix}." for model_class in made} == {family.prefix}
        assert all(family_of_class(name) is family for name in classes(family))
        assert family.tokenizer in transformers.CONFIG_MAPPING
    assert family_of_class("GPT2Model") is None


def test_the_classes_of_bert():
    promised = {name: set(promises(FAMILIES["bert"], name)) for name in classes(FAMILIES["bert"])}
    assert promised == {
        "BertForPreTraining": {"mlm", "nsp"},
        "BertForMaskedLM": {"mlm"},
        "BertForNextSentencePrediction": {"nsp"},
        "BertForSequenceClassification": {"sequence-classification"},
        "BertForTokenClassification": {"token-classification"},
        "BertForQuestionAnswering": {"question-answering"},
        "BertForMultipleChoice": {"multiple-choice"},
        "BertModel": set(),
    }
    assert next(iter(promised)) == "BertForPreTraining"


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("AlbertForPreTraining", {"mlm", "sop"}),
        ("ElectraForPreTraining", {"rtd"}),
        ("ElectraForMaskedLM", {"mlm"}),
        ("RobertaForMaskedLM", {"mlm"}),
        ("ErnieForPreTraining", {"mlm", "nsp"}),
        ("DebertaV2Model", set()),
    ],
)
def test_the_heads_of_other_classes(name, heads):
    assert promises(family_of_class(name), name) == heads


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"hidden_size": 32, "architectures": ["RobertaForMaskedLM"]}, "roberta"),
        ({"model_type": "deberta-v2"}, "deberta-v2"),
        ({"model_type": "bert"}, "bert"),
        ({"hidden_size": 32}, "bert"),
        ({"model_type": None, "hidden_size": 32}, "bert"),
        ({}, None),
        ({"model_type": "gpt2", "hidden_size": 32}, None),
        ({"model_type": ["bert"]}, None),
    ],
)
def test_the_family_of_a_config(config, name):
    assert family_of(config) is (FAMILIES[name] if name else None)


def test_a_head_is_one_of_the_runtimes():
    assert list(HEADS) == [name for name in RUNTIME if name in HEADS]


def test_a_class_that_a_row_lacks_is_none_of_transformers():
    for family in FAMILIES.values():
        with quiet():
            assert not [suffix for suffix in family.without if hasattr(transformers, family.class_prefix + suffix)]


def test_outputs_are_those_of_classes_and_then_the_encoders():
    assert output_names(["mlm", "nsp", "pooler"]) == (
        "logits",
        "seq_relationship_logits",
        "last_hidden_state",
        "pooler_output",
    )
    assert output_names(["nsp", "pooler"]) == ("seq_relationship_logits", "last_hidden_state", "pooler_output")
    assert output_names([]) == ("last_hidden_state",)
