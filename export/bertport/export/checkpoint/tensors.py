"""Tensor names: from those of a checkpoint to the model's, the heads that they make, and their shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import FAMILIES, promises
from bertport.export.checkpoint.foreign import MERGE
from bertport.export.checkpoint.heads import HEADS, entry_of
from bertport.export.checkpoint.labels import untrusted_activation
from bertport.export.checkpoint.source import UNMATCHED
from bertport.runtime.errors import CheckpointError, MissingHeadError, UnknownNameError
from bertport.runtime.heads import POOLER, SEQUENCE_CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from bertport.export.checkpoint.families import Family
    from bertport.export.checkpoint.layout import Layout
    from bertport.runtime.bundle.manifest import HeadEntry

__all__ = ["ALONE", "Plan", "check_shapes", "left_out", "plan", "require_heads"]

WRAPPER = re.compile(r"(?<![^.])(module|_orig_mod)\.")
"""Prefixes that DistributedDataParallel and compiled modules put into names."""
OLD_NAMES = (
    # Converted from TensorFlow: its LayerNorm calls them gamma and beta.
    (re.compile(r"(?<=\bLayerNorm\.)gamma$"), "weight"),
    (re.compile(r"(?<=\bLayerNorm\.)beta$"), "bias"),
)
"""Names that transformers reads under others."""

NO_PART = "as part of neither the encoder nor a head"
"""Reason for leaving out a tensor that nothing here computes with."""
ALONE = "as the encoder alone was asked for"
"""Reason for leaving out every tensor beside the encoder's."""
NAMED = 5
"""Tensors that a note names."""

AROUND = "model."
"""The prefix of ModernBERT's tensor names, and of those of many models that have an encoder as a part."""

UNMERGED = re.compile(r"\.(lora_[AB]|base_layer|modules_to_save)\.")
"""Names that PEFT gives to parts of a model that it has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Conversion plan: which stored tensors are read, under which names, and the heads that they make."""

    entries: dict[str, HeadEntry]
    """Manifest entry of each head present, by its name, in the table's order."""
    renames: dict[str, str]
    """The model's name of each stored tensor to be read."""
    tied: bool
    """Whether a decoder is the word embedding's matrix."""
    notes: tuple[str, ...]
    """Sentences on what was left out, and why."""
    lacks: tuple[str, ...] = ()
    """Those of them that say what a bundle of this checkpoint alone does not have."""

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads present, in the table's order."""
        return tuple(self.entries)

    @property
    def labels(self) -> dict[str, tuple[str, ...] | None]:
        """The labels of each head present, by its name; None for a head that does not classify."""
        return {name: entry.labels for name, entry in self.entries.items()}


def plan(
    names: Iterable[str], config: Mapping[str, Any], family: Family, layout: Layout, *, as_features: bool = False
) -> Plan:
    """Decide from stored names alone which heads a checkpoint holds; none is ever invented.

    Args:
        names: names of the stored tensors.
        config: the checkpoint's config.json.
        family: the checkpoint's family.
        layout: the tensors of the family's modules.
        as_features: whether heads are left out, whatever they are; the pooler is the encoder's own.

    Raises:
        CheckpointError: when a head is there in part, or a tensor belongs to none of encoder and heads.
    """
    stored = tuple(names)
    unmerged = next((name for name in stored if UNMERGED.search(name)), None)
    if unmerged:
        raise CheckpointError(
            f"the weights hold a PEFT adapter that is not merged ({unmerged}): {MERGE}, then export OUT"
        )
    prefix = _prefix(stored, family, layout)
    tied = bool(config.get("tie_word_embeddings", True))
    named = _without_aliases({name: _rename(name, family, layout, prefix) for name in stored}, layout, tied=tied)
    renamed = _with_embedding(named, layout, tied=tied)
    present = {name for name in renamed.values() if name not in layout.constants}
    if layout.words not in present or any(f".{prefix}".endswith(f".{another.prefix}") for another in _others(family)):
        raise _of_another(stored, family, layout)
    notes = [f"left out: {prefix!r}, with which the names of the weights begin"] if prefix else []
    notes += _stray_pooler(renamed, family, layout)
    claimed = promises(family, (config.get("architectures") or [""])[0])
    if as_features:
        layout, claimed = replace(layout, heads={POOLER: layout.heads[POOLER]} if family.pooler else {}), frozenset()
    stored_heads = _stored_heads(present, layout, claimed)
    _require_decoders(stored_heads, present, layout, tied=tied)
    heads, lacks = _usable(stored_heads, config, family, layout)
    lacks += _broken_promises(stored_heads, claimed, config)
    notes += lacks
    owned = {name for head in heads for name in (*layout.heads[head].shapes, *layout.heads[head].tied)}
    pooler = f"{family.prefix}pooler."  # of an encoder that has none, or takes the first state as it is
    kept = {
        name: target
        for name, target in renamed.items()
        if target in owned
        or (target.startswith(family.prefix) and target not in layout.constants and not target.startswith(pooler))
    }
    left = (name for name in sorted(stored) if name not in kept and renamed.get(name) not in layout.constants)
    notes += left_out(left, ALONE if as_features else NO_PART)
    notes += _nameless(present, stored_heads, layout)
    entries = {head: entry_of(head, config) for head in heads}
    notes += untrusted_activation(config) if SEQUENCE_CLASSIFICATION in entries else []
    return Plan(entries=entries, renames=kept, tied=tied, notes=tuple(notes), lacks=tuple(lacks))


def left_out(names: Iterable[str], why: str = NO_PART) -> list[str]:
    """Return a note that names tensors which are left out, and says why; none where there are none."""
    left = list(names)
    if not left:
        return []
    return [f"left out, {why}: {', '.join(left[:NAMED])}{' …' if left[NAMED:] else ''}"]


def _with_embedding(renamed: dict[str, str], layout: Layout, *, tied: bool) -> dict[str, str]:
    """Return the names with a tied decoder's replaced by the word embedding's, where only the decoder is stored."""
    if not tied or layout.words in renamed.values():
        return renamed
    decoders = {name for head in layout.heads.values() for name in head.tied}
    return {stored: layout.words if name in decoders else name for stored, name in renamed.items()}


def _of_another(stored: Sequence[str], family: Family, layout: Layout) -> CheckpointError:
    """Return the error for weights that hold no encoder of the family: of another one, where their names tell."""
    names = [WRAPPER.sub("", name) for name in stored]
    told = next(
        ((another, name) for another in _others(family) for name in names if f".{another.prefix}emb" in f".{name}"),
        None,
    )
    other = f"; by their names ({told[1]}) they are those of {told[0].noun} encoder" if told else ""
    return CheckpointError(
        f"the weights hold no {layout.words}: these are not the weights of {family.noun} encoder, for which "
        f"config.json takes them{other}"
    )


def _others(family: Family) -> list[Family]:
    """Return the families whose weights are told by what their names begin with."""
    return [other for other in FAMILIES.values() if other.prefix not in {family.prefix, AROUND}]


def _require_decoders(heads: Iterable[str], present: Collection[str], layout: Layout, *, tied: bool) -> None:
    """Refuse a head whose decoder is not the word embedding's matrix and is not stored either.

    Raises:
        CheckpointError: naming the first decoder that is missing.
    """
    for decoder in (name for head in heads for name in layout.heads[head].tied):
        if not tied and decoder not in present:
            raise CheckpointError(
                f"the weights lack {decoder}, and config.json says that it is not tied to the word embeddings: "
                "correct tie_word_embeddings, or copy the weights again"
            )


def _usable(
    stored: Collection[str], config: Mapping[str, Any], family: Family, layout: Layout
) -> tuple[list[str], list[str]]:
    """Return those of the stored heads that the encoder can serve, and a note about each reason why others go."""
    notes, heads = [], list(stored)
    if POOLER not in heads and family.pooler:
        orphans = [head for head in heads if layout.heads[head].pooled]
        heads = [head for head in heads if head not in orphans]
        notes.append(f"the weights hold no pooler: the bundle has {_without([*orphans, POOLER])}")
    judges = [head for head in heads if HEADS[head].pairs]
    if judges and config.get("type_vocab_size") == 1:
        heads = [head for head in heads if head not in judges]
        notes.append(
            "config.json has one segment only (type_vocab_size 1), so there are no pairs of sentences: the bundle has "
            f"{_without(judges)}"
        )
    return heads, notes


def _without(heads: Sequence[str]) -> str:
    """Return the words for heads that a bundle does not have."""
    *others, last = (HEADS[head].title for head in heads)
    return f"neither {', nor '.join(others)} nor {last}" if others else f"no {last}"


def _broken_promises(stored: Collection[str], claimed: Collection[str], config: Mapping[str, Any]) -> list[str]:
    """Return a note for each head that the class in config.json promises and the weights do not hold."""
    return [
        f"config.json says {config['architectures'][0]}, but the weights hold no {head} head: the bundle is without it"
        for head in HEADS
        if head in claimed and head not in stored
    ]


def require_heads(stored: Collection[str], wanted: Collection[str], name: str) -> None:
    """Refuse a checkpoint that lacks a head that was asked for.

    Raises:
        UnknownNameError: for a name that is no head.
        MissingHeadError: for a head that the checkpoint does not hold.
    """
    for head in wanted:
        if head not in HEADS:
            raise UnknownNameError("head", head, HEADS)
        if head not in stored:
            held = ", ".join(stored) or "none"
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
            raise CheckpointError(f"the weights hold {name}, which config.json has no place for: {UNMATCHED}")
        if stored[name] != expected[target]:
            shape, wanted = list(stored[name]), list(expected[target])
            raise CheckpointError(f"{name} has the shape {shape} and config.json says {wanted}: {UNMATCHED}")
    missing = sorted(set(expected) - set(renames.values()))
    if missing:
        raise CheckpointError(f"the weights lack {missing[0]}, which config.json calls for: {UNMATCHED}")


def _prefix(names: Collection[str], family: Family, layout: Layout) -> str:
    """Return the prefix of an encoder's tensor names in a model that has the encoder as a part; empty for none.

    Lightning, sentence-transformers and others store `model.bert.…` or `0.auto_model.…`.

    Raises:
        CheckpointError: when there are several encoders, none of them under the family's own names.
    """
    words = layout.words.removeprefix(family.prefix)
    prefixes = {
        re.sub(rf"(?<![^.]){re.escape(family.prefix)}$", "", name.removesuffix(words))
        for name in (WRAPPER.sub("", tensor) for tensor in names)
        if name == words or name.endswith(f".{words}")
    }
    if len(prefixes) > 1 and "" not in prefixes:
        named = ", ".join(sorted(prefixes)[:5])
        raise CheckpointError(
            f"the weights hold {len(prefixes)} encoders, under {named}: save the one that is meant by itself"
        )
    return "" if not prefixes or "" in prefixes else prefixes.pop()


def _stray_pooler(renamed: Mapping[str, str], family: Family, layout: Layout) -> list[str]:
    """Return a note where the pooler is stored without the prefix that the encoder has."""
    prefixed = re.compile(rf"(?<![^.]){re.escape(family.prefix)}")
    pooler = layout.heads[POOLER].shapes if POOLER in layout.heads else {}
    stray = sorted(name for name, target in renamed.items() if target in pooler and not prefixed.search(name))
    if not stray or not any(prefixed.search(name) for name, target in renamed.items() if target == layout.words):
        return []
    note = (
        f"the pooler is stored as {stray[0]}, beside weights under {family.prefix}…, where transformers does not look "
        "for it: it was taken for the encoder's own"
    )
    return [note]


def _rename(name: str, family: Family, layout: Layout, prefix: str) -> str:
    """Return the name that the family's modules have for a stored tensor."""
    name = WRAPPER.sub("", name).removeprefix(prefix)
    if name.partition(".")[0] in layout.parts and not name.startswith(family.prefix):  # a bare encoder has no prefix
        name = family.prefix + name
    for pattern, replacement in OLD_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _without_aliases(renamed: dict[str, str], layout: Layout, *, tied: bool) -> dict[str, str]:
    """Return the names with one for each parameter that has several, without those of parameters that are not used.

    Where decoders are not tied, transformers 5 takes their biases for other parameters, of which it uses the decoder's.
    """
    aliases = {alias: name for head in layout.heads.values() for alias, name in head.aliases.items()}
    unused = {name for alias, name in aliases.items() if not tied and alias in renamed.values()}
    return {stored: aliases.get(name, name) for stored, name in renamed.items() if name not in unused}


def _stored_heads(present: Collection[str], layout: Layout, claimed: Collection[str]) -> list[str]:
    """Return the heads whose tensors are present, in the table's order.

    Several heads of a family have tensors of one name (`classifier.weight`). Such a name is of the head that the class
    in config.json promises; without it, only a head that has a name of its own is told by its tensors.

    Raises:
        CheckpointError: when a head is there in part.
    """
    stored = [head for head in layout.heads if head in claimed and _holds(head, present, layout)]
    modules = [module for head in stored for module in _modules(head, layout)]
    for head in layout.heads:
        tensors = layout.heads[head].shapes.keys()
        others = {name for other in layout.heads if other != head for name in layout.heads[other].shapes}
        shared = tensors & others
        told = not shared or (tensors != shared and tensors <= set(present))
        if head in claimed or not told:
            continue
        beside = not any(_overlap(one, other) for one in _modules(head, layout) for other in modules)
        if beside and _holds(head, present, layout):
            stored.append(head)
    return [head for head in layout.heads if head in stored]


def _modules(head: str, layout: Layout) -> set[str]:
    """Return the names of the modules that hold a head's tensors."""
    return {name.rpartition(".")[0] for name in layout.heads[head].shapes}


def _overlap(one: str, other: str) -> bool:
    """Return whether two modules are one, or one is a part of the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _nameless(present: Collection[str], stored: Collection[str], layout: Layout) -> list[str]:
    """Return a note on tensors that are left out because several heads have them; none where there are none."""
    left = set(present) - {name for head in stored for name in layout.heads[head].shapes}
    heads = [head for head, own in layout.heads.items() if own.shapes and own.shapes.keys() <= left]
    if not heads:
        return []
    note = (
        f"the tensors of {' or '.join(heads)} are there, and no class in config.json says which they are: name it in "
        "architectures"
    )
    return [note]


def _holds(head: str, present: Collection[str], layout: Layout) -> bool:
    """Return whether all tensors of a head are present.

    Raises:
        CheckpointError: when only some are.
    """
    tensors = layout.heads[head].shapes
    missing = [name for name in tensors if name not in present]
    if not missing:
        return True
    if len(missing) < len(tensors):
        raise CheckpointError(
            f"the weights hold the {head} head only in part: {missing[0]} is missing; save the model whole"
        )
    return False
