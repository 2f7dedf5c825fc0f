"""Heads of fine-tuned models, of every family that has them: bundle and checkpoint compute the same."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.numpy import load_file

from bertport.export import export, restore
from bertport.export.checkpoint.heads import HEADS as HEADS_OF_EXPORT
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.source import locate
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.export.graph.wrapper import build
from bertport.runtime import load
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.cli import app
from bertport.runtime.errors import CheckpointError, MissingHeadError, UsageError
from bertport.runtime.heads import (
    HEADS,
    MULTIPLE_CHOICE,
    POOLER,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)
from tests.families import tiny
from tests.heads import LABELS, class_of, combinations, head_bundle, head_checkpoint

ATOL = 1e-5
"""Of models of two layers with weights of 0.2: rounding in another order."""
INPUTS = {
    "input_ids": torch.arange(40, 54).reshape(2, 7),
    "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),
    "token_type_ids": torch.tensor([[0] * 3 + [1] * 4, [0] * 7]),
}
HEADS_IN_TURN = [SEQUENCE_CLASSIFICATION, QUESTION_ANSWERING, TOKEN_CLASSIFICATION, MULTIPLE_CHOICE]
FAST = [
    (family, HEADS_IN_TURN[index % len(HEADS_IN_TURN)])
    for index, family in enumerate(dict(combinations()))
    if (family, HEADS_IN_TURN[index % len(HEADS_IN_TURN)]) in combinations()
]
"""A head of each family, another one from family to family."""


def theirs(checkpoint, family, head, inputs):
    """Return the outputs of transformers' class for each text without its padding, as the graph gives them."""
    with quiet():
        model = getattr(transformers, class_of(family, head)).from_pretrained(checkpoint).eval()
    texts = []
    for index, length in enumerate(inputs["attention_mask"].sum(dim=1)):
        text = {name: value[index : index + 1, :length] for name, value in inputs.items()}
        with torch.inference_mode():
            if head == MULTIPLE_CHOICE:
                text = {name: value[:, None] for name, value in text.items()}
            output = model(**text)
        logits = [output.start_logits, output.end_logits] if head == QUESTION_ANSWERING else None
        texts.append((torch.stack(logits, dim=-1) if logits else output.logits)[0])
    return texts


def assert_same(outputs, expected, head, inputs):
    """Compare a head's output with the same of each text alone."""
    for index, (ours, other) in enumerate(zip(outputs, expected, strict=True)):
        real = ours[: int(inputs["attention_mask"][index].sum())] if "sequence" in HEADS[head].axes else ours
        np.testing.assert_allclose(real, other, rtol=0, atol=ATOL)


SETTINGS = [
    ("electra", MULTIPLE_CHOICE, {"summary_activation": "tanh"}),
    ("electra", MULTIPLE_CHOICE, {"summary_use_proj": False}),
    ("modernbert", SEQUENCE_CLASSIFICATION, {"classifier_pooling": "mean"}),
    ("deberta-v2", SEQUENCE_CLASSIFICATION, {"pooler_hidden_act": "tanh"}),
    ("mobilebert", SEQUENCE_CLASSIFICATION, {"classifier_activation": False}),
]
"""Settings of config.json that say what a head computes: the graph is compared with a model of the same settings, which
would not show that one was passed over."""


@pytest.mark.parametrize(("family", "head", "settings"), [*((*combination, {}) for combination in FAST), *SETTINGS])
def test_a_model_computes_what_the_class_of_transformers_does(family, head, settings, tmp_path_factory):
    checkpoint = head_checkpoint(tmp_path_factory, family, head, **settings)
    model = build(read_checkpoint(locate(str(checkpoint))))
    inputs = {name: INPUTS[name] for name in model.inputs}
    with torch.inference_mode():
        outputs = model(**inputs)
    assert_same(outputs[HEADS[head].output], theirs(checkpoint, family, head, inputs), head, inputs)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "head"), combinations())
def test_graphs_compute_what_the_class_of_transformers_does(family, head, tmp_path_factory, run_graph):
    checkpoint, path = head_bundle(tmp_path_factory, family, head)
    assert_bundle(checkpoint, Bundle.open(path), family, head, run_graph)


@pytest.mark.parametrize("head", [SEQUENCE_CLASSIFICATION, QUESTION_ANSWERING])
def test_a_bundle_of_bert_with_a_head(head, tmp_path_factory, run_graph):
    checkpoint, path = head_bundle(tmp_path_factory, "bert", head)
    assert_bundle(checkpoint, Bundle.open(path), "bert", head, run_graph)


@pytest.mark.optimum
@pytest.mark.parametrize("head", HEADS_IN_TURN)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_bundle_that_optimum_traced(family, head, tmp_path_factory, run_graph, tmp_path):
    checkpoint = head_checkpoint(tmp_path_factory, family, head)
    bundle = export(checkpoint, tmp_path / "bundle", tracer="optimum")
    assert_bundle(checkpoint, bundle, family, head, run_graph)


@pytest.mark.optimum
@pytest.mark.parametrize("head", [SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING])
def test_optimums_class_reads_a_heads_further_names(head, tmp_path_factory):
    """It asks a graph for `logits`, or `start_logits` and `end_logits`, and leaves every other output alone."""
    from optimum import onnxruntime

    checkpoint, bundle = head_bundle(tmp_path_factory, "bert", head)
    wanted = getattr(onnxruntime, f"ORTModel{HEADS_OF_EXPORT[head].own_class}")
    output = wanted.from_pretrained(bundle)(**INPUTS)
    logits = [output.start_logits, output.end_logits] if head == QUESTION_ANSWERING else None
    outputs = torch.stack(logits, dim=-1) if logits else output.logits
    assert_same(outputs, theirs(checkpoint, "bert", head, INPUTS), head, INPUTS)


@pytest.mark.optimum
def test_optimum_reads_hidden_states_of_a_bundle_with_a_head(tmp_path_factory):
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    checkpoint, bundle = head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)
    states = ORTModelForFeatureExtraction.from_pretrained(bundle)(**INPUTS).last_hidden_state
    with quiet(), torch.inference_mode():
        encoder = transformers.BertModel.from_pretrained(checkpoint).eval()
        expected = encoder(**INPUTS).last_hidden_state
    real = INPUTS["attention_mask"].bool()
    torch.testing.assert_close(states[real], expected[real], rtol=0, atol=ATOL)


def assert_bundle(checkpoint, bundle, family, head, run_graph):
    """Compare both graphs with transformers' class on each text alone, and the manifest with the checkpoint."""
    entry = bundle.manifest.heads[head]
    assert set(bundle.manifest.heads) - {POOLER} == {head}
    assert bundle.manifest.architecture.model_class == class_of(family, head)
    assert entry.labels == LABELS.get(head)
    assert entry.problem_type == ("single_label_classification" if head in LABELS else None)
    inputs = {name: INPUTS[name] for name in bundle.manifest.inputs}
    expected = theirs(checkpoint, family, head, inputs)
    for variant in bundle.manifest.variants.values():
        outputs = run_graph(bundle.path / variant.file, {name: value.numpy() for name, value in inputs.items()})
        further = set(entry.aliases or ()) if variant.kind == "portable" else set()  # what other runtimes look for
        assert set(outputs) == {*variant.outputs, *further}
        assert_same(outputs[entry.output], expected, head, inputs)


def assert_restored(checkpoint, bundle, directory):
    """Restore a bundle, and compare class, labels and tensors with those of its checkpoint."""
    restored = restore(bundle, directory)
    stated, settings = (json.loads((directory / "config.json").read_text()) for directory in (checkpoint, restored))
    assert settings["architectures"] == stated["architectures"]
    assert settings.get("id2label") == stated.get("id2label")
    tensors, expected = (load_file(directory / "model.safetensors") for directory in (restored, checkpoint))
    assert tensors.keys() == expected.keys()
    assert all(np.array_equal(tensors[name], tensor) for name, tensor in expected.items())


def test_a_classifier_is_restored(tmp_path_factory, tmp_path):
    """Its tensors have names that other classes give others of another shape."""
    checkpoint, bundle = head_bundle(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION)
    assert_restored(checkpoint, bundle, tmp_path / "restored")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "head"), [combination for combination in FAST if combination[0] != "deberta"])
def test_a_head_of_another_family_is_restored(family, head, tmp_path_factory, tmp_path):
    checkpoint, bundle = head_bundle(tmp_path_factory, family, head)
    assert_restored(checkpoint, bundle, tmp_path / "restored")


def test_the_encoder_alone_of_a_class_that_cannot_be_exported(checkpoint, change_config, change_weights, tmp_path):
    change_config(checkpoint, architectures=["BertForRelations"])
    change_weights(checkpoint, lambda tensors: tensors | {"relations.weight": torch.ones(3, 32)})
    command = ["export", str(checkpoint), str(tmp_path / "out")]
    refused = CliRunner().invoke(app, command)
    assert "is a BertForRelations, which cannot be exported; supported: of the family BERT" in refused.stderr
    assert refused.stderr.endswith("; or export its encoder alone (--as features)\n")
    made = CliRunner().invoke(app, [*command, "--as", "features"])
    assert made.stdout == f"{tmp_path / 'out'}: pooler\n"
    assert "note: left out, as the encoder alone was asked for: cls.predictions.bias, " in made.stderr
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.manifest.architecture.model_class == "BertModel"
    assert json.loads((bundle.path / "config.json").read_text())["architectures"] == ["BertModel"]
    assert set(bundle.manifest.variants["fp32"].outputs) == {"last_hidden_state", "pooler_output"}
    # Its checkpoint holds them, so nothing says that it does not.
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert "The encoder was exported alone, without the heads of its checkpoint." in card
    assert "Not in the checkpoint" not in card
    with pytest.raises(MissingHeadError, match=r"needs the head 'mlm', which checkpoint was exported without \(heads"):
        load(bundle.path).fill_mask("a [MASK]")


def read(directory, **options):
    """The checkpoint of a directory."""
    return read_checkpoint(locate(str(directory)), **options)


def test_the_encoder_alone_of_any_class(checkpoint, change_config, change_weights):
    """Whatever its heads are, in part or not; but no decoder, no code of its own and no other family."""
    change_weights(checkpoint, lambda tensors: {name: tensors[name] for name in tensors if "transform" not in name})
    with pytest.raises(CheckpointError, match="the mlm head only in part"):
        read(checkpoint)
    assert read(checkpoint, as_features=True).heads == (POOLER,)
    change_config(checkpoint, id2label={"0": 1}, architectures=["BertForSequenceClassification"])
    assert read(checkpoint, as_features=True).heads == (POOLER,)
    for entries, message in (
        ({"architectures": ["RobertaForMaskedLM"]}, "which is of another family"),
        ({"architectures": ["BertLMHeadModel"], "is_decoder": True}, "is a decoder"),
        ({"auto_map": {"AutoModel": "own.Model"}}, "needs code of its own"),
        ({"auto_map": None, "model_type": "gpt2"}, "of the model type 'gpt2'|is a BertLMHeadModel"),
    ):
        change_config(checkpoint, **entries)
        with pytest.raises(CheckpointError, match=message):
            read(checkpoint, as_features=True)


def test_a_head_is_not_asked_for_beside_features_alone(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="the head 'mlm' and features alone were asked for, which have no head"):
        export(checkpoint, tmp_path / "out", as_features=True, heads=["pooler", "mlm"])


def test_a_base_model_that_was_never_trained_is_no_classifier(checkpoint, change_config, tmp_path):
    change_config(checkpoint, architectures=["BertForSequenceClassification"])
    assert "sequence-classification" not in read(checkpoint).heads
    with pytest.raises(MissingHeadError, match="'sequence-classification' was asked for and checkpoint does not hold"):
        export(checkpoint, tmp_path / "out", heads=[SEQUENCE_CLASSIFICATION])


def test_labels_are_as_many_as_rows(tmp_path_factory, tmp_path):
    checkpoint = shutil.copytree(
        head_checkpoint(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION), tmp_path / "checkpoint"
    )
    path = checkpoint / "config.json"
    stated = json.loads(path.read_text())
    for labels in ({"0": "no", "1": "yes"}, None):
        path.write_text(json.dumps(stated | {"id2label": labels, "label2id": None}))
        with pytest.raises(CheckpointError, match=r"classifier.\w+ has 3 rows and config.json has 2 labels for them"):
            read(checkpoint)


def test_a_vector_of_padding_is_refused(tmp_path_factory):
    checkpoint = head_checkpoint(tmp_path_factory, "electra", MULTIPLE_CHOICE, summary_type="mean")
    with pytest.raises(CheckpointError, match=r"summary_type is 'mean'; first, as the others read padding too, is exp"):
        read(checkpoint)


def test_settings_of_a_head_that_is_not_there_are_passed_over(checkpoint_of_electra, change_config):
    change_config(checkpoint_of_electra, summary_type="attn", summary_activation=3)
    assert read(checkpoint_of_electra).heads == ("mlm",)


@pytest.fixture
def checkpoint_of_electra(tmp_path):
    return tiny("electra", tmp_path / "electra")


@pytest.mark.parametrize(("activation", "read_as"), [("Identity", "none"), ("Sigmoid", "sigmoid")])
def test_the_activation_of_a_cross_encoder(activation, read_as, tmp_path_factory, tmp_path):
    """sentence-transformers 6 keeps it in a file of its own, which counts before config.json."""
    source = head_checkpoint(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=["relevant"])
    checkpoint = shutil.copytree(source, tmp_path / "checkpoint")
    assert read(checkpoint).entries[SEQUENCE_CLASSIFICATION].activation is None
    path = checkpoint / "config.json"
    older = {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Softmax"}
    path.write_text(json.dumps(json.loads(path.read_text()) | older))
    assert read(checkpoint).entries[SEQUENCE_CLASSIFICATION].activation == "softmax"
    stated = {"model_type": "CrossEncoder", "activation_fn": f"torch.nn.modules.linear.{activation}"}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(stated))
    assert read(checkpoint).entries[SEQUENCE_CLASSIFICATION].activation == read_as
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(stated | {"activation_fn": "mine.Own"}))
    coded = read(checkpoint)
    assert coded.entries[SEQUENCE_CLASSIFICATION].activation is None
    assert "it names code to run: the activation 'mine.Own'" in coded.notes[-1]


def test_what_sentence_transformers_does_to_texts_of_a_cross_encoder(tmp_path_factory, tmp_path):
    """Its encoder's settings bound and lower-case texts, as in an embedding model; the prompt is named."""
    source = head_checkpoint(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=["relevant"])
    checkpoint = shutil.copytree(source, tmp_path / "checkpoint")
    parts = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    stated = {"model_type": "CrossEncoder", "prompts": {"web": "search: "}, "default_prompt_name": "web"}
    for name, content in (
        ("modules.json", parts),
        ("config_sentence_transformers.json", stated),
        ("sentence_bert_config.json", {"transformer_task": "sequence-classification", "max_seq_length": 20}),
    ):
        (checkpoint / name).write_text(json.dumps(content))
    notes = []
    bundle = export(checkpoint, tmp_path / "out", progress=lambda event: notes.append(event.text))
    assert bundle.manifest.max_length == 20
    [note] = [note for note in notes if "the prompt 'search: ' of config_sentence_transformers.json" in note]
    assert note.endswith("before each query: begin your queries with it")
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(stated | {"default_prompt_name": None}))
    assert not any("prompt" in note for note in read(checkpoint).notes)


def test_a_restored_cross_encoder_keeps_the_activation_of_a_file_of_its_own(tmp_path_factory, tmp_path):
    source = head_checkpoint(tmp_path_factory, "bert", SEQUENCE_CLASSIFICATION, labels=["relevant"])
    checkpoint = shutil.copytree(source, tmp_path / "checkpoint")
    stated = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(stated))
    restored = restore(export(checkpoint, tmp_path / "bundle"), tmp_path / "restored")
    assert read(restored).entries[SEQUENCE_CLASSIFICATION].activation == "none"
