"""The model under training: reading an encoder to start from, and the loss of one batch."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertConfig, BertForPreTraining

from .objective import Batch, SpecialTokens

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json, without the truncation and padding that some checkpoints store in it."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """Read the special ids of a BERT tokenizer; random replacements exclude them and the unused entries."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    ordinary = [index for entry, index in vocabulary.items() if not (entry.startswith("[") and entry.endswith("]"))]
    return SpecialTokens(
        cls=vocabulary["[CLS]"],
        sep=vocabulary["[SEP]"],
        mask=vocabulary["[MASK]"],
        vocab_size=len(vocabulary),
        ordinary=np.sort(np.asarray(ordinary, dtype=np.int64)),
    )


def file_sha256(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_encoder(init: Path, *, layers: int | None) -> BertForPreTraining:
    """Put fresh heads on the encoder of a checkpoint directory (config.json and model.safetensors).

    Heads that the checkpoint holds are taken along. `layers` keeps that many, evenly spaced.
    """
    config = _training_config(BertConfig.from_pretrained(init))
    tensors = load_file(init / "model.safetensors")
    if layers is not None and layers != config.num_hidden_layers:
        kept = np.linspace(0, config.num_hidden_layers - 1, layers).round().astype(int).tolist()
        tensors = _keep_layers(tensors, kept)
        config.num_hidden_layers = layers
    model = BertForPreTraining(config)
    names = set(model.state_dict())
    tensors = {name if name in names else f"bert.{name}": tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    lost = [name for name in missing if name.startswith("bert.") and "pooler" not in name]
    if lost or unexpected:
        message = f"{init} does not fit its config.json: missing {lost[:3]}, unexpected {unexpected[:3]}"
        raise ValueError(message)
    model.tie_weights()
    return model


def from_config(path: Path, *, vocab_size: int) -> BertForPreTraining:
    """Make a model with random weights from a config.json."""
    config = _training_config(BertConfig(**json.loads(path.read_text(encoding="utf-8"))))
    config.vocab_size = vocab_size
    return BertForPreTraining(config)


def start_decoder_at_frequencies(model: BertForPreTraining, tokens: np.ndarray) -> None:
    """Set the MLM decoder's bias to the log-frequencies of the corpus, which skips learning the unigrams."""
    counts = np.bincount(tokens, minlength=model.config.vocab_size).astype(np.float64)
    log_frequencies = np.log((counts + 0.5) / (counts + 0.5).sum())
    with torch.no_grad():
        bias = torch.from_numpy(log_frequencies - log_frequencies.mean())
        model.cls.predictions.bias.copy_(bias.to(model.cls.predictions.bias.dtype))


def losses(
    model: BertForPreTraining, batch: Batch, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run one batch, decoding only the masked positions.

    Returns:
        MLM loss and NSP loss (mean nats, float32), then MLM logits of shape (masked, vocabulary)
        and NSP logits of shape (rows, 2).
    """
    input_ids = torch.from_numpy(batch.input_ids).to(device)
    token_types = torch.from_numpy(batch.token_type_ids).to(device)
    positions = torch.from_numpy(batch.masked_positions).to(device)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        output = model.bert(input_ids=input_ids, token_type_ids=token_types)
        hidden = output.last_hidden_state.flatten(0, 1)[positions]
        mlm_logits = model.cls.predictions(hidden)
        nsp_logits = model.cls.seq_relationship(output.pooler_output)
    mlm = functional.cross_entropy(mlm_logits.float(), torch.from_numpy(batch.masked_labels).to(device))
    nsp = functional.cross_entropy(nsp_logits.float(), torch.from_numpy(batch.next_sentence_labels).to(device))
    return mlm, nsp, mlm_logits, nsp_logits


def _training_config(config: BertConfig) -> BertConfig:
    # No dropout: the run sees the text about once and underfits. Eager attention: under bf16 on a CPU the
    # backward pass of the fused kernel was three times slower (221 ms against 78 ms a step in fp32).
    config.hidden_dropout_prob = 0.0
    config.attention_probs_dropout_prob = 0.0
    config.architectures = ["BertForPreTraining"]
    config._attn_implementation = "eager"  # noqa: SLF001 — the documented way to choose it for a bare config
    return config


def _keep_layers(tensors: dict[str, torch.Tensor], kept: list[int]) -> dict[str, torch.Tensor]:
    renumbered = {}
    for name, tensor in tensors.items():
        head, found, rest = name.partition("encoder.layer.")
        if not found:
            renumbered[name] = tensor
            continue
        number, _, parameter = rest.partition(".")
        if int(number) in kept:
            renumbered[f"{head}{found}{kept.index(int(number))}.{parameter}"] = tensor
    return renumbered
