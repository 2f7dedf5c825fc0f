"""A model in memory as a source: as it is, whatever its device, type and mode, and left as it was."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from tokenizers.normalizers import BertNormalizer
from torch import nn
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertLMHeadModel,
    GPT2Config,
    GPT2Model,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from bertport.export import export
from bertport.export.checkpoint.memory import check_model, write_model
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.errors import CheckpointError, UsageError, ValidationError
from tests.conftest import contents, fill, tiny_config


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return BertForPreTraining.from_pretrained(tiny_checkpoint)


def written(model, directory):
    directory.mkdir(exist_ok=True)
    check_model(model)
    notes = write_model(model, directory)
    return load_file(directory / "model.safetensors"), json.loads((directory / "config.json").read_text()), notes


def state_of(model, tokenizer):
    """All that an export could change of them."""
    return (
        {
            name: (parameter.dtype, parameter.requires_grad, parameter.detach().clone())
            for name, parameter in model.named_parameters()
        },
        model.config.to_json_string(),
        [module.training for module in model.modules()],
        tokenizer.backend_tokenizer.to_str(),
        dict(tokenizer.init_kwargs),
    )


def test_a_model_in_memory_becomes_the_bundle_of_its_checkpoint(model, tokenizer, tiny_bundle, tmp_path):
    model.train()
    before = state_of(model, tokenizer)
    bundle = export(model, tokenizer, tmp_path / "mine")
    after = state_of(model, tokenizer)
    assert before[1:] == after[1:]
    for (kind, grad, value), (kind_after, grad_after, value_after) in zip(
        before[0].values(), after[0].values(), strict=True
    ):
        assert (kind, grad) == (kind_after, grad_after)
        assert torch.equal(value, value_after)
    expected = Bundle.open(tiny_bundle)
    for variant in ("portable", "fp32"):
        assert bundle.manifest.hashes_of(variant) == expected.manifest.hashes_of(variant)
    for name in ("tokenizer.json", "vocab.txt"):
        assert bundle.manifest.files[name] == expected.manifest.files[name]
    assert bundle.manifest.name == "mine"
    assert bundle.manifest.source.name == "a model in memory"
    assert bundle.manifest.source.weights_sha256.keys() == {"model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_tensors_are_written_in_their_type(model, tmp_path, kind):
    changed = copy.deepcopy(model).to(getattr(torch, kind))
    write_model(changed, tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        for name, parameter in changed.named_parameters():
            assert torch.equal(file.get_tensor(name), parameter)


def test_the_config_says_whether_the_decoder_is_tied_as_it_is(model, tmp_path):
    table, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    tensors, config, _ = written(model, tmp_path / "tied")
    assert decoder not in tensors
    assert config.get("tie_word_embeddings", True)
    apart = copy.deepcopy(model)
    apart.cls.predictions.decoder.weight = nn.Parameter(apart.cls.predictions.decoder.weight.detach().clone())
    tensors, config, _ = written(apart, tmp_path / "apart")
    assert config["tie_word_embeddings"] is False
    np.testing.assert_array_equal(tensors[decoder], tensors[table])
    # Two parameters of one storage are two tensors of a file.
    apart.cls.predictions.decoder.weight.data = apart.bert.embeddings.word_embeddings.weight.data
    tensors, config, _ = written(apart, tmp_path / "shared")
    assert config["tie_word_embeddings"] is False
    assert decoder in tensors
    together = fill(BertForMaskedLM(tiny_config(tie_word_embeddings=False)))
    together.cls.predictions.decoder.weight = together.bert.embeddings.word_embeddings.weight
    tensors, config, _ = written(together, tmp_path / "together")
    assert config.get("tie_word_embeddings", True)
    assert decoder not in tensors


def test_what_is_tied_is_written_as_the_encoders(tmp_path):
    """Though the class lists its head first."""
    config = XLMRobertaConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    tensors, _, _ = written(XLMRobertaForMaskedLM(config), tmp_path)
    assert "roberta.embeddings.word_embeddings.weight" in tensors
    assert "lm_head.decoder.weight" not in tensors


@pytest.mark.parametrize("change", ["activation", "eps"])
def test_a_model_whose_modules_were_changed_is_refused(tiny_checkpoint, tmp_path, change):
    """config.json does not say so: the checkpoint, and the bundle, would be those of another model."""
    changed = BertForPreTraining.from_pretrained(tiny_checkpoint).train()
    if change == "activation":
        changed.bert.encoder.layer[0].intermediate.intermediate_act_fn = nn.ReLU()
    else:
        changed.bert.embeddings.LayerNorm.eps = 1.0
    with pytest.raises(CheckpointError, match=r"answers otherwise than its config .*set that in its config, and make"):
        written(changed, tmp_path)
    assert all(module.training for module in changed.modules())


def test_an_encoder_alone(model, tmp_path):
    tensors, config, _ = written(model.bert, tmp_path)
    assert config["architectures"] == ["BertModel"]
    assert "embeddings.word_embeddings.weight" in tensors


def test_a_model_for_multiple_choice(tmp_path):
    """Its class takes ids of [batch, choices, sequence]."""
    tensors, config, _ = written(fill(BertForMultipleChoice(tiny_config())), tmp_path)
    assert config["architectures"] == ["BertForMultipleChoice"]
    assert "classifier.weight" in tensors


def test_a_model_that_answers_in_tuples(tmp_path):
    """As its config can ask for, and in transformers 4 torchscript=True too."""
    tensors, _, _ = written(fill(BertForMaskedLM(tiny_config(return_dict=False))), tmp_path)
    assert "cls.predictions.bias" in tensors


def test_hooks_are_left_out_with_a_note(model, tmp_path):
    hooked = copy.deepcopy(model)
    hooked.bert.encoder.layer[0].register_forward_hook(lambda *_: None)
    hooked.register_forward_pre_hook(lambda *_: None)
    assert written(hooked, tmp_path)[2] == ("left out: forward hooks of the model (at its top, bert.encoder.layer.0)",)


class Mine(BertForMaskedLM):
    """A class of a user's own."""


class Attention(nn.Module):
    """A module of a user's own."""


def patched(model):
    model.bert.pooler.forward = lambda hidden: hidden[:, 0]


def replaced(model):
    model.bert.encoder.layer[1].attention = Attention()


def away(model):
    model.bert.pooler.to("meta")


def quantized(model):
    from torch.ao.quantization.stubs import QuantStub

    model.bert.pooler.activation = QuantStub()


class Packed(torch.Tensor):
    """A tensor that keeps its values in a way of its own."""


def packed(model):
    model.bert.pooler.dense.weight = nn.Parameter(model.bert.pooler.dense.weight.detach().as_subclass(Packed))


def another_family(_):
    return GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))


MODELS = {
    "a class of its own": (lambda _: Mine(tiny_config()), r"is a \S+\.Mine, which cannot .*: BertForPreTraining, Bert"),
    "another class": (lambda _: BertLMHeadModel(tiny_config(is_decoder=True)), r"BertLMHeadModel, which cannot"),
    "another family": (another_family, r"GPT2Model, which cannot be exported; supported: BERT"),
    "a patched forward": (patched, r"has a forward method of its own at bert.pooler, whose code a checkpoint does not"),
    "a module of its own": (replaced, r"has a \S+\.Attention at bert.encoder.layer.1.attention, whose code a check"),
    "no values": (away, r"bert.pooler.dense.weight has no values here \(its device is meta\): load it whole"),
    "a quantized module": (quantized, r"has a torch.ao.quantization.stubs.QuantStub at bert.pooler.activation, whose"),
    "packed values": (packed, r"the model's bert.pooler.dense.weight is a \S+\.Packed, which a checkpoint cannot hold"),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_a_checkpoint_could_not_hold_is_refused(model, name):
    change, said = MODELS[name]
    changed = copy.deepcopy(model)
    with pytest.raises(CheckpointError, match=said):
        check_model(change(changed) or changed)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (partial(torch.compile, backend="eager"), r"OptimizedModule, a compiled model: give model._orig_mod"),
        (nn.DataParallel, r"DataParallel, a model in a wrapper: give model.module"),
        (lambda model: model.state_dict(), r"OrderedDict, and should be a model of transformers"),
    ],
)
def test_what_holds_a_model_is_no_model(model, tokenizer, tmp_path, wrap, said):
    with pytest.raises(UsageError, match=said):
        export(wrap(model), tokenizer, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_does_not_go_together(model, tokenizer, tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"without its tokenizer: export\(model, tokenizer, output\)"):
        export(model, out)
    with pytest.raises(UsageError, match=r"a tokenizer was given beside \S+tiny-bert, which has its own: leave it out"):
        export(tiny_checkpoint, tokenizer, out)
    with pytest.raises(UsageError, match=r"the tokenizer is a builtins.str; one of transformers is expected"):
        export(model, str(tiny_checkpoint), out)
    with pytest.raises(UsageError, match=r"revision 'main' was given for a model in memory, which has none"):
        export(model, tokenizer=tokenizer, output=out, revision="main")
    with pytest.raises(UsageError, match=r"the source is a \S+, and should be a model of transformers"):
        export(tokenizer, model, out)
    for given in ((), (1, 2, 3)):
        with pytest.raises(UsageError, match="give a source and an output, or a model, its tokenizer and an output"):
            export(model, *given)
    assert not list(tmp_path.iterdir())


def test_an_error_names_the_model_and_not_where_it_was_written(model, tmp_path, make_tokenizer):
    (tmp_path / "cased").mkdir()
    make_tokenizer(tmp_path / "cased", cased=True)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"^the tokenizer of a model in memory has [\d,]+ tokens and the word"):
        export(model, AutoTokenizer.from_pretrained(tmp_path / "cased"), tmp_path / "out")
    assert contents(tmp_path) == before


def test_a_tokenizer_that_saving_changes_is_refused(model, tiny_checkpoint, tmp_path):
    """transformers makes the normalizer anew of do_lower_case, whatever tokenizer.json says."""
    changed = AutoTokenizer.from_pretrained(tiny_checkpoint)
    changed.backend_tokenizer.normalizer = BertNormalizer(lowercase=False)
    with pytest.raises(ValidationError, match=r"^the tokenizer reads .* differently once it is saved and loaded"):
        export(model, changed, tmp_path / "out")
    assert not list(tmp_path.iterdir())
