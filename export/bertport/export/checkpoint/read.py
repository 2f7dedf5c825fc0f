"""Content of a checkpoint by its config.json and the headers of its weights: its family, its heads, its tensors."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.config import max_positions, names_code, normalized, read_config
from bertport.export.checkpoint.embedding import CONFIG, Modules, read_modules, unread_prompt
from bertport.export.checkpoint.families import FAMILIES, Family, classes, family_of, family_of_class, promises
from bertport.export.checkpoint.foreign import explain
from bertport.export.checkpoint.heads import HEADS, entry_of
from bertport.export.checkpoint.layout import Layout, layout_of
from bertport.export.checkpoint.source import read_json
from bertport.export.checkpoint.tensors import ALONE, Plan, check_shapes, plan
from bertport.export.checkpoint.tokenizer_loading import quiet
from bertport.export.checkpoint.weights import WeightFiles, find_weights, read_shapes, read_tensors
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING, POOLER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from transformers import PretrainedConfig

    from bertport.export.checkpoint.source import Located
    from bertport.runtime.bundle.manifest import HeadEntry

__all__ = ["Addition", "Checkpoint", "read_checkpoint"]

AS_FEATURES = "--as features"
"""The option of the command line that takes the encoder of any class alone."""
LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
"""Pattern of the layer's number in the name of a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Content of a checkpoint directory, its tensors not yet read."""

    directory: Path
    """Directory of its files."""
    raw_config: dict[str, Any]
    """config.json."""
    family: Family
    """The encoder's family."""
    config: PretrainedConfig
    """The same as transformers understands it, set for tracing."""
    weights: WeightFiles
    """Its weight files."""
    layout: Layout
    """The tensors of the family's modules, of no more layers than are stored."""
    plan: Plan
    """Heads and renames."""
    as_features: bool = False
    """Whether its encoder is taken alone, whatever class it is of."""
    modules: Modules | None = None
    """Modules that sentence-transformers runs on the encoder's states; None for other checkpoints."""
    additions: tuple[Addition, ...] = ()
    """Heads of other checkpoints with the same encoder."""

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads present, in the table's order."""
        return tuple(self.entries)

    @property
    def entries(self) -> dict[str, HeadEntry]:
        """Manifest entry of each head present, by its name, in the table's order."""
        entries = dict(self.plan.entries)
        if self.modules is not None:
            entries |= {EMBEDDING: replace(entry_of(EMBEDDING, self.raw_config), embedding=self.modules.facts)}
        for addition in self.additions:
            entries |= addition.checkpoint.entries
        return {name: entries[name] for name in HEADS if name in entries}

    @property
    def max_positions(self) -> int:
        """The longest input that it has positions for, in tokens."""
        return max_positions(self.family, self.config)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs of its encoder."""
        segments = "token_type_ids"
        given = getattr(self.config, "type_vocab_size", 0)
        return tuple(name for name in self.family.inputs if name != segments or given)

    @property
    def model_class(self) -> str:
        """The class in transformers, as config.json states it, or else the smallest one that has the heads found."""
        stated: list[str] = [] if self.as_features else self.raw_config.get("architectures") or []
        fitting = (kind for kind in classes(self.family) if promises(self.family, kind) <= set(self.plan.heads))
        return stated[0] if stated else next(fitting)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was left out, and why."""
        beside = (note for addition in self.additions for note in addition.checkpoint.plan.notes)
        return (*self.plan.notes, *(self.modules.notes if self.modules else ()), *beside)

    @property
    def ties(self) -> dict[str, str]:
        """The names of the model's parameters that are tied to another one, each with the name of that one."""
        # As in transformers 4, whatever copy of a tied decoder is stored.
        ties = self.layout.ties(self.plan.heads, decoders=self.plan.tied)
        for addition in self.additions:
            ties |= {
                addition.placed(name): addition.placed(source) for name, source in addition.checkpoint.ties.items()
            }
        return ties

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the tensors as float32, under the names that the model's `load_state_dict` expects.

        Raises:
            CheckpointError: when a file is damaged.
        """
        tensors = read_tensors(self.weights, self.plan.renames)
        for addition in self.additions:
            tensors |= addition.tensors()
        own = self.modules.tensors() if self.modules else {}
        return tensors | {name: tensors[source] for name, source in self.ties.items()} | own

    def decoder_notes(self) -> tuple[str, ...]:
        """Return a sentence about each stored decoder that is not the word embedding, though config.json says it is.

        Raises:
            CheckpointError: when a file is damaged.
        """
        decoders = {name for head in self.plan.heads for name in self.layout.heads[head].tied}
        stored = {name: own for own, name in self.plan.renames.items() if name in decoders}
        if not self.plan.tied or not stored:
            return ()
        names = (*stored, self.layout.words)
        tensors = read_tensors(self.weights, {own: name for own, name in self.plan.renames.items() if name in names})
        words = tensors[self.layout.words]
        return tuple(
            f"{own} differs from the word embedding, which it is by config.json (tie_word_embeddings): the word "
            "embedding was taken, as in transformers 4; transformers 5 takes what is stored: where that was trained, "
            'put "tie_word_embeddings": false in config.json and export again'
            for name, own in stored.items()
            if not tensors[name].equal(words)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """Heads of a checkpoint that stand beside another one's, on the encoder of that one."""

    located: Located
    """Location of the checkpoint."""
    checkpoint: Checkpoint
    """The checkpoint, its plan of these heads alone, and of the pooler where they are the first to read it."""

    @property
    def place(self) -> str:
        """The module that holds the heads' modules, whose names another head may have too."""
        return "-".join(head for head in self.checkpoint.plan.heads if head != POOLER)

    def placed(self, name: str) -> str:
        """Return the name of a tensor in the model that has these heads too."""
        return name if name.startswith(self.checkpoint.family.prefix) else f"{self.place}.{name}"

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the tensors as float32, under the names that they have in the model.

        Raises:
            CheckpointError: when a file is damaged.
        """
        renames = {stored: self.placed(name) for stored, name in self.checkpoint.plan.renames.items()}
        return read_tensors(self.checkpoint.weights, renames)


def read_checkpoint(located: Located, *, as_features: bool = False) -> Checkpoint:
    """Read config and tensor headers, and tell which heads are there.

    Args:
        located: where it is.
        as_features: whether its encoder is taken alone, so that its class may be any that has one.

    Raises:
        CheckpointError: when this is no checkpoint, not of a supported architecture, would need code of its own,
            or is damaged.
    """
    if not (located.directory / "config.json").exists():
        raise _without_config(located.directory)
    raw_config = read_json(located.directory / "config.json")
    family = _check_architecture(raw_config, located.name, as_features=as_features)
    path = located.directory / "config.json"
    config = read_config(raw_config, path, family)
    weights = find_weights(located.directory)
    shapes = read_shapes(weights)
    layout = _layout(family, config, shapes, path)
    planned = plan(shapes, _with_activation(raw_config, located), family, layout, as_features=as_features)
    counts = {head: len(labels) for head, labels in planned.labels.items() if HEADS[head].labels and labels}
    layout = layout.with_labels(counts)
    if as_features and len(located.parts) > 1:
        kinds = ", ".join(part.kind for part in located.parts[1:])
        planned = replace(planned, notes=(*planned.notes, f"left out, {ALONE}: {kinds} of sentence-transformers"))
    _check_labels(shapes, layout, planned, counts)
    _check_shapes(shapes, layout, planned)
    if not as_features:
        planned = replace(planned, notes=(*planned.notes, *unread_prompt(located)))
    if code := sorted(filter(names_code, raw_config)):
        note = f"left out of config.json, because it names code or kernels to run: {', '.join(map(excerpt, code))}"
        planned = replace(planned, notes=(*planned.notes, note))
    return Checkpoint(
        directory=located.directory,
        raw_config=raw_config,
        family=family,
        config=config,
        weights=weights,
        layout=layout,
        plan=planned,
        as_features=as_features,
        modules=None if as_features else read_modules(located, hidden_size=normalized(family, config).hidden_size),
    )


def _with_activation(config: dict[str, Any], located: Located) -> dict[str, Any]:
    """Return config.json with the activation that a cross-encoder of sentence-transformers states in its own file."""
    path = (located.card or located.directory) / CONFIG
    stated = read_json(path).get("activation_fn") if path.is_file() else None
    return config if stated is None else config | {"sentence_transformers": {"activation_fn": stated}}


def _layout(family: Family, config: PretrainedConfig, shapes: Mapping[str, object], path: Path) -> Layout:
    """Return the tensors that the family's modules have by config.json.

    Raises:
        CheckpointError: when transformers cannot make the modules.
    """
    # One layer more than stored is enough to name what is missing, whatever number the config states.
    stored = 1 + max((int(match[1]) for match in map(LAYER.search, shapes) if match), default=-1)
    shallow = copy.deepcopy(config)
    shallow.num_hidden_layers = min(config.num_hidden_layers, stored + 1)
    try:
        with quiet():  # DeBERTa's modules call what PyTorch deprecates
            return layout_of(family, shallow)
    except Exception as error:  # whatever a setting makes PyTorch or transformers raise
        reason = (str(error).strip().splitlines() or [""])[-1].strip()
        raise CheckpointError(
            f"{path}: transformers cannot make {family.noun} encoder of these settings ({type(error).__name__}: "
            f"{excerpt(reason, 200)}): restore the checkpoint's file"
        ) from error


def _check_labels(
    shapes: Mapping[str, tuple[int, ...]], layout: Layout, planned: Plan, counts: Mapping[str, int]
) -> None:
    """Refuse a classifier that has not as many rows as config.json has labels for it.

    Raises:
        CheckpointError: naming the first tensor with another number of rows.
    """
    stored = {name: own for own, name in planned.renames.items()}
    for head, count in counts.items():
        for name in layout.heads[head].rows:
            rows = shapes[stored[name]][:1]
            if rows != (count,):
                raise CheckpointError(
                    f"{stored[name]} has {rows[0] if rows else 'no'} rows and config.json has {count} labels for them "
                    "(id2label; 2 where it names none): name one for each row"
                )


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], layout: Layout, planned: Plan) -> None:
    """Compare the shape of every stored tensor with what config.json says of it, without reading any."""
    expected = layout.shapes(planned.heads)
    stored = planned.renames.values()
    for head in planned.heads:  # a tied decoder may be stored but need not be
        tied = layout.heads[head].tied
        expected |= {name: shape for name, shape in tied.items() if not planned.tied or name in stored}
    check_shapes(shapes, expected, planned.renames)


def _without_config(directory: Path) -> CheckpointError:
    """Return the error for a directory that has no config.json."""
    try:
        file = find_weights(directory).paths[0].name
    except CheckpointError:
        return explain(directory, "it has no config.json")
    if (directory / "bert_config.json").is_file():
        return CheckpointError(
            f"{directory} has no config.json: copy its bert_config.json to that name, beside {file}, and export again"
        )
    return CheckpointError(
        f"{directory} has no config.json beside {file}: copy it from the model that the weights were trained from"
    )


def _check_architecture(config: dict[str, Any], name: str, *, as_features: bool) -> Family:
    """Return the family of a checkpoint.

    Raises:
        CheckpointError: when it needs code of its own, is of no family in the table, or is a decoder.
    """
    supported = ", ".join(f"{family.title} ({family.name})" for family in FAMILIES.values())
    if config.get("auto_map"):
        raise CheckpointError(
            f"{name} needs code of its own (auto_map in config.json), which is never run; supported: {supported}"
        )
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(kind, str) for kind in architectures):
        raise CheckpointError(
            f"config.json of {name} has architectures {excerpt(architectures)}; a list of names is expected"
        )
    family = family_of(config)
    unknown = next((kind for kind in architectures if family_of_class(kind) is None), None)
    if unknown is not None and not (as_features and family):
        # Of another model type, the beginning of whose name may be that of a family.
        foreign = config.get("model_type") is not None and family is None
        alike = [other for other in FAMILIES.values() if unknown.startswith(other.class_prefix)]
        near = alike[0] if alike and not foreign else None
        own = family if family and unknown.startswith(family.class_prefix) else near
        named = f"of the family {own.title}: {', '.join(classes(own))}" if own else supported
        alone = f"; or export its encoder alone ({AS_FEATURES})" if family else ""
        raise CheckpointError(f"{name} is a {unknown}, which cannot be exported; supported: {named}{alone}")
    if family is None:
        stated = config.get("model_type")
        raise CheckpointError(
            f"{name} is of the model type {excerpt(stated)}, which cannot be exported; supported: {supported}"
        )
    other = next((kind for kind in architectures if kind not in classes(family) and family_of_class(kind)), None)
    if other is not None:
        raise CheckpointError(
            f"config.json of {name} has the model type {family.name} and the architecture {other}, which is of another "
            "family: correct the one that is wrong"
        )
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise CheckpointError(
            f"{name} is a decoder (is_decoder or add_cross_attention in config.json); only encoders can be exported"
        )
    return family
