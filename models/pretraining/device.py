"""The objective of BERT drawn in tensor operations, for a device that is faster than the drawing on its host."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .corpus import Corpus
from .objective import (
    IS_NEXT,
    IS_RANDOM,
    MASKED_SHARE,
    MOST_DRAWS,
    REPLACED_BY_MASK,
    REPLACED_BY_RANDOM,
    BatchSource,
    SpecialTokens,
    no_pair,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBatch:
    """A `Batch` of int64 tensors on a device, without the sections."""

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    masked_positions: torch.Tensor
    masked_labels: torch.Tensor
    next_sentence_labels: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Two spans for each row, as ranges of the corpus's tokens that fill a row together; int64, of shape (rows,)."""

    a: torch.Tensor
    """First token of A."""
    a_length: torch.Tensor
    """Tokens of A; B has the rest of the row."""
    b: torch.Tensor
    """First token of B."""
    labels: torch.Tensor
    """`IS_NEXT` or `IS_RANDOM`."""


class DeviceSource(BatchSource):
    """The batches of `BatchSource` in the same order and distribution; pairs and masks are drawn on the device.

    A batch is a function of the seed and its number on devices of one kind; other kinds draw others.
    """

    def __init__(
        self, corpus: Corpus, special: SpecialTokens, *, tokens_per_batch: int, seed: int, device: torch.device
    ) -> None:
        super().__init__(corpus, special, tokens_per_batch=tokens_per_batch, seed=seed)
        self.device = device
        # CUDA does not index unsigned integers of 16 bits in every release of PyTorch.
        self._tokens = torch.as_tensor(corpus.tokens.astype(np.int32), device=device)
        self._sentences = torch.as_tensor(corpus.sentence_starts, device=device)
        self._sections = torch.as_tensor(corpus.section_starts, device=device)
        self._ordinary = torch.as_tensor(special.ordinary, device=device)
        self._generator = torch.Generator(device)

    def _make(self, anchors: NDArray[np.int64], length: int, rng: np.random.Generator) -> DeviceBatch:
        self._generator.manual_seed(int(rng.integers(2**63)))
        pairs = self.draw_pairs(torch.as_tensor(anchors, device=self.device), length)
        place = torch.arange(length, device=self.device)
        b_place = place - pairs.a_length[:, None] - 2
        token_types = (b_place >= 0).long()
        source = torch.where(b_place >= 0, pairs.b[:, None] + b_place, pairs.a[:, None] + place - 1)
        # The place of the last [SEP] may lie behind the corpus's end, and is overwritten.
        input_ids = self._tokens[source.clamp(max=len(self._tokens) - 1)].long()
        input_ids[:, 0] = self.special.cls
        input_ids[:, -1] = self.special.sep
        input_ids.scatter_(1, pairs.a_length[:, None] + 1, self.special.sep)
        positions, labels = self.mask(input_ids)
        return DeviceBatch(
            input_ids=input_ids,
            token_type_ids=token_types,
            masked_positions=positions,
            masked_labels=labels,
            next_sentence_labels=pairs.labels,
        )

    def draw_pairs(self, anchors: torch.Tensor, length: int) -> Pairs:
        """Draw what `sample_pair` draws for each anchor: rows that do not fit are drawn again, together.

        Raises:
            RecipeError: when the corpus has no sections long enough for such pairs.
        """
        room = length - 3
        least = max(1, room // 8)
        starts, rows, sentences = self._sentences, len(anchors), len(self._sentences) - 1
        follows = self._below(2, rows) == 0
        a, middle, section = (torch.empty_like(anchors) for _ in range(3))
        anchors, left = anchors.clone(), torch.arange(rows, device=self.device)
        for _ in range(MOST_DRAWS):
            anchor, wanted = anchors[left], least + self._below(room - 2 * least + 1, len(left))
            section[left] = within = self._section_of(anchor)
            last = self._sections[within + 1]
            after = torch.searchsorted(starts, starts[anchor] + wanted, right=True) - 1
            after = after.maximum(anchor + 1).minimum(last)
            middle[left] = end = starts[after]
            a[left] = begin = starts[anchor].maximum(end - wanted)
            left = left[follows[left] & (starts[last] - end < room - (end - begin))]
            if not len(left):
                break
            anchors[left] = self._below(sentences, len(left))
        else:
            raise no_pair(length)
        b, needed, left = middle.clone(), room - (middle - a), (~follows).nonzero().squeeze(1)
        for _ in range(MOST_DRAWS):
            other = self._below(sentences, len(left))
            other_section = self._section_of(other)
            b[left] = begin = starts[other]
            too_short = starts[self._sections[other_section + 1]] - begin < needed[left]
            left = left[too_short | (other_section == section[left])]
            if not len(left):
                return Pairs(a=a, a_length=middle - a, b=b, labels=torch.where(follows, IS_NEXT, IS_RANDOM))
        raise no_pair(length)

    def mask(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask the rows in place as `mask_row` does; return flat positions, ascending, and the ids that were there."""
        eligible = (input_ids != self.special.cls) & (input_ids != self.special.sep)
        counts = (MASKED_SHARE * eligible.sum(1).double()).round().clamp(min=1)
        drawn = torch.rand(input_ids.shape, device=self.device, generator=self._generator)
        order = drawn.masked_fill(~eligible, 2).argsort(1)  # behind those that were drawn
        chosen = torch.empty_like(eligible).scatter_(
            1, order, torch.arange(input_ids.shape[1], device=self.device) < counts[:, None]
        )
        positions = chosen.flatten().nonzero().squeeze(1)
        flat = input_ids.view(-1)
        labels = flat[positions]
        draw = torch.rand(len(positions), device=self.device, generator=self._generator)
        random_ids = self._ordinary[self._below(len(self._ordinary) - 1, len(positions))]
        # As there: an id that equals the label becomes the one entry that was left out of the draw.
        random_ids = torch.where(random_ids == labels, self._ordinary[-1], random_ids)
        is_random = (draw >= REPLACED_BY_MASK) & (draw < REPLACED_BY_MASK + REPLACED_BY_RANDOM)
        kept = torch.where(is_random, random_ids, labels)
        flat[positions] = torch.where(draw < REPLACED_BY_MASK, self.special.mask, kept)
        return positions, labels

    def _section_of(self, sentences: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(self._sections, sentences, right=True) - 1

    def _below(self, bound: int, count: int) -> torch.Tensor:
        """Draw whole numbers from 0 up to a bound."""
        return torch.randint(bound, (count,), device=self.device, generator=self._generator)
