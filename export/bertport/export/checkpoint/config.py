"""The settings of config.json that say what the encoder computes, checked one by one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import BertConfig

__all__ = ["names_code", "read_config"]

LARGEST = 10**8
"""The largest value of any size: a hundred times that of the largest BERT, and the product of two is still a number of
bytes."""
LARGEST_EPSILON = 1e30
"""Well within float32."""
CODE = re.compile(
    r".*_implementation(_\w+)?|auto_map|custom_pipelines|custom_generate|trust_remote_code|use_kernels|kernel_config"
)
"""Settings by which a config names code or kernels, of this machine or of a repository, that transformers would run."""
POSITIONS = ("absolute", "relative_key", "relative_key_query")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Validation rule of one setting."""

    accepts: Callable[[Any], bool]
    """Whether a value is one."""
    expected: str
    """What is expected, for messages."""


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


SIZE = Setting(
    accepts=lambda value: _whole(value) and 0 < value <= LARGEST, expected=f"a positive number up to {LARGEST:,}"
)
SETTINGS = {
    "vocab_size": SIZE,
    "hidden_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": SIZE,
    "intermediate_size": SIZE,
    "max_position_embeddings": SIZE,
    "type_vocab_size": SIZE,
    "hidden_act": Setting(accepts=lambda value: isinstance(value, str), expected="a name"),
    "layer_norm_eps": Setting(
        accepts=lambda value: (isinstance(value, float) or _whole(value)) and 0 <= value <= LARGEST_EPSILON,
        expected="a number from 0 up",
    ),
    "position_embedding_type": Setting(
        accepts=lambda value: value in POSITIONS, expected=f"one of {', '.join(POSITIONS)}"
    ),
    "tie_word_embeddings": Setting(accepts=lambda value: isinstance(value, bool), expected="true or false"),
    "pad_token_id": Setting(accepts=lambda value: value is None or (_whole(value) and value >= 0), expected="an id"),
}
"""Everything else in config.json is about training, generation or labels, and changes nothing here."""


def read_config(raw: dict[str, Any], path: Path) -> BertConfig:
    """Return transformers' config for the encoder, set for tracing; what is not stated has transformers' default.

    Args:
        raw: the content of config.json.
        path: where it came from, for messages.

    Raises:
        CheckpointError: naming the first setting that cannot be.
    """
    from transformers import BertConfig
    from transformers.activations import ACT2FN

    for name, setting in SETTINGS.items():
        if name in raw and not setting.accepts(raw[name]):
            raise CheckpointError(f"{path}: {name} is {excerpt(raw[name])}; {setting.expected} is expected")
    if raw.get("pruned_heads"):
        raise CheckpointError(
            f"{path}: attention heads were pruned (pruned_heads), which cannot be exported: save the model whole"
        )
    config: BertConfig = BertConfig(**{name: raw[name] for name in SETTINGS if name in raw})
    if config.hidden_size % config.num_attention_heads:
        sizes = (
            f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {config.num_attention_heads}"
        )
        raise CheckpointError(f"{path}: {sizes}")
    if config.hidden_act not in ACT2FN:
        raise CheckpointError(f"{path}: unknown hidden_act {config.hidden_act!r}")
    _check_activation(config.hidden_act, path)
    config.layer_norm_eps = float(config.layer_norm_eps)
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        raise CheckpointError(f"{path}: pad_token_id is {config.pad_token_id}, beyond vocab_size {config.vocab_size}")
    # The attention that ONNX Runtime's fusion recognises (and the one that relative positions have).
    config._attn_implementation = "eager"  # noqa: SLF001 — transformers' own way to set it on a config
    return config


def names_code(setting: str) -> bool:
    """Return whether a setting of a JSON file names code or kernels, which a bundle has no use for."""
    return CODE.fullmatch(setting) is not None


def _check_activation(name: str, path: Path) -> None:
    import torch
    from transformers.activations import ACT2FN

    try:
        with torch.device("meta"):  # as where shapes are looked up
            ACT2FN[name]
    except Exception as error:  # whatever an activation raises
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: hidden_act {name!r} cannot be exported: PyTorch does not make it without values of its own "
            f"({type(error).__name__}: {excerpt(reason)})"
        ) from error
