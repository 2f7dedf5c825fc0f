"""What a checkpoint holds, by its config.json and the headers of its weights: its family, its heads, its tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.config import names_code, read_config
from bertport.export.checkpoint.families import FAMILIES, Family, classes, family_of, promises
from bertport.export.checkpoint.foreign import MERGE, adapter_in, explain
from bertport.export.checkpoint.heads import HEADS
from bertport.export.checkpoint.source import read_json
from bertport.export.checkpoint.tensors import EMBEDDING, POSITIONS, SEGMENTS, Plan, plan
from bertport.export.checkpoint.weights import WeightFiles, find_weights, read_shapes, read_tensors
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import BertConfig

    from bertport.export.checkpoint.source import Located

__all__ = ["Checkpoint", "read_checkpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint directory holds, its tensors not yet read."""

    directory: Path
    """Where its files are."""
    raw_config: dict[str, Any]
    """config.json."""
    family: Family
    """The encoder's family."""
    config: BertConfig
    """The same as transformers understands it, set for tracing; positions that no token takes are not counted."""
    weights: WeightFiles
    """Its weight files."""
    shapes: dict[str, tuple[int, ...]]
    """The shape of each stored tensor, by its stored name."""
    plan: Plan
    """Heads and renames."""

    @property
    def model_class(self) -> str:
        """The class in transformers, as config.json states it, or else the smallest one that has the heads found."""
        stated: list[str] = self.raw_config.get("architectures") or []
        found = (each for each in classes(self.family) if promises(self.family, each) <= set(self.plan.heads))
        return stated[0] if stated else next(found)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the tensors as float32, under the names that the model's `load_state_dict` expects.

        Raises:
            CheckpointError: when a file is damaged.
        """
        import torch

        tensors = read_tensors(self.weights, self.plan.renames)
        if not self.family.has_segments:  # BERT's modules add a row for the segment: here it adds nothing
            tensors[SEGMENTS] = torch.zeros(1, self.config.hidden_size)
        tensors[POSITIONS] = tensors[POSITIONS][self.family.position_offset :]
        for head in (HEADS[name] for name in self.plan.heads):
            if head.tied and self.plan.tied:
                # As in transformers, a stored copy of a tied decoder is not looked at.
                tensors[head.tied] = tensors[EMBEDDING]
            tensors |= {alias: tensors[name] for alias, name in head.aliases.items()}
        return tensors


def read_checkpoint(located: Located) -> Checkpoint:
    """Read config and tensor headers, and tell which heads are there.

    Raises:
        CheckpointError: when this is no checkpoint, not of a supported architecture, would need code of its own,
            or is damaged.
    """
    if not (located.directory / "config.json").exists():
        raise _without_config(located.directory)
    raw_config = read_json(located.directory / "config.json")
    family = _check_architecture(raw_config, located.name)
    config = read_config(raw_config, located.directory / "config.json")
    config.max_position_embeddings = _positions(config.max_position_embeddings, family, located.name)
    if not family.has_segments:
        config.type_vocab_size = 1
    weights = find_weights(located.directory)
    shapes = read_shapes(weights)
    found = plan(shapes, raw_config, family)
    if adapter := adapter_in(located.directory):
        note = f"left out: the PEFT adapter in {adapter}; where it is wanted, merge it first: {MERGE}"
        found = replace(found, notes=(*found.notes, note))
    if code := sorted(filter(names_code, raw_config)):
        note = f"left out of config.json, because it names code or kernels to run: {', '.join(map(excerpt, code))}"
        found = replace(found, notes=(*found.notes, note))
    return Checkpoint(
        directory=located.directory,
        raw_config=raw_config,
        family=family,
        config=config,
        weights=weights,
        shapes=shapes,
        plan=found,
    )


def _positions(rows: int, family: Family, name: str) -> int:
    """Return how many tokens the rows of a position embedding are enough for.

    Raises:
        CheckpointError: when they are enough for none.
    """
    if rows <= family.position_offset:
        raise CheckpointError(
            f"config.json of {name} has max_position_embeddings {rows}; the first token of a {family.title} takes row "
            f"{family.position_offset}, so a larger number is expected"
        )
    return rows - family.position_offset


def _without_config(directory: Path) -> CheckpointError:
    """Return the error for a directory that has no config.json."""
    try:
        found = find_weights(directory).paths[0].name
    except CheckpointError:
        return explain(directory, "it has no config.json")
    if (directory / "bert_config.json").is_file():
        return CheckpointError(
            f"{directory} has no config.json: copy its bert_config.json to that name, beside {found}, and export again"
        )
    return CheckpointError(
        f"{directory} has no config.json beside {found}: copy it from the model that the weights were trained from"
    )


def _check_architecture(config: dict[str, Any], name: str) -> Family:
    """Return the family of a checkpoint.

    Raises:
        CheckpointError: when it needs code of its own, is of no family in the table, or is a decoder.
    """
    known = [each for row in FAMILIES.values() for each in classes(row)]
    supported = ", ".join(known)
    if config.get("auto_map"):
        raise CheckpointError(
            f"{name} needs code of its own (auto_map in config.json), which is never run; supported: {supported}"
        )
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(each, str) for each in architectures):
        raise CheckpointError(f"config.json of {name} has architectures {architectures!r}; a list of names is expected")
    unsupported = [each for each in architectures if each not in known]
    if unsupported:
        raise CheckpointError(f"{name} is a {unsupported[0]}, which cannot be exported; supported: {supported}")
    family = family_of(config)
    if family is None:
        raise CheckpointError(
            f"{name} is of the model type {config.get('model_type')!r}, which cannot be exported; supported: "
            f"{', '.join(FAMILIES)} ({supported})"
        )
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise CheckpointError(
            f"{name} is a decoder (is_decoder or add_cross_attention in config.json); only encoders can be exported"
        )
    return family
