"""Loading a tokenizer through transformers: its class, whether that has a fast form, the tokenizer itself."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from logging import CRITICAL
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import BERT, FAMILIES, family_of
from bertport.runtime.errors import CheckpointError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "GENERIC",
    "OTHERWISE",
    "PATHS",
    "PIECES",
    "check_class",
    "load",
    "quiet",
    "sentencepiece_file",
    "without_stdout",
]

BACKEND = "TokenizersBackend"
"""transformers 5's name of what transformers 4 calls PreTrainedTokenizerFast."""
GENERIC = (BACKEND, "PreTrainedTokenizerFast")
"""The class that is whatever tokenizer.json says, by either name."""
BACKEND_INPUTS = ["input_ids", "attention_mask"]
"""Inputs that the generic class of transformers 5 makes where its settings name none; that of 4 makes segments too."""
PIECES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
"""Names of a SentencePiece file, by the class of transformers."""
FILES = ("tokenizer.json", "vocab.txt", "vocab.json", *PIECES)
"""A tokenizer has one of these files at least."""
CONVERTERS = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
"""Modules that transformers converts a SentencePiece file with, and the packages that they are in."""
PATHS = {
    "tokenizer_file": ("tokenizer.json",),
    "vocab_file": ("vocab.txt", "vocab.json", *PIECES),
    "merges_file": ("merges.txt",),
}
"""Settings by which tokenizer_config.json can name a file of any place, and files beside it that are read instead."""
STDOUT = 1
"""The file descriptor."""
OTHERWISE = (
    "give it a tokenizer.json that makes the same ids, with "
    '"tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json'
)
REMEDY = f"only fast tokenizers can be in a bundle: {OTHERWISE}"


def check_class(directory: Path, settings: dict[str, Any], config: dict[str, Any]) -> None:
    """Require that a checkpoint has a tokenizer of a class with a fast form.

    Args:
        directory: the checkpoint.
        settings: the content of tokenizer_config.json.
        config: the content of config.json.

    Raises:
        CheckpointError: when it has none, needs code of its own, or only a slow form.
    """
    if settings.get("auto_map"):
        raise CheckpointError(
            f"{directory} needs a tokenizer with code of its own (auto_map in tokenizer_config.json), "
            f"which is never run; {REMEDY}"
        )
    _check_files(directory)
    file = "config.json" if settings.get("tokenizer_class") is None else "tokenizer_config.json"
    kind = _stated(settings, config)
    if kind is None or kind == BACKEND:
        return
    if not isinstance(kind, str) or not kind.isidentifier():
        raise CheckpointError(
            f"{directory / file}: tokenizer_class is {excerpt(kind)} and should be the name of a class: correct it"
        )

    import transformers
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    known = [cls for name in (f"{kind}Fast", kind) if (cls := tokenizer_class_from_name(name)) is not None]
    if any(isinstance(cls, type) and issubclass(cls, transformers.PreTrainedTokenizerFast) for cls in known):
        return
    lack = (
        "has no fast form"
        if known
        else f"transformers {transformers.__version__} does not know (it has code of its own, or is newer)"
    )
    raise CheckpointError(f"{directory} needs the tokenizer {kind} ({file}), which {lack}; {REMEDY}")


def sentencepiece_file(directory: Path) -> Path | None:
    """Return the SentencePiece file that transformers converts; None where it reads another file, or there is none."""
    if any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return None
    return next((directory / name for name in PIECES if (directory / name).is_file()), None)


def _check_files(directory: Path) -> None:
    """Require the files of a tokenizer, and what it takes to read them.

    Raises:
        CheckpointError: when there are none, one of two that belong together is missing, or a package is.
    """
    there = [name for name in (*FILES, "merges.txt") if (directory / name).is_file()]
    if there in (["vocab.json"], ["merges.txt"]):
        [lost] = {"vocab.json", "merges.txt"} - set(there)
        raise CheckpointError(
            f"{directory} has {there[0]} and no {lost}, which belong together: copy it from its source, or add a "
            "tokenizer.json"
        )
    if not there:
        raise CheckpointError(
            f"{directory} has no tokenizer: neither tokenizer.json nor vocab.txt is there; copy it from its source"
        )
    path = sentencepiece_file(directory)
    if path and (missing := first_missing(CONVERTERS)):
        package = CONVERTERS[missing]
        raise CheckpointError(
            f"{path} is a SentencePiece file, which transformers converts with the package {package}, which is not "
            f"installed: pip install {package}, or add a tokenizer.json"
        )


def load(directory: Path, settings: dict[str, Any], config: dict[str, Any]) -> Any:  # noqa: ANN401 — transformers is not typed
    """Have transformers make the tokenizer of a directory, without network and without code of the directory's own.

    Args:
        directory: where its files are.
        settings: the content of tokenizer_config.json.
        config: the content of config.json.

    Raises:
        BaseException: whatever transformers raises, panics of the package below included.
    """
    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    for name, files in PATHS.items():
        beside = next((directory / file for file in files if (directory / file).is_file()), None)
        if isinstance(settings.get(name), str) and beside is not None:
            given[name] = str(beside)
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):
        # transformers 5 calls additional_special_tokens so; to 4 the name means tokens by role.
        given["extra_special_tokens"] = {}
        given["additional_special_tokens"] = [*(settings.get("additional_special_tokens") or []), *extra]
    if _stated(settings, config) == BACKEND and settings.get("model_input_names") is None:
        given["model_input_names"] = BACKEND_INPUTS.copy()
    with quiet(), without_stdout():
        return _constructor(settings, config)(str(directory), **given)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers writes to stderr of things that are no errors here."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()  # transformers 5 draws one when it loads weights, and when it saves them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def without_stdout() -> Iterator[None]:
    """Keep the tokenizers package from printing.

    It writes to stdout of each vocabulary with gaps that it saves, and of each field of an added token that it does not
    know, and stdout may be read by a program.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(STDOUT)
    except OSError:  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDOUT)
        yield
    finally:
        os.dup2(kept, STDOUT)
        os.close(kept)
        os.close(nowhere)


def _constructor(settings: dict[str, Any], config: dict[str, Any]) -> Callable[..., Any]:
    """Return what makes the tokenizer of a directory."""
    import transformers

    classes: Any = transformers  # partly typed
    kind = _stated(settings, config)
    make: Callable[..., Any] = classes.AutoTokenizer.from_pretrained
    if kind == BACKEND:
        make = classes.PreTrainedTokenizerFast.from_pretrained
    elif kind is None and "model_type" not in config:
        # BERT's first checkpoints do not say what they are; transformers would guess it by the name of the directory.
        family = family_of(config) or FAMILIES[BERT]
        stated = classes.AutoConfig.for_model(family.tokenizer)
        return lambda *arguments, **given: make(*arguments, config=stated, **given)
    return make


def _stated(settings: dict[str, Any], config: dict[str, Any]) -> Any:  # noqa: ANN401 — whatever the file says
    stated = settings.get("tokenizer_class")
    return config.get("tokenizer_class") if stated is None else stated
