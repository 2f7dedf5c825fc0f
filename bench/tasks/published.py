"""Scores that others have published for encoders of this size and for BERT-base, with their addresses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PUBLISHED", "Published"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One row: an encoder's scores."""

    name: str
    """Name of the encoder."""
    size: str
    """Layers, width, and parameters."""
    part: str
    """The part of GLUE that the scores are of."""
    scores: Mapping[str, str] = field(default_factory=dict)
    """By name of the task, as published; several metrics with a slash between them."""
    source: str
    """URL at which they stand."""


GOOGLE = "https://github.com/google-research/bert/blob/eedf5716ce1268e56f0a50264a88cafad334ac61/README.md"
MINILM = "https://github.com/microsoft/unilm/blob/01e7da46c8536c19f88b69918f0aa000bf3b01b7/minilm/README.md"
CARD = "https://huggingface.co/google-bert/bert-base-uncased"

PUBLISHED = (
    Published(
        name="BERT-Mini",
        size="4 x 256, 11 M",
        part="test",
        scores={"sst2": "85.9", "cola": "0.0", "mrpc": "81.1/71.8", "rte": "57.9", "stsb": "75.4/73.3"},
        source=f"[Turc et al. 2019]({GOOGLE})",
    ),
    Published(
        name="BERT-Small",
        size="4 x 512, 29 M",
        part="test",
        scores={"sst2": "89.7", "cola": "27.8", "mrpc": "83.4/76.2", "rte": "61.8", "stsb": "78.8/77.0"},
        source=f"[Turc et al. 2019]({GOOGLE})",
    ),
    Published(
        name="BERT-Medium",
        size="8 x 512, 41 M",
        part="test",
        scores={"sst2": "89.6", "cola": "38.0", "mrpc": "86.6/81.6", "rte": "62.2", "stsb": "80.4/78.4"},
        source=f"[Turc et al. 2019]({GOOGLE})",
    ),
    Published(
        name="MiniLM-L6-H384",
        size="6 x 384, 22 M",
        part="dev",
        scores={"sst2": "91.5", "cola": "47.5", "mrpc": "88.9", "rte": "68.8"},
        source=f"[Wang et al. 2020]({MINILM})",
    ),
    Published(
        name="BERT-base",
        size="12 x 768, 110 M",
        part="dev",
        scores={"sst2": "93.2", "cola": "58.9", "mrpc": "87.3", "rte": "68.6"},
        source=f"[Wang et al. 2020]({MINILM})",
    ),
    Published(
        name="BERT-base",
        size="12 x 768, 110 M",
        part="test",
        scores={"sst2": "93.5", "cola": "52.1", "mrpc": "88.9", "rte": "66.4", "stsb": "85.8"},
        source=f"[the card of bert-base-uncased]({CARD})",
    ),
)
"""Smallest first. MRPC is F1 and accuracy where there are two, and STS-B Pearson's and Spearman's correlation."""
