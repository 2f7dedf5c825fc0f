"""PyTorch modules that make one vector of the states of a text's tokens, as sentence-transformers does.

It imports torch at its top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from bertport.export.checkpoint.embedding import Module, Modules

__all__ = ["SentenceEmbedding"]

LEAST_WEIGHT = 1e-9
"""Lower bound of the sum of the weights of a text's tokens, so that nothing is divided by zero."""


class Pooling(nn.Module):
    """Pools a text's states in one or more modes, and concatenates the vectors.

    Args:
        modes: the pooling modes, by their names in sentence-transformers.
    """

    def __init__(self, modes: tuple[str, ...]) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool states.

        Args:
            states: [batch, sequence, hidden].
            mask: int64 [batch, sequence], 0 for padding, which may stand on either side; a text has a token at least.

        Returns:
            [batch, modes x hidden], in the precision of the states.
        """
        return torch.cat([self._pooled(mode, states, mask) for mode in self.modes], dim=-1)

    def _pooled(self, mode: str, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        real = mask.unsqueeze(-1).to(states.dtype)
        if mode == "max":
            return states.masked_fill(real == 0, float("-inf")).amax(dim=1)
        # Which of its text's tokens each is, from 1: padding before a text is 0, and behind it as the last token.
        place = real.cumsum(dim=1)
        match mode:
            case "cls":
                weights = real * (place == 1)
            case "lasttoken":
                weights = real * (place == place[:, -1:])
            case "weightedmean":
                weights = real * place / place[:, -1:]  # 1 at most: their sum has to be a number in 16 bits too
            case _:
                weights = real
        total = weights.sum(dim=1, keepdim=True).clamp(min=LEAST_WEIGHT)
        return (states * (weights / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total))).sum(dim=1)


class Dense(nn.Module):
    """A dense layer with an activation function.

    Args:
        given: dimension of its input.
        size: dimension of its output.
        bias: whether it has a bias.
        activation: the name of PyTorch's class of the function.
    """

    def __init__(self, given: int, size: int, *, bias: bool, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(given, size, bias=bias)
        make: type[nn.Module] = getattr(nn, activation)  # one of the names that were checked
        self.activation = make()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the output [batch, size] of vectors [batch, given]."""
        output: torch.Tensor = self.activation(self.linear(vectors))
        return output


class LayerNorm(nn.Module):
    """A layer norm under the name that sentence-transformers has for its tensors.

    Args:
        size: dimension of a vector.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors of the same shape."""
        normed: torch.Tensor = self.norm(vectors)
        return normed


class Normalize(nn.Module):
    """Division by the L2 norm."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors of the same shape and of length 1; zeros stay zeros."""
        return nn.functional.normalize(vectors, dim=-1)


class SentenceEmbedding(nn.ModuleList):
    """The modules behind an encoder, in order; the names of their tensors begin with the place.

    Args:
        modules: what a checkpoint says of them.
    """

    def __init__(self, modules: Modules) -> None:
        super().__init__(map(_module, modules.modules))

    def vectors(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the vector of each text, [batch, dimension].

        It is no `forward`: the exporter would give the nodes of the modules other names than their tensors have.

        Args:
            states: [batch, sequence, hidden].
            mask: int64 [batch, sequence], 0 for padding.
        """
        pooling, *others = self
        vectors: torch.Tensor = pooling(states, mask)
        for module in others:
            vectors = module(vectors)
        return vectors


def _module(module: Module) -> nn.Module:
    """Return the PyTorch module of a kind."""
    match module.facts.kind:
        case "pooling":
            return Pooling(module.facts.modes or ())
        case "dense":
            size, given = module.shapes["linear.weight"]
            bias = "linear.bias" in module.shapes
            return Dense(given, size, bias=bias, activation=module.facts.activation or "Identity")
        case "layer-norm":
            return LayerNorm(module.size)
        case _:
            return Normalize()
