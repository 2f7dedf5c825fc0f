"""The encoder with exactly the heads that a checkpoint holds; imports torch, so import it inside functions."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_utils import no_init_weights
from transformers.models.bert.modeling_bert import BertLMPredictionHead

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bertport.export.checkpoint.tensors import Plan

__all__ = ["BertWithHeads", "build", "expected_shapes", "output_names", "round_matrices"]


LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")


class BertWithHeads(BertPreTrainedModel):
    """transformers' BERT modules under the names of `BertForPreTraining`, with any subset of its heads."""

    def __init__(self, config: BertConfig, heads: Collection[str]) -> None:
        super().__init__(config)
        self.heads = tuple(heads)
        self.bert = BertModel(config, add_pooling_layer="pooler" in heads)
        self.cls = nn.ModuleDict()
        if "mlm" in heads:
            self.cls["predictions"] = BertLMPredictionHead(config)
        if "nsp" in heads:
            self.cls["seq_relationship"] = nn.Linear(config.hidden_size, 2)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Run the encoder and every head.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, sequence], 0 for padding.
            token_type_ids: int64 [batch, sequence].

        Returns:
            As far as the heads give them, and in this order: `logits` [batch, sequence, vocab],
            `seq_relationship_logits` [batch, 2], `last_hidden_state` [batch, sequence, hidden] and
            `pooler_output` [batch, hidden], float32.
        """
        encoded = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        outputs = {}
        if "mlm" in self.heads:
            outputs["logits"] = self.cls["predictions"](encoded.last_hidden_state)
        if "nsp" in self.heads:
            outputs["seq_relationship_logits"] = self.cls["seq_relationship"](encoded.pooler_output)
        outputs["last_hidden_state"] = encoded.last_hidden_state
        if "pooler" in self.heads:
            outputs["pooler_output"] = encoded.pooler_output
        return outputs


def output_names(heads: Collection[str]) -> tuple[str, ...]:
    """Return the outputs of a model with these heads, in order."""
    head_of = {"logits": "mlm", "seq_relationship_logits": "nsp", "last_hidden_state": None, "pooler_output": "pooler"}
    return tuple(name for name, head in head_of.items() if head is None or head in heads)


def expected_shapes(config: BertConfig, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a checkpoint must hold, without allocating any."""
    # One layer more than stored is enough to name what is missing, whatever number the config states.
    numbers = (LAYER.match(name) for name in plan.renames.values())
    stored = 1 + max((int(match[1]) for match in numbers if match), default=-1)
    shallow = copy.copy(config)
    shallow.num_hidden_layers = min(config.num_hidden_layers, stored + 1)
    with torch.device("meta"), no_init_weights():
        model = BertWithHeads(shallow, plan.heads)
    # The decoder's bias is an alias; a tied decoder may be stored but need not be.
    aliases = {"cls.predictions.decoder.bias"}
    if plan.tied and "cls.predictions.decoder.weight" not in plan.renames.values():
        aliases.add("cls.predictions.decoder.weight")
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in aliases}


def build(config: BertConfig, plan: Plan, tensors: Mapping[str, torch.Tensor]) -> BertWithHeads:
    """Build the model in evaluation mode with checked tensors, none initialised by itself."""
    with no_init_weights():
        model = BertWithHeads(config, plan.heads)
    model.load_state_dict(tensors, strict=True)
    if "mlm" in plan.heads and plan.tied:
        head: Any = model.cls["predictions"]
        head.decoder.weight = model.bert.embeddings.word_embeddings.weight
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
