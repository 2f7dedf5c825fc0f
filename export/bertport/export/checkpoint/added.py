"""Heads of other checkpoints that were trained on the same frozen encoder, which is compared tensor by tensor."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.foreign import refuse_adapter
from bertport.export.checkpoint.read import Addition, Checkpoint, read_checkpoint
from bertport.export.checkpoint.weights import each_tensor, read_tensors
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING, POOLER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import torch

    from bertport.export.checkpoint.source import Located

__all__ = ["with_heads"]

OF_HEADS = re.compile(
    r".*dropout.*|initializer_.*|summary_.*|classifier_(bias|pooling)|pooler_.*|(decoder|sparse)_.*|tie_word_embeddings|"
    r"problem_type|num_labels|id2label|label2id|architectures|legacy|use_cache|(torch_)?dtype|transformers_version|_.*"
)
"""Settings of transformers' config that say nothing of what an encoder computes."""
REMEDY = "only heads that were trained on one frozen encoder go together"


def with_heads(base: Checkpoint, name: str, others: Iterable[Located]) -> Checkpoint:
    """Return a checkpoint with the heads of others beside its own.

    Args:
        base: the checkpoint whose encoder is exported.
        name: what it is called, for messages.
        others: where the others are.

    Raises:
        CheckpointError: when one holds no head, one that is there already, an adapter, or another encoder, naming the
            first setting or tensor that differs.
    """
    for located in others:
        refuse_adapter(located, added=True)
        other = read_checkpoint(located)
        heads = tuple(head for head in other.heads if head != POOLER)
        if not heads:
            why = f" ({'; '.join(other.notes)})" if other.notes else ""
            raise CheckpointError(
                f"{located.name} was given for its head and holds none{why}: leave it out, or train one first"
            )
        _check_heads(heads, base, located.name)
        _check_settings(base, other, (name, located.name))
        pooled = any(other.layout.heads[head].pooled for head in heads)
        every = (base, *(addition.checkpoint for addition in base.additions))
        holder = next((checkpoint for checkpoint in every if POOLER in checkpoint.plan.heads), None)
        _check_tensors(base, other, base.layout.encoder, (name, located.name))
        if pooled and holder:
            _check_tensors(holder, other, other.layout.heads[POOLER].shapes, (name, located.name))
        kept = (*heads, *((POOLER,) if pooled and not holder else ()))
        base = replace(base, additions=(*base.additions, _addition(other, located, kept)))
    return base


def _check_heads(heads: Collection[str], base: Checkpoint, name: str) -> None:
    """Refuse a checkpoint whose heads cannot stand beside those of another.

    Raises:
        CheckpointError: when it has one that is there already, or one that cannot be added.
    """
    if EMBEDDING in heads:
        raise CheckpointError(
            f"{name} is a model of sentence-transformers, whose modules cut texts to a length of their own: export it, "
            "and add the heads of the others to it"
        )
    if twice := [head for head in heads if head in base.heads]:
        raise CheckpointError(
            f"{name} holds a {twice[0]} head, and there is one already: a bundle has one of a kind, so export it "
            "separately"
        )


def _check_settings(base: Checkpoint, other: Checkpoint, names: tuple[str, str]) -> None:
    """Refuse an encoder of another family, or that computes otherwise by its config.json.

    Raises:
        CheckpointError: naming the first setting that differs.
    """
    if base.family is not other.family:
        raise CheckpointError(f"{names[1]} is {other.family.noun} and {names[0]} is {base.family.noun}: {REMEDY}")
    ours, theirs = (_settings(checkpoint) for checkpoint in (base, other))
    for setting in sorted(ours.keys() | theirs.keys()):
        one, another = (settings.get(setting) for settings in (ours, theirs))
        if one != another:
            raise CheckpointError(
                f"{names[1]} has another encoder than {names[0]}: {setting} is {excerpt(another)} and not "
                f"{excerpt(one)}; {REMEDY}"
            )


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the settings that say what an encoder computes, those that config.json does not state too."""
    every = checkpoint.config.to_dict()
    return {name: value for name, value in every.items() if not OF_HEADS.fullmatch(name)}


def _check_tensors(base: Checkpoint, other: Checkpoint, names: Collection[str], called: tuple[str, str]) -> None:
    """Refuse an encoder of other weights.

    Raises:
        CheckpointError: naming the first tensor that differs.
    """
    ours, theirs = (
        {stored: name for stored, name in checkpoint.plan.renames.items() if name in names}
        for checkpoint in (base, other)
    )
    tensors = read_tensors(base.weights, ours, as_stored=True)
    equal: dict[str, bool] = {}
    for _, stored, another in each_tensor(other.weights, theirs, as_stored=True):
        name = theirs[stored]
        equal[name] = equal.get(name, True) and name in tensors and _equal(tensors[name], another)
    first = next((name for name in names if not equal.get(name)), None)
    if first is not None:
        raise CheckpointError(
            f"{called[1]} has another encoder than {called[0]}: {first} differs in their weights; {REMEDY}"
        )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether tensors are equal bit for bit, or the one is the other in a narrower type."""
    return bool(one.to(other.dtype).equal(other) or one.equal(other.to(one.dtype)))


def _addition(other: Checkpoint, located: Located, heads: Collection[str]) -> Addition:
    """Return the heads of a checkpoint, whose encoder is that of another."""
    every = {head: other.layout.heads[head] for head in heads}
    own = {name for layout in every.values() for name in (*layout.shapes, *layout.tied)}
    # What the other lacks, this one may have.
    notes = (*(note for note in other.plan.notes if note not in other.plan.lacks), *other.decoder_notes())
    planned = replace(
        other.plan,
        entries={head: other.plan.entries[head] for head in heads},
        renames={stored: name for stored, name in other.plan.renames.items() if name in own},
        notes=tuple(f"{located.name}: {note}" for note in notes),
    )
    return Addition(located=located, checkpoint=replace(other, plan=planned))
