"""Every family, class by class: the bundle's graphs against transformers' own class on the same files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from bertport.export import export
from bertport.export.checkpoint.families import FAMILIES, classes
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.source import locate
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.export.graph import build as graphs
from bertport.export.graph.tracing import Tracing
from bertport.export.graph.wrapper import build
from bertport.export.progress import Stages
from tests.conftest import built_once
from tests.families import MAX_LENGTH, TINY, tiny
from tests.heads import class_of, combinations

ATOL = 1e-5
"""A tenth of what the export itself holds graphs to; tiny models come within 5e-6."""
FIRST = [(family, tiny.classes[0]) for family, tiny in TINY.items()]
ALIKE = {"camembert", "xlm-roberta", "ernie", "mobilebert"}
"""Families whose graphs are nearly another's: their first class is exported in the slow tests, as the other classes."""
OTHERS = [(family, model_class) for family, tiny in TINY.items() for model_class in tiny.classes[1:]]


@pytest.fixture
def made(request, tmp_path_factory):
    """A checkpoint of a family's class and its bundle."""
    family, model_class = request.param
    checkpoint = built_once(
        tmp_path_factory, f"families/{model_class}", lambda path: tiny(family, path, model_class=model_class)
    )
    bundle = tmp_path_factory.mktemp("families") / model_class
    return checkpoint, export(checkpoint, bundle)


def reference(checkpoint, model_class, inputs):
    """Return the outputs of transformers' class, by the names of ours."""
    import transformers

    with quiet():
        model = getattr(transformers, model_class).from_pretrained(checkpoint).eval()
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        encoded, outputs = model.base_model(**tensors), model(**tensors)
    named = {"last_hidden_state": encoded.last_hidden_state}
    if getattr(encoded, "pooler_output", None) is not None:
        named["pooler_output"] = encoded.pooler_output
    names = {"prediction_logits": "logits", "sop_logits": "sentence_order_logits"}
    names |= {"seq_relationship_logits": "seq_relationship_logits", "logits": "logits"}
    if model_class == "ElectraForPreTraining":
        named["replaced_token_logits"] = torch.stack((torch.zeros_like(outputs.logits), outputs.logits), dim=-1)
    elif model_class.endswith("NextSentencePrediction"):
        named["seq_relationship_logits"] = outputs.logits
    else:
        named |= {ours: outputs[theirs] for theirs, ours in names.items() if theirs in outputs}
    return {name: value.numpy() for name, value in named.items()}


def batch(bundle, length, padding):
    """Random ids, of a full text and of one with padding at its end."""
    random = np.random.default_rng(length)
    words = bundle.manifest.architecture.vocab_size
    ids = random.integers(300, words, (2, length))
    mask = np.ones_like(ids)
    ids[1, length - padding :], mask[1, length - padding :] = 1, 0
    types = random.integers(0, 2, ids.shape)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: inputs[name] for name in bundle.manifest.inputs}


def alone(checkpoint, model_class, inputs):
    """Return the outputs of transformers' class for each text without its padding: of all tokens in a row, and of all
    texts."""
    texts = []
    for index, length in enumerate(inputs["attention_mask"].sum(axis=1)):
        text = {name: value[index : index + 1, :length] for name, value in inputs.items()}
        texts.append(reference(checkpoint, model_class, text))
    tokens = {"last_hidden_state", "logits", "replaced_token_logits"}
    axis = {name: 1 if name in tokens else 0 for name in texts[0]}
    joined = {name: np.concatenate([text[name] for text in texts], axis=axis[name]) for name in axis}
    return {name: value[0] if axis[name] else value for name, value in joined.items()}


def assert_parity(checkpoint, bundle, run_graph):
    """Compare both graphs, at the longest input too, with transformers on each text alone."""
    model_class = bundle.manifest.architecture.model_class
    for length, padding in ((7, 2), (MAX_LENGTH, MAX_LENGTH // 2)):
        inputs = batch(bundle, length, padding)
        real = inputs["attention_mask"] == 1
        expected = alone(checkpoint, model_class, inputs)
        positions = np.flatnonzero(real)[::3]
        for variant in bundle.manifest.variants.values():
            serving = variant.kind == "serving" and "logits" in expected
            feeds = inputs | ({"masked_positions": positions} if serving else {})
            outputs = run_graph(bundle.path / variant.file, feeds)
            assert outputs.keys() == expected.keys()
            for name, value in expected.items():
                theirs, ours = value, outputs[name]
                if name == "logits" and serving:
                    theirs = value[::3]
                elif ours.shape[:2] == real.shape and len(value) == real.sum():
                    ours = ours[real]
                assert ours.shape == theirs.shape
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL, err_msg=name)


@pytest.mark.parametrize(
    "made",
    [pytest.param(case, marks=pytest.mark.slow if case[0] in ALIKE else (), id=case[1]) for case in FIRST],
    indirect=True,
)
def test_a_head_of_every_family(made, run_graph):
    checkpoint, bundle = made
    assert bundle.manifest.max_length == MAX_LENGTH
    assert_parity(checkpoint, bundle, run_graph)
    assert_named_weights(checkpoint, bundle)


@pytest.mark.slow
@pytest.mark.parametrize("made", OTHERS, indirect=True, ids=lambda case: case[1])
def test_every_other_class(made, run_graph):
    assert_parity(*made, run_graph)


FOLDED = ("deberta", "mobilebert")
"""Families of whose weights the exporter computes others than transposes: reshaped biases, joined matrices."""


@pytest.mark.parametrize(
    "family", [*FOLDED, *(pytest.param(family, marks=pytest.mark.slow) for family in TINY if family not in FOLDED)]
)
def test_a_model_is_traced_once(family, tmp_path_factory, tmp_path, monkeypatch):
    """A second trace would write the weights: twice the time, and a second copy of them in memory."""
    traced, trace = [], graphs.trace
    monkeypatch.setattr(graphs, "trace", lambda *args, **options: traced.append(options) or trace(*args, **options))
    name = TINY[family].classes[0]
    checkpoint = built_once(tmp_path_factory, f"families/{name}", lambda path: tiny(family, path, model_class=name))
    graphs.make_graphs(
        build(read_checkpoint(locate(str(checkpoint)))),
        tmp_path,
        Tracing(opset=17),
        half=False,
        external_above=10**9,
        stages=Stages(lambda _: None),
    )
    assert traced == [{"weights": False}]


def assert_named_weights(checkpoint, bundle):
    """Matrices have the names that the checkpoint has for them, and that of words is stored once."""
    from safetensors import safe_open

    with safe_open(checkpoint / "model.safetensors", framework="np") as file:
        stored = {name: sorted(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 — not a dict
    graph = onnx.load(bundle.path / "onnx/model.onnx").graph
    matrices = {tensor.name: sorted(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2}
    named = {name: shape for name, shape in matrices.items() if stored.get(name) == shape}
    # A table of positions that was computed, and a decoder of two parts, are no tensors of a checkpoint.
    assert not any(name.startswith("onnx::") for name in matrices)
    assert len(named) >= len(matrices) - 1
    words = bundle.manifest.architecture.vocab_size
    assert len([name for name, shape in named.items() if words in shape]) == 1


def test_every_family_has_a_tiny_checkpoint():
    assert list(TINY) == list(FAMILIES)
    pretrained = {name for tiny in TINY.values() for name in tiny.classes}
    tuned = {class_of(family, head) for family, head in combinations()}
    assert pretrained | tuned == {name for family in FAMILIES.values() for name in classes(family)}
    assert not pretrained & tuned


@pytest.mark.parametrize("made", [FIRST[4]], indirect=True, ids=lambda case: case[1])
def test_sizes_are_those_that_optimum_reads(made):
    """Of DistilBERT, which calls them otherwise; the rest is the same code."""
    from optimum.utils import NormalizedConfigManager
    from transformers import AutoConfig

    checkpoint, bundle = made
    config = AutoConfig.from_pretrained(checkpoint)
    sizes = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    shape = bundle.manifest.architecture
    assert (shape.layers, shape.hidden_size, shape.attention_heads, shape.vocab_size, shape.intermediate_size) == (
        sizes.num_layers,
        sizes.hidden_size,
        sizes.num_attention_heads,
        sizes.vocab_size,
        config.hidden_dim,
    )
