"""Words: a text that its caller has split already, whose words the tokenizer is given one by one."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Self

from bertport.runtime.text.reader import PIECE, Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.runtime.text.reader import Rules

__all__ = ["Words", "reader_of"]


class Words(str):
    """A text that is split into words: they are joined for offsets and excerpts, and each is tokenized by itself.

    Args:
        words: the words.
        delimiter: what stands between two of them in the text.
    """

    __slots__ = ("starts", "words")
    words: tuple[str, ...]
    """The words."""
    starts: tuple[int, ...]
    """Index in the text of the first character of each word."""

    def __new__(cls, words: Sequence[str], delimiter: str = " ") -> Self:
        """Join words to a text."""
        self = super().__new__(cls, delimiter.join(words))
        self.words = tuple(words)
        self.starts = tuple(accumulate((len(word) + len(delimiter) for word in words[:-1]), initial=0))
        return self


def reader_of(rules: Rules, text: str, piece: int = PIECE, *, spans: bool = False) -> Reader:
    """Return the reader of a text, or of one that is split into words."""
    if isinstance(text, Words):
        return WordReader(rules, text, piece, spans=spans)
    return Reader(rules, text, piece, spans=spans)


class WordReader(Reader):
    """The tokens of a text that is split into words; arguments are those of `Reader`."""

    def __init__(self, rules: Rules, text: Words, piece: int = PIECE, *, spans: bool = False) -> None:
        super().__init__(rules, text, piece, spans=spans)
        self._words = list(zip(text.starts, text.words, strict=True))
        self._bound = piece
        self._next = 0  # number of words that were read
        self._long: Reader | None = None  # the reader of a word longer than a piece, which is not read to its end

    def read(self) -> list[int]:
        """Return the ids of the next words that are a piece together, or of a piece of a word that is longer."""
        ids = self._read_long() if self._is_long() else self._read_several()
        self.done = self._next == len(self._words)
        return ids

    def _is_long(self) -> bool:
        return self._next < len(self._words) and len(self._words[self._next][1]) > self._bound

    def _read_long(self) -> list[int]:
        start, word = self._words[self._next]
        self._long = self._long or Reader(self._rules, word, self._bound, spans=self._spans)
        ids = self._long.read()
        self.spans = [(start + begin, start + end) for begin, end in self._long.spans]
        self.words = [self._next] * len(self.spans)
        self.at = start + self._long.at
        if self._long.done:
            self._next, self._long = self._next + 1, None
        return ids

    def _read_several(self) -> list[int]:
        first, size = self._next, 0
        while self._next < len(self._words) and size + len(self._words[self._next][1]) <= self._bound:
            size += len(self._words[self._next][1]) + 1
            self._next += 1
        group = self._words[first : self._next]
        [encoding] = self._rules.tokenizer.encode_batch(
            [[word for _, word in group]], is_pretokenized=True, add_special_tokens=False
        )
        self.at = group[-1][0] + len(group[-1][1]) if group else 0
        if self._spans:
            starts = [group[number][0] for number in encoding.word_ids]
            self.spans = [
                (start + begin, start + end) for start, (begin, end) in zip(starts, encoding.offsets, strict=True)
            ]
            self.words = [first + number for number in encoding.word_ids]
        return list(encoding.ids)
