"""Agreement of a tokenizer with its checkpoint: the files, config.json, and what transformers made of them."""

# ruff: noqa: RUF001 — look-alikes are meant as they are

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.families import family_of
from bertport.export.checkpoint.tokenizer_loading import GENERIC, sentencepiece_file
from bertport.runtime.errors import CheckpointError, panicked
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tokenizers import Tokenizer

__all__ = ["agreement_notes", "check_kind", "check_padding", "check_vocabulary", "lowers_case"]

MASKLESS = (
    "transformers' tokenizer of the checkpoint has no mask token, so no word will be filled in: where it was trained "
    "with one, name it as mask_token in tokenizer_config.json and export again"
)
PARTS = ("normalizer", "pre_tokenizer", "post_processor")
"""Parts of tokenizer.json that a class of transformers may put its own in place of."""
TRIED = (
    "The ﬁne Ｆull Ⅷ ½ e\u0301 İ ﬀ ``x'' naïve\u00a0cafe\u0301",
    " two  spaces\tand\n\nlines ",
    "don't stop: 中文 2,000 😀",
    ("A first text.", "a second One"),
)
"""Texts and a pair by which it is told whether parts that are written differently read differently."""
COMPATIBILITY = "the ﬁrst ｗord ² ①"
"""Characters that SentencePiece's usual normalisation replaces; in lower case, so that lower-casing changes nothing."""
CONFIG_IDS = {
    "pad_token_id": ("pad_token",),
    "bos_token_id": ("bos_token", "cls_token"),
    "eos_token_id": ("eos_token", "sep_token"),
    "cls_token_id": ("cls_token",),
    "sep_token_id": ("sep_token",),
}
"""Ids that config.json may state, and the roles of the token that has each: the first that the tokenizer has."""
UNREACHED = 0.5
"""Share of BPE's longer entries that no merge makes from which on the merges are another's; real files have few."""
NAMED = 5
"""Tokens that a message names."""


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, directory: Path) -> None:
    """Require that the word embedding has a row for every token.

    Raises:
        CheckpointError: when there are no tokens, or some without a row.
    """
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


def check_kind(reference: Any, stored: dict[str, dict[str, Any]], directory: Path) -> None:  # noqa: ANN401 — transformers is not typed
    """Require that transformers made a tokenizer of the kind that the files are of.

    transformers 5 makes a class's own kind of any vocabulary, and BPE of a file that has lost its merges.

    Raises:
        CheckpointError: when the kinds differ, or merges are missing.
    """
    tokenizer, path = reference.backend_tokenizer, directory / "tokenizer.json"
    made = type(tokenizer.model).__name__
    model = stored.get("tokenizer.json", {}).get("model")
    if isinstance(model, dict):
        if (kind := model.get("type")) not in (None, made):
            raise CheckpointError(
                f"{path} is a {excerpt(kind)} and transformers makes {made} of it ({type(reference).__name__}): it "
                'belongs to another model, or needs "tokenizer_class": "PreTrainedTokenizerFast" in '
                "tokenizer_config.json"
            )
        if made == "BPE" and not isinstance(model.get("merges"), list):
            raise CheckpointError(f"{path} is BPE and has no merges: restore the file")
    if made == "BPE":
        path = path if model else directory / "merges.txt"
        _check_merges(json.loads(tokenizer.to_str()), path)


def _check_merges(content: dict[str, Any], path: Path) -> None:
    """Require that merges make the longer entries of a vocabulary.

    Raises:
        CheckpointError: when most cannot be made.
    """
    model = content["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    added = {token["content"] for token in content["added_tokens"]}
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    made = {first + second.removeprefix(prefix) for first, second in pairs}
    longer = [token for token in model["vocab"] if len(token.removeprefix(prefix)) > 1 and token not in added]
    lost = [token for token in longer if token not in made]
    if len(lost) > UNREACHED * len(longer):
        raise CheckpointError(
            f"{path} has no merge for {len(lost):,} of {len(longer):,} entries of the vocabulary, such as "
            f"{excerpt(min(lost))}: it is damaged or belongs to another model; restore the file"
        )


def check_padding(reference: Any, config: dict[str, Any], directory: Path) -> None:  # noqa: ANN401 — as above
    """Require the padding token that config.json states where the model counts its positions by it.

    Raises:
        CheckpointError: when the tokenizer has another.
    """
    family = family_of(config)
    stated, given = config.get("pad_token_id"), reference.pad_token_id
    if family is None or family.position_offset == 0 or stated is None or stated == given:
        return
    raise CheckpointError(
        f"the tokenizer of {directory} has {_token(reference.pad_token, given)} for padding and config.json gives "
        f"pad_token_id {excerpt(stated)}, by which {family.noun} counts its positions: one of them belongs to "
        "another model"
    )


def lowers_case(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer reads capitals as small letters."""
    return tokenizer.normalizer is not None and str(tokenizer.normalizer.normalize_str("A")) == "a"


def agreement_notes(
    reference: Any,  # noqa: ANN401 — as above
    stored: dict[str, dict[str, Any]],
    directory: Path,
    vocab_size: int,
) -> Iterator[str]:
    """Return in sentences where a checkpoint's files and transformers' tokenizer of them disagree.

    Args:
        reference: transformers' tokenizer.
        stored: the content of the checkpoint's JSON files, by name.
        directory: the checkpoint.
        vocab_size: rows of the word embedding.
    """
    tokenizer = reference.backend_tokenizer
    if "tokenizer.json" in stored:
        yield from _overruled(reference, stored["tokenizer.json"], directory)
    else:
        yield from _converted(reference, directory)
        yield from _spaced_mask(reference, stored)
    yield from _capitals(reference, stored.get("tokenizer_config.json", {}))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    moved = [(token, index) for token, index in _stated_ids(stored) if vocabulary.get(token) != index]
    if moved:
        token, index = moved[0]
        more = f"; so with {len(moved) - 1} more" if moved[1:] else ""
        yield (
            f"the checkpoint's files give {excerpt(token)} the id {index} and transformers' fast tokenizer gives it "
            f"{vocabulary.get(token, 'none')}, which was taken{more}"
        )
    config = stored.get("config.json", {})
    yield from _other_ids(reference, config)
    yield from _without_segments(reference, config)
    yield from _unread_segments(reference, config)
    nameless = vocab_size - len(set(vocabulary.values()))
    if nameless:
        yield f"{nameless:,} of {vocab_size:,} rows of the word embedding have no token: no answer will name them"
    if reference.mask_token is None:
        yield MASKLESS


def _overruled(reference: Any, stored: dict[str, Any], directory: Path) -> Iterator[str]:  # noqa: ANN401 — as above
    """Note that transformers reads texts otherwise than tokenizer.json says."""
    tokenizer = reference.backend_tokenizer
    parts = [part for part in PARTS if (stored.get(part) or None) != _state(getattr(tokenizer, part))]
    text = _read_otherwise(tokenizer, directory / "tokenizer.json") if parts else None
    if text is None:
        return
    yield (
        "tokenizer.json disagreed with tokenizer_config.json or, where that is silent, with transformers' default, "
        f"and was not followed, as in transformers ({type(reference).__name__} reads {excerpt(text)} otherwise: "
        f"{', '.join(parts)}); if tokenizer.json is right, put "
        '"tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json and export again'
    )


def _state(part: Any) -> dict[str, Any] | None:  # noqa: ANN401 — a part of a Tokenizer, which is not typed
    state: dict[str, Any] | None = json.loads(part.__getstate__()) if part else None
    return state


def _read_otherwise(tokenizer: Tokenizer, path: Path) -> str | tuple[str, str] | None:
    """Return the first of some texts that tokenizer.json alone reads otherwise; None where it reads all alike."""
    from tokenizers import Tokenizer

    try:
        alone = Tokenizer.from_file(str(path))
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        raise CheckpointError(f"{path} cannot be read ({excerpt(str(error), 200)}): restore the file") from error
    alone.no_truncation()
    alone.no_padding()
    return next((text for text in TRIED if _reading(tokenizer, text)[0] != _reading(alone, text)[0]), None)


def _reading(tokenizer: Tokenizer, text: str | tuple[str, str]) -> tuple[list[int], list[int]]:
    """Return ids and segments of a text or a pair; none where the tokenizer refuses it."""
    try:
        encoding = tokenizer.encode(*([text] if isinstance(text, str) else text))
    except BaseException as error:
        if not isinstance(error, Exception) and not panicked(error):
            raise
        return [], []
    return encoding.ids, encoding.type_ids


def _converted(reference: Any, directory: Path) -> Iterator[str]:  # noqa: ANN401 — as above
    """Note that transformers left out how a SentencePiece file normalises characters."""
    path = sentencepiece_file(directory)
    if path is None:
        return
    from sentencepiece import SentencePieceProcessor

    tokenizer, unknown = reference.backend_tokenizer, reference.unk_token_id
    lost = _reading(tokenizer, COMPATIBILITY)[0].count(unknown)
    processor = SentencePieceProcessor(model_file=str(path))
    if lost > sum(map(processor.is_unknown, processor.encode(COMPATIBILITY))):
        yield (
            f"{path.name} replaces characters such as 'ﬁ' by their usual form, and transformers' "
            f"{type(reference).__name__} leaves that out and was followed; the model was trained with the ids of "
            "transformers 4.57 (bertport[export-optimum])"
        )


def _spaced_mask(reference: Any, stored: dict[str, dict[str, Any]]) -> Iterator[str]:  # noqa: ANN401 — as above
    """Note that no file says whether the mask of a BPE takes the space before it, and it does not.

    transformers 4 makes one that does, and 5 one that does not.
    """
    tokenizer, mask = reference.backend_tokenizer, reference.mask_token
    stated = [stored.get(file, {}) for file in ("tokenizer_config.json", "special_tokens_map.json")]
    if type(tokenizer.model).__name__ != "BPE" or any(
        isinstance(settings.get("mask_token"), dict) or settings.get("added_tokens_decoder") for settings in stated
    ):
        return
    if any(token.content == mask and not token.lstrip for token in tokenizer.get_added_tokens_decoder().values()):
        yield (
            f"no file says whether {mask} takes the space before it, and that of transformers' "
            f"{type(reference).__name__} does not, unlike that of transformers 4: if the model was trained with the "
            "latter, put "
            f'"mask_token": {{"__type": "AddedToken", "content": {json.dumps(mask)}, "lstrip": true}} in '
            "tokenizer_config.json and export again"
        )


def _capitals(reference: Any, settings: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 — as above
    """Note that the tokenizer lower-cases by its class's default alone, although its vocabulary has capitals."""
    tokenizer = reference.backend_tokenizer
    if (
        not lowers_case(tokenizer)
        or settings.get("do_lower_case") is not None
        or type(reference).__name__ in GENERIC  # which have no such setting
        or type(tokenizer.model).__name__ == "BPE"  # whose entries are bytes, written as letters of any case
    ):
        return
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    capitals = [
        token
        for token in tokenizer.get_vocab(with_added_tokens=True)
        if token != token.lower() and token not in added and not (token.startswith("[") and token.endswith("]"))
    ]
    if capitals:
        yield (
            "no tokenizer_config.json says whether the tokenizer lower-cases, so it does, as in transformers, and "
            f"never gives the {len(capitals):,} entries with capitals, such as {excerpt(min(capitals))}: if the "
            'model keeps case, put {"do_lower_case": false} there and export again'
        )


def _stated_ids(stored: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Return added tokens with the ids that the checkpoint's files state."""
    for token, index in stored.get("added_tokens.json", {}).items():
        yield token, index
    for stated, token in (stored.get("tokenizer_config.json", {}).get("added_tokens_decoder") or {}).items():
        yield str(token.get("content", "")), int(stated)


def _other_ids(reference: Any, config: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 — as above
    """Note that config.json states other ids of special tokens than the tokenizer has."""
    others = []
    for name, roles in CONFIG_IDS.items():
        token = next((token for role in roles if (token := getattr(reference, role, None)) is not None), None)
        stated, given = config.get(name), None if token is None else reference.convert_tokens_to_ids(token)
        if stated is not None and stated != given:
            others.append(f"{name} {excerpt(stated)} where the tokenizer has {_token(token, given)}")
    if others:
        yield (
            f"config.json gives {', '.join(others)}: the tokenizer was followed, as in transformers; if that "
            "belongs to another model, replace it and export again"
        )


def _token(token: object, index: object) -> str:
    return "none" if token is None else f"{excerpt(str(token))} ({index})"


def _without_segments(reference: Any, config: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 — as above
    """Note that the model knows two segments and is never given the second, though its bundle has an input for them."""
    family, rows = family_of(config), config.get("type_vocab_size")
    if family is not None and SEGMENTS not in family.inputs:
        return
    if not isinstance(rows, int) or rows < 2 or SEGMENTS in reference.model_input_names:  # noqa: PLR2004 — two
        return
    if _tells_apart(reference):
        yield (
            f"transformers' {type(reference).__name__} gives the model no segments, so that both texts of a pair are "
            'in the first: where it was trained with two, put "model_input_names": ["input_ids", "token_type_ids", '
            '"attention_mask"] in tokenizer_config.json and export again'
        )


def _unread_segments(reference: Any, config: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 — as above
    """Note that transformers gives the model two segments, for which a bundle of its family has no input."""
    import transformers

    family = family_of(config)
    if family is None or SEGMENTS in family.inputs or SEGMENTS not in reference.model_input_names:
        return
    default = getattr(transformers.CONFIG_MAPPING[family.name](), "type_vocab_size", None)
    rows = config.get("type_vocab_size", default)
    if default is not None and isinstance(rows, int) and rows > 1 and _tells_apart(reference):
        yield (
            f"transformers gives the model the segments of a pair, and a bundle of {family.noun} has no input for "
            "them: both texts of a pair are in the first, so if it was trained with two, its answers for pairs differ "
            "from those of transformers"
        )


def _tells_apart(reference: Any) -> bool:  # noqa: ANN401 — as above
    """Return whether a tokenizer puts the second text of a pair into a segment of its own."""
    return any(_reading(reference.backend_tokenizer, ("a", "a"))[1])
