"""What config.json says of a classifier, read as transformers reads it, or refused in a sentence."""

from __future__ import annotations

import pytest
from transformers import BertConfig

from bertport.export.checkpoint.labels import labels_in, terms_of_texts, untrusted_activation
from bertport.runtime.errors import CheckpointError

ID2LABEL = {"0": "no", "1": "yes"}
SINGLE, MULTI = "single_label_classification", "multi_label_classification"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_labels": 1},
        {"num_labels": 3},
        {"id2label": ID2LABEL},
        {"id2label": {"1": "yes", "0": "no"}, "label2id": {"no": 0, "yes": 1}},
        {"id2label": ID2LABEL, "label2id": {"LABEL_0": 0, "LABEL_1": 1}},
        {"id2label": {str(index): f"name {index}" for index in range(12)}},
    ],
)
def test_labels_are_those_of_transformers_in_the_order_of_their_ids(config):
    theirs = BertConfig(**config)
    assert labels_in(config) == tuple(theirs.id2label[index] for index in range(theirs.num_labels))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {}}, "id2label in config.json names no label: name one for each row of the classifier"),
        ({"id2label": ["no"]}, "id2label in config.json is ['no']: an object of ids and labels is expected"),
        ({"id2label": {"0": "no", "2": "yes"}}, "has 2 ids and not 1: number its labels from 0 without a gap"),
        ({"id2label": {"0": "no", "00": "yes"}}, "has the id 0 twice"),
        ({"id2label": {"0": "no", "one": "yes"}}, "has the id 'one': numbers from 0 up are expected"),
        ({"id2label": {"-1": "no", "0": "yes"}}, "has the id '-1'"),
        ({"id2label": {"0": "no", "1": 1}}, "names 1 for id 1: a text is expected"),
        ({"id2label": {"0": "no", "1": None}}, "names None for id 1"),
        ({"id2label": {"0": "no", "1": "\ud800"}}, "for id 1: a text is expected"),
        ({"id2label": {"0": "no", "1": "no"}}, "has 'no' for the ids 0 and 1: name each label differently"),
        ({"id2label": ID2LABEL, "num_labels": 3}, "names 2 labels (id2label) and states 3 (num_labels)"),
        ({"id2label": ID2LABEL, "num_labels": "2"}, "num_labels in config.json is '2': a number from 1 up"),
        ({"num_labels": 0}, "num_labels in config.json is 0"),
        ({"num_labels": 10**12}, "states 1,000,000,000,000 labels without names; up to 1,048,576 can be exported"),
        ({"id2label": ID2LABEL, "label2id": {"no": 1, "yes": 0}}, "gives 'no' the id 0 in id2label and 1 in label2id"),
        ({"id2label": ID2LABEL, "label2id": {"no": 0}}, "gives 'yes' the id 1 in id2label and none in label2id"),
        ({"id2label": ID2LABEL, "label2id": {"no": 0, "yes": 1, "maybe": 2}}, "'maybe' the id none in id2label and 2"),
        ({"id2label": ID2LABEL, "label2id": [0, 1]}, "label2id in config.json is [0, 1]"),
    ],
)
def test_labels_that_cannot_be(config, message):
    with pytest.raises(CheckpointError) as caught:
        labels_in(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("config", "labels", "problem_type", "activation"),
    [
        ({}, "ab", SINGLE, None),
        ({}, "a", MULTI, None),
        ({"problem_type": "regression"}, "a", "regression", None),
        ({"problem_type": MULTI, "function_to_apply": "none"}, "ab", MULTI, None),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, "a", MULTI, "sigmoid"),
        ({"sbert_ce_default_activation_function": None}, "a", MULTI, None),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "a", MULTI, "none"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Softmax", "version": "5.0.0"}}, "ab", SINGLE, "softmax"),
        ({"sentence_transformers": {"activation_fn": "mine.Sigmoid"}}, "ab", SINGLE, None),
    ],
)
def test_what_makes_scores_of_logits(config, labels, problem_type, activation):
    stated = {"problem_type": problem_type, "activation": activation}
    assert terms_of_texts(config, tuple(labels)) == stated


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"problem_type": "ranking"}, "problem_type in config.json is 'ranking'; one of single_label_classification"),
        ({"problem_type": SINGLE}, "there is one label to choose from"),
        ({"sbert_ce_default_activation_function": 3}, "activation of the checkpoint is 3: a class is expected"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "activation 'torch.nn.Tanh'; one of Sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.hub.load"}}, "activation 'torch.hub.load'; one of Sigm"),
    ],
)
def test_what_makes_no_scores(config, message):
    with pytest.raises(CheckpointError) as caught:
        terms_of_texts(config, ("one",))
    assert message in str(caught.value)


def test_an_activation_with_code_of_its_own_is_left_out_and_named():
    [note] = untrusted_activation({"sentence_transformers": {"activation_fn": "mine.Sigmoid"}})
    assert "because it names code to run: the activation 'mine.Sigmoid'" in note
    assert not untrusted_activation({"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}})
    assert not untrusted_activation({})
