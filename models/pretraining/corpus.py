"""Corpus text as token ids, with the sentence and section boundaries that NSP needs."""

import hashlib
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertport.runtime.bundle.directory import file_sha256

from .errors import RecipeError

# A sentence ends at . ! or ?, with any closing quotes, before a capital, a digit or an opening quote.
# Abbreviations are cut too ("Mr. Smith"): harmless here, where a sentence end only says where a span may begin.
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])")  # noqa: RUF001 — books use these quotes

AT_ONCE = 1 << 26
"""Bytes of a compressed file that is decompressed in memory, where it takes some six times as many."""
PACKED = ".npz"
"""The suffix of a corpus that is tokenized already."""
_FORMAT = "3"
"""Changes whenever the arrays or the splitting do, so that an older file is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A tokenized corpus: sections of consecutive sentences, laid end to end."""

    tokens: NDArray[np.int32]
    """All token ids, without special tokens. Shape: (tokens,)"""
    sentence_starts: NDArray[np.int64]
    """Index in `tokens` of the first token of each sentence, and the total length last. Shape: (sentences + 1,)"""
    section_starts: NDArray[np.int64]
    """Index in `sentence_starts` of the first sentence of each section, and the number of sentences last. Shape:
    (sections + 1,)"""
    names: NDArray[np.str_]
    """The `id` of each section: its source, and after a # its number there. Shape: (sections,)"""

    def section_of(self, sentence: int) -> int:
        """Return the index of the section that holds sentence number `sentence`."""
        return int(np.searchsorted(self.section_starts, sentence, side="right")) - 1


def read_sections(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the id and the paragraphs of each section of a JSON lines file, plain or .xz.

    Raises:
        RecipeError: for a line that is not `{"id": …, "paragraphs": [str, …]}`, naming the line; and for a file that
            cannot be decompressed.
    """
    number = 0
    try:
        with _compressed(path) if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 — the error below names the last line read
                yield _section(json.loads(line))
    except (EOFError, lzma.LZMAError) as error:
        raise RecipeError(f"{path} cannot be decompressed ({error}): fetch it again, or make it with xz") from error
    except ValueError as error:
        # A fault of decoding lies beyond the last line that could be read.
        where = number if isinstance(error, json.JSONDecodeError | RecipeError) else number + 1
        raise RecipeError(
            f'{path}, line {where}: expected {{"id": str, "paragraphs": [str, …]}} ({error}): correct or remove it'
        ) from error


def _compressed(path: Path) -> TextIO:
    """Open a compressed file; up to `AT_ONCE` bytes are decompressed at once.

    Piece by piece, decompressing would wait for other threads each time.
    """
    if path.stat().st_size > AT_ONCE:
        return lzma.open(path, "rt", encoding="utf-8")
    return io.TextIOWrapper(io.BytesIO(lzma.decompress(path.read_bytes())), encoding="utf-8")


def _section(value: object) -> tuple[str, list[str]]:
    match value:
        case {"id": str(name), "paragraphs": [*paragraphs]} if all(isinstance(text, str) for text in paragraphs):
            return name, paragraphs
    raise RecipeError(f"found {json.dumps(value, ensure_ascii=False):.60}")


def sentences(paragraph: str) -> Iterator[str]:
    """Yield the sentences of a paragraph, in order; joined by white space they give it back."""
    begin = 0
    for end in _SENTENCE_END.finditer(paragraph):
        yield paragraph[begin : end.end()].strip()
        begin = end.end()
    if paragraph[begin:].strip():
        yield paragraph[begin:].strip()


def tokenize(path: Path, tokenizer: Tokenizer) -> Corpus:
    """Read and tokenize a corpus file."""
    pieces: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    section_starts = [0]
    names: list[str] = []
    for name, paragraphs in read_sections(path):
        texts = [sentence for paragraph in paragraphs for sentence in sentences(paragraph)]
        for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            if encoding.ids:
                pieces.append(np.asarray(encoding.ids, dtype=np.int32))
                lengths.append(len(encoding.ids))
        if len(lengths) > section_starts[-1]:
            section_starts.append(len(lengths))
            names.append(name)
    if not pieces:
        raise RecipeError(f"{path} holds no text: expected JSON lines with non-empty paragraphs")
    return Corpus(
        tokens=np.concatenate(pieces),
        sentence_starts=np.concatenate([[0], np.cumsum(lengths)]),
        section_starts=np.asarray(section_starts, dtype=np.int64),
        names=np.asarray(names),
    )


def load_corpus(path: Path, tokenizer: Tokenizer, cache: Path) -> Corpus:
    """Read a packed corpus; tokenize any other file once: later calls with it and the same tokenizer read `cache`.

    Raises:
        RecipeError: for a file that is damaged, holds no text, or was packed with another vocabulary.
    """
    if path.suffix != PACKED:
        digest = hashlib.sha256(f"{tokenizer.to_str()}{file_sha256(path)}{_FORMAT}".encode()).hexdigest()
        text, path = path, cache / f"{path.name.split('.')[0]}-{digest[:16]}{PACKED}"
        if not path.exists():
            pack(text, tokenizer, path)
    packed = _read_packed(path)
    if packed["vocabulary"] != vocabulary_sha256(tokenizer):
        raise RecipeError(f"{path} was packed with another vocabulary: make it again with models/pack.py")
    return Corpus(
        tokens=packed["tokens"].astype(np.int32),
        sentence_starts=np.cumsum(packed["sentences"], dtype=np.int64),
        section_starts=np.cumsum(packed["sections"], dtype=np.int64),
        names=packed["names"],
    )


def pack(path: Path, tokenizer: Tokenizer, target: Path) -> None:
    """Tokenize a corpus file into one compressed file, with its ids in 16 bits where the vocabulary allows it."""
    corpus = tokenize(path, tokenizer)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".tmp{PACKED}")
    np.savez_compressed(
        unfinished,
        format=np.array(_FORMAT),
        text=np.array(file_sha256(path)),
        vocabulary=np.array(vocabulary_sha256(tokenizer)),
        tokens=_fewest_bits(corpus.tokens),
        sentences=_fewest_bits(np.diff(corpus.sentence_starts, prepend=0)),
        sections=_fewest_bits(np.diff(corpus.section_starts, prepend=0)),
        names=corpus.names,
    )
    unfinished.replace(target)


def text_sha256(path: Path) -> str:
    """Return the SHA-256 of a corpus's text: of the file, or of the one that it was packed from."""
    return str(_read_packed(path)["text"]) if path.suffix == PACKED else file_sha256(path)


def vocabulary_sha256(tokenizer: Tokenizer) -> str:
    """Return what tells a vocabulary from others; a tokenizer's own JSON differs between versions of the library."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def _fewest_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers of 0 or more in the smallest type that holds them: those of 30,522 tokens are of 16 bits."""
    return values.astype(np.min_scalar_type(values.max()))


def _read_packed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays["format"]) == _FORMAT:
                return dict(arrays)
        reason = "its format is that of another version"
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0]
    raise RecipeError(f"{path} is no packed corpus ({reason}): make it with models/pack.py, or remove it")
