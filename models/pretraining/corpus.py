"""Corpus text as token ids, with the sentence and section boundaries that NSP needs."""

import hashlib
import io
import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .errors import RecipeError

# A sentence ends at . ! or ?, with any closing quotes, before a capital, a digit or an opening quote.
# Abbreviations are cut too ("Mr. Smith"): harmless here, where a sentence end only says where a span may begin.
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])")  # noqa: RUF001 — books use these quotes

AT_ONCE = 1 << 26
"""Bytes of a compressed file that is decompressed in memory, where it takes some six times as many."""
_CACHE_FORMAT = b"2"
"""Changes whenever the arrays or the splitting do, so that an older cache is not read."""


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
    """Tokenize a corpus file once; later calls with the same file and tokenizer read `cache`."""
    digest = hashlib.sha256(tokenizer.to_str().encode())
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(_CACHE_FORMAT)
    cached = cache / f"{path.name.split('.')[0]}-{digest.hexdigest()[:16]}.npz"
    if not cached.exists():
        corpus = tokenize(path, tokenizer)
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = cached.with_suffix(".tmp.npz")
        np.savez(unfinished, **{field.name: getattr(corpus, field.name) for field in fields(corpus)})
        unfinished.replace(cached)
    with np.load(cached, allow_pickle=False) as arrays:
        return Corpus(**{field.name: arrays[field.name] for field in fields(Corpus)})
