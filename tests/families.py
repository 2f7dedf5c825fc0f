"""Seeded tiny checkpoints of every family, each with a tokenizer of its own kind."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.conftest import fill
from tests.tokenizers_of import write_tokenizer_of

if TYPE_CHECKING:
    from pathlib import Path

MAX_LENGTH = 64
"""Tokens that each of them takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """One row: how a family's checkpoint is made."""

    classes: tuple[str, ...]
    """transformers' classes whose heads are exported, that with most heads first; the bare encoder is the last."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Settings of config.json beside, or in place of, the common ones."""
    offset: int = 0
    """Rows of the position embedding that no token takes."""


def _standard(prefix: str) -> tuple[str, ...]:
    return (f"{prefix}ForMaskedLM", f"{prefix}Model")


def _as_bert(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{kind}" for kind in ("ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", "Model"))


RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
ONE_SEGMENT = {"type_vocab_size": 1}
TINY: dict[str, Tiny] = {
    "bert": Tiny(classes=_as_bert("Bert")),
    "roberta": Tiny(classes=_standard("Roberta"), sizes=ONE_SEGMENT, offset=2),
    "xlm-roberta": Tiny(classes=_standard("XLMRoberta"), sizes=ONE_SEGMENT, offset=2),
    "camembert": Tiny(classes=_standard("Camembert"), sizes=ONE_SEGMENT, offset=2),
    "distilbert": Tiny(
        classes=_standard("DistilBert"), sizes={"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    ),
    "electra": Tiny(
        classes=("ElectraForMaskedLM", "ElectraForPreTraining", "ElectraModel"), sizes={"embedding_size": 16}
    ),
    "mpnet": Tiny(classes=_standard("MPNet"), offset=2),
    "albert": Tiny(classes=("AlbertForPreTraining", "AlbertForMaskedLM", "AlbertModel"), sizes={"embedding_size": 16}),
    "deberta": Tiny(classes=_standard("Deberta"), sizes={**RELATIVE, "max_relative_positions": -1}),
    "deberta-v2": Tiny(
        classes=_standard("DebertaV2"),
        sizes={
            **RELATIVE,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
    "modernbert": Tiny(classes=_standard("ModernBert"), sizes={"local_attention": 8, "global_attn_every_n_layers": 2}),
    "mobilebert": Tiny(
        classes=_as_bert("MobileBert"),
        sizes={"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    ),
    "ernie": Tiny(classes=_as_bert("Ernie")),
}
"""By model type; the default of each is the first of its classes."""


def tiny(family: str, directory: Path, *, model_class: str | None = None, seed: int = 7, **changes: object) -> Path:
    """Write a seeded checkpoint of two layers of width 32, with a tokenizer of the family's kind.

    Args:
        family: transformers' model type, a key of `TINY`.
        directory: where config.json, model.safetensors and the tokenizer are written; it is made.
        model_class: one of transformers' classes; the one with most heads when not given.
        seed: of every weight, biases and norms included.
        changes: further settings of config.json.

    Returns:
        The directory.
    """
    import transformers

    row = TINY[family]
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer_of(family, directory)
    common = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    sizes = {} if family == "distilbert" else common  # which names them its own way
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_LENGTH + row.offset}
    sizes |= {"pad_token_id": tokenizer.pad_token_id}
    if family == "modernbert":
        ids = {"bos": tokenizer.cls_token_id, "cls": tokenizer.cls_token_id}
        ids |= dict.fromkeys(("eos", "sep"), tokenizer.sep_token_id)
        sizes |= {f"{name}_token_id": index for name, index in ids.items()}
    config = transformers.CONFIG_MAPPING[family](**(sizes | row.sizes | changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeBERTa's modules call what PyTorch deprecates
        make = getattr(transformers, model_class or row.classes[0])
    fill(make(config), seed).save_pretrained(directory)
    return directory
