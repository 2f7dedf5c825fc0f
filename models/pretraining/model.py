"""The model under training: reading an encoder to start from, and the loss of one batch."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn import functional
from transformers import BertConfig, BertForPreTraining

from bertport.runtime.excerpts import one_line

from .device import DeviceBatch
from .errors import RecipeError
from .machine import Hardware
from .objective import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A model before its first step."""

    model: BertForPreTraining
    """The model, with dropout off."""
    has_mlm_head: bool
    """Whether the MLM head came from a checkpoint, so that its bias must stay as it is."""


def from_encoder(init: Path, *, layers: int | None) -> Start:
    """Read the encoder of a checkpoint directory (config.json, and model.safetensors or pytorch_model.bin).

    Heads that the checkpoint holds are taken along; those that it lacks are fresh. `layers` keeps that many
    encoder layers, evenly spaced.

    Raises:
        RecipeError: when a file is missing, or the weights do not fit the configuration.
    """
    config = _training_config(BertConfig.from_pretrained(init))
    tensors = {_modern_name(name): tensor for name, tensor in _read_weights(weights_file(init)).items()}
    if layers is not None and layers != config.num_hidden_layers:
        if not 1 <= layers <= config.num_hidden_layers:
            raise RecipeError(f"--layers {layers}: {init} has {config.num_hidden_layers} layers; keep 1 to that many")
        kept = np.linspace(0, config.num_hidden_layers - 1, layers).round().astype(int).tolist()
        tensors = _keep_layers(tensors, kept)
        config.num_hidden_layers = layers
    model = BertForPreTraining(config)
    names = set(model.state_dict())
    tensors = {name if name in names else f"bert.{name}": tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise RecipeError(f"{init} does not fit its config.json: {one_line(error)[:300]}") from error
    lost = [name for name in missing if name.startswith("bert.") and "pooler" not in name]
    if lost or unexpected:
        raise RecipeError(f"{init} does not fit its config.json: missing {lost[:3]}, unexpected {unexpected[:3]}")
    model.tie_weights()
    return Start(model=model, has_mlm_head="cls.predictions.bias" in tensors)


def weights_file(directory: Path) -> Path:
    """Return the file of a checkpoint directory that holds its weights.

    Raises:
        RecipeError: when there is none.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).is_file():
            return directory / name
    raise RecipeError(f"{directory} holds no weights: expected model.safetensors or pytorch_model.bin")


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _modern_name(name: str) -> str:
    """Rename what TensorFlow's checkpoints called the scale and the shift of LayerNorm."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def from_config(path: Path, *, vocab_size: int) -> Start:
    """Make a model with random weights from a configuration file, with as many entries as its vocabulary has.

    Raises:
        RecipeError: when the file is not a BERT configuration.
    """
    try:
        config = _training_config(BertConfig(**json.loads(path.read_text(encoding="utf-8"))))
        config.vocab_size = vocab_size
        return Start(model=BertForPreTraining(config), has_mlm_head=False)
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"{path} is not a BERT configuration ({error}): see models/README.md for an example"
        ) from error


def start_decoder_at_frequencies(model: BertForPreTraining, tokens: NDArray[np.int32]) -> None:
    """Set the MLM decoder's bias to the log-frequencies of the corpus, which skips learning the unigrams."""
    counts = np.bincount(tokens, minlength=model.config.vocab_size).astype(np.float64)
    log_frequencies = np.log((counts + 0.5) / (counts + 0.5).sum())
    with torch.no_grad():
        bias = torch.from_numpy(log_frequencies - log_frequencies.mean())
        model.cls.predictions.bias.copy_(bias.to(model.cls.predictions.bias.dtype))


def losses(
    model: BertForPreTraining, batch: Batch | DeviceBatch, hardware: Hardware
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run one batch, decoding only the masked positions.

    Returns:
        MLM loss and NSP loss (mean nats, float32), then MLM logits of shape (masked, vocabulary)
        and NSP logits of shape (rows, 2).
    """
    device, dtype = hardware.device, hardware.dtype
    input_ids, token_types, positions, masked_labels, next_labels = (
        torch.as_tensor(values, device=device)
        for values in (
            batch.input_ids,
            batch.token_type_ids,
            batch.masked_positions,
            batch.masked_labels,
            batch.next_sentence_labels,
        )
    )
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        output = model.bert(input_ids=input_ids, token_type_ids=token_types)
        hidden = output.last_hidden_state.flatten(0, 1)[positions]
        mlm_logits = model.cls.predictions(hidden)
        nsp_logits = model.cls.seq_relationship(output.pooler_output)
    mlm = functional.cross_entropy(mlm_logits.float(), masked_labels)
    nsp = functional.cross_entropy(nsp_logits.float(), next_labels)
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
        head, marker, rest = name.partition("encoder.layer.")
        if not marker:
            renumbered[name] = tensor
            continue
        number, _, parameter = rest.partition(".")
        if int(number) in kept:
            renumbered[f"{head}{marker}{kept.index(int(number))}.{parameter}"] = tensor
    return renumbered
