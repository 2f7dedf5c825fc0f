"""Windows: a long text as several inputs that overlap, so that none of it is lost."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.text.encoder import Encoded, Encoder, Text, checking, is_refusal, parts_of, refused
from bertport.runtime.text.reader import PIECE
from bertport.runtime.text.words import reader_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bertport.runtime.text.steps import Steps

__all__ = ["WindowEncoder", "Windows", "places"]


WINDOWS_A_STEP = 64
"""Windows that are made without a break: each takes some hundredths of a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows that an input is cut into: a single text, or one text of a pair, whose other text is in every window."""

    length: int
    """Most tokens in a window, special ones included."""
    stride: int
    """Tokens that neighbours have in common."""
    cut: int = 0
    """Index of the text of a pair that is cut: 0 or 1."""
    first: bool = False
    """Whether only the window is kept that truncation would leave."""
    named: str | None = None
    """Name, in errors, of the text that is cut, where it must have tokens; None where it may have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """The tokens of one text, without special ones."""

    ids: NDArray[np.int64]
    """Token ids `[tokens]`."""
    spans: NDArray[np.int64]
    """Characters of each token `[tokens, 2]`."""
    words: NDArray[np.int64]
    """Number of the word that each token is of `[tokens]`."""

    @classmethod
    def of(cls, ids: Sequence[int], spans: Sequence[tuple[int, int]], words: Sequence[int]) -> Bare:
        """Return tokens as the tokenizer gives them."""
        return cls(
            ids=np.array(ids, dtype=np.int64),
            spans=np.array(spans, dtype=np.int64).reshape(-1, 2),
            words=np.array(words, dtype=np.int64),
        )

    @classmethod
    def joined(cls, pieces: Sequence[Bare]) -> Bare:
        """Return the tokens of a text that was read in pieces."""
        return cls(
            ids=np.concatenate([piece.ids for piece in pieces]),
            spans=np.concatenate([piece.spans for piece in pieces]),
            words=np.concatenate([piece.words for piece in pieces]),
        )

    def __getitem__(self, places: slice) -> Bare:
        """Return some of the tokens."""
        return Bare(ids=self.ids[places], spans=self.spans[places], words=self.words[places])


class WindowEncoder(Encoder):
    """An encoder that cuts texts into windows, too."""

    def windows(
        self, texts: Sequence[Text], windows: Windows, *, most: int, piece: int = PIECE
    ) -> Steps[list[tuple[Encoded, ...] | InputTextError]]:
        """Cut texts into windows, in steps of about `piece` characters; see `Tokens.windows`."""
        enough = self._enough(windows, most)
        bare = iter((yield from self._bare([part for text in texts for part in parts_of(text)], enough, piece)))
        cut: list[tuple[Encoded, ...] | InputTextError] = []
        for text in texts:
            parts = list(islice(bare, len(parts_of(text))))
            error = next((part for part in parts if isinstance(part, BaseException)), None)
            if error is None:
                whole = [part for part in parts if isinstance(part, Bare)]
                cut.append((yield from self._cut_up(text, whole, windows, most)))
            else:
                cut.append(refused(text, error))
            yield
        return cut

    def _enough(self, windows: Windows, most: int) -> int:
        """Return after how many tokens of a text no more are read: its windows are too many then, or none is kept."""
        if windows.first:
            return sys.maxsize if self._left else windows.length
        return windows.stride + most * max(1, windows.length - windows.stride)

    def _bare(self, texts: Sequence[str], enough: int, piece: int) -> Steps[list[Bare | BaseException]]:
        """Tokenize texts without special tokens: each once, and of a long one no more than a piece above `enough`.

        Returns:
            Per text its tokens with their characters, or what the tokenizer raised.
        """
        return self._grouped(
            texts, piece, usual=self._bare_usual, long=lambda text: self._bare_long(text, enough, piece)
        )

    def _bare_usual(self, texts: list[str]) -> list[Bare | BaseException]:
        try:
            encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        except BaseException as error:  # as in `_of_usual`
            if not is_refusal(error):
                raise
            return [error] if len(texts) == 1 else [bare for text in texts for bare in self._bare_usual([text])]
        return [Bare.of(encoding.ids, encoding.offsets, encoding.word_ids) for encoding in encodings]

    def _bare_long(self, text: str, enough: int, piece: int) -> Steps[Bare | BaseException]:
        pieces: list[Bare] = []
        try:
            yield from checking(text)
            reader = reader_of(self._rules, text, min(piece, PIECE), spans=True)
            count = 0
            while not reader.done and count <= enough:
                ids = reader.read()
                pieces.append(Bare.of(ids, reader.spans, reader.words))
                count += len(ids)
                yield
        except BaseException as error:  # as in `_of_usual`
            if not is_refusal(error):
                raise
            return error
        return Bare.joined(pieces)

    def _cut_up(
        self, text: Text, parts: list[Bare], windows: Windows, most: int
    ) -> Steps[tuple[Encoded, ...] | InputTextError]:
        """Cut an input whose texts were tokenized, in steps."""
        frame = self._frames[len(parts) - 1]
        cut = windows.cut if len(parts) > 1 else 0
        whole = parts[cut]
        if windows.named is not None and not len(whole.ids):
            return InputTextError(f"the {windows.named} has no tokens: give one with words in it: {excerpt(text)}")
        beside = frame.added + sum(len(part.ids) for part in parts) - len(whole.ids)
        room = windows.length - beside
        stride = 0 if windows.first else windows.stride  # one window has no neighbour
        if len(whole.ids) > room and room <= stride and windows.first:
            return InputTextError(
                f"the input may have {windows.length} tokens, and the {beside} beside the text that is cut leave no "
                f"room for that text: shorten the text beside it: {excerpt(text)}"
            )
        if len(whole.ids) > room and room <= stride:
            named = windows.named or "text that is cut"
            return InputTextError(
                f"a window of {windows.length} tokens has {beside} beside the {named} and {stride} in common "
                "with the next, which leaves no room for more: shorten the text beside it, or ask for longer windows "
                f"or a smaller stride: {excerpt(text)}"
            )
        wanted = 1 if windows.first else most + 1
        spans = places(len(whole.ids), room, stride, left=self._left, most=wanted)
        if len(spans) > most:
            return InputTextError(
                f"the input has more than {most:,} windows of {windows.length} tokens: shorten it, or ask for longer "
                f"windows or a smaller stride: {excerpt(text)}"
            )
        largest = max(int(part.ids.max(initial=0)) for part in parts)
        if largest >= self._vocab_size:
            return self._beyond(text, largest)
        encoded = []
        for number, span in enumerate(spans, 1):
            encoded.append(self._window(text, parts, cut, span))
            if number % WINDOWS_A_STEP == 0:
                yield
        return tuple(encoded)

    def _window(self, text: Text, parts: list[Bare], cut: int, span: tuple[int, int]) -> Encoded:
        """Return one window of an input."""
        frame = self._frames[len(parts) - 1]
        shown = [*parts]
        shown[cut] = parts[cut][slice(*span)]
        ids, types = self._around([part.ids for part in shown])
        begin = sum(map(len, frame.special[: cut + 1])) + sum(len(part.ids) for part in shown[:cut])
        return Encoded(
            ids=ids,
            type_ids=types,
            spans=frame.spans([part.spans for part in shown]),
            text=text,
            cut=(begin, begin + len(shown[cut].ids)),
            words=shown[cut].words,
        )


def places(count: int, room: int, stride: int, *, left: bool, most: int | None = None) -> list[tuple[int, int]]:
    """Return where windows begin and end in a text of so many tokens, in the order in which tokenizers give them.

    Args:
        count: tokens of the text.
        room: tokens in a window.
        stride: tokens that neighbours have in common, fewer than there is room for.
        left: whether truncation keeps the end of a text: then windows are counted from there.
        most: how many are returned at most; None for all.

    Returns:
        The first token of each window and the one behind its last; one window where all tokens have room.
    """
    if count <= room:
        return [(0, count)]
    starts = range(0, count - stride, room - stride)[:most]
    spans = [(start, min(start + room, count)) for start in starts]
    return [(count - end, count - start) for start, end in spans] if left else spans
