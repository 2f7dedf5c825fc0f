"""The layout of a family's modules: the names and shapes of their tensors, read off transformers' own classes.

The classes are built without values, so that this takes neither memory nor time that grows with the sizes.
"""

from __future__ import annotations

import copy
import itertools
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import heads_of_kind, kinds, possible_heads
from bertport.export.checkpoint.heads import HEADS
from bertport.runtime.heads import POOLER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from bertport.export.checkpoint.families import Family

    Shapes = dict[str, tuple[int, ...]]

__all__ = ["HeadLayout", "Layout", "encoder", "head_model", "layout_of", "without_values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """The tensors of a head."""

    shapes: Shapes
    """Shapes by name; a checkpoint that holds some of the tensors must hold all."""
    tied: Shapes
    """Tensors that are the matrix of the word embedding unless config.json says that they are not."""
    aliases: dict[str, str]
    """The name in `shapes` of each tensor that the class has, and a checkpoint may have, under another name too."""
    rows: tuple[str, ...] = ()
    """Names of tensors with a row for each label of the checkpoint."""
    pooled: bool = False
    """Whether it is computed from the encoder's pooled vector."""

    def with_labels(self, count: int) -> HeadLayout:
        """Return the same with another number of labels."""
        return replace(self, shapes=self.shapes | {name: (count, *self.shapes[name][1:]) for name in self.rows})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The tensors of a family's encoder and of the heads that it can have."""

    encoder: Shapes
    """Shapes of the encoder without a pooler, by the names that a checkpoint with heads has."""
    words: str
    """The matrix of the word embedding."""
    parts: frozenset[str]
    """The encoder's top-level modules: tensor names of a bare encoder begin with one of them."""
    constants: frozenset[str]
    """Buffers that a class does not store, and versions of transformers before it may have."""
    heads: dict[str, HeadLayout]
    """Layouts by head, in the table's order."""

    def shapes(self, heads: Iterable[str]) -> Shapes:
        """Return every tensor of an encoder with these heads but for those that need not be stored."""
        return self.encoder | {name: shape for head in heads for name, shape in self.heads[head].shapes.items()}

    def with_labels(self, counts: Mapping[str, int]) -> Layout:
        """Return the same with the number of labels of some heads, by their names."""
        return replace(self, heads=self.heads | {name: self.heads[name].with_labels(counts[name]) for name in counts})

    def ties(self, heads: Iterable[str], *, decoders: bool) -> dict[str, str]:
        """Return the names of parameters that are tied to another one, each with the name of that one.

        Args:
            heads: the heads.
            decoders: whether their decoders are the matrix of the word embedding.
        """
        ties: dict[str, str] = {}
        for head in (self.heads[name] for name in heads):
            ties |= head.aliases
            if decoders:
                ties |= dict.fromkeys(head.tied, self.words)
        return ties


def layout_of(family: Family, config: PretrainedConfig) -> Layout:
    """Return the layout of a family's modules, with some number of labels where the checkpoint states them.

    Args:
        family: the family.
        config: transformers' config.

    Raises:
        Exception: whatever transformers raises for a config of which it cannot make a model.
    """
    with _shapes_alone():
        bare = encoder(family, config, pooler=False)
        pooled = encoder(family, config, pooler=True) if family.pooler else bare
    shapes = _shapes(bare, family.prefix)
    words = next(name for name, parameter in bare.named_parameters() if parameter is bare.get_input_embeddings().weight)
    buffers = {name for name, _ in bare.named_buffers()} | {"embeddings.position_ids", "embeddings.token_type_ids"}
    heads = {}
    shallow = copy.deepcopy(config)
    shallow.num_hidden_layers = 1  # of the encoder, of which no head's tensors depend
    sizes = {size for shape in shapes.values() for size in shape}
    labels = next(size for size in itertools.count(3) if size not in sizes)  # whatever has it is a row per label
    for head in possible_heads(family):
        if HEADS[head].attributes:
            heads[head] = _head(family, shallow, head, labels)
        else:  # the pooler
            own = {name: shape for name, shape in _shapes(pooled, family.prefix).items() if name not in shapes}
            heads[head] = HeadLayout(shapes=own, tied={}, aliases={})
    return Layout(
        encoder=shapes,
        words=f"{family.prefix}{words}",
        parts=frozenset(name for name, _ in pooled.named_children()),
        constants=frozenset(f"{family.prefix}{name}" for name in buffers) - shapes.keys(),
        heads=heads,
    )


def encoder(family: Family, config: PretrainedConfig, *, pooler: bool) -> PreTrainedModel:
    """Build the encoder of a family by the class of Optimum's table."""
    from optimum.exporters.tasks import TasksManager  # type: ignore[import-untyped]  # it ships no types

    auto: Any = TasksManager.get_model_class_for_task("feature-extraction")
    options = {"add_pooling_layer": pooler} if family.pooler else {}
    model: PreTrainedModel = auto.from_config(config, **options)
    return model


def head_model(family: Family, config: PretrainedConfig, kind: str, labels: int) -> PreTrainedModel:
    """Build transformers' class of a kind such as `ForMaskedLM`: by Optimum's table, or by its name where it has none.

    Its matrices are tied, whether or not their values are equal: ties between biases then hold as well, which
    transformers 5 leaves out otherwise.

    Args:
        family: the family.
        config: transformers' config.
        kind: the name of the class without the family's.
        labels: the number of labels; 0 for a class that has its own.
    """
    import transformers
    from optimum.exporters.tasks import TasksManager

    made = copy.deepcopy(config)
    # A DeBERTa without `legacy` decodes with the word embedding itself; transformers would tie its dense layer to that.
    made.tie_word_embeddings = bool(getattr(made, "legacy", True))
    if labels:
        made.num_labels = labels
    head = next((head for head in HEADS.values() if head.own_class == kind), None)
    if head is not None and head.make is not None:
        return head.make(made)
    optimum = head.optimum if head is not None else None
    name = family.class_prefix + kind
    make: Any = TasksManager.get_model_class_for_task(optimum).from_config if optimum else getattr(transformers, name)
    model: PreTrainedModel = make(made)
    return model


@contextmanager
def without_values() -> Iterator[None]:
    """Build modules whose parameters have no values; buffers, which are not loaded, have theirs."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Unallocated(TorchFunctionMode):
        """`torch.empty`, with which modules make parameters, on the meta device."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 — torch's own signature
            options = dict(kwargs or {})
            if function is torch.empty:
                options["device"] = "meta"
            return function(*args, **options)

    with Unallocated(), _undrawn():
        yield


@contextmanager
def _shapes_alone() -> Iterator[None]:
    """Build modules on the meta device: nothing but shapes and names is read of them."""
    import torch

    with torch.device("meta"), _undrawn():
        yield


@contextmanager
def _undrawn() -> Iterator[None]:
    """Draw no first values for tensors that have none: half of the time that making a tiny model takes."""
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        """The functions of `torch.nn.init` return a tensor on the meta device as it is."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 — torch's own signature
            options = kwargs or {}
            if getattr(function, "__module__", "") == "torch.nn.init":
                tensor = options["tensor"] if "tensor" in options else args[0]
                if tensor.is_meta:
                    return tensor
            return function(*args, **options)

    with Undrawn():
        yield


def _head(family: Family, config: PretrainedConfig, head: str, labels: int) -> HeadLayout:
    """Return the tensors of a head: those of its smallest class that belong to none of the class's other heads."""
    kind = kinds(family, head)[-1]
    with _shapes_alone():
        model = head_model(family, config, kind, labels if HEADS[head].labels else 0)
    others = [_head(family, config, other, labels) for other in heads_of_kind(family, kind) if other != head]
    taken = {name for other in others for name in (*other.shapes, *other.tied, *other.aliases)}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    own = [name for name in shapes if not name.startswith(family.prefix) and name not in taken]
    tied: list[str] = []
    aliases: dict[str, str] = {}
    for names in _groups(model):
        outside = sorted((name for name in names if name in own), key=lambda name: (len(name), name))
        if len(outside) < len(names):
            tied += outside
        else:
            aliases |= dict.fromkeys(outside[1:], outside[0])
    stored = {name: shapes[name] for name in own if name not in tied and name not in aliases}
    return HeadLayout(
        shapes=stored,
        tied={name: shapes[name] for name in tied},
        aliases=aliases,
        rows=tuple(name for name, shape in stored.items() if HEADS[head].labels and shape[:1] == (labels,)),
        pooled=getattr(model.base_model, POOLER, None) is not None,
    )


def _groups(model: nn.Module) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [aliases for aliases in names.values() if len(aliases) > 1]


def _shapes(model: nn.Module, prefix: str) -> Shapes:
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in model.state_dict().items()}
