"""Texts to ids: in one call of the tokenizer where they are of usual length, else no more than the result can use.

The package's own truncation is never switched on: it builds every window of what it cuts off, and of a pair every
combination of both texts' windows, which takes memory that grows with the square of the length.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from bertport.runtime.errors import BundleError, InputTextError, panicked
from bertport.runtime.excerpts import excerpt
from bertport.runtime.text.reader import PIECE, Reader, Rules
from bertport.runtime.text.special_tokens import NO_SPAN, SpecialTokens
from bertport.runtime.text.words import Words, reader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import tokenizers
    from numpy.typing import ArrayLike, NDArray

    from bertport.runtime.text.steps import Steps

__all__ = [
    "Encoded",
    "Encoder",
    "Text",
    "checking",
    "is_refusal",
    "lone_surrogate",
    "not_unicode",
    "parts_of",
    "refused",
]

Text = str | tuple[str, str]
"""One text, which may be split into words already (`Words`), or a pair that becomes `[CLS] A [SEP] B [SEP]`."""
InputT = TypeVar("InputT", str, Text)
OutputT = TypeVar("OutputT")

SMALL = 1024
"""Characters up to which an input alone is tokenized in the caller's thread, holding the interpreter: 0.5 ms."""
CHARACTERS_PER_TOKEN = 8
"""More than natural text has: an input of so many for each token that the model takes is too long in all likelihood."""
MOST_USUAL = 65_536
"""Characters that are not usual for any model, whatever its manifest says of its length."""
TEXT_WEIGHT = 64
"""Fixed cost of a text, in characters."""
FIRST = 128
"""Characters that are read at once where only the first token is asked for."""
CHECKED = 1 << 20
"""Characters that are checked at once for being Unicode."""
NO_SPANS: NDArray[np.int64] = np.zeros((0, 2), dtype=np.int64)
"""Spans of an input for which none were asked."""
NO_WORDS: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
"""Words of an input that is no window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One input as the graph takes it."""

    ids: NDArray[np.int64]
    """Token ids `[tokens]`, special tokens included."""
    type_ids: NDArray[np.int64]
    """Segment of each token `[tokens]`: 0 for the first text, 1 for the second."""
    spans: NDArray[np.int64] = field(default_factory=lambda: NO_SPANS)
    """First character of each token in its text and the one behind its last `[tokens, 2]`, -1 for special tokens; empty
    where they were not asked for."""
    lost_mask: bool = False
    """Whether truncation cut off a mask token; told only where it was asked for."""
    text: Text = ""
    """The input; of a window, the whole input that it was cut from."""
    cut: tuple[int, int] = (0, 0)
    """Range of the tokens of the text that is cut into windows: the first, and the one behind the last."""
    words: NDArray[np.int64] = field(default_factory=lambda: NO_WORDS)
    """Number of the word that each of these tokens is of, counted through the whole text; empty without windows."""


@dataclass(slots=True, kw_only=True)
class Part:
    """One text of an input while it is read."""

    reader: Reader
    """Reader of its tokens."""
    room: int
    """Most tokens that are kept."""
    left: bool
    """Whether the last tokens are kept, instead of the first."""
    mask: int | None
    """Id of the token that must not be cut off unseen."""
    ids: list[int] = field(default_factory=list)
    """Tokens kept so far."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Character ranges of these tokens."""
    count: int = 0
    """Tokens read so far."""
    lost_mask: bool = False
    """Whether the mask was among those that were not kept."""

    def step(self) -> None:
        """Tokenize another piece."""
        ids = self.reader.read()
        self.count += len(ids)
        self.ids += ids
        self.spans += self.reader.spans
        self.cut(self.room)

    def cut(self, length: int) -> None:
        """Keep so many tokens at most."""
        surplus = max(0, len(self.ids) - length)
        place = surplus if self.left else len(self.ids) - surplus
        before, after = self.ids[:place], self.ids[place:]
        self.ids, lost = (after, before) if self.left else (before, after)
        self.spans = self.spans[place:] if self.left else self.spans[:place]
        self.lost_mask = self.lost_mask or self.mask in lost

    def all_read(self) -> Steps[None]:
        """Tokenize to the end, in search of a mask."""
        while not self.reader.done and not self.lost_mask:
            self.step()
            yield


class Encoder:
    """A tokenizer, bounded by what the model takes. Safe to use from several threads.

    Args:
        tokenizer: without truncation and padding.
        max_length: longest input in tokens, special tokens included.
        vocab_size: ids that the model knows.
        left: whether truncation keeps the end of a text.
        mask: the mask token; None where there is none.
        segments: the segment of every token; None where the tokenizer gives each its own.

    Raises:
        BundleError: when the tokenizer cannot be used with such a model.
    """

    def __init__(  # noqa: PLR0913 — facts on the model, by keyword
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        max_length: int,
        vocab_size: int,
        left: bool,
        mask: str | None,
        segments: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._vocab_size = vocab_size
        self._left = left
        self._mask = mask
        self._segments = segments
        self._mask_id: int | None = None if mask is None else tokenizer.token_to_id(mask)
        self._rules = Rules.of(tokenizer)
        self._mask_is_searched = mask is not None and self._rules.finds(mask)
        self._frames = tuple(SpecialTokens.of(tokenizer, parts) for parts in (1, 2))
        self._batched = _batch_call(tokenizer, self._frames[1].probe)
        self._usual = max(PIECE, min(CHARACTERS_PER_TOKEN * max_length, MOST_USUAL))
        self.sample = self._frames[0].probe
        """A text that has tokens."""
        if self._frames[0].added >= max_length:
            raise BundleError(
                f"the model takes {max_length} tokens and tokenizer.json adds {self._frames[0].added} to every text: "
                "the bundle is damaged; export again"
            )
        beyond = [index for frame in self._frames for run in frame.special for index in run if index >= vocab_size]
        if beyond:
            raise BundleError(
                f"tokenizer.json adds the token {beyond[0]} and the model knows {vocab_size}: "
                "one of them belongs to another checkpoint; export again"
            )

    @property
    def added(self) -> int:
        """Number of special tokens around a text."""
        return self._frames[0].added

    @property
    def takes_pairs(self) -> bool:
        """Whether two texts of one token each fit into the model."""
        return self._frames[1].added + 2 <= self._max_length

    def encoding(
        self, texts: Sequence[Text], *, truncation: bool, masks: bool, spans: bool = False, piece: int = PIECE
    ) -> Steps[list[Encoded | InputTextError]]:
        """Encode texts in steps of about `piece` characters; see `Tokens.encoding`."""
        return self._grouped(
            texts,
            piece,
            usual=lambda group: self._of_usual(group, truncation, spans),
            long=lambda text: self._of_long(text, truncation=truncation, masks=masks, spans=spans, piece=piece),
        )

    def _grouped(
        self,
        texts: Sequence[InputT],
        piece: int,
        *,
        usual: Callable[[list[InputT]], list[OutputT]],
        long: Callable[[InputT], Steps[OutputT]],
    ) -> Steps[list[OutputT]]:
        """Tokenize texts in steps: those of usual length in groups, and each that is longer, or split, by itself.

        Args:
            texts: texts or pairs.
            piece: characters of a group, about.
            usual: tokenizes a group in one call.
            long: tokenizes one text in steps.

        Returns:
            What was made of each text.
        """
        made: dict[int, OutputT] = {}
        group: list[int] = []
        weight = 0
        for index, text in enumerate(texts):
            size = _size(text)
            if size > self._usual or isinstance(text, Words):
                made[index] = yield from long(text)
                continue
            if group and weight + size + TEXT_WEIGHT > piece:
                made |= zip(group, usual([texts[place] for place in group]), strict=True)
                group, weight = [], 0
                yield
            group.append(index)
            weight += size + TEXT_WEIGHT
        if group:
            made |= zip(group, usual([texts[place] for place in group]), strict=True)
        return [made[index] for index in range(len(texts))]

    def first_id(self, text: str) -> int | None:
        """Return the id of the first token of a text; None where it has none.

        Raises:
            InputTextError: for what is not Unicode text, or cannot be tokenized.
        """
        reader = Reader(self._rules, text, FIRST)
        try:
            while True:
                ids = reader.read()
                if ids or reader.done:
                    return ids[0] if ids else None
        except BaseException as error:
            raise refused(text, error) from error

    def _of_usual(
        self,
        texts: Sequence[Text],
        truncation: bool,  # noqa: FBT001
        spans: bool,  # noqa: FBT001
    ) -> list[Encoded | InputTextError]:
        """Encode texts in one call of the tokenizer."""
        try:
            if len(texts) == 1 and _size(texts[0]) <= SMALL:
                # The batch call hands even one text to its thread pool, which costs more than the text.
                text = texts[0]
                encodings = [self._tokenizer.encode(text) if isinstance(text, str) else self._tokenizer.encode(*text)]
            elif spans:  # the faster call does not know them
                encodings = self._tokenizer.encode_batch(list(texts))
            else:
                encodings = self._batched(list(texts))
        except BaseException as error:  # TypeError for a lone surrogate, bare Exception, a panic
            if not is_refusal(error):
                raise
            if len(texts) == 1:
                return [refused(texts[0], error)]
            return [
                encoded for text in texts for encoded in self._of_usual([text], truncation, spans)
            ]  # one refuses the batch
        return [self._whole(text, encoding, truncation, spans) for text, encoding in zip(texts, encodings, strict=True)]

    def _whole(
        self,
        text: Text,
        encoding: tokenizers.Encoding,
        truncation: bool,  # noqa: FBT001
        spans: bool,  # noqa: FBT001
    ) -> Encoded | InputTextError:
        """Return what the tokenizer made of an input, cut where that is asked for."""
        ids = encoding.ids
        if len(ids) <= self._max_length:
            if ids and max(ids) >= self._vocab_size:
                return self._beyond(text, max(ids))
            array = np.array(ids, dtype=np.int64)
            given = self._segments is None and not isinstance(text, str)
            types = np.array(encoding.type_ids, dtype=np.int64) if given else self._one_segment(array)
            return Encoded(ids=array, type_ids=types, spans=_spans(encoding) if spans else NO_SPANS, text=text)
        if not truncation:
            return self._too_long(text, str(len(ids)))
        parts = self._parts(text, PIECE, spans=spans)
        sequences = encoding.sequence_ids
        for number, part in enumerate(parts):
            places = [place for place, sequence in enumerate(sequences) if sequence == number]
            part.ids = [ids[place] for place in places]
            if spans:
                offsets = encoding.offsets
                part.spans = [offsets[place] for place in places]
            part.count = len(part.ids)
        return self._cut(text, parts)

    def _parts(self, text: Text, piece: int, *, spans: bool) -> list[Part]:
        texts = parts_of(text)
        room = max(0, self._max_length - self._frames[len(texts) - 1].added)
        return [
            Part(
                reader=reader_of(self._rules, part, piece, spans=spans), room=room, left=self._left, mask=self._mask_id
            )
            for part in texts
        ]

    def _of_long(
        self, text: Text, *, truncation: bool, masks: bool, spans: bool, piece: int
    ) -> Steps[Encoded | InputTextError]:
        """Encode one input, reading of it what is needed."""
        try:
            for part in parts_of(text):
                yield from checking(part)
            parts = self._parts(text, min(piece, PIECE), spans=spans)
            yield from self._read(parts, truncation=truncation)
            if not truncation and sum(part.count for part in parts) > parts[0].room:
                return self._too_long(text, f"more than {self._max_length}")
            encoded = self._cut(text, parts)
            if masks and isinstance(encoded, Encoded) and not encoded.lost_mask:
                yield from self._look_for_mask(parts)
                encoded = replace(encoded, lost_mask=any(part.lost_mask for part in parts))
        except BaseException as error:  # noqa: BLE001 — as in `_of_usual`
            return refused(text, error)
        return encoded

    def _read(self, parts: Sequence[Part], *, truncation: bool) -> Steps[None]:
        """Tokenize the parts of an input until it is certain what is kept of each."""
        room = parts[0].room
        if not truncation:
            for part in parts:
                while not part.reader.done and sum(other.count for other in parts) <= room:
                    part.step()
                    yield
            return
        for part in parts:
            while not part.reader.done and (self._left or part.count <= room):
                part.step()
                yield
        if len(parts) == 1 or room % 2 == 0:
            return
        # Of two that are both too long the longer one keeps one token more, and it may end far behind that.
        first, second = parts
        while not (first.reader.done and (second.reader.done or second.count > first.count)) and not (
            second.reader.done and first.count > second.count
        ):
            behind, ahead = sorted(parts, key=lambda part: part.count)
            (ahead if behind.reader.done else behind).step()
            yield

    def _cut(self, text: Text, parts: Sequence[Part]) -> Encoded | InputTextError:
        """Cut parts to what there is room for, as tokenizers' "longest first" does, and put them together."""
        added = self._frames[len(parts) - 1].added
        if added > self._max_length:
            return InputTextError(
                f"the tokenizer adds {added} tokens to a pair and the model takes {self._max_length}: give one text: "
                f"{excerpt(text)}"
            )
        counts = [part.count for part in parts]
        for part, length in zip(parts, lengths(counts, parts[0].room), strict=True):
            part.cut(length)
        ids, types = self._around([part.ids for part in parts])
        largest = int(ids.max(initial=0))
        if largest >= self._vocab_size:
            return self._beyond(text, largest)
        spans = NO_SPANS
        if any(part.spans for part in parts):
            spans = self._frames[len(parts) - 1].spans([part.spans for part in parts])
        return Encoded(ids=ids, type_ids=types, spans=spans, lost_mask=any(part.lost_mask for part in parts), text=text)

    def _around(self, parts: Sequence[ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and segments `[tokens]` of the texts of an input, each `[tokens]`, with their special tokens."""
        ids, types = self._frames[len(parts) - 1].around(parts)
        return ids, self._one_segment(ids) if len(parts) == 1 or self._segments is not None else types

    def _one_segment(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the segments of a single text, or of any where the tokenizer gives none."""
        return np.full_like(ids, self._segments or 0)

    def _look_for_mask(self, parts: Sequence[Part]) -> Steps[None]:
        """Search for mask tokens in what was not tokenized."""
        for part in parts:
            if self._mask is not None and self._mask_is_searched:
                part.lost_mask = part.lost_mask or part.reader.text.find(self._mask, part.reader.at) >= 0
            else:
                yield from part.all_read()

    def _too_long(self, text: Text, count: str) -> InputTextError:
        return InputTextError(
            f"the input has {count} tokens and the model takes {self._max_length}: "
            f"shorten it, or pass truncation=True (--truncation): {excerpt(text)}"
        )

    def _beyond(self, text: Text, index: int) -> InputTextError:
        return InputTextError(
            f"the tokenizer gives the input the token {index} and the model knows {self._vocab_size}: "
            f"one of them belongs to another checkpoint; export again: {excerpt(text)}"
        )


def parts_of(text: Text) -> tuple[str, ...]:
    """Return the one text or the two of an input."""
    return (text,) if isinstance(text, str) else text


def checking(text: str) -> Steps[None]:
    """Check that a text is Unicode, in steps; UnicodeEncodeError where it is not."""
    for start in range(0, 0 if text.isascii() else len(text), CHECKED):
        text[start : start + CHECKED].encode()
        yield


def _batch_call(tokenizer: tokenizers.Tokenizer, probe: str) -> Callable[[list[Text]], list[tokenizers.Encoding]]:
    """Return the faster of the two calls that encode a batch, unless it leaves out the segments of pairs.

    Without a post-processor `encode_batch_fast` puts both texts into segment 0, and `encode` and `encode_batch` do not.
    """
    [fast] = tokenizer.encode_batch_fast([(probe, probe)])
    same = fast.type_ids == tokenizer.encode(probe, probe).type_ids
    return tokenizer.encode_batch_fast if same else tokenizer.encode_batch  # type: ignore[no-any-return]  # not typed


def _spans(encoding: tokenizers.Encoding) -> NDArray[np.int64]:
    """Return the characters of each token `[tokens, 2]`, -1 for special tokens."""
    special = [sequence is None for sequence in encoding.sequence_ids]
    spans = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    spans[special] = NO_SPAN
    return spans


def _size(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def lengths(counts: Sequence[int], room: int) -> list[int]:
    """Return how many tokens are kept of one text or of two, where there is room for so many: "longest first"."""
    if sum(counts) <= room:
        return list(counts)
    if len(counts) == 1:
        return [room]
    shorter, longer = sorted(counts)
    longer = shorter if shorter > room else max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = shorter + room % 2
    return [longer, shorter] if counts[0] > counts[1] else [shorter, longer]


def lone_surrogate(text: str) -> str | None:
    """Return where a text is no Unicode text; None for one that is."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"a lone surrogate at character {error.start}"
    return None


def not_unicode(text: Text) -> InputTextError | None:
    """Return the error for an input that is no Unicode text; None for one that is."""
    for part in parts_of(text):
        if reason := lone_surrogate(part):
            return InputTextError(f"the input is not Unicode text ({reason}): repair it: {excerpt(text)}")
    return None


def is_refusal(error: BaseException) -> bool:
    """Return whether an error says that a text cannot be tokenized; Ctrl-C, which may come meanwhile, does not."""
    return isinstance(error, Exception) or panicked(error)


def refused(text: Text, error: BaseException) -> InputTextError:
    """Return the error for a text that the tokenizer refuses, in whatever way; raise what is no refusal."""
    if not is_refusal(error):
        raise error
    return not_unicode(text) or InputTextError(
        f"the tokenizer cannot read the input ({excerpt(str(error), 200)}): change the text: {excerpt(text)}"
    )
