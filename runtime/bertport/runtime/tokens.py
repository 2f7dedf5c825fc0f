"""Text to token ids and back, by the bundle's own tokenizer.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import BundleError, InputTextError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import tokenizers
    from numpy.typing import NDArray

    from bertport.runtime.bundle import Bundle

__all__ = ["TOKENIZER", "TOKENIZER_FILES", "Encoded", "Text", "Tokens", "excerpt"]

Text = str | tuple[str, str]
"""One text, or a pair that becomes `[CLS] A [SEP] B [SEP]`."""

TOKENIZER = "tokenizer.json"
SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")
"""Files that name the special tokens, as far as a bundle has them; the later one rules."""
TOKENIZER_FILES = (TOKENIZER, *SETTINGS)
"""What is read here, and so has to be as it was exported."""

CLEAN_UP = {
    " .": ".",
    " ?": "?",
    " !": "!",
    " ,": ",",
    " ' ": "'",
    " n't": "n't",
    " 'm": "'m",
    " 's": "'s",
    " 've": "'ve",
    " 're": "'re",
}
"""What transformers rewrites in decoded text, in this order, when `clean_up_tokenization_spaces` is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One input as the graph takes it."""

    ids: NDArray[np.int64]
    """Token ids `[tokens]`, special tokens included."""
    type_ids: NDArray[np.int64]
    """Segment of each token `[tokens]`: 0 for the first text, 1 for the second."""
    lost: tuple[int, ...] = ()
    """Ids that truncation cut off."""


class Pieces:
    """What each id adds to a decoded text, kept as it comes up.

    A WordPiece decoder writes a token by itself: what it gives depends on the token and on whether it is the first, so
    joining kept pieces gives the same text in a tenth of the time. fill-mask decodes a sequence for every answer, which
    took as long as choosing the answers. Two threads that meet write the same value.

    Args:
        tokenizer: with a WordPiece decoder.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(
            index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
        )
        self._anchor = next(index for index in range(tokenizer.get_vocab_size()) if tokenizer.id_to_token(index))
        self._before: str = tokenizer.decode([self._anchor], skip_special_tokens=False)
        self._known: dict[int, tuple[str, str] | None] = {}

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> Pieces | None:
        """Give the pieces of a tokenizer with a WordPiece decoder; None for any other."""
        return cls(tokenizer) if type(tokenizer.decoder).__name__ == "WordPiece" else None

    def join(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Decode ids."""
        left = [index for index in ids if index not in self._special] if skip_special_tokens else ids
        found = [piece for index in left if (piece := self._known.get(index) or self._piece(index)) is not None]
        return found[0][0] + "".join([rest for _, rest in found[1:]]) if found else ""

    def _piece(self, index: int) -> tuple[str, str] | None:
        """Give what an id adds as the first token and as a later one; None for an id that is in no vocabulary."""
        if index not in self._known:
            piece = None
            if self._tokenizer.id_to_token(index) is not None:
                first = self._tokenizer.decode([index], skip_special_tokens=False)
                after = self._tokenizer.decode([self._anchor, index], skip_special_tokens=False)
                piece = (first, after[len(self._before) :])
            self._known[index] = piece
        return self._known[index]


class Tokens:
    """The text side of a bundle. Safe to use from several threads: nothing in it changes after it is made.

    Args:
        tokenizer: the content of `tokenizer.json`.
        config: the content of `tokenizer_config.json`, and of `special_tokens_map.json` where that is silent.
        max_length: longest input in tokens, special tokens included.
    """

    def __init__(self, tokenizer: str, config: Mapping[str, Any], max_length: int) -> None:
        self.max_length = max_length
        self._tokenizer = _tokenizer(tokenizer)
        self._source = tokenizer
        self._pieces = Pieces.of(self._tokenizer)
        self._clean_up = bool(config.get("clean_up_tokenization_spaces", False))
        self._side = str(config.get("truncation_side", "right"))
        self.mask_token = _content(config, "mask_token", "[MASK]")
        self.mask_id: int | None = self._tokenizer.token_to_id(self.mask_token)
        self.pad_id: int | None = self._tokenizer.token_to_id(_content(config, "pad_token", "[PAD]"))

    @classmethod
    def read(cls, bundle: Bundle) -> Tokens:
        """Read the tokenizer files of a bundle.

        Raises:
            BundleError: when they are missing or cannot be read.
        """
        text = bundle.file(TOKENIZER).read_text(encoding="utf-8")
        config: dict[str, Any] = {}
        for name in SETTINGS:
            if name in bundle.manifest.files:
                config |= _settings(bundle.file(name))
        return cls(text, config, bundle.manifest.max_length)

    def encode(self, texts: Sequence[Text], *, truncation: bool = False) -> list[Encoded | InputTextError]:
        """Turn texts into ids with special tokens, all in one call of the tokenizer.

        Args:
            texts: texts and pairs of texts.
            truncation: cut what is longer than the model takes; of a pair, the longer text first.

        Returns:
            Per text its ids, or the error that says why there are none: too long, or not Unicode text.
        """
        tokenizer = self._truncating if truncation else self._tokenizer
        try:
            if len(texts) == 1:
                # The batch call hands even one text to its thread pool, which costs more than the text.
                text = texts[0]
                encodings = [tokenizer.encode(text) if isinstance(text, str) else tokenizer.encode(*text)]
            else:
                encodings = tokenizer.encode_batch_fast(list(texts))
        except TypeError:
            # A lone surrogate anywhere refuses the whole batch: encode the others without it.
            errors = [_not_unicode(text) for text in texts]
            good = iter(tokenizer.encode_batch_fast([t for t, e in zip(texts, errors, strict=True) if e is None]))
            return [error or self._encoded(text, next(good)) for text, error in zip(texts, errors, strict=True)]
        return [self._encoded(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Turn ids into text as transformers' `tokenizer.decode` does."""
        if self._pieces is not None:
            text = self._pieces.join(ids, skip_special_tokens=skip_special_tokens)
        else:
            text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        if self._clean_up:
            for found, replacement in CLEAN_UP.items():
                text = text.replace(found, replacement)
        return text

    def token_id(self, token: str) -> int | None:
        """Give the id of an exact vocabulary entry."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def token(self, index: int) -> str:
        """Give the vocabulary entry of an id."""
        return str(self._tokenizer.id_to_token(index))

    def first_piece(self, word: str) -> int | None:
        """Give the id of the first sub-word of a text; None where it has none."""
        if error := _not_unicode(word):
            raise error
        ids = self._tokenizer.encode(word, add_special_tokens=False).ids
        return ids[0] if ids else None

    def _encoded(self, text: Text, encoding: tokenizers.Encoding) -> Encoded | InputTextError:
        ids = np.array(encoding.ids, dtype=np.int64)
        if len(ids) > self.max_length:
            return InputTextError(
                f"the input has {len(ids)} tokens and the model takes {self.max_length}: "
                f"shorten it, or pass truncation=True (--truncation): {excerpt(text)}"
            )
        pair = not isinstance(text, str)
        types = np.array(encoding.type_ids, dtype=np.int64) if pair else np.zeros_like(ids)
        lost = tuple(index for part in encoding.overflowing for index in part.ids)
        return Encoded(ids=ids, type_ids=types, lost=lost)

    @cached_property
    def _truncating(self) -> tokenizers.Tokenizer:
        """A second tokenizer: switching truncation on and off in one would race between threads."""
        tokenizer = _tokenizer(self._source)
        tokenizer.enable_truncation(self.max_length, strategy="longest_first", direction=self._side)
        return tokenizer


def excerpt(value: object, length: int = 60) -> str:
    """Quote the beginning of an input for an error."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _tokenizer(content: str) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:
        # The package raises bare Exception for whatever it cannot read.
        message = f"{TOKENIZER} cannot be read ({error}): export again"
        raise BundleError(message) from error
    # The file may ask for both; lengths are ours to decide, and a batch has no padding.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path} is not JSON ({error}): export again"
        raise BundleError(message) from error
    return found if isinstance(found, dict) else {}


def _content(config: Mapping[str, Any], key: str, default: str) -> str:
    """Read a special token, which is written as a string or as an object with its content."""
    value = config.get(key) or default
    return str(value.get("content", default) if isinstance(value, dict) else value)


def _not_unicode(text: Text) -> InputTextError | None:
    for each in (text,) if isinstance(text, str) else text:
        try:
            each.encode("utf-8")
        except UnicodeEncodeError as error:
            reason = f"a lone surrogate at character {error.start}"
            return InputTextError(f"the input is not Unicode text ({reason}): repair it: {excerpt(text)}")
    return None
