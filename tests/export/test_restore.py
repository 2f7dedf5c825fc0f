"""`bertport restore`: the checkpoint that a bundle was exported from, from the bundle alone."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from safetensors.numpy import load_file

from bertport.export import export, restore, restorer
from bertport.export.graph.stored_weights import stored_weights
from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.cli import app
from bertport.runtime.errors import BundleError, PathError, ValidationError
from tests.broken import copied, edited_json
from tests.conftest import contents, tiny_config
from tests.families import tiny
from tests.hub_cache import in_hub_cache

CLASSES = ("BertForMaskedLM", "BertModel", "BertForNextSentencePrediction")


@pytest.fixture(scope="module")
def restored(tiny_bundle, tmp_path_factory):
    return restore(tiny_bundle, tmp_path_factory.mktemp("restored") / "checkpoint")


def same_tensors(restored, checkpoint):
    weights, expected = (load_file(directory / "model.safetensors") for directory in (restored, checkpoint))
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(weights[name], tensor, err_msg=name)


def opens_whole(directory):
    """Return transformers' model of a checkpoint, by the class that it names; nothing may be missing or left over."""
    import transformers

    [name] = json.loads((directory / "config.json").read_text())["architectures"]
    model, loading = getattr(transformers, name).from_pretrained(directory, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    return model.eval()


def test_every_tensor_comes_back(restored, tiny_checkpoint):
    same_tensors(restored, tiny_checkpoint)
    assert type(opens_whole(restored)).__name__ == "BertForPreTraining"


def test_its_tokenizer_is_that_of_the_bundle(restored, tiny_bundle):
    names = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert names <= set(contents(restored))
    for name in names:
        assert (restored / name).read_bytes() == (tiny_bundle / name).read_bytes()


def test_its_card_states_the_licence(restored):
    card = (restored / "README.md").read_text()
    assert card.startswith("---\nlanguage:\n  - en\nlicense: apache-2.0\n---\n\n# tiny-bert\n\nA `BertForPreTraining`")


def test_exported_again_it_gives_the_same_graphs(restored, tiny_bundle, tmp_path):
    again = export(restored, tmp_path / "again")
    first = Bundle.open(tiny_bundle)
    for variant in first.manifest.variants:
        assert again.manifest.hashes_of(variant) == first.manifest.hashes_of(variant)
    assert again.manifest.licence == "apache-2.0"


@pytest.mark.slow
@pytest.mark.parametrize("model_class", CLASSES)
def test_a_checkpoint_of_another_class_comes_back_as_it_was(make_checkpoint, tmp_path, model_class):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_class)
    bundle = export(checkpoint, tmp_path / "bundle")
    restored = restore(bundle, tmp_path / "restored")
    same_tensors(restored, checkpoint)
    assert type(opens_whole(restored)).__name__ == model_class


FAMILIES = ("roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "albert", "deberta-v2", "modernbert", "ernie")
MERGED = {
    "deberta": r"\(the weights lack deberta.encoder.layer.0.attention.self.q_bias",
    "mobilebert": r"\(the mlm head is missing\)",
}
"""Families whose graphs hold some weights merged with others, or in another shape."""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_another_family_comes_back_as_it_was(tmp_path, family):
    checkpoint = tiny(family, tmp_path / "checkpoint")
    restored = restore(export(checkpoint, tmp_path / "bundle"), tmp_path / "restored")
    same_tensors(restored, checkpoint)
    assert (
        type(opens_whole(restored)).__name__ == json.loads((checkpoint / "config.json").read_text())["architectures"][0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", MERGED)
def test_weights_in_another_form_are_said_to_be(tmp_path, family):
    bundle = export(tiny(family, tmp_path / "checkpoint"), tmp_path / "bundle")
    with pytest.raises(BundleError, match=rf"does not hold the weights .* as a checkpoint does {MERGED[family]}"):
        restore(bundle, tmp_path / "restored")


@pytest.mark.slow
def test_the_class_is_one_that_the_heads_fill(checkpoint, change_config, change_weights, tmp_path):
    """bert-base-uncased says that it is a BertForMaskedLM and holds both heads."""
    change_config(checkpoint, architectures=["BertForMaskedLM"])
    restored = restore(export(checkpoint, tmp_path / "bundle"), tmp_path / "restored")
    same_tensors(restored, checkpoint)
    assert type(opens_whole(restored)).__name__ == "BertForPreTraining"
    # And the other way round: a BertForPreTraining without the next-sentence head keeps its pooler.
    change_config(checkpoint, architectures=["BertForPreTraining"])
    change_weights(
        checkpoint, lambda tensors: {name: tensor for name, tensor in tensors.items() if "seq_rel" not in name}
    )
    notes = []
    out = tmp_path / "other"
    restored = restore(export(checkpoint, tmp_path / "masked"), out, progress=lambda event: notes.append(event.text))
    same_tensors(restored, checkpoint)
    assert json.loads((restored / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    said = "for a BertForMaskedLM, the checkpoint has bert.pooler.dense.bias, bert.pooler.dense.weight, which only"
    assert any(note.startswith(said) for note in notes)


@pytest.mark.slow
def test_an_encoder_without_pooler_comes_back_without_one(checkpoint, change_config, change_weights, tmp_path):
    change_config(checkpoint, architectures=["BertModel"])
    kept = ("bert.embeddings", "bert.encoder")
    change_weights(
        checkpoint, lambda tensors: {name[5:]: tensor for name, tensor in tensors.items() if name.startswith(kept)}
    )
    notes = []
    out = tmp_path / "restored"
    restored = restore(export(checkpoint, tmp_path / "bundle"), out, progress=lambda event: notes.append(event.text))
    same_tensors(restored, checkpoint)
    assert any(note.startswith("for a BertModel, the checkpoint lacks pooler.dense.bias, pooler.") for note in notes)


@pytest.mark.slow
def test_a_decoder_of_its_own_comes_back(make_checkpoint, tmp_path, change_weights):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "BertForMaskedLM", tie_word_embeddings=False)
    # transformers 5 has two biases where nothing is tied, and computes with the decoder's: here they are equal.
    change_weights(
        checkpoint,
        lambda tensors: {
            name: tensors[name.replace("decoder.bias", "bias")] if name.endswith("decoder.bias") else tensor
            for name, tensor in tensors.items()
        },
    )
    same_tensors(restore(export(checkpoint, tmp_path / "bundle"), tmp_path / "restored"), checkpoint)
    # Untied and yet equal, it is stored once in the graph.
    table = "bert.embeddings.word_embeddings.weight"
    change_weights(checkpoint, lambda tensors: tensors | {"cls.predictions.decoder.weight": tensors[table]})
    same_tensors(restore(export(checkpoint, tmp_path / "equal"), tmp_path / "other"), checkpoint)


@pytest.mark.slow
def test_weights_in_16_bits_come_back_rounded_as_float32(tiny_checkpoint, restored, tmp_path):
    bundle = export(tiny_checkpoint, tmp_path / "half", weights="float16")
    weights = load_file(restore(bundle, tmp_path / "restored") / "model.safetensors")
    for name, tensor in load_file(restored / "model.safetensors").items():
        rounded = tensor.astype(np.float16).astype(np.float32) if tensor.ndim == 2 else tensor
        np.testing.assert_array_equal(weights[name], rounded, err_msg=name)


@pytest.mark.slow
def test_weights_beside_the_graph_that_are_links_come_back(tiny_checkpoint, tmp_path):
    """As the Hub's cache keeps them."""
    bundle = export(tiny_checkpoint, tmp_path / "bundle", external_above=1000)
    assert bundle.manifest.variants["portable"].external_data == ("onnx/model.onnx_data",)
    same_tensors(restore(in_hub_cache(bundle.path, tmp_path / "cache"), tmp_path / "restored"), tiny_checkpoint)


def test_a_bundle_of_the_first_format_is_restored(old, tmp_path):
    assert type(opens_whole(restore(old, tmp_path / "restored"))).__name__ == "BertForPreTraining"


@pytest.mark.slow
def test_biases_of_zero_that_are_stored_once_come_back(tmp_path, make_tokenizer):
    """As in a model that was never trained: each bias is read by the module that it is of, under another's name."""
    from transformers import BertForPreTraining

    checkpoint = tmp_path / "checkpoint"
    BertForPreTraining(tiny_config()).save_pretrained(checkpoint)
    make_tokenizer(checkpoint)
    same_tensors(restore(export(checkpoint, tmp_path / "bundle"), tmp_path / "restored"), checkpoint)


@pytest.mark.slow
def test_the_embedded_model_in_the_words_of_the_card(tmp_path):
    """The example of BERT's own model card: `from_pretrained`, a text, `last_hidden_state`."""
    from transformers import BertModel, BertTokenizer

    from bertport.runtime import load

    directory = restore(default_bundle(), tmp_path / "restored")
    tokenizer = BertTokenizer.from_pretrained(directory)
    model = BertModel.from_pretrained(directory)
    text = "Replace me by any text you'd like."
    with torch.inference_mode():
        output = model(**tokenizer(text, return_tensors="pt"))
    ours = load(variant="fp32")
    np.testing.assert_allclose(output.pooler_output.numpy(), ours.features([text], pooling="pooler"), atol=1e-4, rtol=0)
    np.testing.assert_allclose(
        output.last_hidden_state.mean(1).numpy(), ours.features([text], pooling="mean"), atol=1e-4, rtol=0
    )


def test_a_graph_of_other_weights_is_refused(tiny_bundle, tmp_path, monkeypatch):
    """Were a tensor read wrongly, nothing would be written."""

    def swapped(path):
        weights = stored_weights(path)
        query, key = (f"bert.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))
        return weights | {query: weights[key], key: weights[query]}

    monkeypatch.setattr(restorer, "stored_weights", swapped)
    with pytest.raises(ValidationError, match=r"differs from PyTorch by"):
        restore(tiny_bundle, tmp_path / "restored")
    assert not list(tmp_path.iterdir())


def test_without_a_float32_graph_it_is_refused(old, tmp_path):
    bundle = Bundle.open(old)
    int8 = {name: variant for name, variant in bundle.manifest.variants.items() if name == "int8-dynamic"}
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, variants=int8))
    with pytest.raises(
        BundleError, match=r"has no float32 graph \(its variants: int8-dynamic\), and quantized weights"
    ):
        restore(bundle, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_the_configuration_is_the_one_that_was_hashed(tiny_bundle, tmp_path):
    """Though it names another for this version of transformers, and code for its attention."""

    def led_on(value):
        value.update(configuration_files=["config.4.0.0.json"], auto_map={"AutoConfig": "code.Config"})
        value["_attn_implementation"] = value["_experts_implementation"] = "acme/kernels"
        value["attn_implementation"] = value["experts_implementation"] = "acme/kernels"

    bundle = copied(tiny_bundle, tmp_path / "bundle", config_json=edited_json(led_on))
    config = json.loads((tiny_bundle / "config.json").read_text())
    (bundle / "config.4.0.0.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    restored = json.loads((restore(bundle, tmp_path / "restored") / "config.json").read_text())
    assert restored == config
    assert not (tmp_path / "restored" / "config.4.0.0.json").exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_configuration_that_the_manifest_does_not_list_is_not_read(tiny_bundle, tmp_path, link):
    bundle = copied(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["files"]["config.json"]
    (bundle / MANIFEST).write_bytes(sealed(manifest))
    if link:
        (bundle / "config.json").rename(tmp_path / "elsewhere.json")
        (bundle / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match=r"lists no file 'config.json': export again"):
        restore(bundle, tmp_path / "restored")


def edited(**entries):
    return edited_json(lambda value: value.update(entries))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"[]", r"is not a configuration of an encoder that is known here"),
        (lambda _: b"no", r"cannot be read as JSON"),
        (lambda _: b"\xff", r"cannot be read as JSON"),
        (edited(model_type="gpt2"), r"is not a configuration of an encoder that is known here"),
        (edited(hidden_size=[1]), r"is not a configuration of a BertForPreTraining"),
        (edited(intermediate_size=65), r"dense.weight of the shape \[64, 32\] and its config.json says \[65, 32\]"),
        (edited(num_hidden_layers=3), r"lack bert.encoder.layer.2\S+, which config.json calls for"),
    ],
)
def test_a_configuration_that_is_not_the_graphs(tiny_bundle, tmp_path, change, said):
    bundle = copied(tiny_bundle, tmp_path / "bundle", config_json=change)
    with pytest.raises(BundleError, match=said) as caught:
        restore(bundle, tmp_path / "restored")
    assert "\n" not in str(caught.value)


def test_a_damaged_bundle_is_not_restored(tiny_bundle, tmp_path):
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    with (damaged / "onnx" / "model.onnx").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(BundleError, match="SHA-256"):
        restore(damaged, tmp_path / "restored")


def test_what_is_there_is_not_replaced(tiny_bundle, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PathError, match=r"exists and is not a bundle, so it will not be replaced"):
        restore(tiny_bundle, tmp_path)
    bundle = copied(tiny_bundle, tmp_path / "bundle")
    before = contents(bundle)
    with pytest.raises(PathError, match=r"is a bundle, which a checkpoint does not replace: choose another output"):
        restore(tiny_bundle, bundle)
    assert contents(bundle) == before


def test_the_command(tiny_bundle, tmp_path):
    result = CliRunner().invoke(app, ["restore", str(tiny_bundle), str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'out'}: BertForPreTraining\n"
    stages = [line.partition(":")[0] for line in result.stderr.splitlines()]
    assert stages == ["reading the graph", "writing the checkpoint", "comparing with the graph"]
    result = CliRunner().invoke(app, ["restore", str(tmp_path / "none"), str(tmp_path / "other")])
    assert result.exit_code == 2
    assert result.stderr.startswith("bertport: error: no bundle at")


def test_a_matrix_is_turned_where_the_graph_multiplies_by_it(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    graph = onnx.parser.parse_graph(
        "g (float[n, 2] x, float[n, 3] z) => (float[n, 3] y, float[n, 2] u, float[n, 3] v) "
        "{ w = Cast<to = 1>(h)\n y = MatMul(x, w)\n u = Gemm<transB = 1>(z, a)\n v = Gemm(x, b) }"
    )
    graph.node[0].input[0] = "w.float16"
    for name, array in {"w.float16": matrix.astype(np.float16), "a": matrix, "b": matrix}.items():
        graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    weights = stored_weights(tmp_path / "model.onnx")
    np.testing.assert_array_equal(weights["w"], matrix.astype(np.float16).T)
    np.testing.assert_array_equal(weights["a"], matrix)
    np.testing.assert_array_equal(weights["b"], matrix.T)


def test_equal_tensors_that_are_stored_once_come_back_under_each_name(tmp_path):
    graph = onnx.parser.parse_graph("g (float[n] x) => (float[n] y) { other = Identity(one)\n y = Add(x, other) }")
    graph.initializer.append(numpy_helper.from_array(np.zeros(3, dtype=np.float32), "one"))
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    weights = stored_weights(tmp_path / "model.onnx")
    assert weights.keys() == {"one", "other"}
    np.testing.assert_array_equal(weights["other"], np.zeros(3, dtype=np.float32))
