"""The checkpoint's tokenizer: the fast one that transformers' AutoTokenizer makes of it, and files that make it again.

What transformers adds to a tokenizer when it loads one (tokens of added_tokens.json, special_tokens_map.json and
tokenizer_config.json, settings that overrule tokenizer.json, defaults of the class) is written nowhere. So transformers
loads it, and what it made is saved.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.config import names_code
from bertport.export.checkpoint.source import read_json, read_whole
from bertport.export.checkpoint.tokenizer_damage import explained
from bertport.export.checkpoint.tokenizer_loading import PATHS, check_class, load, quiet, without_stdout
from bertport.runtime.errors import CheckpointError, panicked
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tokenizers import Tokenizer

__all__ = ["TokenizerFiles", "read_tokenizer"]

ROLES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""BERT's special tokens, by transformers' names."""
READ = ("mask_token", "pad_token")
"""Those of them that answers depend on."""
OF_OLD = (*PATHS, "special_tokens_map_file", "added_tokens_file", "fast_tokenizer_files", "name_or_path")
"""Settings that name files or places of the checkpoint, which a bundle does not have."""
VERY_LARGE = 10**20
"""From here on transformers takes model_max_length for none."""
OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How Rust writes an error of the operating system."""
MASKLESS = (
    "transformers' tokenizer of the checkpoint has no mask token, so no word will be filled in: where it was trained "
    "with one, name it as mask_token in tokenizer_config.json and export again"
)
NAMED = 5
"""Tokens that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """A tokenizer as transformers made it, and what is known of it."""

    reference: Any
    """transformers' own object, a fast tokenizer."""
    tokenizer: Tokenizer
    """The tokenizer behind it, without truncation and padding."""
    lowercase: bool | None
    """Whether it lower-cases; None where its normaliser does not say."""
    segments: int | None
    """The segment of every token where transformers gives the model none, which is 0; None where it gives them."""
    model_max_length: int | None
    """Longest input that its settings allow, in tokens."""
    max_positions: int
    """Rows of the position embedding."""
    special: dict[str, str]
    """Special tokens by role, for example `mask_token`, as far as it has them."""
    notes: tuple[str, ...]
    """What was found, in sentences."""

    def save(self, directory: Path) -> None:
        """Write the files of which transformers, and readers of tokenizer.json alone, make the same tokenizer.

        Args:
            directory: an empty one.

        Raises:
            CheckpointError: when transformers cannot write what it read.
        """
        self._save(directory)
        path = directory / "tokenizer_config.json"
        settings = {
            name: value for name, value in read_json(path).items() if name not in OF_OLD and not names_code(name)
        }
        settings["clean_up_tokenization_spaces"] = bool(self.reference.clean_up_tokenization_spaces)
        settings["model_max_length"] = self.model_max_length or self.max_positions
        if settings["model_max_length"] > VERY_LARGE:
            settings["model_max_length"] = self.max_positions
        for role in READ:  # where the settings are silent, readers of a bundle take BERT's own
            if getattr(self.reference, role) is None:
                settings[role] = None
        path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        with suppress(FileNotFoundError):
            (directory / "vocab.txt").unlink()
        vocabulary = _vocabulary_text(self.tokenizer)
        if vocabulary is not None:
            (directory / "vocab.txt").write_text(vocabulary, encoding="utf-8", newline="\n")

    def _save(self, directory: Path) -> None:
        try:
            # An encoder has no use for chat templates, and transformers before 5.10 makes paths of their names, which a
            # checkpoint chooses (CVE-2026-9856).
            self.reference.chat_template = None
            with quiet(), without_stdout():
                self.reference.save_pretrained(str(directory))
        except OSError:
            raise
        except Exception as error:  # whatever a setting makes it raise
            if system := OS_ERROR.search(str(error)):  # the package below raises bare Exception for a full disk too
                number = int(system[1])
                raise OSError(number, os.strerror(number), str(directory)) from error
            raise CheckpointError(
                f"transformers cannot write the tokenizer that it read ({type(error).__name__}: {error})"
            ) from error
        # Not what `save_pretrained` wrote of it: a call of transformers may have switched truncation on.
        with without_stdout():
            content = self.tokenizer.to_str(pretty=True)
        (directory / "tokenizer.json").write_text(content, encoding="utf-8")


def read_tokenizer(directory: Path, *, vocab_size: int, max_positions: int) -> TokenizerFiles:
    """Read a checkpoint's tokenizer as transformers does.

    Args:
        directory: the checkpoint.
        vocab_size: rows of the word embedding.
        max_positions: rows of the position embedding.

    Raises:
        CheckpointError: when there is none, it has no fast form or needs code of its own, cannot be read, or has
            tokens that the word embedding has no rows for.
    """
    stored = {
        name: read_json(directory / name)
        for name in (
            "config.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "tokenizer.json",
        )
        if (directory / name).is_file()
    }
    settings, config = stored.get("tokenizer_config.json", {}), stored.get("config.json", {})
    check_class(directory, settings, config)
    if "tokenizer.json" not in stored and (directory / "vocab.txt").is_file():
        _check_text(directory / "vocab.txt")
    try:
        reference = load(directory, settings, config)
    except BaseException as error:
        # transformers raises of every kind, and panics of the package below are no Exception at all.
        if not isinstance(error, Exception) and not panicked(error):
            raise
        raise CheckpointError(explained(error, directory, stored, load)) from error
    if not getattr(reference, "is_fast", False):
        raise CheckpointError(
            f"transformers makes a {type(reference).__name__} of {directory}, which is not a fast tokenizer"
        )
    if reference.split_special_tokens:
        raise CheckpointError(
            f"{directory / 'tokenizer_config.json'}: split_special_tokens is set, so that a mask in a text is no mask: "
            "remove it"
        )
    tokenizer = reference.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _check_vocabulary(tokenizer, vocab_size, directory)
    normalizer = json.loads(tokenizer.normalizer.__getstate__()) if tokenizer.normalizer else {}
    return TokenizerFiles(
        reference=reference,
        tokenizer=tokenizer,
        lowercase=_lowercase(normalizer),
        segments=None if "token_type_ids" in _inputs(reference.model_input_names, directory) else 0,
        model_max_length=_limit(reference.model_max_length, directory),
        max_positions=max_positions,
        special={role: str(token) for role in ROLES if (token := getattr(reference, role, None)) is not None},
        notes=(
            *_notes(stored, settings, normalizer, tokenizer, vocab_size),
            *([MASKLESS] if reference.mask_token is None else []),
        ),
    )


def _check_text(path: Path) -> None:
    try:
        read_whole(path).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} cannot be read ({error}): restore the checkpoint's file") from error


def _inputs(stated: object, directory: Path) -> list[str]:
    """Return the inputs that the tokenizer gives to a model."""
    if not isinstance(stated, list) or not all(isinstance(each, str) for each in stated):
        raise CheckpointError(
            f"{directory / 'tokenizer_config.json'}: model_input_names is {excerpt(stated)} and should be a list of "
            "names: correct it, or remove it"
        )
    return stated


def _limit(stated: object, directory: Path) -> int | None:
    """Return the longest input that is allowed; None where the number allows none, which transformers disregards."""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated != stated:  # noqa: PLR0124 — NaN
        raise CheckpointError(
            f"{directory / 'tokenizer_config.json'}: model_max_length is {excerpt(stated)} and should be a number: "
            "set it to the longest input in tokens, or remove it"
        )
    limit = int(min(stated, float(10**30)))
    return limit if limit > 0 else None


def _check_vocabulary(tokenizer: Tokenizer, vocab_size: int, directory: Path) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise CheckpointError(f"the tokenizer of {directory} has no tokens: restore the checkpoint's files")
    beyond = sorted((index, token) for token, index in vocabulary.items() if index >= vocab_size)
    if beyond:
        named = ", ".join(f"{excerpt(token)} ({index})" for index, token in beyond[:NAMED])
        raise CheckpointError(
            f"the tokenizer of {directory} has {len(vocabulary):,} tokens and the word embedding {vocab_size:,} rows, "
            f"none for {named}{' …' if beyond[NAMED:] else ''}: one of them belongs to another checkpoint, or the "
            "embedding was not resized when the tokens were added"
        )


def _notes(
    stored: dict[str, dict[str, Any]],
    settings: dict[str, Any],
    normalizer: dict[str, Any],
    tokenizer: Tokenizer,
    vocab_size: int,
) -> Iterator[str]:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if "tokenizer.json" in stored and (stored["tokenizer.json"].get("normalizer") or {}) != normalizer:
        yield (
            "tokenizer.json disagreed with tokenizer_config.json or, where that is silent, with transformers' default, "
            "which rules in transformers: it was followed"
        )
    if _lowercase(normalizer) and settings.get("do_lower_case") is None:
        added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        capitals = [
            token
            for token in vocabulary
            if token != token.lower() and token not in added and not (token.startswith("[") and token.endswith("]"))
        ]
        if capitals:
            yield (
                "no tokenizer_config.json says whether the tokenizer lower-cases, so it does, as in transformers, and "
                f"never gives the {len(capitals):,} entries with capitals, such as {excerpt(min(capitals))}: if the "
                'model keeps case, put {"do_lower_case": false} there and export again'
            )
    moved = [(token, index) for token, index in _stated_ids(stored) if vocabulary.get(token) != index]
    if moved:
        token, index = moved[0]
        more = f"; so with {len(moved) - 1} more" if moved[1:] else ""
        yield (
            f"the checkpoint's files give {excerpt(token)} the id {index} and transformers' fast tokenizer gives it "
            f"{vocabulary.get(token, 'none')}, which was followed{more}"
        )
    nameless = vocab_size - len(set(vocabulary.values()))
    if nameless:
        yield f"{nameless:,} of {vocab_size:,} rows of the word embedding have no token: no answer will name them"


def _stated_ids(stored: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Return added tokens with the ids that the checkpoint's files state."""
    for token, index in stored.get("added_tokens.json", {}).items():
        yield token, index
    for stated, token in (stored.get("tokenizer_config.json", {}).get("added_tokens_decoder") or {}).items():
        yield str(token.get("content", "")), int(stated)


def _vocabulary_text(tokenizer: Tokenizer) -> str | None:
    """Return vocab.txt, a line for each id; None where the tokenizer is no WordPiece, or a token is no line."""
    if type(tokenizer.model).__name__ != "WordPiece":
        return None
    tokens = {index: token for token, index in tokenizer.get_vocab(with_added_tokens=False).items()}
    lines = [tokens.get(index, f"[unused-{index}]") for index in range(max(tokens, default=-1) + 1)]
    return None if any("\n" in line or "\r" in line for line in lines) else "".join(line + "\n" for line in lines)


def _lowercase(normalizer: dict[str, Any]) -> bool | None:
    match normalizer.get("type"):
        case "BertNormalizer":
            return bool(normalizer.get("lowercase"))
        case "Lowercase":
            return True
        case "Sequence":
            inner = [_lowercase(each) for each in normalizer.get("normalizers", [])]
            return True if True in inner else (False if False in inner else None)
    return None
