"""The checkpoint's tokenizer: the fast one that transformers' AutoTokenizer makes of it, and files that make it again.

What transformers adds to a tokenizer when it loads one (tokens of added_tokens.json, special_tokens_map.json and
tokenizer_config.json, settings that overrule tokenizer.json, defaults of the class) is written nowhere. So transformers
loads it, and what it made is saved.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.config import names_code
from bertport.export.checkpoint.embedding import longest_input, lowers_text
from bertport.export.checkpoint.source import read_json, read_whole
from bertport.export.checkpoint.tokenizer_agreement import (
    agreement_notes,
    check_kind,
    check_padding,
    check_vocabulary,
    lowers_case,
)
from bertport.export.checkpoint.tokenizer_damage import explained
from bertport.export.checkpoint.tokenizer_loading import (
    GENERIC,
    OTHERWISE,
    PATHS,
    check_class,
    load,
    quiet,
    sentencepiece_file,
    without_stdout,
)
from bertport.runtime.errors import CheckpointError, panicked
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

__all__ = ["SAVED", "VOCABULARY", "TokenizerFiles", "as_sentence_transformers", "has_tokenizer", "read_tokenizer"]

ROLES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens of encoders, by transformers' names."""
READ = ("mask_token", "pad_token")
"""Roles of the special tokens that answers depend on."""
OF_OLD = (*PATHS, "special_tokens_map_file", "added_tokens_file", "fast_tokenizer_files", "name_or_path")
"""Settings that name files or places of the checkpoint, which a bundle does not have."""
OF_LOADING = ("backend", "is_local", "local_files_only")
"""Settings of the call that loaded the tokenizer, which transformers 5 saves with it."""
SAVED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files kept of those that transformers saves: nothing compares the others, such as a SentencePiece file, with
transformers' tokenizer."""
VOCABULARY = "vocab.txt"
"""The file that is written anew, of a WordPiece."""
MADE_OF = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""Files one of which a tokenizer is made of."""
FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
"""Attributes of an added token."""
VERY_LARGE = 10**20
"""Bound from which on transformers takes model_max_length for none."""
OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""Pattern of the number in an error of the operating system, as Rust writes it."""


def has_tokenizer(directory: Path) -> bool:
    """Return whether a directory holds a file that a tokenizer is made of."""
    return any(path.is_file() for pattern in MADE_OF for path in directory.glob(pattern))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """A tokenizer as transformers made it, and what is known of it."""

    reference: Any
    """transformers' own object, a fast tokenizer."""
    tokenizer: Tokenizer
    """The tokenizer behind it, without truncation and padding."""
    lowercase: bool
    """Whether it reads capitals as small letters."""
    segments: int | None
    """The segment of every token where transformers gives the model none, which is 0; None where it gives them."""
    model_max_length: int | None
    """Longest input that its settings allow, in tokens."""
    max_positions: int
    """Rows of the position embedding."""
    special: dict[str, str]
    """Special tokens by role, for example `mask_token`, as far as it has them."""
    notes: tuple[str, ...]
    """Sentences on what was found."""
    lowered: bool = False
    """Whether lower-casing was added to it, which its class in transformers would take away when it is loaded again."""

    def save(self, directory: Path) -> None:
        """Write the files of which transformers, and readers of tokenizer.json alone, make the same tokenizer.

        Args:
            directory: an empty one.

        Raises:
            CheckpointError: when transformers cannot write what it read.
        """
        before = set(directory.iterdir())
        self._save(directory)
        path = directory / "tokenizer_config.json"
        settings = {
            name: value
            for name, value in read_json(path).items()
            if name not in (*OF_OLD, *OF_LOADING) and not names_code(name)
        }
        settings |= self._for_either_generation(settings)
        settings["clean_up_tokenization_spaces"] = bool(self.reference.clean_up_tokenization_spaces)
        settings["model_max_length"] = self.model_max_length or self.max_positions
        if settings["model_max_length"] > VERY_LARGE:
            settings["model_max_length"] = self.max_positions
        for role in READ:  # where the settings are silent, readers of a bundle take BERT's own
            if getattr(self.reference, role) is None:
                settings[role] = None
        path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        for written in set(directory.iterdir()) - before:
            if written.name not in SAVED:
                written.unlink()
        vocabulary = _vocabulary_text(self.tokenizer)
        if vocabulary is not None:
            (directory / VOCABULARY).write_text(vocabulary, encoding="utf-8", newline="\n")

    def _for_either_generation(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return settings by which transformers 4 and 5 make the same tokenizer.

        4 knows neither 5's name of the generic class nor its list of further tokens, their classes give a model other
        inputs and special tokens other flags, and 5 does not save the flags.
        """
        changed: dict[str, Any] = {"model_input_names": list(self.reference.model_input_names)}
        if settings.get("tokenizer_class") in GENERIC or self.lowered:
            changed["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(further := settings.get("extra_special_tokens"), list):
            changed |= {"extra_special_tokens": {}, "additional_special_tokens": further}
        if "added_tokens_decoder" not in settings:
            added = sorted(self.tokenizer.get_added_tokens_decoder().items())
            changed["added_tokens_decoder"] = {
                str(index): {flag: getattr(token, flag) for flag in FLAGS} for index, token in added
            }
        return changed

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
                f"transformers cannot write the tokenizer that it read ({type(error).__name__}: {error}): {OTHERWISE}"
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
    if "tokenizer.json" not in stored:
        _check_vocabulary_files(directory)
    try:
        reference = load(directory, settings, config)
    except BaseException as error:
        # transformers raises of every kind, and panics of the package below are no Exception at all.
        if not isinstance(error, Exception) and not panicked(error):
            raise
        raise CheckpointError(explained(error, directory, stored, load)) from error
    if not getattr(reference, "is_fast", False):
        raise CheckpointError(
            f"transformers makes a {type(reference).__name__} of {directory}, which is not a fast tokenizer: "
            f"{OTHERWISE}"
        )
    if reference.split_special_tokens:
        raise CheckpointError(
            f"{directory / 'tokenizer_config.json'}: split_special_tokens is set, so a mask in a text is not read "
            "as one: remove it"
        )
    tokenizer = reference.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    check_kind(reference, stored, directory)
    check_vocabulary(tokenizer, vocab_size, directory)
    check_padding(reference, config, directory)
    return TokenizerFiles(
        reference=reference,
        tokenizer=tokenizer,
        lowercase=lowers_case(tokenizer),
        segments=None if "token_type_ids" in _inputs(reference, settings, directory) else 0,
        model_max_length=_limit(reference.model_max_length, directory),
        max_positions=max_positions,
        special={role: str(token) for role in ROLES if (token := getattr(reference, role, None)) is not None},
        notes=tuple(agreement_notes(reference, stored, directory, vocab_size)),
    )


def as_sentence_transformers(files: TokenizerFiles, directory: Path) -> TokenizerFiles:
    """Return a tokenizer with the length and the case that sentence-transformers gives it.

    Args:
        files: the tokenizer that transformers makes of the encoder's directory; its object changes.
        directory: where the encoder's settings are.

    Raises:
        CheckpointError: when the settings state a length that is none.
    """
    if lowers_text(directory) and not files.lowercase:
        from tokenizers import normalizers

        before = files.tokenizer.normalizer
        files.tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([before] if before else [])])
        files = replace(files, lowercase=True, lowered=True)
    return replace(files, model_max_length=longest_input(directory) or files.model_max_length)


def _check_vocabulary_files(directory: Path) -> None:
    """Require the files that there are in place of a tokenizer.json to be what they should be, and of bounded size.

    Raises:
        CheckpointError: when one is not; transformers drops what it cannot read of them.
    """
    for text in (directory / VOCABULARY, directory / "merges.txt"):
        if text.is_file():
            try:
                read_whole(text).decode()
            except UnicodeDecodeError as error:
                raise CheckpointError(f"{text} cannot be read ({error}): restore the checkpoint's file") from error
    if pieces := sentencepiece_file(directory):
        read_whole(pieces)
    ids = directory / "vocab.json"
    if ids.is_file() and not all(type(index) is int for index in read_json(ids).values()):
        raise CheckpointError(f"{ids} should give each token its id, a whole number: restore the checkpoint's file")


def _inputs(reference: Any, settings: dict[str, Any], directory: Path) -> list[str]:  # noqa: ANN401 — transformers is not typed
    """Return the inputs that the tokenizer gives to a model."""
    stated = settings.get("model_input_names")  # of which transformers 5 makes a list, whatever it is
    if stated is None:
        stated = reference.model_input_names
    if not isinstance(stated, list) or not all(isinstance(name, str) for name in stated):
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


def _vocabulary_text(tokenizer: Tokenizer) -> str | None:
    """Return vocab.txt, a line for each id; None where the tokenizer is no WordPiece, or a token is no line."""
    if type(tokenizer.model).__name__ != "WordPiece":
        return None
    tokens = {index: token for token, index in tokenizer.get_vocab(with_added_tokens=False).items()}
    lines = [tokens.get(index, f"[unused-{index}]") for index in range(max(tokens, default=-1) + 1)]
    return None if any("\n" in line or "\r" in line for line in lines) else "".join(line + "\n" for line in lines)
