"""Tokenizer validation: ids, segments and decoded texts against transformers' own; a difference fails."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.source import read_json
from bertport.export.checkpoint.tokenizer_loading import OTHERWISE, load, quiet
from bertport.export.validation.tokenizer_texts import long_texts, pairs_of, texts_for
from bertport.runtime.errors import CheckpointError, InputTextError, ValidationError, panicked
from bertport.runtime.excerpts import excerpt
from bertport.runtime.text.tokenizer import SETTINGS, TOKENIZER, Tokens, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertport.export.checkpoint.tokenizer import TokenizerFiles
    from bertport.runtime.text.encoder import Encoded, Text

__all__ = ["check_same", "check_saved", "check_tokenizer"]

UNBOUNDED = 1 << 20
"""Tokens: more than any of the texts has."""
LEAST_CUT = 16
"""Tokens of a model from which on cutting is compared: with fewer there is no room between the special ones."""
DECODED = 40
"""Tokens of a text that are decoded."""
MOST_SINGLE = 500
"""Tokens that are decoded alone, as in a word's answer."""
REMEDY = (
    "nothing was written; save the tokenizer again with transformers' save_pretrained, or report this if that does not "
    "help"
)

Ids = tuple[list[int], list[int]]
"""Token ids and segments of a text."""


def check_tokenizer(files: TokenizerFiles, directory: Path, *, max_length: int, vocab_size: int) -> int:
    """Compare what the runtime and transformers read from the files of a bundle with transformers' own tokenizer.

    Args:
        files: the checkpoint's tokenizer.
        directory: where `files.save` wrote it.
        max_length: longest input of the bundle, in tokens.
        vocab_size: rows of the word embedding.

    Returns:
        How many texts and pairs were compared.

    Raises:
        ValidationError: naming the first text that is read otherwise, and the first token of it that differs.
    """
    added_to_each = files.reference.num_special_tokens_to_add()
    if max_length <= added_to_each:
        raise CheckpointError(
            f"the model takes {max_length} tokens (max_position_embeddings of config.json, or model_max_length of "
            f"tokenizer_config.json) and the tokenizer adds {added_to_each} to every text, so none would fit: only "
            "a model that takes more can be exported"
        )
    vocabulary = files.tokenizer.get_vocab(with_added_tokens=True)
    added = [token for _, token in sorted(files.tokenizer.get_added_tokens_decoder().items())]
    plain = type(files.tokenizer.model).__name__ == "WordPiece"
    written = str if plain else lambda token: str(files.tokenizer.decode([vocabulary[token]]))
    short, long = (make(vocabulary, added, written=written) for make in (texts_for, long_texts))
    whole: list[Text] = [*short, *long, *pairs_of(short)]
    # Not longer: of a pair, transformers builds every combination of what it cuts off.
    parts = [text[: 2 * max_length] for text in (*long, *short[:20]) if text]
    cut: list[Text] = [*long, *zip(parts, parts[:1] + parts, strict=False)] if max_length >= LEAST_CUT else []
    with quiet():
        reloaded = _reloaded(files, directory)
        for texts, length in ((whole, None), (cut, max_length)):
            expected = _references(files.reference, texts, length)
            if texts and all(ids is None for ids in expected):
                raise _takes_no_text(files.reference, texts[0])
            _compare("transformers", files.reference, texts, expected, _references(reloaded, texts, length))
            tokens = _tokens(files, directory, length or UNBOUNDED, vocab_size)
            readings = [_ids(encoded) for encoded in tokens.encode(texts, truncation=length is not None)]
            _compare("the runtime", files.reference, texts, expected, readings)
            if length is None:
                _compare_special(files.reference, tokens)
                _compare_decoded(files.reference, tokens, [ids[0][:DECODED] for ids in expected if ids])
    return len(whole) + len(cut)


def check_saved(given: Any, files: TokenizerFiles) -> None:  # noqa: ANN401 — transformers is not typed
    """Compare a tokenizer in memory with what transformers makes of the files that it was saved in.

    Raises:
        ValidationError: naming the first text that is read otherwise, and the first token of it that differs.
    """
    if told := _first_difference(given, files):
        text, difference = told
        raise ValidationError(
            f"the tokenizer reads {excerpt(text)} differently once it is saved and loaded again ({difference}): give "
            "one that save_pretrained keeps as it is"
        )


def check_same(other: TokenizerFiles, files: TokenizerFiles, names: tuple[str, str]) -> None:
    """Compare the tokenizers of two checkpoints.

    Args:
        other: that of one.
        files: that of the other.
        names: what the two checkpoints are called, for messages.

    Raises:
        CheckpointError: naming the first text that is read otherwise, and the first token of it that differs.
    """
    if told := _first_difference(other.reference, files):
        text, difference = told
        raise CheckpointError(
            f"{names[1]} has another tokenizer than {names[0]}: it reads {excerpt(text)} differently ({difference}), "
            "and a bundle has one: export them separately"
        )


def _first_difference(given: Any, files: TokenizerFiles) -> tuple[Text, str] | None:  # noqa: ANN401 — as above
    """Return the first text that two tokenizers of transformers read otherwise, and where; None where there is none."""
    added = [token for _, token in sorted(files.tokenizer.get_added_tokens_decoder().items())]
    short = texts_for(files.tokenizer.get_vocab(with_added_tokens=True), added)
    texts: list[Text] = [*short, *pairs_of(short)]
    with quiet():
        pairs = zip(texts, _references(given, texts, None), _references(files.reference, texts, None), strict=True)
        return next(
            ((text, _difference(files.reference, wanted, read)) for text, wanted, read in pairs if wanted != read),
            None,
        )


def _reloaded(files: TokenizerFiles, directory: Path) -> Any:  # noqa: ANN401 — transformers is not typed
    """Return the tokenizer that transformers loads again from what it saved."""
    try:
        return load(directory, read_json(directory / "tokenizer_config.json"), {})
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        raise CheckpointError(
            f"transformers cannot load the {type(files.reference).__name__} of the checkpoint again once it has saved "
            f"it ({type(error).__name__}: {excerpt(str(error), 200)}): {OTHERWISE}"
        ) from error


def _takes_no_text(tokenizer: Any, text: Text) -> CheckpointError:  # noqa: ANN401 — transformers is not typed
    """Return the error for a tokenizer that refuses whatever it is given."""
    reason = ""
    try:
        tokenizer(*([text] if isinstance(text, str) else text))
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        reason = f" ({type(error).__name__}: {excerpt(str(error), 200)})"
    return CheckpointError(
        f"the checkpoint's {type(tokenizer).__name__} takes no plain text{reason}, which is what a bundle is given: "
        f"{OTHERWISE}"
    )


def _tokens(files: TokenizerFiles, directory: Path, max_length: int, vocab_size: int) -> Tokens:
    settings = read_settings(
        (directory / name, (directory / name).read_bytes()) for name in SETTINGS if (directory / name).is_file()
    )
    content = (directory / TOKENIZER).read_text(encoding="utf-8")
    try:
        return Tokens(content, settings, max_length, vocab_size=vocab_size, segments=files.segments)
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        reason = str(error).removesuffix(": export again").removesuffix("; export again")
        raise ValidationError(f"the runtime cannot use the checkpoint's tokenizer ({reason}): {REMEDY}") from error


def _references(tokenizer: Any, texts: Sequence[Text], length: int | None) -> list[Ids | None]:  # noqa: ANN401 — transformers is not typed
    """Return what transformers makes of texts; None where it refuses one."""
    readings: list[Ids | None] = []
    for _, run in itertools.groupby(texts, key=type):
        group = list(run)
        parts = [group] if isinstance(group[0], str) else [list(side) for side in zip(*group, strict=True)]
        cut = {} if length is None else {"truncation": True, "max_length": length}
        try:
            made = tokenizer(*parts, **cut)
        except BaseException as error:
            if not isinstance(error, Exception) and not panicked(error):
                raise
            if len(group) == 1:
                readings.append(None)
            else:  # one refuses the batch
                readings += [_references(tokenizer, [text], length)[0] for text in group]
            continue
        ids = made["input_ids"]
        readings += zip(ids, made.get("token_type_ids", [[0] * len(row_ids) for row_ids in ids]), strict=True)
    return readings


def _ids(encoded: Encoded | InputTextError) -> Ids | None:
    return None if isinstance(encoded, InputTextError) else (encoded.ids.tolist(), encoded.type_ids.tolist())


def _compare(
    reader: str,
    reference: Any,  # noqa: ANN401 — transformers is not typed
    texts: Sequence[Text],
    expected: Sequence[Ids | None],
    readings: Sequence[Ids | None],
) -> None:
    """Compare two readings of texts.

    Raises:
        ValidationError: for the first text of which they differ.
    """
    for text, wanted, given in zip(texts, expected, readings, strict=True):
        if wanted != given:
            raise ValidationError(
                f"{reader} reads {excerpt(text)} from the bundle differently from transformers on the checkpoint "
                f"({_difference(reference, wanted, given)}): {REMEDY}"
            )


def _difference(reference: Any, wanted: Ids | None, given: Ids | None) -> str:  # noqa: ANN401 — as above
    """Return where two readings first differ."""
    if wanted is None or given is None:
        return f"{'it' if given is None else 'the latter'} refuses it"
    for number, (name, theirs, ours) in enumerate(zip(("token", "segment"), wanted, given, strict=True)):
        pairs = enumerate(itertools.zip_longest(theirs, ours))
        at = next((place for place, (one, other) in pairs if one != other), None)
        if at is not None:
            one, other = (
                "nothing" if at >= len(side) else _named(reference, side[at]) if number == 0 else str(side[at])
                for side in (ours, theirs)
            )
            return f"{name} {at} is {one} in place of {other}"
    return "nothing differs"


def _named(reference: Any, index: int) -> str:  # noqa: ANN401 — as above
    return f"{excerpt(reference.convert_ids_to_tokens(index))} ({index})"


def _compare_special(reference: Any, tokens: Tokens) -> None:  # noqa: ANN401 — as above
    """Compare the special tokens that answers depend on.

    Raises:
        ValidationError: for one that the runtime takes for another, or for none.
    """
    for role, ours in (("mask_token", tokens.mask_id), ("pad_token", tokens.pad_id)):
        token = getattr(reference, role)
        theirs = None if token is None else reference.convert_tokens_to_ids(token)
        if ours != theirs:
            raise ValidationError(f"the runtime takes {ours} for the id of {role} and transformers {theirs}: {REMEDY}")


def _compare_decoded(reference: Any, tokens: Tokens, readings: Sequence[Sequence[int]]) -> None:  # noqa: ANN401 — as above
    """Compare the texts that ids become again, as answers show them.

    Raises:
        ValidationError: for the first that differ.
    """
    single = [[index] for index in sorted({index for reading in readings for index in reading})]
    for ids in (*readings, *single[:MOST_SINGLE]):
        for skip in (False, True):
            theirs = reference.decode(ids, skip_special_tokens=skip)
            ours = tokens.decode(ids, skip_special_tokens=skip)
            if ours != theirs:
                raise ValidationError(
                    f"the runtime writes the tokens {excerpt(list(ids))} as {excerpt(ours)} and transformers as "
                    f"{excerpt(theirs)}: {REMEDY}"
                )
