"""The checkpoint's tokenizer: its settings read, its files made to agree, a tokenizer.json made where there is none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.export.source import read_json
from bertport.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

__all__ = ["TokenizerFiles", "read_tokenizer"]

BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast")
OTHER_CLASSES = ("PreTrainedTokenizerFast",)
NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""tokenizer_config.json's name of each setting, and tokenizer.json's."""
SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens, where the checkpoint does not name its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """A tokenizer, and the files that hold it."""

    tokenizer: Tokenizer
    """The tokenizer, as tokenizer.json describes it."""
    texts: dict[str, str]
    """Content of the files to write, by name."""
    lowercase: bool | None
    """Whether it lower-cases; None where its normaliser does not say."""
    model_max_length: int | None
    """Longest input that its settings allow, in tokens."""
    special: dict[str, str]
    """Special tokens by role, for example `mask_token`."""
    notes: tuple[str, ...]
    """What was settled, and how, in sentences."""


def read_tokenizer(directory: Path, *, vocab_size: int, max_positions: int) -> TokenizerFiles:
    """Read a checkpoint's tokenizer.

    transformers lets tokenizer_config.json overrule tokenizer.json (and puts defaults of its own where the former
    says nothing); other readers see tokenizer.json alone. Here both are written so that all agree.

    Args:
        directory: the checkpoint.
        vocab_size: rows of the word embedding.
        max_positions: rows of the position embedding.

    Raises:
        CheckpointError: when there is none, it needs code of its own, cannot be read, or has another number of
            entries than the word embedding has rows.
    """
    settings = read_json(directory / "tokenizer_config.json") if (directory / "tokenizer_config.json").exists() else {}
    kind = settings.get("tokenizer_class") or BERT_CLASSES[0]
    if settings.get("auto_map") or kind not in BERT_CLASSES + OTHER_CLASSES:
        named = "code of its own (auto_map)" if settings.get("auto_map") else f"the tokenizer {kind}"
        message = (
            f"{directory} needs {named}, which cannot be used; supported: {', '.join(BERT_CLASSES + OTHER_CLASSES)}"
        )
        raise CheckpointError(message)
    special = _special_tokens(directory, settings)
    notes: list[str] = []
    if (directory / "tokenizer.json").exists():
        description = read_json(directory / "tokenizer.json")
        settled = description if kind in OTHER_CLASSES else _settle(description, settings)
        if settled != description:
            notes.append(
                "tokenizer.json disagreed with tokenizer_config.json, which rules in transformers: it was followed"
            )
        description = settled
    elif (directory / "vocab.txt").exists():
        description = _from_vocabulary(directory, settings, special, notes)
    else:
        message = (
            f"{directory} has no tokenizer: neither tokenizer.json nor vocab.txt is there; copy it from where it came"
        )
        raise CheckpointError(message)
    tokenizer = _load(description, directory)
    _check_vocabulary(tokenizer, vocab_size, directory)

    normalizer = description.get("normalizer")
    normalizer = normalizer if isinstance(normalizer, dict) else {}
    explicit = {ours: normalizer[theirs] for ours, theirs in NORMALIZER_SETTINGS.items() if theirs in normalizer} | {
        "tokenizer_class": kind,
        "model_max_length": max_positions,
    }
    texts = {
        name: _read_text(directory / name)
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "vocab.txt",
        )
        if (directory / name).exists()
    }
    if "tokenizer.json" not in texts or json.loads(texts["tokenizer.json"]) != description:
        texts["tokenizer.json"] = json.dumps(description, ensure_ascii=False, indent=2) + "\n"
    if any(key not in settings for key in explicit):
        completed = {**special, **explicit, **settings} if not settings else {**explicit, **settings}
        texts["tokenizer_config.json"] = json.dumps(completed, ensure_ascii=False, indent=2) + "\n"
    if "vocab.txt" not in texts and (description.get("model") or {}).get("type") == "WordPiece":
        texts["vocab.txt"] = _vocabulary_text(tokenizer)
    limit = settings.get("model_max_length")
    return TokenizerFiles(
        tokenizer=tokenizer,
        texts=texts,
        lowercase=_lowercase(normalizer),
        model_max_length=limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None,
        special=special,
        notes=tuple(notes),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read ({error}): restore the checkpoint's file"
        raise CheckpointError(message) from error


def _special_tokens(directory: Path, settings: dict[str, Any]) -> dict[str, str]:
    path = directory / "special_tokens_map.json"
    stated = (read_json(path) if path.exists() else {}) | settings
    special = {}
    for role, default in SPECIAL.items():
        value = stated.get(role)
        text = value.get("content") if isinstance(value, dict) else default if value is None else value
        if not isinstance(text, str) or not text:
            message = f"{directory}: the {role} of its tokenizer is {value!r:.80}; a token is expected"
            raise CheckpointError(message)
        special[role] = text
    return special


def _settle(description: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Give tokenizer.json with the settings that tokenizer_config.json states."""
    normalizer = description.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return description
    stated = {theirs: settings[ours] for ours, theirs in NORMALIZER_SETTINGS.items() if ours in settings}
    return description | {"normalizer": normalizer | stated}


def _from_vocabulary(
    directory: Path, settings: dict[str, Any], special: dict[str, str], notes: list[str]
) -> dict[str, Any]:
    """Make the description of the tokenizer that transformers would build from vocab.txt."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    lines = _read_text(directory / "vocab.txt").removesuffix("\n").split("\n")
    vocabulary = {line: index for index, line in enumerate(lines)}
    missing = [token for token in special.values() if token not in vocabulary]
    if missing:
        message = (
            f"{directory / 'vocab.txt'} lacks the special token {missing[0]}: it is not this checkpoint's vocabulary"
        )
        raise CheckpointError(message)
    lowercase = settings.get("do_lower_case")
    if lowercase is None:
        # An entry with a capital can never come out of a tokenizer that lower-cases, so the vocabulary itself tells.
        lowercase = not any(line != line.lower() for line in lines if not (line.startswith("[") and line.endswith("]")))
        kind = (
            "holds no capital, so the tokenizer lower-cases"
            if lowercase
            else "holds capitals, so it does not lower-case"
        )
        notes.append(f"no tokenizer_config.json says whether the tokenizer lower-cases; vocab.txt {kind}")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special.values()])
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    return description


def _load(description: dict[str, Any], directory: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the tokenizers package raises nothing more particular
        message = f"{directory / 'tokenizer.json'} cannot be read ({error}): restore the checkpoint's file"
        raise CheckpointError(message) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_vocabulary(tokenizer: Tokenizer, vocab_size: int, directory: Path) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    entries = max(vocabulary.values(), default=-1) + 1
    if entries != vocab_size:
        message = (
            f"the tokenizer of {directory} has {entries:,} entries and the word embedding {vocab_size:,} rows: "
            "one of them belongs to another checkpoint (if rows were added, fill up the vocabulary with unused entries)"
        )
        raise CheckpointError(message)


def _vocabulary_text(tokenizer: Tokenizer) -> str:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    by_index = {index: token for token, index in vocabulary.items()}
    return "".join(by_index.get(index, f"[unused-{index}]") + "\n" for index in range(max(by_index) + 1))


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
