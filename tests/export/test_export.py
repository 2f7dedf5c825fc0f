"""The export as a whole: every form of checkpoint, against transformers' own classes on the same files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers

from bertport.export import export
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import CheckpointError, MissingHeadError, UnknownNameError, UsageError

OF_4 = transformers.__version__.startswith("4.")
ATOL = 1e-4
"""Tolerance that the export itself holds graphs to."""

HEADS = {
    "BertForPreTraining": ("mlm", "nsp", "pooler"),
    "BertForMaskedLM": ("mlm",),
    "BertForNextSentencePrediction": ("nsp", "pooler"),
    "BertModel": ("pooler",),
}
TEXTS = ["the capital of france is [MASK].", "he went to the [MASK]"]
PAIRS = ["it was a small store", "she bought milk and bread and [MASK]"]


def batch(directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)(TEXTS, PAIRS, padding=True, return_tensors="np")


def reference(directory, model_class, inputs):
    """Return what transformers' class gives for a checkpoint, under our names."""
    model = getattr(transformers, model_class).from_pretrained(directory).eval()
    with torch.no_grad():
        outputs = model(**{key: torch.from_numpy(value) for key, value in inputs.items()}, output_hidden_states=True)
    named = {"last_hidden_state": outputs.hidden_states[-1]}
    for ours, theirs in {
        "logits": "prediction_logits" if model_class == "BertForPreTraining" else "logits",
        "seq_relationship_logits": "seq_relationship_logits",
        "pooler_output": "pooler_output",
    }.items():
        if theirs in outputs:
            named[ours] = outputs[theirs]
    if model_class == "BertForNextSentencePrediction":
        named["seq_relationship_logits"] = named.pop("logits")
    if hasattr(model, "bert") and model.bert.pooler is not None:
        named["pooler_output"] = model.bert.pooler(outputs.hidden_states[-1])
    return {name: tensor.detach().numpy() for name, tensor in named.items()}


def assert_same_outputs(expected, actual, atol):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=atol, err_msg=name)


def assert_parity(bundle, inputs, expected, run_graph, atol=ATOL):
    """Compare both graphs, the serving one at all, some and no positions."""
    inputs = {name: inputs[name].astype(np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    assert_same_outputs(expected, run_graph(bundle.path / "onnx/model.onnx", inputs), atol)
    serving = bundle.path / bundle.manifest.variants["fp32"].file
    if "logits" not in expected:
        assert_same_outputs(expected, run_graph(serving, inputs), atol)
        return
    rows = expected["logits"].reshape(-1, expected["logits"].shape[-1])
    for positions in (np.arange(len(rows)), np.array([3, 1, 3]), np.array([], dtype=np.int64)):
        wanted = expected | {"logits": rows[positions]}
        assert_same_outputs(wanted, run_graph(serving, inputs | {"masked_positions": positions}), atol)


@pytest.mark.parametrize(
    "model_class",
    [
        pytest.param(name, marks=pytest.mark.slow if name in {"BertForNextSentencePrediction", "BertModel"} else ())
        for name in HEADS
    ],
)
def test_every_class(model_class, make_checkpoint, tmp_path, run_graph):
    source = make_checkpoint(tmp_path / "source", model_class)
    bundle = export(source, tmp_path / "out")
    assert tuple(bundle.manifest.heads) == HEADS[model_class]
    assert bundle.manifest.architecture.model_class == model_class
    inputs = batch(bundle.path)
    assert_parity(bundle, inputs, reference(source, model_class, inputs), run_graph)


def sharded(directory):
    from transformers import BertForPreTraining

    model = BertForPreTraining.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size="40KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 2


def pickled(directory, change=lambda tensors: tensors, **options):
    from safetensors.torch import load_file

    tensors = change(load_file(directory / "model.safetensors"))
    (directory / "model.safetensors").unlink()
    torch.save(tensors, directory / "pytorch_model.bin", **options)


def old_names(directory):
    def rename(tensors):
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, was in old.items():
            tensors = {name.replace(new, was): tensor for name, tensor in tensors.items()}
        tensors["bert.embeddings.position_ids"] = torch.arange(160)[None]
        return tensors

    pickled(directory, rename, _use_new_zipfile_serialization=False)


def stored_decoder(directory):
    def store(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
        return tensors

    pickled(directory, store)


def half_precision(directory):
    from transformers import BertForPreTraining

    BertForPreTraining.from_pretrained(directory).half().save_pretrained(directory)


def vocabulary_only(directory):
    (directory / "tokenizer.json").unlink()
    (directory / "special_tokens_map.json").unlink(missing_ok=True)  # transformers 5 writes none


def first_config(directory):
    """As Google's first release had it: neither model_type nor architectures."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for key in ("model_type", "architectures", "transformers_version"):
        config.pop(key)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "form",
    [
        old_names,
        stored_decoder,
        vocabulary_only,
        *(pytest.param(form, marks=pytest.mark.slow) for form in (sharded, pickled, half_precision, first_config)),
    ],
)
def test_every_form_gives_the_same_answers(form, checkpoint, tiny_checkpoint, tmp_path, run_graph):
    form(checkpoint)
    bundle = export(checkpoint, tmp_path / "out")
    assert tuple(bundle.manifest.heads) == ("mlm", "nsp", "pooler")
    inputs = batch(bundle.path)
    source = checkpoint if form is half_precision else tiny_checkpoint
    model = reference(source, "BertForPreTraining", inputs)
    assert_parity(bundle, inputs, model, run_graph, atol=5e-2 if form is half_precision else ATOL)


def test_an_untied_decoder_is_its_own(make_checkpoint, tmp_path, run_graph):
    source = make_checkpoint(tmp_path / "source", "BertForMaskedLM", tie_word_embeddings=False)
    bundle = export(source, tmp_path / "out")
    inputs = batch(bundle.path)
    assert_parity(bundle, inputs, reference(source, "BertForMaskedLM", inputs), run_graph)
    names = {initializer.name for initializer in onnx.load(bundle.path / "onnx/model.onnx").graph.initializer}
    assert {"cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"} <= names


def test_a_cased_checkpoint(make_checkpoint, tmp_path, run_graph):
    source = make_checkpoint(tmp_path / "source", cased=True)
    bundle = export(source, tmp_path / "out")
    assert bundle.manifest.lowercase is False
    inputs = batch(bundle.path)
    assert_parity(bundle, inputs, reference(source, "BertForPreTraining", inputs), run_graph)


@pytest.mark.parametrize("positions", ["absolute", "relative_key_query"])
def test_positions_and_another_activation(make_checkpoint, tmp_path, run_graph, positions):
    options = {"position_embedding_type": positions, "hidden_act": "relu", "type_vocab_size": 1}
    source = make_checkpoint(tmp_path / "source", "BertModel", **options)
    if positions != "absolute" and not OF_4:
        with pytest.raises(CheckpointError, match=rf"position_embedding_type is '{positions}', which transformers 5"):
            export(source, tmp_path / "out")
        return
    bundle = export(source, tmp_path / "out")
    inputs = batch(bundle.path)
    inputs["token_type_ids"][:] = 0
    assert_parity(bundle, inputs, reference(source, "BertModel", inputs), run_graph)


def without(*parts):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("lost", "heads", "note"),
    [
        (("pooler",), ("mlm",), "neither next-sentence prediction nor pooled features"),
        (("cls.predictions",), ("nsp", "pooler"), "BertForPreTraining, but the weights hold no mlm head"),
        pytest.param(
            ("seq_relationship",),
            ("mlm", "pooler"),
            "BertForPreTraining, but the weights hold no nsp head",
            marks=pytest.mark.slow,
        ),
        pytest.param(("cls", "pooler"), (), "no pooler", marks=pytest.mark.slow),
    ],
)
def test_no_head_is_invented(  # noqa: PLR0913, PLR0917 — fixtures
    lost, heads, note, checkpoint, change_weights, tmp_path
):
    """transformers would initialise what is missing at random; here it is missing from every graph."""
    change_weights(checkpoint, without(*lost))
    notes = []
    bundle = export(checkpoint, tmp_path / "out", progress=lambda event: notes.append(event.text))
    assert tuple(bundle.manifest.heads) == heads
    assert any(note in text for text in notes)
    outputs = {"mlm": "logits", "nsp": "seq_relationship_logits", "pooler": "pooler_output"}
    expected = {"last_hidden_state", *(outputs[head] for head in heads)}
    for variant in bundle.manifest.variants.values():
        assert set(variant.outputs) == expected
        graph = onnx.load(bundle.path / variant.file, load_external_data=False).graph
        assert {output.name for output in graph.output} == expected
    with pytest.raises(MissingHeadError, match="was asked for and checkpoint does not hold it"):
        export(checkpoint, tmp_path / "other", heads=["mlm", "nsp", "pooler"])
    assert not (tmp_path / "other").exists()


def test_the_manifest(tiny_bundle, tiny_checkpoint):
    bundle = Bundle.open(tiny_bundle)
    manifest = bundle.manifest
    assert bundle.verify() == ()
    assert manifest.name == "tiny-bert"
    assert manifest.source.name == "tiny-bert"
    assert manifest.source.revision is None
    weights = hashlib.sha256((tiny_checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert manifest.source.weights_sha256 == {"model.safetensors": weights}
    assert (manifest.max_length, manifest.lowercase) == (160, True)
    assert (manifest.languages, manifest.licence) == (("en",), "apache-2.0")
    assert manifest.heads["nsp"].positive == 0
    assert manifest.heads["nsp"].labels == ("is_next", "not_next")
    tools = {"bertport", "torch", "transformers", "optimum", "onnx", "onnxruntime"}
    assert tools <= manifest.tools.keys()
    assert ("optimum-onnx" in manifest.tools) is OF_4
    from transformers import BertForPreTraining

    model = BertForPreTraining.from_pretrained(tiny_checkpoint)
    assert manifest.architecture.parameters == model.num_parameters()
    assert manifest.default_variant == "fp32"
    assert manifest.inputs.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    assert {name: (head.output, head.problem_type) for name, head in manifest.heads.items()} == {
        "mlm": ("logits", None),
        "nsp": ("seq_relationship_logits", "single_label_classification"),
        "pooler": ("pooler_output", None),
    }
    for variant in manifest.variants.values():
        assert (variant.requires.dtypes, variant.requires.precision) == (("float32",), "fp32")
    kinds = {name: (variant.kind, variant.file) for name, variant in manifest.variants.items()}
    assert kinds == {"portable": ("portable", "onnx/model.onnx"), "fp32": ("serving", "onnx/model_serving.onnx")}
    for variant in manifest.variants.values():
        assert variant.validation.cases == 44
        assert len(variant.validation.seeds) == 4
        assert variant.validation.decided_by_float64 == 0
        assert variant.validation.worst_padding.keys() == {"logits", "last_hidden_state"}
        assert variant.validation.worst.keys() == set(variant.outputs)
        # 0 would mean that nothing was compared: PyTorch and ONNX Runtime sum in different orders.
        assert 0 < variant.validation.worst["logits"] < ATOL


def test_files_say_what_the_checkpoint_said(tiny_bundle, tiny_checkpoint):
    for name in ("config.json", "vocab.txt"):
        assert (tiny_bundle / name).read_bytes() == (tiny_checkpoint / name).read_bytes()
    assert json.loads((tiny_bundle / "tokenizer.json").read_text()) == json.loads(
        (tiny_checkpoint / "tokenizer.json").read_text()
    )
    # Written as transformers saves the tokenizer that it makes of them: what was not said is said.
    stated = json.loads((tiny_checkpoint / "tokenizer_config.json").read_text())
    settings = json.loads((tiny_bundle / "tokenizer_config.json").read_text())
    stated.pop("backend", None)  # transformers 5 says which of its own classes it is
    assert {name: settings[name] for name in stated} == stated
    if OF_4:  # transformers 5 keeps the special tokens in tokenizer_config.json alone
        special = json.loads((tiny_bundle / "special_tokens_map.json").read_text())
        written = {name: token["content"] if isinstance(token, dict) else token for name, token in special.items()}
        assert written == json.loads((tiny_checkpoint / "special_tokens_map.json").read_text())


def test_the_graphs(tiny_bundle):
    """Standard operators, the names that others look for, dynamic shapes, weights once."""
    graphs = {
        name: onnx.load(tiny_bundle / variant.file, load_external_data=False)
        for name, variant in Bundle.open(tiny_bundle).manifest.variants.items()
    }
    for model in graphs.values():
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
        assert model.ir_version == 8
        assert {node.domain for node in model.graph.node} == {""}
        for value in model.graph.input:
            assert all(dim.dim_param for dim in value.type.tensor_type.shape.dim), value.name
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    outputs = ["logits", "seq_relationship_logits", "last_hidden_state", "pooler_output"]
    assert [value.name for value in graphs["portable"].graph.input] == inputs
    assert [value.name for value in graphs["fp32"].graph.input] == [*inputs, "masked_positions"]
    for model in graphs.values():
        assert [value.name for value in model.graph.output] == outputs
    tied = [
        initializer
        for initializer in graphs["portable"].graph.initializer
        if 672 in initializer.dims and len(initializer.dims) == 2
    ]
    assert [initializer.name for initializer in tied] == ["bert.embeddings.word_embeddings.weight"]
    shared = [initializer for initializer in graphs["fp32"].graph.initializer if initializer.external_data]
    assert {initializer.external_data[0].value for initializer in shared} == {"model.onnx"}
    assert Counter(node.op_type for node in graphs["fp32"].graph.node)["LayerNormalization"] == 6


@pytest.mark.parametrize(("opset", "ir_version"), [pytest.param(14, 7, marks=pytest.mark.slow), (20, 9)])
def test_opset_and_ir_version(opset, ir_version, tiny_checkpoint, tmp_path):
    bundle = export(tiny_checkpoint, tmp_path / "out", opset=opset)
    for variant in bundle.manifest.variants.values():
        assert (variant.requires.opset, variant.requires.ir_version) == (opset, ir_version)
        model = onnx.load(bundle.path / variant.file, load_external_data=False)
        assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version)


def test_sixteen_bit_weights(tiny_checkpoint, tiny_bundle, tmp_path, run_graph):
    from transformers import BertForPreTraining

    bundle = export(tiny_checkpoint, tmp_path / "out", weights="float16")
    rounded = BertForPreTraining.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.ndim == 2:
                parameter.copy_(parameter.half().float())
    rounded.save_pretrained(tmp_path / "rounded")
    inputs = batch(bundle.path)
    assert_parity(bundle, inputs, reference(tmp_path / "rounded", "BertForPreTraining", inputs), run_graph)
    sizes = [(directory / "onnx/model.onnx").stat().st_size for directory in (bundle.path, tiny_bundle)]
    weights = 2 * bundle.manifest.architecture.parameters
    assert sizes[1] - sizes[0] > 0.9 * weights
    assert {variant.recipe for variant in bundle.manifest.variants.values()} == {"fp32-weights16"}


def test_weights_beyond_sixteen_bits_are_refused(checkpoint, change_weights, tmp_path):
    def grow(tensors):
        tensors["cls.predictions.transform.dense.weight"][0, 0] = 1e5
        return tensors

    change_weights(checkpoint, grow)
    with pytest.raises(UsageError, match=r"cannot be stored in 16 bits \(cls\.predictions\.transform\.dense\.weight"):
        export(checkpoint, tmp_path / "out", weights="float16")


def test_large_weights_lie_beside_the_graph(tiny_checkpoint, tmp_path, run_graph):
    """What happens above 2 GB, with the threshold lowered."""
    bundle = export(tiny_checkpoint, tmp_path / "out", external_above=100_000)
    data = "onnx/model.onnx_data"
    for variant in bundle.manifest.variants.values():
        assert variant.external_data == (data,)
        assert (bundle.path / variant.file).stat().st_size < 100_000
    assert bundle.manifest.files[data].size > 100_000
    bundle.verify()
    inputs = batch(bundle.path)
    assert_parity(bundle, inputs, reference(tiny_checkpoint, "BertForPreTraining", inputs), run_graph)


def test_the_limit_that_the_tokenizer_states(checkpoint, change_config, tmp_path):
    change_config(checkpoint, "tokenizer_config.json", model_max_length=40)
    assert export(checkpoint, tmp_path / "out").manifest.max_length == 40


def test_a_name_can_be_given(tiny_checkpoint, tmp_path):
    bundle = export(tiny_checkpoint, tmp_path / "out", name="My BERT")
    assert bundle.manifest.name == "My BERT"
    assert "# My BERT" in (bundle.path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opset": 13}, UsageError, r"opset 13 cannot be exported: choose one from 14 to 20 \(default 17\)"),
        ({"atol": 0}, UsageError, "tolerance 0 is not a positive number"),
        ({"atol": float("nan")}, UsageError, "tolerance nan is not a positive number"),
        (
            {"weights": "int8"},
            UnknownNameError,
            r"unknown way of storing weights 'int8' \(available: float32, float16\)",
        ),
        ({"heads": ["pooled"]}, UnknownNameError, "unknown head 'pooled'"),
        ({"heads": "pooler"}, UsageError, r"heads is 'pooler' and should be a list: give \['pooler'\]"),
        ({"add_heads": Path("topics")}, UsageError, "add_heads is 'topics' and should be a list"),
        ({"revision": "main"}, UsageError, "--revision main was given but"),
    ],
)
def test_options_that_cannot_be(options, error, message, tiny_checkpoint, tmp_path):
    with pytest.raises(error, match=message) as caught:
        export(tiny_checkpoint, tmp_path / "out", **options)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_config_json_names_no_code_and_is_otherwise_as_it_was(tiny_checkpoint, tmp_path):
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    code = {
        "_attn_implementation_internal": "org/kernels:x",
        "attn_implementation": "org/kernels",
        "_experts_implementation": "x",
        "auto_map": {},
        "custom_pipelines": {"a": {"impl": "x.Y"}},
        "trust_remote_code": True,
    }
    # Epsilon 0, and a whole number: PyTorch takes both, and the configuration of transformers 5 the first.
    zero, one = (0, 1) if OF_4 else (0.0, 1.0)
    (source / "config.json").write_text(json.dumps(config | code | {"layer_norm_eps": zero, "label": "é"}))
    notes = []
    bundle = export(source, tmp_path / "stripped", progress=lambda event: notes.append(event.text))
    written = json.loads((bundle.path / "config.json").read_text(encoding="utf-8"))
    assert written == config | {"layer_norm_eps": zero, "label": "é"}
    assert any("left out of config.json" in note and "'_attn_implementation_internal'" in note for note in notes)
    content = json.dumps(config | {"layer_norm_eps": one}, indent=3).replace("\n", "\r\n").encode()
    (source / "config.json").write_bytes(content)
    assert (export(source, tmp_path / "kept").path / "config.json").read_bytes() == content
