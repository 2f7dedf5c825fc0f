"""The PyTorch model: an encoder with the heads that a checkpoint holds. It imports torch at its top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bertport.export.checkpoint.families import heads_of_kind, kinds
from bertport.export.checkpoint.heads import HEADS, output_names
from bertport.export.checkpoint.layout import encoder, head_model, without_values
from bertport.export.graph.embedding import SentenceEmbedding
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import EMBEDDING, HIDDEN_STATES, POOLER, output_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from transformers import PretrainedConfig

    from bertport.export.checkpoint.embedding import Modules
    from bertport.export.checkpoint.families import Family
    from bertport.export.checkpoint.layout import Layout
    from bertport.export.checkpoint.read import Checkpoint

__all__ = ["EncoderWithHeads", "build", "compute", "round_matrices", "tie"]


class Computed(nn.Module):
    """The place of the encoder in a class with heads: returns what the encoder has computed already."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.output: Any = None
        if hasattr(model, "embeddings"):  # with which a DeBERTa decodes
            self.embeddings = model.embeddings

    def forward(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 — transformers' outputs
        """Return the encoder's output."""
        return self.output


class EncoderWithHeads(nn.Module):
    """transformers' own modules of a family under the names that a checkpoint has for their tensors, with any heads.

    The encoder runs once. Each class with heads runs on what it has computed; its modules are modules of this one, and
    the class itself is none, so that it adds nothing to their names.
    """

    def __init__(
        self,
        family: Family,
        config: PretrainedConfig,
        layout: Layout,
        labels: Mapping[str, tuple[str, ...] | None],
        inputs: Collection[str],
    ) -> None:
        super().__init__()
        self.family, self.config = family, config
        self.heads: tuple[str, ...] = ()
        self.inputs = tuple(inputs)
        self.part = family.prefix.rstrip(".")
        self.add_module(self.part, encoder(family, config, pooler=POOLER in labels))
        self.classes: tuple[tuple[Any, tuple[str, ...]], ...] = ()
        self.embedding: SentenceEmbedding | None = None
        self.add_heads(config, layout, labels, self)

    def embed(self, modules: Modules) -> None:
        """Add what makes one vector of a text."""
        self.embedding = SentenceEmbedding(modules)
        self.heads = (*self.heads, EMBEDDING)

    def add_heads(
        self,
        config: PretrainedConfig,
        layout: Layout,
        labels: Mapping[str, tuple[str, ...] | None],
        place: nn.Module,
    ) -> None:
        """Add heads that the encoder does not compute itself.

        Args:
            config: transformers' config of the checkpoint that they are from.
            layout: its tensors.
            labels: the labels of each head, by its name.
            place: the module that theirs become modules of: this one, or one that is a module of it.
        """
        self.classes += tuple(
            (self._adopt(kind, heads, labels, layout, config, place), heads)
            for kind, heads in _classes(self.family, tuple(labels))
        )
        self.heads = tuple(dict.fromkeys((*self.heads, *labels)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its outputs, in order."""
        return output_names(self.heads)

    @property
    def segments(self) -> int:
        """Number of segments that the encoder knows: rows of the token type embedding, or 1 without that input."""
        return int(self.config.type_vocab_size) if "token_type_ids" in self.inputs else 1

    def _adopt(  # noqa: PLR0913, PLR0917 — the class, and what it is made of
        self,
        kind: str,
        heads: Collection[str],
        labels: Mapping[str, tuple[str, ...] | None],
        layout: Layout,
        config: PretrainedConfig,
        place: nn.Module,
    ) -> nn.Module:
        """Return one of transformers' classes around what the encoder computes, its modules made ones of another."""
        count = max((len(labels[head] or ()) for head in heads if HEADS[head].labels), default=0)
        model = head_model(self.family, config, kind, count)
        setattr(model, model.base_model_prefix, Computed(self.get_submodule(self.part)))
        # A class may compute more than was stored.
        lacks = [
            name for head in heads_of_kind(self.family, kind) if head not in heads for name in layout.heads[head].shapes
        ]
        for name, module in list(model.named_children()):
            if any(tensor.startswith(f"{name}.") for tensor in lacks):
                setattr(model, name, nn.Identity())
            elif name != model.base_model_prefix:
                place.add_module(name, module)
        return model

    def train(self, mode: bool = True) -> EncoderWithHeads:  # noqa: FBT001, FBT002 — PyTorch's own signature
        """Set the mode of every module, of the classes with heads too."""
        super().train(mode)
        for model, _ in self.classes:
            model.train(mode)
        return self

    def _encoded(self, inputs: Mapping[str, Any]) -> Any:  # noqa: ANN401 — transformers' outputs
        """Run the encoder."""
        encoder: Any = self.get_submodule(self.part)
        if not self.family.joins_neighbours:
            return encoder(**inputs)
        # Where a text stands alone, there are zeros beside its last token: so must there be where padding follows.
        others = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
        words = encoder.get_input_embeddings()(inputs["input_ids"])
        return encoder(inputs_embeds=words * inputs["attention_mask"].unsqueeze(-1), **others)

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
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        inputs = {name: tensor for name in self.inputs if (tensor := given[name]) is not None}
        encoded = self._encoded(inputs)
        outputs = {HIDDEN_STATES: encoded.last_hidden_state}
        if POOLER in self.heads:
            outputs[output_of(POOLER)] = encoded.pooler_output
        if self.embedding is not None:
            outputs[output_of(EMBEDDING)] = self.embedding.vectors(encoded.last_hidden_state, attention_mask)
        for model, heads in self.classes:
            place = getattr(model, model.base_model_prefix)
            place.output = encoded
            # Every input is a text with one of its choices, whose row of logits is its own.
            choices = any(HEADS[head].choices for head in heads)
            computed = model(**{name: tensor.unsqueeze(1) if choices else tensor for name, tensor in inputs.items()})
            place.output = None
            for head in heads:
                entry = HEADS[head]
                logits = next(
                    tensor for name in entry.attributes if (tensor := getattr(computed, name, None)) is not None
                )
                outputs[output_of(head)] = entry.finish(logits, computed) if entry.finish else logits
        return {name: outputs[name] for name in self.outputs}


def _classes(family: Family, heads: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the classes of a family that hold some heads, each with those of them that it is to compute."""
    waiting = [head for head in heads if HEADS[head].attributes]
    while waiting:
        of = {
            kind: [head for head in heads_of_kind(family, kind) if head in waiting]
            for kind in kinds(family, waiting[0])
        }
        # The class that holds most of them, and of two the one that holds fewer others.
        kind = max(of, key=lambda kind: (len(of[kind]), -len(heads_of_kind(family, kind))))
        yield kind, tuple(of[kind])
        waiting = [head for head in waiting if head not in of[kind]]


def build(checkpoint: Checkpoint) -> EncoderWithHeads:
    """Build the model of a checkpoint whose tensors were checked, in evaluation mode; none is initialised by itself.

    Raises:
        CheckpointError: when a file of weights is damaged.
    """
    with without_values():
        pooler = {POOLER: None} if POOLER in checkpoint.heads else {}  # which a head beside its own may need
        labels = checkpoint.plan.labels | pooler
        model = EncoderWithHeads(checkpoint.family, checkpoint.config, checkpoint.layout, labels, checkpoint.inputs)
        for addition in checkpoint.additions:
            model.add_module(addition.place, nn.Module())
            other, place = addition.checkpoint, model.get_submodule(addition.place)
            model.add_heads(other.config, other.layout, other.plan.labels, place)
        if checkpoint.modules is not None:
            model.embed(checkpoint.modules)
    model.load_state_dict(checkpoint.tensors(), strict=True, assign=True)
    tie(model, checkpoint.ties)
    model.train(mode=False)
    return model


def compute(model: EncoderWithHeads, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run a model without gradients.

    Args:
        model: the model, in evaluation mode.
        inputs: its inputs by name, int64 [batch, sequence].

    Returns:
        Its outputs by name, in the precision of its weights.

    Raises:
        CheckpointError: when its modules do not go together, as those of sizes that transformers compares with no
            others do not.
    """
    try:
        with torch.inference_mode():
            outputs: dict[str, torch.Tensor] = model(**inputs)
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        if "allocate memory" in reason:  # which PyTorch raises as a RuntimeError
            raise
        raise CheckpointError(
            f"with the settings of config.json, transformers' {model.family.title} encoder cannot run on "
            f"{next(iter(inputs.values())).shape[-1]} tokens ({type(error).__name__}: {excerpt(reason, 200)}): restore "
            "the checkpoint's file"
        ) from error
    return outputs


def tie(model: EncoderWithHeads, ties: Mapping[str, str]) -> None:
    """Make one parameter of what a model has under several names.

    Args:
        model: the model.
        ties: the names of parameters, each with the name of the one that it is.
    """
    for name, source in ties.items():
        module, _, parameter = name.rpartition(".")
        setattr(model.get_submodule(module), parameter, model.get_parameter(source))


def round_matrices(model: EncoderWithHeads) -> None:
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
