"""From stored tensor names to the model's: which heads are there, and does every shape agree with the config."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.foreign import MERGE
from bertport.runtime.errors import CheckpointError, MissingHeadError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["HEADS", "Plan", "check_shapes", "plan", "require_heads"]

RENAMES = (
    # Checkpoints saved from inside DistributedDataParallel, or of compiled modules.
    (re.compile(r"(?<![^.])(module|_orig_mod)\."), ""),
    # A bare BertModel has no prefix.
    (re.compile(r"^(?=(embeddings|encoder|pooler)\.)"), "bert."),
    # Converted from TensorFlow: its LayerNorm calls them gamma and beta.
    (re.compile(r"(?<=\bLayerNorm\.)gamma$"), "weight"),
    (re.compile(r"(?<=\bLayerNorm\.)beta$"), "bias"),
    # transformers stores the bias of the tied decoder under either name, or both.
    (re.compile(r"^cls\.predictions\.decoder\.bias$"), "cls.predictions.bias"),
)
"""Applied in this order, each to the result of the one before."""

BUFFERS = frozenset({"bert.embeddings.position_ids", "bert.embeddings.token_type_ids"})
"""Constants that older versions of transformers stored with the weights."""

DECODER = "cls.predictions.decoder.weight"
WORDS = "embeddings.word_embeddings.weight"
EMBEDDING = f"bert.{WORDS}"

BERTS = re.compile(r"(?<![^.])bert\.")
"""What stands before the encoder's names in a model with heads."""
UNMERGED = re.compile(r"\.(lora_[AB]|base_layer|modules_to_save)\.")
"""Names that PEFT gives to parts of a model that it has changed."""

HEADS: dict[str, tuple[str, ...]] = {
    "mlm": (
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.bias",
    ),
    "nsp": ("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
    "pooler": ("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
}
"""The tensors that make a head; the MLM head needs its decoder too, stored or tied to the word embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which stored tensors make which heads."""

    heads: tuple[str, ...]
    """The heads present, out of `mlm`, `nsp` and `pooler`."""
    renames: dict[str, str]
    """The model's name of each stored tensor to be read."""
    tied: bool
    """Whether the MLM decoder is the word embedding matrix."""
    notes: tuple[str, ...]
    """What was left out, and why, in sentences."""


def plan(names: Iterable[str], config: Mapping[str, Any]) -> Plan:
    """Decide from stored names alone which heads a checkpoint holds; none is ever invented.

    Args:
        names: names of the stored tensors.
        config: the checkpoint's config.json.

    Raises:
        CheckpointError: when a head is there in part, or a tensor belongs to none of encoder and heads.
    """
    stored = tuple(names)
    unmerged = next((name for name in stored if UNMERGED.search(name)), None)
    if unmerged:
        raise CheckpointError(
            f"the weights hold a PEFT adapter that is not merged ({unmerged}): {MERGE}, then export OUT"
        )
    prefix = _prefix(stored)
    renamed = {name: _rename(name, prefix) for name in stored}
    present = {name for name in renamed.values() if name not in BUFFERS}
    if EMBEDDING not in present:
        raise CheckpointError(f"the weights hold no {EMBEDDING}: these are not the weights of a BERT encoder")
    notes = [f"left out: {prefix!r}, with which the names of the weights begin"] if prefix else []
    notes += _stray_pooler(renamed)
    heads = [head for head in HEADS if _holds(head, present)]
    tied = bool(config.get("tie_word_embeddings", True))
    if "mlm" in heads and not tied and DECODER not in present:
        raise CheckpointError(
            f"the weights lack {DECODER}, and config.json says that it is not tied to the word embeddings"
        )
    if "nsp" in heads and "pooler" not in heads:
        heads.remove("nsp")
        notes.append("the weights hold no pooler: the bundle has neither next-sentence prediction nor pooled features")
    elif "pooler" not in heads:
        notes.append("the weights hold no pooler: the bundle has no pooled features")
    if "nsp" in heads and config.get("type_vocab_size") == 1:
        heads.remove("nsp")
        notes.append(
            "config.json has one segment only (type_vocab_size 1), so there are no pairs of sentences: "
            "the bundle has no next-sentence prediction"
        )
    claimed = (config.get("architectures") or [""])[0]
    for head, classes in CLAIMS.items():
        if claimed in classes and not _holds(head, present):
            notes.append(f"config.json says {claimed}, but the weights hold no {head} head: the bundle is without it")
    owned = {name for head in heads for name in HEADS[head]} | ({DECODER} if "mlm" in heads else set())
    kept = {
        stored: name
        for stored, name in renamed.items()
        if name in owned or (name.startswith("bert.") and name not in BUFFERS)
    }
    left = sorted(set(renamed) - set(kept) - {stored for stored, name in renamed.items() if name in BUFFERS})
    if left:
        notes.append(f"left out, as part of none of encoder and heads: {', '.join(left[:5])}{' …' if left[5:] else ''}")
    return Plan(heads=tuple(heads), renames=kept, tied=tied, notes=tuple(notes))


CLAIMS = {
    "mlm": ("BertForPreTraining", "BertForMaskedLM"),
    "nsp": ("BertForPreTraining", "BertForNextSentencePrediction"),
}
"""The classes of transformers that promise a head."""


def require_heads(found: Collection[str], wanted: Collection[str], name: str) -> None:
    """Refuse a checkpoint that lacks a head that was asked for.

    Raises:
        UnknownNameError: for a name that is no head.
        MissingHeadError: for a head that the checkpoint does not hold.
    """
    for head in wanted:
        if head not in HEADS:
            kind = "head"
            raise UnknownNameError(kind, head, HEADS)
        if head not in found:
            held = ", ".join(found) or "none"
            raise MissingHeadError(
                f"the head {head!r} was asked for and {name} does not hold it (it holds: {held}): train it first"
            )


def check_shapes(
    stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], renames: Mapping[str, str]
) -> None:
    """Compare every stored tensor with the shape that the config gives it, and the other way round.

    Args:
        stored: shapes by stored name.
        expected: shapes by the model's name.
        renames: the model's name by stored name.

    Raises:
        CheckpointError: naming the first tensor that differs, is missing, or that the config has no place for.
    """
    for name, target in sorted(renames.items()):
        if target not in expected:
            raise CheckpointError(
                f"the weights hold {name}, which config.json has no place for: the two do not belong together"
            )
        if stored[name] != expected[target]:
            found, wanted = list(stored[name]), list(expected[target])
            raise CheckpointError(
                f"{name} has the shape {found} and config.json says {wanted}: the two do not belong together"
            )
    missing = sorted(set(expected) - set(renames.values()))
    if missing:
        raise CheckpointError(
            f"the weights lack {missing[0]}, which config.json calls for: the two do not belong together"
        )


def _prefix(names: Collection[str]) -> str:
    """Return what stands before the names of a BERT in those of a model that has it as a part; empty for none.

    Lightning, sentence-transformers and others store `model.bert.…` or `0.auto_model.…`.

    Raises:
        CheckpointError: when there are several encoders, none of them under a BERT's own names.
    """
    found = {
        name.removesuffix(WORDS).removesuffix("bert.")
        for name in (_unwrapped(each) for each in names)
        if name == WORDS or name.endswith(f".{WORDS}")
    }
    if len(found) > 1 and "" not in found:
        named = ", ".join(sorted(found)[:5])
        raise CheckpointError(
            f"the weights hold {len(found)} encoders, under {named}: save the one that is meant by itself"
        )
    return "" if not found or "" in found else found.pop()


def _stray_pooler(renamed: Mapping[str, str]) -> list[str]:
    """Return a note where the pooler is stored without the prefix that the encoder has."""
    stray = sorted(name for name, target in renamed.items() if target in HEADS["pooler"] and not BERTS.search(name))
    if not stray or not any(BERTS.search(name) for name, target in renamed.items() if target == EMBEDDING):
        return []
    note = (
        f"the pooler is stored as {stray[0]}, beside weights under bert.…, where transformers does not look for it: "
        "it was taken for the encoder's own"
    )
    return [note]


def _unwrapped(name: str) -> str:
    pattern, replacement = RENAMES[0]
    return pattern.sub(replacement, name)


def _rename(name: str, prefix: str = "") -> str:
    name = _unwrapped(name).removeprefix(prefix)
    for pattern, replacement in RENAMES[1:]:
        name = pattern.sub(replacement, name)
    return name


def _holds(head: str, present: Collection[str]) -> bool:
    """Whether all tensors of a head are present.

    Raises:
        CheckpointError: when only some are.
    """
    missing = [name for name in HEADS[head] if name not in present]
    if not missing:
        return True
    if len(missing) < len(HEADS[head]):
        raise CheckpointError(f"the weights hold the {head} head only in part: {missing[0]} is missing")
    return False
