"""The settings of config.json that say what the encoder computes, checked one by one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import promises
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import MULTIPLE_CHOICE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from transformers import PretrainedConfig

    from bertport.export.checkpoint.families import Family

__all__ = ["max_positions", "names_code", "normalized", "read_config"]

LARGEST = 10**8
"""The largest value of any size: a hundred times that of the largest BERT, and the product of two is still a number of
bytes."""
MOST_LAYERS = 500
"""The largest number of layers, and of other parts that a model has one after another. Each is built to look at it and
then traced, also those of an ALBERT, of which a few kilobytes can have any number; the deepest published encoders have
48."""
LARGEST_EPSILON = 1e30
"""Well within float32."""
CODE = re.compile(
    r".*_implementation(_\w+)?|auto_map|custom_pipelines|custom_generate|trust_remote_code|use_kernels|kernel_config"
)
"""Settings by which a config names code or kernels, of this machine or of a repository, that transformers would run."""
ASIDE = re.compile(
    r".*dropout.*|initializer_.*|use_cache|is_decoder|add_cross_attention|(bos|eos|cls|sep)_token_id|sparse_.*"
)
"""Settings of training, generation and heads that are not exported, which change nothing here."""
SHARED = ("tie_word_embeddings", "pad_token_id")
"""Settings that transformers counts among those of every model, and which say what is computed."""
ACTIVATIONS = ("hidden_act", "activation", "hidden_activation", "conv_act")
POSITIONS = ("absolute", "relative_key", "relative_key_query")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Validation rule of one setting."""

    accepts: Callable[[Any], bool]
    """Whether a value is one."""
    expected: str
    """Description of the values accepted, for messages."""


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_activation(value: object) -> bool:
    from transformers.activations import ACT2FN

    return isinstance(value, str) and value in ACT2FN


def _number(value: Any) -> bool:  # noqa: ANN401 — whatever JSON holds
    return (isinstance(value, float) or _whole(value)) and 0 <= value <= LARGEST_EPSILON


SIZE = Setting(
    accepts=lambda value: _whole(value) and 0 < value <= LARGEST, expected=f"a positive number up to {LARGEST:,}"
)
COUNT = Setting(
    accepts=lambda value: _whole(value) and 0 < value <= MOST_LAYERS,
    expected=f"a positive number up to {MOST_LAYERS:,}",
)
SETTINGS = {
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_hidden_groups", "inner_group_num"), COUNT),
    "num_feedforward_networks": COUNT,
    "embedding_size": SIZE,
    "position_embedding_type": Setting(
        accepts=lambda value: value in POSITIONS, expected=f"one of {', '.join(POSITIONS)}"
    ),
    "pad_token_id": Setting(accepts=lambda value: value is None or (_whole(value) and value >= 0), expected="an id"),
}
"""Rules of the settings for which the type of transformers' default does not say enough."""
SUMMARY = {
    "summary_type": Setting(accepts=lambda value: value == "first", expected="first, as the others read padding too,"),
    "summary_use_proj": Setting(accepts=lambda value: isinstance(value, bool), expected="true or false"),
    "summary_activation": Setting(accepts=_is_activation, expected="the name of an activation"),
    "summary_proj_to_labels": Setting(accepts=lambda value: isinstance(value, bool), expected="true or false"),
}
"""Settings of the head for multiple choice of an ELECTRA, which its other checkpoints may state in any way."""
BY_TYPE: dict[type, Setting] = {
    bool: Setting(accepts=lambda value: isinstance(value, bool), expected="true or false"),
    float: Setting(accepts=_number, expected="a number from 0 up"),
    str: Setting(accepts=lambda value: isinstance(value, str), expected="a name"),
}
AT_LEAST = {
    -1: Setting(accepts=lambda value: _whole(value) and -1 <= value <= LARGEST, expected="a number from -1 up"),
    0: Setting(accepts=lambda value: _whole(value) and 0 <= value <= LARGEST, expected="a number from 0 up"),
}
"""Rules of whole numbers that stand for something other than a size where they are not positive."""
NEUTRAL = {"position_embedding_type": "absolute"}
"""Values of settings which mean what transformers does without the setting."""
OF_4 = "4.57, in an environment with bertport[export-optimum]"


def read_config(raw: dict[str, Any], path: Path, family: Family) -> PretrainedConfig:
    """Return transformers' config for the encoder, set for tracing; what is not stated has transformers' default.

    Args:
        raw: the content of config.json.
        path: where it came from, for messages.
        family: the encoder's family.

    Raises:
        CheckpointError: naming the first setting that cannot be, or that this version of transformers does not read.
    """
    import transformers

    make = transformers.CONFIG_MAPPING[family.name]
    defaults = make().to_dict()
    common = transformers.PretrainedConfig().to_dict().keys() - set(SHARED)
    names = (defaults.keys() | make.attribute_map.keys() | set(family.legacy) | set(SHARED)) - common
    stated = {name: value for name, value in raw.items() if name in names and not ASIDE.fullmatch(name)}
    if MULTIPLE_CHOICE not in promises(family, (raw.get("architectures") or [""])[0]):
        stated = {name: value for name, value in stated.items() if name not in SUMMARY or SUMMARY[name].accepts(value)}
    for name, value in stated.items():
        rule = _rule(name, defaults.get(name))
        if rule is not None:
            _check_value(name, value, rule, path)
        if isinstance(defaults.get(name), float):  # JSON writes 1.0 and 1 alike, and transformers 5 takes one of them
            stated[name] = float(value)
    _check_known(raw, path, names, family)
    if raw.get("pruned_heads"):
        raise CheckpointError(
            f"{path}: attention heads were pruned (pruned_heads), which cannot be exported: save the model whole"
        )
    for name in ACTIVATIONS:
        if name in stated:
            _check_activation(name, stated[name], path)
    config = _make(make, stated | dict(family.defaults), path)
    _check_sizes(config, path, family)
    # The attention that ONNX Runtime's fusion recognises (and the one that relative positions have).
    config._attn_implementation = "eager"  # noqa: SLF001 — transformers' own way to set it on a config
    return config


def normalized(family: Family, config: PretrainedConfig) -> Any:  # noqa: ANN401 — Optimum ships no types
    """Return the sizes of a model under names that hold for every family: Optimum's, and those of the family's row."""
    from optimum.utils import NormalizedConfigManager, NormalizedTextConfig  # type: ignore[import-untyped]

    try:
        make = NormalizedConfigManager.get_normalized_config_class(family.name)
    except KeyError:  # a family that Optimum does not know names its sizes as BERT does
        make = NormalizedTextConfig
    return make(config, allow_new=True, **family.sizes)


def max_positions(family: Family, config: PretrainedConfig) -> int:
    """Return the longest input that a model has positions for, in tokens; none or less where its table is too short."""
    offset = (config.pad_token_id or 0) + 1 if family.position_offset is None else family.position_offset
    return int(config.max_position_embeddings) - offset


def names_code(setting: str) -> bool:
    """Return whether a setting of a JSON file names code or kernels, which a bundle has no use for."""
    return CODE.fullmatch(setting) is not None


def _make(make: type[PretrainedConfig], stated: dict[str, Any], path: Path) -> PretrainedConfig:
    """Return transformers' config of some settings."""
    try:
        with quiet():
            return make(**stated)
    except Exception as error:  # whatever a setting makes it raise
        reason = (str(error).strip().splitlines() or [""])[-1].strip()
        raise CheckpointError(
            f"{path}: transformers cannot read these settings ({type(error).__name__}: {excerpt(reason, 200)}): "
            "restore the checkpoint's file"
        ) from error


def _check_sizes(config: PretrainedConfig, path: Path, family: Family) -> None:
    """Refuse sizes that do not go together."""
    sizes = normalized(family, config)
    if sizes.hidden_size % sizes.num_attention_heads:
        mismatch = (
            f"hidden_size {sizes.hidden_size} is not a multiple of num_attention_heads {sizes.num_attention_heads}"
        )
        raise CheckpointError(f"{path}: {mismatch}: correct the wrong one")
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        raise CheckpointError(
            f"{path}: pad_token_id is {config.pad_token_id}, beyond vocab_size {config.vocab_size}: correct the wrong "
            "one"
        )
    if config.pad_token_id is None and family.position_offset is None:
        raise CheckpointError(
            f"{path}: pad_token_id is missing, from which {family.noun} counts positions: set it to padding's id"
        )
    if max_positions(family, config) < 1:
        stated = config.max_position_embeddings
        raise CheckpointError(
            f"{path}: max_position_embeddings is {stated}; the first token of {family.noun} takes row "
            f"{stated - max_positions(family, config)}, so a larger number is expected"
        )


def _rule(name: str, default: object) -> Setting | None:
    """Return what holds for a setting; None for one that transformers alone can judge."""
    if name in SETTINGS or name in SUMMARY:
        return (SETTINGS | SUMMARY)[name]
    if _whole(default):
        return AT_LEAST.get(min(default, 1), SIZE) if isinstance(default, int) else None
    return BY_TYPE.get(type(default))


def _check_known(raw: Mapping[str, Any], path: Path, names: Collection[str], family: Family) -> None:
    """Refuse settings that say what is computed, and that this version of transformers would pass over."""
    import transformers

    for name in (*NEUTRAL, *family.newer):
        if name in names or raw.get(name) is None or raw[name] == NEUTRAL.get(name):
            continue
        if name in SETTINGS:
            _check_value(name, raw[name], SETTINGS[name], path)
        raise CheckpointError(
            f"{path}: {name} is {excerpt(raw[name])}, which transformers {transformers.__version__} does not "
            f"compute for {family.title}: export with transformers {OF_4 if name in NEUTRAL else 5}"
        )


def _check_value(name: str, value: object, rule: Setting, path: Path) -> None:
    """Refuse a value that a setting cannot have."""
    if not rule.accepts(value):
        raise CheckpointError(f"{path}: {name} is {excerpt(value)}; {rule.expected} is expected")


def _check_activation(setting: str, name: str, path: Path) -> None:
    import torch
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise CheckpointError(f"{path}: unknown {setting} {name!r}: name one of transformers")
    try:
        with torch.device("meta"):  # as where shapes are looked up
            ACT2FN[name]
    except Exception as error:  # whatever an activation raises
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: {setting} {name!r} cannot be exported: PyTorch does not make it without values of its own "
            f"({type(error).__name__}: {excerpt(reason)})"
        ) from error
