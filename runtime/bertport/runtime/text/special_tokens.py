"""Frames: which special tokens a tokenizer puts around the parts of an input, and in which segment each part is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tokenizers
    from numpy.typing import ArrayLike, NDArray

__all__ = ["NO_SPAN", "SpecialTokens"]

NO_SPAN = (-1, -1)
"""Characters of a special token: first, and behind the last."""
PROBES = ("a", "1", ".")
"""Texts of which one has a token in any tokenizer that is of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Special tokens around the tokens of one text or of two, with their segments."""

    special: tuple[tuple[int, ...], ...]
    """Ids before the first part, behind it, and so on: one run more than there are parts."""
    probe: str
    """A text that has tokens."""
    types: NDArray[np.int64]
    """Segment of each run and each part, in order: special ids, part, special ids, …"""

    @property
    def added(self) -> int:
        """Number of special tokens."""
        return sum(map(len, self.special))

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer, parts: int) -> SpecialTokens:
        """Return the special tokens of one text or of a pair, from what the tokenizer makes of a short one.

        Raises:
            BundleError: when no text has a token, or the tokenizer does more than to put tokens around.
        """
        for probe in PROBES:
            try:
                bare = tokenizer.encode(probe, add_special_tokens=False).ids
                encoding = tokenizer.encode(*[probe] * parts)
            except Exception:  # noqa: BLE001, S112 — the package raises bare Exception where a word has no token
                continue
            if bare:
                return cls._read(encoding, parts, len(bare), probe)
        raise BundleError(
            f"tokenizer.json gives no token for any of {', '.join(map(repr, PROBES))} "
            "(is its vocabulary empty, or without its unknown token?): export again"
        )

    @classmethod
    def _read(cls, encoding: tokenizers.Encoding, parts: int, length: int, probe: str) -> SpecialTokens:
        runs = [
            (part, [place for place, _ in places])
            for part, places in groupby(enumerate(encoding.sequence_ids), key=lambda place: place[1])
        ]
        if [(part, len(run)) for part, run in runs if part is not None] != [(part, length) for part in range(parts)]:
            raise BundleError(
                f"the post-processor of tokenizer.json does not put {'a text' if parts == 1 else 'two texts'} "
                "between special tokens, each once and in order: export again"
            )
        special: list[tuple[int, ...]] = [()]
        types = [0]
        for part, places in runs:
            if part is None:
                special[-1] = tuple(encoding.ids[place] for place in places)
                types[-1] = encoding.type_ids[places[0]]
            else:
                special.append(())
                types += [encoding.type_ids[places[0]], encoding.type_ids[places[-1]]]
        return cls(special=tuple(special), probe=probe, types=np.array(types, dtype=np.int64))

    def around(self, parts: Sequence[ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and segments `[tokens]` of parts, each `[tokens]`, with their special tokens."""
        runs = self._runs([np.asarray(run, dtype=np.int64) for run in self.special], parts)
        return np.concatenate(runs), np.repeat(self.types, [len(run) for run in runs])

    def spans(self, parts: Sequence[ArrayLike]) -> NDArray[np.int64]:
        """Return the characters of each token `[tokens, 2]` of parts with their special tokens, -1 for these."""
        special = [np.full((len(run), 2), NO_SPAN, dtype=np.int64) for run in self.special]
        return np.concatenate([run.reshape(-1, 2) for run in self._runs(special, parts)])

    @staticmethod
    def _runs(special: Sequence[NDArray[np.int64]], parts: Sequence[ArrayLike]) -> list[NDArray[np.int64]]:
        """Return special tokens and parts by turns."""
        runs = [special[0]]
        for part, after in zip(parts, special[1:], strict=True):
            runs += [np.asarray(part, dtype=np.int64), after]
        return runs
