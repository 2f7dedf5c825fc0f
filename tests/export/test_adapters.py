"""LoRA adapters: merged as PEFT merges them, and refused where something would be lost."""

import json
import shutil
import warnings

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from bertport.export import export
from bertport.export.checkpoint.adapters import find_adapter
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.sources import opened
from bertport.runtime.cli import app
from bertport.runtime.errors import CheckpointError, MissingDependencyError, PathError, UsageError
from tests.conftest import contents

peft = pytest.importorskip("peft")
# PEFT 0.21 reads this attribute of transformers 5 in functions that these tests call directly.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


def trained(checkpoint, directory, model_class="BertForPreTraining", **settings):
    """Save an adapter whose every tensor has values, and return the model that PEFT merges it into."""
    import transformers

    model = getattr(transformers, model_class).from_pretrained(checkpoint)
    settings = {"r": 2, "lora_alpha": 3, "target_modules": ["query", "value"]} | settings
    changed = peft.get_peft_model(model, peft.LoraConfig(**settings))
    parts = [parameter for name, parameter in changed.named_parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in parts:
            part.add_(0.2 * torch.randn(part.shape, generator=generator))
    changed.eval().save_pretrained(str(directory))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        return changed.merge_and_unload()


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint, tmp_path_factory):
    directory = tmp_path_factory.mktemp("adapters") / "mine"
    trained(tiny_checkpoint, directory)
    return directory


def merged(checkpoint, adapter, place):
    """The tensors of the checkpoint that is exported in the end, and what is known of it."""
    source = opened(checkpoint, None, place / "out", revision=None, adapter=adapter, overwrite=False)
    with source as located:
        return {name: tensor.clone() for name, tensor in read_checkpoint(located).tensors().items()}, located


KINDS = {
    "LoRA": {},
    "rank-stabilised": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "rank patterns": {"rank_pattern": {"query": 4}, "alpha_pattern": {"layer.1.attention.self.value": 7}},
    "biases": {"bias": "all"},
    "every linear layer": {"target_modules": "all-linear"},
    "a head trained as a whole": {"modules_to_save": ["cls"]},
    "one layer": {"layers_to_transform": [1]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tensors_are_those_that_peft_merges(tiny_checkpoint, tmp_path, kind):
    expected = trained(tiny_checkpoint, tmp_path / "adapter", **KINDS[kind]).state_dict()
    before = load_file(tiny_checkpoint / "model.safetensors")
    tensors, located = merged(tiny_checkpoint, tmp_path / "adapter", tmp_path)
    assert tensors.keys() == expected.keys()
    assert located.notes == (f"merged: the adapter in {tmp_path / 'adapter'} (rank 2)",)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)
    assert any(not torch.equal(tensors[name], tensor) for name, tensor in before.items())
    assert (located.name, located.title) == ("tiny-bert with adapter", "adapter")
    assert {path.name for path in located.origins} == {"model.safetensors", "adapter_model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_of_the_encoder_alone_leaves_the_heads(tiny_checkpoint, tmp_path):
    expected = trained(tiny_checkpoint, tmp_path / "adapter", "BertModel").state_dict()
    before = load_file(tiny_checkpoint / "model.safetensors")
    tensors, _ = merged(tiny_checkpoint, tmp_path / "adapter", tmp_path)
    for name, tensor in before.items():
        wanted = expected[name.removeprefix("bert.")] if name.startswith("bert.") else tensor
        torch.testing.assert_close(tensors[name], wanted, atol=1e-6, rtol=0)


def test_an_adapter_of_a_model_for_multiple_choice(make_checkpoint, tmp_path):
    """Its class takes ids of [batch, choices, sequence]."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "BertForMultipleChoice")
    expected = trained(checkpoint, tmp_path / "adapter", "BertForMultipleChoice").state_dict()
    tensors, _ = merged(checkpoint, tmp_path / "adapter", tmp_path)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


def test_modules_behind_the_encoder_stay_with_the_model(sentence_checkpoint, adapter, tmp_path):
    """Written beside its tensors too, they were said to be left out."""
    source = opened(sentence_checkpoint, None, tmp_path / "out", revision=None, adapter=adapter, overwrite=False)
    with source as located:
        checkpoint = read_checkpoint(located)
    assert checkpoint.modules is not None
    assert checkpoint.notes == ()


def test_what_is_left_out_of_the_model_is_named(checkpoint, change_weights, adapter, tmp_path):
    """The merged weights no longer hold it."""
    table, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    change_weights(checkpoint, lambda tensors: tensors | {decoder: tensors[table] + 1, "loss.weight": torch.ones(2)})
    _, located = merged(checkpoint, adapter, tmp_path)
    left, differs, adapted = located.notes
    assert left == "left out, as part of neither the encoder nor a head: loss.weight"
    assert differs.startswith(f"{decoder} differs from the word embedding")
    assert adapted.startswith("merged: the adapter in ")


def test_what_holds_before_and_after_the_merge_is_said_once(checkpoint, change_config, adapter, tmp_path):
    change_config(checkpoint, attn_implementation="sdpa")
    notes = []
    export(checkpoint, tmp_path / "out", adapter=adapter, progress=lambda event: notes.append(event.text))
    note = "left out of config.json, because it names code or kernels to run: 'attn_implementation'"
    assert notes.count(note) == 1


@pytest.mark.parametrize(("licence", "said"), [("cc-by-nc-4.0", True), ("apache-2.0", False), (None, False)])
def test_the_licence_of_the_adapter_is_not_lost(tiny_checkpoint, adapter, tmp_path, licence, said):
    """The bundle's card has the model's."""
    directory = broken(adapter, tmp_path)
    stated = f"license: {licence}\n" if licence else ""
    (directory / "README.md").write_text(f"---\nlibrary_name: peft\n{stated}---\n")
    note = (
        "the adapter's card states the licence 'cc-by-nc-4.0', and the bundle's has that of tiny-bert alone "
        "('apache-2.0'): add it there"
    )
    assert (note in merged(tiny_checkpoint, directory, tmp_path)[1].notes) is said


def test_heads_that_the_class_does_not_have_are_kept(checkpoint, change_config, tmp_path):
    change_config(checkpoint, architectures=["BertForMaskedLM"])
    trained(checkpoint, tmp_path / "adapter", "BertForMaskedLM")
    tensors, _ = merged(checkpoint, tmp_path / "adapter", tmp_path)
    assert tensors.keys() >= load_file(checkpoint / "model.safetensors").keys()


def test_a_head_that_is_missing_is_not_made_up(make_checkpoint, change_config, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "BertForMaskedLM")
    trained(checkpoint, tmp_path / "adapter", "BertForMaskedLM")
    change_config(checkpoint, architectures=["BertForPreTraining"])
    with opened(checkpoint, None, tmp_path / "out", revision=None, adapter=tmp_path / "adapter", overwrite=False) as it:
        assert read_checkpoint(it).plan.heads == ("mlm",)


@pytest.mark.parametrize(
    ("model_class", "task_type", "head"),
    [
        ("BertForSequenceClassification", "SEQ_CLS", "sequence-classification"),
        ("BertForTokenClassification", "TOKEN_CLS", "token-classification"),
        ("BertForQuestionAnswering", "QUESTION_ANS", "question-answering"),
    ],
)
def test_a_head_that_the_adapter_brings(tiny_checkpoint, tmp_path, model_class, task_type, head):
    """A base model is saved without the head that it was trained with: the adapter alone has it."""
    count = 2 if head == "question-answering" else 3
    own = shutil.copytree(tiny_checkpoint, tmp_path / "own")
    path = own / "config.json"
    named = {str(index): f"name {index}" for index in range(count)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [model_class], "id2label": named}))
    expected = trained(own, tmp_path / "adapter", model_class, task_type=task_type).state_dict()
    for base, labels in ((tiny_checkpoint, "LABEL_{}"), (own, "name {}")):
        with opened(base, None, tmp_path / "out", revision=None, adapter=tmp_path / "adapter", overwrite=False) as it:
            checkpoint = read_checkpoint(it)
            tensors = checkpoint.tensors()
        assert checkpoint.model_class == model_class
        assert checkpoint.heads == ("mlm", "nsp", head, "pooler")
        for name, tensor in expected.items():
            torch.testing.assert_close(tensors[name], tensor, atol=1e-6, rtol=0)
        named = None if head == "question-answering" else tuple(map(labels.format, range(count)))
        assert checkpoint.entries[head].labels == named


def test_the_command_merges_it(tiny_checkpoint, adapter, tmp_path, run_graph):
    out = tmp_path / "out"
    shutil.copy(tiny_checkpoint / "tokenizer.json", adapter)
    result = CliRunner().invoke(app, ["export", str(tiny_checkpoint), str(out), "--adapter", str(adapter), "--json"])
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(result.stdout)
    assert manifest["name"] == "mine"
    assert manifest["source"]["name"] == "tiny-bert with mine"
    assert manifest["source"]["weights_sha256"].keys() == {"model.safetensors", "adapter_model.safetensors"}
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert notes[0] == f"note: merged: the adapter in {adapter} (rank 2)"
    assert notes[1] == "note: left out: the tokenizer beside the adapter; that of tiny-bert is used"
    from transformers import BertForPreTraining

    model = peft.PeftModel.from_pretrained(BertForPreTraining.from_pretrained(tiny_checkpoint), adapter).eval()
    ids = torch.randint(20, 400, (2, 9), generator=torch.Generator().manual_seed(1))
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    with torch.inference_mode():
        expected = model(**feeds)
    outputs = run_graph(out / "onnx" / "model.onnx", {name: tensor.numpy() for name, tensor in feeds.items()})
    torch.testing.assert_close(torch.from_numpy(outputs["logits"]), expected.prediction_logits, atol=1e-4, rtol=0)


def test_an_adapter_beside_whole_weights_is_refused_unless_it_is_named(checkpoint, adapter, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, checkpoint)
    out = tmp_path / "out"
    said = r"^checkpoint holds a PEFT adapter \(adapter_config.json\) beside a whole model: give --adapter \S+ to merge"
    with pytest.raises(CheckpointError, match=said):
        export(checkpoint, out)
    assert not out.exists()
    tensors, _ = merged(checkpoint, checkpoint, tmp_path)
    expected, _ = merged(checkpoint, adapter, tmp_path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def broken(adapter, place, **changes):
    directory = shutil.copytree(adapter, place / "broken")
    settings = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(settings | changes))
    return directory


SETTINGS = {
    "another kind": ({"peft_type": "IA3"}, r"is of the kind 'IA3'; LORA can be merged"),
    "no kind": ({"peft_type": None}, r"is of the kind None; LORA can be merged"),
    "Megatron": ({"megatron_config": {"a": 1}}, r"has layers of Megatron: merge it yourself"),
    "replicated": ({"layer_replication": [[0, 2]]}, r"has layers that are there more than once: merge it yourself"),
    "PiSSA": ({"init_lora_weights": "pissa"}, r"has init_lora_weights 'pissa', which changes the model's own weights"),
    "another rank": ({"r": 3}, r"PEFT cannot put the adapter in \S+ \(rank 3\) on a Bert\S+: .*size mismatch"),
    "more targets": ({"target_modules": ["query", "value", "key"]}, r"do not belong together: \S+key.lora_A.weight is"),
    "no targets": ({"target_modules": ["nothing"]}, r"PEFT cannot put the adapter .* on a Bert\S+: .*nothing"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_cannot_be_followed_are_named(tiny_checkpoint, adapter, tmp_path, kind):
    changes, said = SETTINGS[kind]
    directory = broken(adapter, tmp_path, **changes)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=said) as caught:
        export(tiny_checkpoint, tmp_path / "out", adapter=directory)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_tensors_without_a_place_are_named(tiny_checkpoint, adapter, tmp_path):
    directory = broken(adapter, tmp_path)
    path = directory / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"base_model.model.classifier.weight": torch.ones(2, 32)}, path)
    with pytest.raises(CheckpointError, match=r"has weights for 'classifier', which a BertForPreTraining does not"):
        export(tiny_checkpoint, tmp_path / "out", adapter=directory)
    save_file(tensors | {f"{QUERY}.lora_C.weight": torch.ones(2, 32)}, path)
    with pytest.raises(CheckpointError, match=r"do not belong together: \S+lora_C\S* is in only one of them"):
        export(tiny_checkpoint, tmp_path / "out", adapter=directory)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors is truncated or damaged"):
        export(tiny_checkpoint, tmp_path / "out", adapter=directory)


def test_a_merge_that_computes_something_else_is_refused(tiny_checkpoint, adapter, tmp_path, monkeypatch):
    def without(self, *_, **__):
        return self.unload()

    monkeypatch.setattr(peft.PeftModel, "merge_and_unload", without, raising=False)
    with pytest.raises(CheckpointError, match=r"^merged into the model, the adapter .* gives other outputs"):
        export(tiny_checkpoint, tmp_path / "out", adapter=adapter)
    assert not list(tmp_path.iterdir())


def test_an_adapter_of_a_tied_embedding_is_refused(tiny_checkpoint, tmp_path):
    """Beside its weights it changes the embedding alone, and merged the decoder too."""
    trained(tiny_checkpoint, tmp_path / "adapter", target_modules=["word_embeddings"])
    with pytest.raises(CheckpointError, match=r"gives other outputs .* a word embedding that is also the decoder does"):
        export(tiny_checkpoint, tmp_path / "out", adapter=tmp_path / "adapter")


def test_a_pickle_is_never_loaded(tiny_checkpoint, adapter, tmp_path):
    directory = broken(adapter, tmp_path)
    torch.save(load_file(directory / "adapter_model.safetensors"), directory / "adapter_model.bin")
    (directory / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has weights as a pickle \(adapter_model.bin\), and adapter_m"):
        export(tiny_checkpoint, tmp_path / "out", adapter=directory)


def test_what_is_no_adapter(tiny_checkpoint, tmp_path):
    with pytest.raises(PathError, match=r"no adapter at \S+none: give the directory that holds adapter_config.json"):
        find_adapter(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"holds no adapter: it has no adapter_config.json"):
        find_adapter(tiny_checkpoint)


def test_a_model_in_memory_takes_none(tiny_checkpoint, adapter, tmp_path):
    from transformers import AutoTokenizer, BertModel

    given = (BertModel.from_pretrained(tiny_checkpoint), AutoTokenizer.from_pretrained(tiny_checkpoint))
    with pytest.raises(UsageError, match=r"adapter .* was given for a model in memory"):
        export(*given, tmp_path / "out", adapter=adapter)


def test_without_peft_it_says_what_to_install(adapter, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"^--adapter needs the package peft, which is not installed"):
        find_adapter(adapter)
