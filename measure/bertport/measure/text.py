"""Reading the texts that figures are measured on: a user's own, or the samples that ship."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bertport.runtime.bundle.strict_json import json_object
from bertport.runtime.errors import InputTextError, PathError, UnknownNameError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = [
    "LEAST_TEXTS",
    "LONGEST_LINE",
    "SAMPLES",
    "Text",
    "fingerprint",
    "read_beginning",
    "read_texts",
    "sample_path",
]

LONGEST_LINE = 100_000
"""Characters allowed in one line or paragraph; a book without line breaks would be one text, and one cluster."""
MOST_LINES = 10_000_000
"""Lines that are read, blank ones too: what is compressed may be endless."""
LEAST_TEXTS = 8
"""Fewer texts than this say nothing about a model, with or without an interval."""
SAMPLES = ("calibration", "evaluation")
"""The samples that ship: disjoint excerpts of public-domain books, a paragraph a line."""
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One text: the unit that is measured, and that the bootstrap resamples."""

    text: str
    """A paragraph or a line, without the line breaks around it; of a pair both texts, with a space between them."""
    document: int
    """Number of the document it is from, counted from 0; a plain text file is one document."""
    pair: tuple[str, str] | None = None
    """The two texts of a pair, in order; a question stands before its context. None for a single text."""


def read_beginning(path: Path, size: int, named: str, advice: str) -> bytes:
    """Return the first `size` bytes of a file, or all that it has: a device may have no end.

    Raises:
        PathError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError) as error:  # a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise PathError(f"cannot read the {named} {path} ({reason}): {advice}") from error


def sample_path(name: str) -> Path:
    """Return the path of a sample that ships, in a wheel or in a checkout.

    Raises:
        UnknownNameError: for a name that is not in `SAMPLES`.
        PathError: when the installation lacks the file.
    """
    if name not in SAMPLES:
        raise UnknownNameError("sample text", name, SAMPLES)
    here = Path(__file__).resolve()
    # A wheel holds them beside this module (force-include in pyproject.toml); a checkout in data/ at its root.
    for path in (here.parent / "data" / f"{name}.txt", here.parents[3] / "data" / f"{name}.txt"):
        if path.is_file():
            return path
    raise PathError(
        f"the sample text {name}.txt is not part of this installation: reinstall bertport, or give a text file"
    )


def read_texts(path: str | os.PathLike[str], *, least: int = LEAST_TEXTS) -> tuple[Text, ...]:
    """Read the texts of a file, in order.

    Plain text: where blank lines separate blocks, each block is a text (its lines joined by spaces), otherwise
    each line is one. JSON lines (`.jsonl`, `.ndjson`): each line is an object with `text`, a string, or with
    `paragraphs`, a list of strings from one document; `text` and `text_pair`, or `question` and `context`, are a pair.
    Either may be compressed (`.xz`).

    Args:
        path: The file.
        least: The smallest number of texts to accept.

    Raises:
        PathError: when there is no such file, or it cannot be read.
        InputTextError: when it is empty, not UTF-8, too short, or has a line that is too long or ill-formed;
            the message names the line.
    """
    path = Path(path)
    json_lines = path.with_suffix("").suffix if path.suffix == ".xz" else path.suffix
    try:
        with lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb") as file:
            lines = _lines(file, path)
            texts = tuple(_from_json(lines, path) if json_lines in _JSON_LINES else _from_plain(lines, path))
    except (OSError, lzma.LZMAError, EOFError) as error:
        if isinstance(error, InputTextError | PathError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise PathError(f"cannot read the text file {path} ({reason}): give a text file, or JSON lines") from error
    if not texts:
        raise InputTextError(
            f"{path} holds no text: give a text file with a paragraph or a line per text, or JSON lines"
        )
    if len(texts) < least:
        raise InputTextError(
            f"{path} is too short: {len(texts)} {'text' if len(texts) == 1 else 'texts'}, "
            f"at least {least} are needed (a paragraph or a line each): give more text"
        )
    return texts


def fingerprint(texts: tuple[Text, ...]) -> str:
    """Return the SHA-256 of the texts, in hexadecimal: the same for the same texts in any file format."""
    import hashlib

    digest = hashlib.sha256()
    for text in texts:
        digest.update("\0".join(text.pair or (text.text,)).encode() + b"\n")
    return digest.hexdigest()


def _lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, holding one line at a time however large the file is."""
    longest = 4 * LONGEST_LINE + 2  # bytes: UTF-8 takes up to four a character
    number = 0
    while raw := file.readline(longest + 1):
        number += 1
        if number > MOST_LINES:
            raise InputTextError(f"{path} has more than {MOST_LINES:,} lines: give fewer texts")
        try:
            # The last character of a line cut at the limit may be cut too, and the line is refused just below.
            line = raw.decode("utf-8", errors="ignore" if len(raw) > longest else "strict")
        except UnicodeDecodeError as error:
            raise InputTextError(
                f"{path}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x}): save the file as UTF-8"
            ) from None
        if len(line.rstrip("\r\n")) > LONGEST_LINE:
            raise InputTextError(
                f"{path}, line {number}: longer than {LONGEST_LINE:,} characters: put each paragraph on a line"
            )
        if "\0" in line:
            raise InputTextError(
                f"{path}, line {number}: a NUL character, so this is not a text file in UTF-8: save it as UTF-8"
            )
        yield number, line.removeprefix("\ufeff").strip() if number == 1 else line.strip()


def _from_plain(lines: Iterator[tuple[int, str]], path: Path) -> Iterator[Text]:
    blocks: list[list[str]] = [[]]
    for number, line in lines:
        if line:
            blocks[-1].append(line)
            if sum(map(len, blocks[-1])) > LONGEST_LINE and len(blocks) > 1:
                _refuse_long_block(path, number)
        elif blocks[-1]:
            blocks.append([])
    if not blocks[-1]:
        blocks.pop()
    if len(blocks) == 1:
        yield from (Text(text=line, document=0) for line in blocks[0])
        return
    for block in blocks:
        text = " ".join(block)
        if len(text) > LONGEST_LINE:
            _refuse_long_block(path, None)
        yield Text(text=text, document=0)


def _refuse_long_block(path: Path, number: int | None) -> None:
    where = f"{path}, before line {number}" if number else f"{path}"
    raise InputTextError(
        f"{where}: a paragraph of more than {LONGEST_LINE:,} characters (blank lines separate paragraphs): "
        "put a blank line between all paragraphs, or between none"
    )


def _from_json(lines: Iterator[tuple[int, str]], path: Path) -> Iterator[Text]:
    document = 0
    for number, line in lines:
        if not line:
            continue
        inputs, is_pair = _inputs(line, f"{path}, line {number}")
        cleaned = [" ".join(text.split()) for text in inputs if text.strip()]
        if is_pair and len(cleaned) > 1:
            yield Text(text=" ".join(cleaned), document=document, pair=(cleaned[0], cleaned[1]))
        else:
            yield from (Text(text=text, document=document) for text in cleaned)
        document += 1


def _inputs(line: str, where: str) -> tuple[list[str], bool]:
    """Return the texts of a line of JSON, and whether they are the two of a pair."""
    expected = (
        'expected an object with "text": "…", with "text" and "text_pair" or "question" and "context" for a pair, or '
        'with "paragraphs": ["…", …]'
    )
    try:
        value = json.loads(line, object_pairs_hook=json_object)
    except (ValueError, RecursionError) as error:
        raise InputTextError(f"{where}: not JSON ({error}): {expected}") from None
    is_pair = False
    match value:
        case {"text": str(first), "text_pair": str(second)} | {"question": str(first), "context": str(second)}:
            texts, is_pair = [first, second], True
        case {"text": str(text)} if value.get("text_pair") is None:
            texts = [text]
        case {"paragraphs": [*paragraphs]} if all(isinstance(each, str) for each in paragraphs):
            texts = paragraphs
        case _:
            raise InputTextError(f"{where}: found {line[:60]!r}: {expected}")
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise InputTextError(
            f"{where}: half of a surrogate pair (\\ud800 to \\udfff) is not a character: repair the file"
        )
    return texts, is_pair
