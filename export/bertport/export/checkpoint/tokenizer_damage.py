"""Diagnosis of a tokenizer that transformers cannot make: the file at fault, and the field in it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertport.export.checkpoint.tokenizer_loading import OTHERWISE, PIECES, sentencepiece_file
from bertport.runtime.errors import panicked
from bertport.runtime.excerpts import excerpt, one_line

__all__ = ["explained"]

FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")
"""Files of which a field alone can be at fault."""
OF_CONFIG = ("tokenizer_class",)
"""Fields of config.json that choose the tokenizer's class and nothing else: without its model type another is made."""
REASON = 200
"""Characters of an error that a message repeats."""

Load = Callable[[Path, dict[str, Any], dict[str, Any]], object]
"""Makes a tokenizer of a directory, and the content of its tokenizer_config.json and config.json."""


def explained(error: BaseException, directory: Path, stored: dict[str, dict[str, Any]], load: Load) -> str:
    """Return the sentence for a tokenizer that cannot be made, which names the file and the field at fault.

    Args:
        error: what transformers raised.
        directory: the checkpoint.
        stored: the content of its JSON files, by name.
        load: makes a tokenizer.
    """
    reason = _short(error)
    if isinstance(error, ImportError):
        return (
            f"transformers makes no tokenizer of {directory} without a package that is not installed ({reason}): "
            f"install it, or {OTHERWISE}"
        )
    for name in _read_files(directory):
        damage = _damage(directory / name, READERS[name])
        if damage is not None:
            return f"{directory / name} cannot be read ({damage}): restore the file"
    with tempfile.TemporaryDirectory(prefix="bertport-tokenizer-") as place:
        trial = Trial(directory=directory, place=Path(place), stored=stored, load=load)
        for file in [name for name in FILES if name in stored]:
            field = trial.culprit(file, reason)
            if field is not None:
                return (
                    f"{directory / file}: {field} is {excerpt(stored[file][field])}, and transformers makes no "
                    f"tokenizer of that ({reason}): set it to what the checkpoint was trained with, or remove it"
                )
    if "tokenizer.json" in stored:
        return (
            f"transformers cannot make a tokenizer of {directory} ({reason}), though tokenizer.json can be read: where "
            'it is of another kind than its class, put "tokenizer_class": "PreTrainedTokenizerFast" in '
            "tokenizer_config.json"
        )
    return f"transformers cannot make a tokenizer of {directory} ({reason}): restore its files, or add a tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Makes tokenizers of a checkpoint's files without some of their fields."""

    directory: Path
    """The checkpoint."""
    place: Path
    """A directory of its own."""
    stored: dict[str, dict[str, Any]]
    """The content of the JSON files, by name."""
    load: Load
    """Makes a tokenizer."""

    def culprit(self, file: str, reason: str) -> str | None:
        """Return a field without which the tokenizer can be made; None where there is no single one."""
        fields = [field for field in self.stored[file] if file != "config.json" or field in OF_CONFIG]
        named = [field for field in fields if field in reason]
        if len(named) == 1 and self._works(file, named):
            return named[0]
        if not fields or not self._works(file, fields):
            return None
        while len(fields) > 1:  # by halves: making a tokenizer takes a tenth of a second
            half = fields[: len(fields) // 2]
            fields = half if self._works(file, half) else fields[len(half) :]
        return fields[0] if self._works(file, fields) else None

    def _works(self, file: str, without: list[str]) -> bool:
        contents = self.stored | {
            file: {name: value for name, value in self.stored[file].items() if name not in without}
        }
        for path in self.place.iterdir():
            path.unlink()
        for path in self.directory.iterdir():
            if path.is_file() and path.name != file:
                (self.place / path.name).symlink_to(path.resolve())
        (self.place / file).write_text(json.dumps(contents[file]), encoding="utf-8")
        try:
            self.load(self.place, contents.get("tokenizer_config.json", {}), contents.get("config.json", {}))
        except BaseException as error:
            if not isinstance(error, Exception) and not panicked(error):
                raise
            return False
        return True


def _read_files(directory: Path) -> list[str]:
    """Return the files that transformers reads a vocabulary from, as far as they can be read alone."""
    if (directory / "tokenizer.json").is_file():
        return ["tokenizer.json"]
    pieces = sentencepiece_file(directory)
    return [pieces.name] if pieces else [name for name in ("merges.txt",) if (directory / name).is_file()]


def _damage(path: Path, read: Callable[[Path], object]) -> str | None:
    """Return what is wrong with a file alone; None where nothing is."""
    try:
        read(path)
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        return _short(error)
    return None


def _read_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer

    Tokenizer.from_file(str(path))


def _read_merges(path: Path) -> None:
    from tokenizers.models import BPE

    BPE.from_file(str(path.with_name("vocab.json")), str(path))


def _read_pieces(path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    SentencePieceProcessor(model_file=str(path))


READERS: dict[str, Callable[[Path], object]] = {
    "tokenizer.json": _read_tokenizer,
    "merges.txt": _read_merges,
    **dict.fromkeys(PIECES, _read_pieces),
}
"""Readers of a file alone, by its name."""


def _short(error: BaseException) -> str:
    text = f"{type(error).__name__}: {one_line(error)}"
    return text if len(text) <= REASON else f"{text[: REASON - 3]}..."
