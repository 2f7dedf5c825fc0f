"""Checkpoints of other families in forms of their own: what is read off transformers' classes holds for each."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from bertport.export.checkpoint.families import FAMILIES
from bertport.export.checkpoint.read import read_checkpoint
from bertport.export.checkpoint.source import locate
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.export.graph.wrapper import build
from bertport.runtime.errors import CheckpointError
from tests.families import tiny
from tests.invented import rewrite

NEW = int(transformers.__version__.split(".")[0]) > 4
INPUTS = {
    "input_ids": torch.arange(40, 54).reshape(2, 7),
    "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),
    "token_type_ids": torch.tensor([[0] * 3 + [1] * 4, [0] * 7]),
}


def read(directory):
    """The checkpoint of a directory."""
    return read_checkpoint(locate(str(directory)))


def computed(directory):
    """Return the outputs of our model for a checkpoint."""
    model = build(read(directory))
    with torch.inference_mode():
        return model(**{name: INPUTS[name] for name in model.inputs})


def theirs(directory, model_class):
    """Return the outputs of transformers' class for a checkpoint."""
    with quiet():
        model = getattr(transformers, model_class).from_pretrained(directory).eval()
    given = dict(INPUTS)
    if "token_type_ids" not in FAMILIES[model.config.model_type].inputs:
        del given["token_type_ids"]
    with torch.inference_mode():
        return model(**given)


def without(*parts):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(parts)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_encoder_has_no_prefix(family, tmp_path):
    prefix = FAMILIES[family].prefix
    source = tiny(family, tmp_path / "source")

    def bare(tensors):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    plan = read(rewrite(source, tmp_path / "bare", bare)).plan
    assert set(plan.heads) <= {"pooler"}
    assert all(name.startswith(prefix) for name in plan.renames.values())
    wrapped = rewrite(
        tmp_path / "bare", tmp_path / "wrapped", lambda tensors: {f"0.auto_model.{n}": t for n, t in tensors.items()}
    )
    planned = read(wrapped).plan
    assert set(planned.renames.values()) == set(plan.renames.values())
    assert planned.notes[0] == "left out: '0.auto_model.', with which the names of the weights begin"


def test_sentence_order_without_words(tmp_path):
    """A class whose other head is not there."""
    source = tiny("albert", tmp_path / "source")
    outputs = computed(rewrite(source, tmp_path / "half", without("predictions.")))
    expected = theirs(source, "AlbertForPreTraining")
    assert set(outputs) == {"sentence_order_logits", "last_hidden_state", "pooler_output"}
    torch.testing.assert_close(outputs["sentence_order_logits"], expected.sop_logits, rtol=0, atol=1e-6)


def test_both_heads_of_an_electra(tmp_path):
    """transformers has no class for them."""
    from safetensors.torch import load_file

    generator = tiny("electra", tmp_path / "generator")
    other = tiny("electra", tmp_path / "discriminator", model_class="ElectraForPreTraining")
    head = without("electra.")(load_file(other / "model.safetensors"))
    both = rewrite(generator, tmp_path / "both", lambda tensors: tensors | head)
    assert read(both).plan.heads == ("mlm", "rtd")
    outputs = computed(both)
    torch.testing.assert_close(outputs["logits"], theirs(both, "ElectraForMaskedLM").logits, rtol=0, atol=1e-5)
    logits = theirs(both, "ElectraForPreTraining").logits
    assert not outputs["replaced_token_logits"][..., 0].any()
    torch.testing.assert_close(outputs["replaced_token_logits"][..., 1], logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "model_class"), [("deberta", "DebertaForMaskedLM"), ("deberta-v2", "DebertaV2ForMaskedLM")]
)
def test_the_head_that_decodes_with_the_embedding(family, model_class, tmp_path):
    """As Microsoft stores it; transformers reads it where config.json says that it is not the legacy one."""
    source = tiny(family, tmp_path / "source", legacy=False, tie_word_embeddings=False)
    tied = rewrite(source, tmp_path / "tied", dict, tie_word_embeddings=True)
    expected = theirs(source, model_class).logits
    for directory in (source, tied):
        assert read(directory).plan.heads == ("mlm",)
        torch.testing.assert_close(computed(directory)["logits"], expected, rtol=0, atol=1e-5)
    legacy = rewrite(source, tmp_path / "legacy", dict, legacy=True)
    plan = read(legacy).plan
    assert plan.heads == ()
    assert "left out, as part of neither the encoder nor a head: lm_predictions.lm_head." in plan.notes[-1]


def test_a_tied_decoder_may_be_all_that_is_stored(tmp_path):
    source = tiny("xlm-roberta", tmp_path / "source")
    words, decoder = "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"

    def move(tensors):
        return {decoder if name == words else name: tensor for name, tensor in tensors.items()}

    moved = rewrite(source, tmp_path / "moved", move)
    assert read(moved).plan.renames[decoder] == words
    expected = theirs(source, "XLMRobertaForMaskedLM").logits
    torch.testing.assert_close(computed(moved)["logits"], expected, rtol=0, atol=1e-5)
    apart = rewrite(moved, tmp_path / "apart", dict, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=f"hold no {words}: these are not the weights of an XLM-RoBERTa encoder"):
        read(apart)


def test_the_bias_of_a_decoder_of_its_own(tmp_path):
    """transformers 5 stores two, and computes with the decoder's; 4 has but one."""
    source = tiny("roberta", tmp_path / "source", tie_word_embeddings=False)

    def two(tensors):
        bias = tensors.get("lm_head.decoder.bias", tensors["lm_head.bias"])
        return tensors | {"lm_head.bias": bias + 1, "lm_head.decoder.bias": bias}

    both = rewrite(source, tmp_path / "both", two)
    plan = read(both).plan
    assert plan.renames["lm_head.decoder.bias"] == "lm_head.bias"
    assert "lm_head.bias" not in plan.renames
    assert plan.notes[-1] == "left out, as part of neither the encoder nor a head: lm_head.bias"
    expected = theirs(source, "RobertaForMaskedLM").logits
    torch.testing.assert_close(computed(both)["logits"], expected, rtol=0, atol=1e-5)


def test_a_stored_decoder_that_is_not_the_embedding_it_should_be(tmp_path):
    """transformers 5 takes it, and 4 the embedding, as this does: the note says how to have the other."""
    source = tiny("distilbert", tmp_path / "source")
    words, decoder = "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"
    equal = rewrite(source, tmp_path / "equal", lambda tensors: tensors | {decoder: tensors[words]})
    other = rewrite(source, tmp_path / "other", lambda tensors: tensors | {decoder: 2 * tensors[words]})
    untied = rewrite(other, tmp_path / "untied", dict, tie_word_embeddings=False)
    assert read(source).decoder_notes() == read(equal).decoder_notes() == read(untied).decoder_notes() == ()
    [note] = read(other).decoder_notes()
    assert note.startswith(f"{decoder} differs from the word embedding, which it is by config.json")
    torch.testing.assert_close(computed(other)["logits"], computed(source)["logits"], rtol=0, atol=0)
    expected = theirs(other, "DistilBertForMaskedLM").logits
    torch.testing.assert_close(computed(untied if NEW else other)["logits"], expected, rtol=0, atol=1e-5)


def test_the_first_state_for_a_pooler(tmp_path):
    """A MobileBERT may take it as it is; what is stored for a dense layer is left out then."""
    source = tiny("mobilebert", tmp_path / "source")
    plan = read(rewrite(source, tmp_path / "plain", dict, classifier_activation=False)).plan
    assert plan.heads == ("mlm", "nsp", "pooler")
    assert "mobilebert.pooler.dense.bias, mobilebert.pooler.dense.weight" in plan.notes[-1]
    outputs = computed(tmp_path / "plain")
    assert torch.equal(outputs["pooler_output"], outputs["last_hidden_state"][:, 0])


@pytest.mark.parametrize(
    ("family", "entries", "message"),
    [
        ("roberta", {"pad_token_id": None}, "pad_token_id is missing, from which a RoBERTa counts positions"),
        ("roberta", {"max_position_embeddings": 2}, "the first token of a RoBERTa takes row 2"),
        ("mpnet", {"max_position_embeddings": 1}, "the first token of an MPNet takes row 2"),
        ("distilbert", {"n_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ("distilbert", {"activation": "gleu"}, "unknown activation 'gleu'"),
        ("distilbert", {"dim": "32"}, "dim is '32'; a positive number up to 100,000,000 is expected"),
        ("albert", {"num_hidden_groups": 10**6}, "a positive number up to 500 is expected"),
        ("deberta-v2", {"type_vocab_size": -1}, "type_vocab_size is -1; a number from 0 up is expected"),
        ("deberta-v2", {"position_buckets": "many"}, "transformers cannot make a DeBERTa-v2 encoder of these settings"),
        ("modernbert", {"local_attention": 0}, "local_attention is 0; a positive number"),
        ("mobilebert", {"normalization_type": "none"}, "transformers cannot make a MobileBERT encoder"),
        ("mpnet", {"position_embedding_type": "relative_key"}, "does not compute for MPNet"),
    ],
)
def test_settings_that_make_no_sense(family, entries, message, tmp_path):
    source = tiny(family, tmp_path / "checkpoint")
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    with pytest.raises(CheckpointError, match=message):
        read(source)


@pytest.mark.skipif(NEW, reason="transformers 5 reads it")
def test_settings_of_transformers_5_are_not_passed_over_by_4(tmp_path):
    """Rotary positions of another base would be computed, and PyTorch's own answers be wrong with the graph's."""
    rope = {
        attention: {"rope_type": "default", "rope_theta": 5e3} for attention in ("full_attention", "sliding_attention")
    }
    source = rewrite(tiny("modernbert", tmp_path / "source"), tmp_path / "newer", dict, rope_parameters=rope)
    with pytest.raises(
        CheckpointError, match=r"rope_parameters is .* does not compute for ModernBERT: export with transformers 5"
    ):
        read(source)


@pytest.mark.skipif(not NEW, reason="transformers 4 computes them")
def test_relative_positions_are_not_passed_over_by_transformers_5(tiny_checkpoint, tmp_path):
    source = rewrite(tiny_checkpoint, tmp_path / "relative", dict, position_embedding_type="relative_key")
    with pytest.raises(CheckpointError, match=r"position_embedding_type is 'relative_key', which transformers 5"):
        read(source)
