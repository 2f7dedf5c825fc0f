"""Text to token ids and back, by the bundle's own tokenizer.json."""

from __future__ import annotations

import json
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import BertportError, BundleError, UsageError, panicked
from bertport.runtime.excerpts import excerpt
from bertport.runtime.text.encoder import Encoded, Text, lone_surrogate
from bertport.runtime.text.reader import PIECE
from bertport.runtime.text.steps import drained
from bertport.runtime.text.windows import WindowEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import tokenizers
    from numpy.typing import NDArray

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.errors import InputTextError
    from bertport.runtime.text.steps import Steps
    from bertport.runtime.text.windows import Windows

__all__ = ["SETTINGS", "TOKENIZER", "TOKENIZER_FILES", "Tokens", "read_settings"]

TOKENIZER = "tokenizer.json"
SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")
"""Files that name the special tokens, as far as a bundle has them; the later one rules."""
TOKENIZER_FILES = (TOKENIZER, *SETTINGS)
"""Files of the tokenizer that are read here, and so must be as they were exported."""

BEGINNING = 1024
"""Ids among which a token is looked for first."""

UNKNOWN = ("[UNK]", "<unk>")
"""Names of the unknown token where neither the settings nor the model of the tokenizer state it."""

CUT = "\ufffd"
"""Replacement character: decoded in place of bytes that are not a whole character."""

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
"""Replacements that transformers makes in decoded text, in this order, when `clean_up_tokenization_spaces` is set."""


class Pieces:
    """Text that each id adds when it is decoded, kept once it was computed.

    The decoders of WordPiece and of SentencePiece write a token by itself: what they give depends on the token and on
    whether it is the first, so joining kept pieces gives the same text in a tenth of the time. fill-mask decodes a
    sequence for every answer, which took as long as choosing the answers. Two threads that meet write the same value.

    Args:
        tokenizer: with one of these decoders.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(
            index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
        )
        self._anchor = _any_token(tokenizer)
        self._before: str = tokenizer.decode([self._anchor], skip_special_tokens=False)
        self._known: dict[int, tuple[str, str] | None] = {}

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> Pieces | None:
        """Return the pieces of a tokenizer whose decoder writes each token by itself; None for any other."""
        return cls(tokenizer) if type(tokenizer.decoder).__name__ in ("WordPiece", "Metaspace") else None

    def join(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Decode ids."""
        left = [index for index in ids if index not in self._special] if skip_special_tokens else ids
        pieces = [piece for index in left if (piece := self._known.get(index) or self._piece(index)) is not None]
        return pieces[0][0] + "".join([rest for _, rest in pieces[1:]]) if pieces else ""

    def around(
        self, before: Sequence[int], after: Sequence[int], *, skip_special_tokens: bool
    ) -> Callable[[int | None], str]:
        """Return what decodes ids with another between them, or with none, without joining all of them again."""
        skipped = self._special if skip_special_tokens else frozenset[int]()

        def piece_of(index: int | None) -> tuple[str, str] | None:
            return None if index is None or index in skipped else self._known.get(index) or self._piece(index)

        first = [piece for index in before if (piece := piece_of(index)) is not None]
        last = [piece for index in after if (piece := piece_of(index)) is not None]
        head = first[0][0] + "".join([rest for _, rest in first[1:]]) if first else None
        tail = "".join([rest for _, rest in last])
        alone = last[0][0] + "".join([rest for _, rest in last[1:]]) if last else ""

        def text(index: int | None) -> str:
            piece = piece_of(index)
            if head is not None:
                return head + (piece[1] if piece else "") + tail
            return piece[0] + tail if piece else alone

        return text

    def _piece(self, index: int) -> tuple[str, str] | None:
        """Return what an id adds as the first token and as a later one; None for an id that is in no vocabulary."""
        if index not in self._known:
            piece = None
            if self._tokenizer.id_to_token(index) is not None:
                first = self._tokenizer.decode([index], skip_special_tokens=False)
                after = self._tokenizer.decode([self._anchor, index], skip_special_tokens=False)
                piece = (first, after[len(self._before) :])
            self._known[index] = piece
        return self._known[index]


class Tokens:
    """Tokenizer of a bundle. Safe to use from several threads: what is kept is the same whichever computes it.

    Args:
        tokenizer: the content of `tokenizer.json`.
        config: the content of `tokenizer_config.json`, and of `special_tokens_map.json` where that is silent.
        max_length: longest input in tokens, special tokens included.
        vocab_size: ids that the model knows.
        segments: the segment of every token; None where the tokenizer gives each its own.

    Raises:
        BundleError: when no text can be encoded by them.
    """

    def __init__(
        self,
        tokenizer: str,
        config: Mapping[str, Any],
        max_length: int,
        *,
        vocab_size: int = sys.maxsize,
        segments: int | None = None,
    ) -> None:
        self.max_length = max_length
        self._tokenizer, sides = _tokenizer(tokenizer)
        self.mask_token = _content(config, "mask_token", "[MASK]")
        """None where the settings say that there is none."""
        self.mask_id: int | None = None if self.mask_token is None else self._tokenizer.token_to_id(self.mask_token)
        self._vocab_size = vocab_size
        pad = _content(config, "pad_token", "[PAD]")
        self.pad_id = None if pad is None else self.token_id(pad)
        self._encoder = WindowEncoder(
            self._tokenizer,
            max_length=max_length,
            vocab_size=vocab_size,
            left=str(config.get("truncation_side") or sides.get("truncation", "right")) == "left",
            mask=self.mask_token,
            segments=segments,
        )
        self.sample = self._encoder.sample
        """A text that has tokens, whatever the tokenizer adds to it."""
        self.takes_pairs = self._encoder.takes_pairs
        """Whether two texts of one token each fit into the model."""
        self.unknown_id = _unknown_id(self._tokenizer, config)
        """Id of the token of words that the vocabulary does not hold; None where there is none."""
        self.marks_continuations = bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))
        """Whether the vocabulary marks tokens that continue a word, as WordPiece's does."""
        self.pads_left = str(config.get("padding_side") or sides.get("padding", "right")) == "left"
        """Whether transformers would pad a text on its left, for which it puts a context before its question."""
        self._pieces = Pieces.of(self._tokenizer)
        self._clean_up = bool(config.get("clean_up_tokenization_spaces", False))

    @classmethod
    def read(cls, bundle: Bundle) -> Tokens:
        """Return the tokenizer of a bundle, from its files.

        Raises:
            BundleError: when they are missing or cannot be read.
        """
        path, manifest = bundle.file(TOKENIZER), bundle.manifest
        config = read_settings((bundle.file(name), bundle.read(name)) for name in SETTINGS if name in manifest.files)
        content = bundle.read(TOKENIZER)
        try:
            text = content.decode()
            size = manifest.architecture.vocab_size
            return cls(text, config, manifest.max_length, vocab_size=size, segments=manifest.segments)
        except (BertportError, MemoryError):
            raise
        except BaseException as error:
            # The package raises bare Exception, and its panics are no Exception at all.
            if not isinstance(error, Exception) and not panicked(error):
                raise
            raise BundleError(f"{path} cannot be read ({excerpt(str(error), 200)}): export again") from error

    def encode(
        self, texts: Sequence[Text], *, truncation: bool = False, masks: bool = False, spans: bool = False
    ) -> list[Encoded | InputTextError]:
        """Return texts as ids with special tokens; texts of usual length are tokenized in one call.

        However long a text is, no more of it is tokenized than its ids depend on.

        Args:
            texts: texts and pairs of texts.
            truncation: cut what is longer than the model takes; of a pair, the longer text first.
            masks: tell where truncation cut off a mask token.
            spans: tell which characters each token stands for.

        Returns:
            Per text its ids, or the error that says why there are none: too long, or not Unicode text.
        """
        return drained(self.encoding(texts, truncation=truncation, masks=masks, spans=spans, piece=sys.maxsize))

    def encoding(
        self,
        texts: Sequence[Text],
        *,
        truncation: bool = False,
        masks: bool = False,
        spans: bool = False,
        piece: int = PIECE,
    ) -> Steps[list[Encoded | InputTextError]]:
        """Encode as `encode` does, in steps of about `piece` characters: yields between them, and returns the list.

        The tokenizer runs beside other threads, but for an input alone that takes it half a millisecond.
        """
        return self._encoder.encoding(texts, truncation=truncation, masks=masks, spans=spans, piece=piece)

    def windows(
        self, texts: Sequence[Text], windows: Windows, *, most: int = sys.maxsize, piece: int = PIECE
    ) -> Steps[list[tuple[Encoded, ...] | InputTextError]]:
        """Cut texts into windows, in steps of about `piece` characters: yields between them, and returns the list.

        Each text is tokenized once; the windows are those of transformers' `return_overflowing_tokens`, in its order,
        and their spans are places in the whole text.

        Args:
            texts: texts and pairs of texts.
            windows: how they are cut.
            most: most windows of an input.
            piece: characters that a step tokenizes, about.

        Returns:
            Per text its windows, one where it is short, or the error that says why there are none: more than `most`,
            no room beside the other text of the pair, or not Unicode text.
        """
        return self._encoder.windows(texts, windows, most=most, piece=piece)

    def check(self, windows: Windows) -> None:
        """Refuse windows that the model cannot take, or that would not go on.

        Raises:
            UsageError: for them.
        """
        if not 0 < windows.length <= self.max_length:
            raise UsageError(
                f"a window would have {excerpt(windows.length)} tokens and the model takes 1 to {self.max_length}: "
                "choose a length between them"
            )
        room = windows.length - self._encoder.added
        if not 0 <= windows.stride < room:
            raise UsageError(
                f"windows of {windows.length} tokens, {self._encoder.added} of them special, would have "
                f"{excerpt(windows.stride)} in common: choose a stride from 0 to {room - 1}"
            )

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return ids as text, as transformers' `tokenizer.decode` does."""
        if self._pieces is not None:
            text = self._pieces.join(ids, skip_special_tokens=skip_special_tokens)
        else:
            text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return self._cleaned(text)

    def after_mask(self, index: int) -> str:
        """Return a token as `decode` writes it behind a mask: with a space before it where it begins a word."""
        if self.mask_id is None or self.mask_token is None:
            return self.decode([index], skip_special_tokens=False)
        return self.decode([self.mask_id, index], skip_special_tokens=False).removeprefix(self.mask_token)

    def join(self, pieces: Sequence[str]) -> str:
        """Return vocabulary entries as text, as transformers' `tokenizer.convert_tokens_to_string` does."""
        decoder = self._tokenizer.decoder
        return " ".join(pieces) if decoder is None else str(decoder.decode(list(pieces)))

    def filling(
        self, before: Sequence[int], after: Sequence[int], *, skip_special_tokens: bool
    ) -> Callable[[int | None], str]:
        """Return what `decode` gives for ids with another between them, or with none: in a hundredth of the time."""
        if self._pieces is not None:
            text = self._pieces.around(before, after, skip_special_tokens=skip_special_tokens)
        else:
            text = _around(self._tokenizer, before, after, skip_special_tokens=skip_special_tokens)
        return lambda index: self._cleaned(text(index))

    def _cleaned(self, text: str) -> str:
        if self._clean_up:
            for spaced, replacement in CLEAN_UP.items():
                text = text.replace(spaced, replacement)
        return text

    def token_id(self, token: str) -> int | None:
        """Return the id of an exact vocabulary entry; None where there is none, or none that the model knows."""
        return None if lone_surrogate(token) else self._known(self._tokenizer.token_to_id(token))

    def token(self, index: int) -> str:
        """Return the vocabulary entry of an id."""
        return str(self._tokenizer.id_to_token(index))

    @cached_property
    def size(self) -> int:
        """Number of tokens, whether the model knows them or not."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def nameless(self) -> NDArray[np.int64]:
        """Ids that the model knows and no token has, ascending: rows that fill up an embedding, and gaps within it.

        Found when it is first asked for, in some hundredths of a second.
        """
        known = np.fromiter(self._tokenizer.get_vocab(with_added_tokens=True).values(), dtype=np.int64)
        rows = self._vocab_size if self._vocab_size < sys.maxsize else int(known.max(initial=-1)) + 1
        return np.setdiff1d(np.arange(rows), known, assume_unique=False)

    def names(self, index: int) -> bool:
        """Return whether an id has a token."""
        return self._tokenizer.id_to_token(index) is not None

    def first_piece(self, word: str) -> int | None:
        """Return the id of the first sub-word of a text; None where it has none, or none that the model knows.

        Raises:
            InputTextError: for what cannot be tokenized.
        """
        return self._known(self._encoder.first_id(word))

    def _known(self, index: int | None) -> int | None:
        return index if index is not None and index < self._vocab_size else None


def _around(
    tokenizer: tokenizers.Tokenizer, before: Sequence[int], after: Sequence[int], *, skip_special_tokens: bool
) -> Callable[[int | None], str]:
    """Return what decodes ids with another between them, or with none.

    A byte-level decoder joins the bytes of all tokens, so that parts that are whole characters are decoded apart.
    """

    def decode(*parts: Sequence[int]) -> str:
        ids = [index for part in parts for index in part]
        return str(tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    head, tail = decode(before), decode(after)
    joins = type(tokenizer.decoder).__name__ == "ByteLevel" and CUT not in head + tail

    def text(index: int | None) -> str:
        between = [] if index is None else [index]
        middle = decode(between) if joins else CUT
        return decode(before, between, after) if CUT in middle else head + middle + tail

    return text


def _unknown_id(tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any]) -> int | None:
    """Return the id of the unknown token: that of the settings, else the model's own, else one of a usual name."""
    stated = _content(config, "unk_token", getattr(tokenizer.model, "unk_token", None) or "")
    names = UNKNOWN if stated == "" else () if stated is None else (stated,)
    return next((index for name in names if (index := tokenizer.token_to_id(name)) is not None), None)


def _any_token(tokenizer: tokenizers.Tokenizer) -> int:
    """Return the id of a token that is some text."""
    beginning = (index for index in range(BEGINNING) if tokenizer.id_to_token(index))
    first = next(beginning, None)
    if first is None:  # counting a vocabulary takes a hundredth of a second, which is hardly ever needed
        first = next(index for index in range(tokenizer.get_vocab_size()) if tokenizer.id_to_token(index))
    return first


def _tokenizer(content: str) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """Return a tokenizer without truncation and padding, and the side of each that its file states."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(content)
    stated = {"truncation": tokenizer.truncation, "padding": tokenizer.padding}
    sides = {name: str(how["direction"]).lower() for name, how in stated.items() if how}
    # The file may ask for both; lengths are ours to decide, and a batch has no padding.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, sides


def read_settings(files: Iterable[tuple[Path, bytes]]) -> dict[str, Any]:
    """Return the settings in the files that name special tokens, the later file over the earlier.

    Args:
        files: path and content of those of `SETTINGS` that there are, in this order.

    Raises:
        BundleError: when one cannot be read.
    """
    config: dict[str, Any] = {}
    for path, content in files:
        config |= _settings(path, content)
    return config


def _settings(path: Path, content: bytes) -> dict[str, Any]:
    """Return the settings in one of the files that name special tokens."""
    try:
        settings = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is not JSON ({excerpt(str(error), 200) or 'nested too deeply'}): export again"
        ) from error
    if not isinstance(settings, dict):
        raise BundleError(f"{path} is {excerpt(settings)} and should be an object: export again")
    for key, (expected, accepts) in EXPECTED.items():
        if settings.get(key) is not None and not accepts(settings[key]):
            raise BundleError(f"{path}: {key} is {excerpt(settings[key])} and should be {expected}: export again")
    return settings


def _is_token(value: object) -> bool:
    """Return whether a value is a special token: a string, or an object with its content."""
    content = value.get("content") if isinstance(value, dict) else value
    return isinstance(content, str) and lone_surrogate(content) is None


EXPECTED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "mask_token": ("a token", _is_token),
    "pad_token": ("a token", _is_token),
    "unk_token": ("a token", _is_token),
    "truncation_side": ("'left' or 'right'", lambda value: value in ("left", "right")),
    "padding_side": ("'left' or 'right'", lambda value: value in ("left", "right")),
    "clean_up_tokenization_spaces": ("true or false", lambda value: isinstance(value, bool)),
}
"""Settings that are read: the expected value, for the error message, and its check; a missing or null setting
passes."""


def _content(config: Mapping[str, Any], key: str, default: str) -> str | None:
    """Return a special token's text: the default where the settings are silent, None where they say null."""
    value = config.get(key, default)
    return None if value is None else str(value["content"] if isinstance(value, dict) else value)
