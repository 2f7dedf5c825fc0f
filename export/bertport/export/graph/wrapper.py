"""The PyTorch model: an encoder with the heads that a checkpoint holds. It imports torch at its top."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_utils import no_init_weights

from bertport.export.checkpoint.families import INPUTS
from bertport.export.checkpoint.heads import HEADS, output_names
from bertport.export.checkpoint.tensors import POSITIONS, SEGMENTS, check_shapes
from bertport.runtime.heads import HIDDEN_STATES, POOLER, output_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bertport.export.checkpoint.read import Checkpoint
    from bertport.export.checkpoint.tensors import Plan

__all__ = ["BertWithHeads", "build", "check_tensors", "round_matrices"]

LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")


class BertWithHeads(BertPreTrainedModel):
    """transformers' BERT modules under the names of `BertForPreTraining`, with any heads of the table."""

    def __init__(
        self, config: BertConfig, labels: Mapping[str, tuple[str, ...] | None], inputs: Collection[str] = INPUTS
    ) -> None:
        super().__init__(config)
        self.heads = tuple(labels)
        self.inputs = tuple(inputs)
        self.bert = BertModel(config, add_pooling_layer=POOLER in labels)
        for name, known in labels.items():
            head = HEADS[name]
            if head.module and head.build:
                *parents, last = head.module.split(".")
                self._child(parents).add_module(last, head.build(config, len(known or ())))

    def _child(self, path: list[str]) -> nn.Module:
        """Return the module at a path of names, made where it is missing."""
        module: nn.Module = self
        for name in path:
            if name not in dict(module.named_children()):
                module.add_module(name, nn.ModuleDict())
            module = module.get_submodule(name)
        return module

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Run the encoder and every head.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 0 for padding.
            token_type_ids: int64 [batch, sequence]; None where the family has no segments.

        Returns:
            The outputs of the heads and `last_hidden_state` [batch, sequence, hidden], float32, in the order of
            `output_names`: of BERT's heads `logits` [batch, sequence, vocab], `seq_relationship_logits` [batch, 2] and
            `pooler_output` [batch, hidden].
        """
        encoded = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        outputs = {HIDDEN_STATES: encoded.last_hidden_state}
        for name in self.heads:
            head = HEADS[name]
            value = getattr(encoded, head.reads)
            outputs[output_of(name)] = self.get_submodule(head.module)(value) if head.module else value
        return {name: outputs[name] for name in output_names(self.heads)}


def check_tensors(checkpoint: Checkpoint) -> None:
    """Compare the shape of every stored tensor with what config.json says of it, without reading any.

    Raises:
        CheckpointError: naming the first tensor that differs, is missing, or that the config has no place for.
    """
    expected = _expected_shapes(checkpoint.config, checkpoint.plan)
    rows, width = expected[POSITIONS]
    expected[POSITIONS] = (rows + checkpoint.family.position_offset, width)
    if not checkpoint.family.has_segments:
        del expected[SEGMENTS]
    check_shapes(checkpoint.shapes, expected, checkpoint.plan.renames)


def _expected_shapes(config: BertConfig, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the model that a checkpoint must hold, without allocating any."""
    # One layer more than stored is enough to name what is missing, whatever number the config states.
    numbers = (LAYER.match(name) for name in plan.renames.values())
    stored = 1 + max((int(match[1]) for match in numbers if match), default=-1)
    shallow = copy.copy(config)
    shallow.num_hidden_layers = min(config.num_hidden_layers, stored + 1)
    with torch.device("meta"), no_init_weights():
        model = BertWithHeads(shallow, plan.labels)
    heads = [HEADS[name] for name in plan.heads]
    spared = {alias for head in heads for alias in head.aliases}
    if plan.tied:  # a tied decoder may be stored but need not be
        spared |= {head.tied for head in heads if head.tied} - set(plan.renames.values())
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in spared}


def build(checkpoint: Checkpoint) -> BertWithHeads:
    """Build the model of a checkpoint whose tensors were checked, in evaluation mode; none is initialised by itself.

    Raises:
        CheckpointError: when a file of weights is damaged.
    """
    plan = checkpoint.plan
    with no_init_weights():
        model = BertWithHeads(checkpoint.config, plan.labels, checkpoint.family.inputs)
    model.load_state_dict(checkpoint.tensors(), strict=True)
    for decoder in (HEADS[name].tied for name in plan.heads):
        if decoder and plan.tied:
            module, _, weight = decoder.rpartition(".")
            setattr(model.get_submodule(module), weight, model.bert.embeddings.word_embeddings.weight)
    model.train(mode=False)
    return model


def round_matrices(model: BertWithHeads) -> None:
    """Round every matrix to float16 in place, as a graph with 16-bit weights holds them.

    Raises:
        OverflowError: naming the first matrix with a value beyond float16's range.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:  # noqa: PLR2004 — a matrix
            rounded = parameter.data.half().float()
            if not bool(torch.isfinite(rounded).all()):
                raise OverflowError(f"{name} holds {float(parameter.data.abs().max()):g}, beyond float16's range")
            parameter.data.copy_(rounded)
