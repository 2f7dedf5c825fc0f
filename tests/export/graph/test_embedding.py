"""Pooling: each way against a few lines of numpy on the real tokens alone, with padding on either side."""

import numpy as np
import pytest
import torch

from bertport.export.checkpoint.embedding import MODES
from bertport.export.graph.embedding import Pooling

WAYS = {
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(0),
    "mean": lambda tokens: tokens.mean(0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(0) / np.sqrt(len(tokens)),
    "weightedmean": lambda tokens: np.average(tokens, axis=0, weights=np.arange(len(tokens)) + 1),
    "lasttoken": lambda tokens: tokens[-1],
}


@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), ("lasttoken", "cls"), tuple(MODES)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_sees_the_tokens_of_a_text_and_no_padding(modes, side):
    states = torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(3))
    lengths = (9, 1, 4, 8)
    mask = torch.tensor([[1] * length + [0] * (9 - length) for length in lengths])
    if side == "left":
        mask = mask.flip(1)
    texts = [text[real == 1].numpy() for text, real in zip(states, mask, strict=True)]
    expected = np.stack([np.concatenate([WAYS[mode](tokens) for mode in modes]) for tokens in texts])
    pooled = Pooling(modes)(states, mask)
    assert pooled.dtype == torch.float32
    assert np.abs(pooled.numpy() - expected).max() < 1e-6
    assert Pooling(modes)(states + 1e6 * (1 - mask).unsqueeze(-1), mask).equal(pooled)
    assert Pooling(modes)(states.double(), mask).dtype == torch.float64
