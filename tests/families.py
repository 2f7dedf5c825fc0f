"""Seeded tiny checkpoints of every family, each with a tokenizer of its own kind, as transformers saves them."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.conftest import ALPHABET, PIECES, WORDS, fill, vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_LENGTH = 64
"""The longest input of each checkpoint, in tokens."""
BRACKETS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ANGLES = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """One row: how a family's checkpoint is made."""

    classes: tuple[str, ...]
    """transformers' classes whose heads are exported, that with most heads first; the bare encoder is the last."""
    write: Callable[[Path], dict[str, int]]
    """Writes the tokenizer, and returns its vocabulary."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Settings of config.json beside, or in place of, the common ones."""
    offset: int = 0
    """Rows of the position embedding that no token takes."""


def _save(directory: Path, tokenizer: Any, kind: str, roles: dict[str, str], **settings: object) -> dict[str, int]:
    """Write tokenizer.json and tokenizer_config.json, and return the vocabulary."""
    from tokenizers import AddedToken

    special = [each for role, each in roles.items() if role != "mask_token"]
    spaced = kind != "DebertaV2Tokenizer"  # whose mask leaves a space before it
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in special])
    tokenizer.add_special_tokens([AddedToken(roles["mask_token"], special=True, normalized=False, lstrip=spaced)])
    tokenizer.save(str(directory / "tokenizer.json"))
    mask: object = roles["mask_token"]
    if spaced:
        flags = {"lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}
        mask = {"__type": "AddedToken", "content": roles["mask_token"], **flags}
    stated = {"tokenizer_class": kind, "model_max_length": MAX_LENGTH, **roles, **settings, "mask_token": mask}
    (directory / "tokenizer_config.json").write_text(json.dumps(stated, indent=2), encoding="utf-8")
    return dict(tokenizer.get_vocab(with_added_tokens=True))


def _pairs(roles: dict[str, str], entries: dict[str, int], *, segments: bool, double: bool = False) -> Any:
    """Return the template of a text and of a pair."""
    from tokenizers.processors import TemplateProcessing

    begin, end = roles["cls_token"], roles["sep_token"]
    second = int(segments)
    middle = f"{end} {end}" if double else end
    return TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {middle} $B:{second} {end}:{second}",
        special_tokens=[(begin, entries[begin]), (end, entries[end])],
    )


def _word_piece(kind: str) -> Callable[[Path], dict[str, int]]:
    """Return a writer of BERT's WordPiece under one of transformers' classes."""

    def write(directory: Path) -> dict[str, int]:
        import transformers

        roles, entries = BRACKETS, vocabulary()
        if kind == "MPNetTokenizer":  # whose positions count from the token after padding, which is 1 in its code
            roles = ANGLES | {"unk_token": "[UNK]"}
            words = [entry for entry in entries if entry not in BRACKETS.values()]
            entries = ["<s>", "<pad>", "</s>", "[UNK]", *words, "<mask>"]
        (directory / "vocab.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
        make = getattr(transformers, f"{kind}Fast")
        more = {"bos_token": roles["cls_token"], "eos_token": roles["sep_token"]} if kind == "MPNetTokenizer" else {}
        # From the file, as a user has it: the two generations of transformers take other arguments.
        settings = {"tokenizer_class": kind, "do_lower_case": True, "model_max_length": MAX_LENGTH, **roles, **more}
        (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        tokenizer = make.from_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return dict(tokenizer.get_vocab())

    return write


def _merges() -> tuple[list[str], list[tuple[str, str]]]:
    """Return the entries and merges of a byte-level BPE that joins each word, with a space before it and without."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    entries, merges = dict.fromkeys(alphabet), {}
    for word in [*(f"Ġ{each}" for each in WORDS), *WORDS, *PIECES]:
        joined = word[0]
        for letter in word[1:]:
            merges[joined, letter] = None
            joined += letter
            entries[joined] = None
    return list(entries), list(merges)


def _byte_level(kind: str) -> Callable[[Path], dict[str, int]]:
    """Return a writer of a byte-level BPE under one of transformers' classes."""

    def write(directory: Path) -> dict[str, int]:
        from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
        from tokenizers.models import BPE

        words, merges = _merges()
        roles = ANGLES if kind == "RobertaTokenizer" else BRACKETS
        if kind == "RobertaTokenizer":
            listed = ["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]
        elif kind == "DebertaTokenizer":
            listed = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *words, "[MASK]"]
        else:  # ModernBERT's stand at the end
            listed = [*words, "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
        entries = {token: index for index, token in enumerate(listed)}
        tokenizer = Tokenizer(BPE(entries, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        settings: dict[str, object] = {}
        if kind == "RobertaTokenizer":
            end, begin = (("</s>", entries["</s>"]), ("<s>", entries["<s>"]))
            tokenizer.post_processor = processors.RobertaProcessing(
                end, begin, trim_offsets=True, add_prefix_space=False
            )
            settings = {"bos_token": "<s>", "eos_token": "</s>", "add_prefix_space": False, "errors": "replace"}
            _write_merges(directory, entries, merges)
        elif kind == "DebertaTokenizer":
            tokenizer.post_processor = _pairs(roles, entries, segments=True)
            settings = {"bos_token": "[CLS]", "eos_token": "[SEP]", "add_prefix_space": False, "vocab_type": "gpt2"}
            _write_merges(directory, entries, merges)
        else:
            tokenizer.normalizer = normalizers.NFC()
            tokenizer.post_processor = _pairs(roles, entries, segments=False)
            settings = {"model_input_names": ["input_ids", "attention_mask"]}
        return _save(directory, tokenizer, kind, roles, **settings)

    return write


def _write_merges(directory: Path, entries: dict[str, int], merges: list[tuple[str, str]]) -> None:
    (directory / "vocab.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(each) for each in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _unigram(kind: str) -> Callable[[Path], dict[str, int]]:
    """Return a writer of a Unigram, as transformers makes it of a SentencePiece file, under one of its classes."""

    def write(directory: Path) -> dict[str, int]:
        from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
        from tokenizers.models import Unigram

        roles, first, last = {
            "XLMRobertaTokenizer": (ANGLES, ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"]),
            "CamembertTokenizer": (
                ANGLES,
                ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"],
                ["<mask>"],
            ),
            "AlbertTokenizer": (
                BRACKETS | {"pad_token": "<pad>", "unk_token": "<unk>"},
                ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
                [],
            ),
            "DebertaV2Tokenizer": (BRACKETS, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], ["[MASK]"]),
        }[kind]
        words = [(f"▁{word}", -4 - index / 100) for index, word in enumerate(WORDS)]
        pieces = [(piece, -8 - index / 100) for index, piece in enumerate(PIECES)]
        alphabet = dict.fromkeys("▁" + ALPHABET + ALPHABET.upper())
        letters = [(letter, -12 - index / 1000) for index, letter in enumerate(alphabet)]
        known = dict([*((each, 0.0) for each in first), *words, *letters])
        scores = [*(known | {piece: score for piece, score in pieces if piece not in known}).items()]
        scores += [(each, 0.0) for each in last]
        entries = {token: index for index, (token, _) in enumerate(scores)}
        tokenizer = Tokenizer(Unigram(scores, unk_id=entries[roles["unk_token"]], byte_fallback=False))
        spaces = normalizers.Replace(Regex(" {2,}"), " ")
        lower = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        tokenizer.normalizer = normalizers.Sequence(
            [*quotes, *lower, spaces] if kind == "AlbertTokenizer" else [normalizers.NFKC(), spaces]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        double = kind in {"XLMRobertaTokenizer", "CamembertTokenizer"}
        tokenizer.post_processor = _pairs(roles, entries, segments=not double, double=double)
        begin, end = roles["cls_token"], roles["sep_token"]
        settings: dict[str, object] = {"bos_token": begin, "eos_token": end}
        if kind == "AlbertTokenizer":
            settings |= {"do_lower_case": True, "remove_space": True, "keep_accents": False}
        if kind == "DebertaV2Tokenizer":
            settings |= {"do_lower_case": False, "split_by_punct": False}
        return _save(directory, tokenizer, kind, roles, **settings)

    return write


def _standard(prefix: str) -> tuple[str, ...]:
    return (f"{prefix}ForMaskedLM", f"{prefix}Model")


DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
TINY: dict[str, Tiny] = {
    "bert": Tiny(
        classes=("BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction", "BertModel"),
        write=_word_piece("BertTokenizer"),
    ),
    "roberta": Tiny(
        classes=_standard("Roberta"), write=_byte_level("RobertaTokenizer"), sizes={"type_vocab_size": 1}, offset=2
    ),
    "xlm-roberta": Tiny(
        classes=_standard("XLMRoberta"), write=_unigram("XLMRobertaTokenizer"), sizes={"type_vocab_size": 1}, offset=2
    ),
    "camembert": Tiny(
        classes=_standard("Camembert"), write=_unigram("CamembertTokenizer"), sizes={"type_vocab_size": 1}, offset=2
    ),
    "distilbert": Tiny(classes=_standard("DistilBert"), write=_word_piece("DistilBertTokenizer"), sizes=DISTILBERT),
    "electra": Tiny(
        classes=("ElectraForMaskedLM", "ElectraForPreTraining", "ElectraModel"),
        write=_word_piece("ElectraTokenizer"),
        sizes={"embedding_size": 16},
    ),
    "mpnet": Tiny(classes=_standard("MPNet"), write=_word_piece("MPNetTokenizer"), offset=2),
    "albert": Tiny(
        classes=("AlbertForPreTraining", "AlbertForMaskedLM", "AlbertModel"),
        write=_unigram("AlbertTokenizer"),
        sizes={"embedding_size": 16},
    ),
    "deberta": Tiny(
        classes=_standard("Deberta"),
        write=_byte_level("DebertaTokenizer"),
        sizes={**RELATIVE, "max_relative_positions": -1},
    ),
    "deberta-v2": Tiny(
        classes=_standard("DebertaV2"),
        write=_unigram("DebertaV2Tokenizer"),
        sizes={
            **RELATIVE,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
    "modernbert": Tiny(
        classes=_standard("ModernBert"),
        write=_byte_level("PreTrainedTokenizerFast"),
        sizes={"local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "mobilebert": Tiny(
        classes=(
            "MobileBertForPreTraining",
            "MobileBertForMaskedLM",
            "MobileBertForNextSentencePrediction",
            "MobileBertModel",
        ),
        write=_word_piece("MobileBertTokenizer"),
        sizes={
            "embedding_size": 16,
            "true_hidden_size": 16,
            "intra_bottleneck_size": 16,
            "num_feedforward_networks": 2,
        },
    ),
    "ernie": Tiny(
        classes=("ErnieForPreTraining", "ErnieForMaskedLM", "ErnieForNextSentencePrediction", "ErnieModel"),
        write=_word_piece("BertTokenizer"),
    ),
}
"""By model type; the default of each is the first of its classes."""


def tiny(family: str, directory: Path, *, model_class: str | None = None, seed: int = 7, **changes: object) -> Path:
    """Write a seeded checkpoint of two layers of width 32, with a tokenizer of the family's kind.

    Args:
        family: transformers' model type, a key of `TINY`.
        directory: where config.json, model.safetensors and the tokenizer are written; it is made.
        model_class: one of transformers' classes; the one with most heads when not given.
        seed: of every weight, biases and norms included.
        changes: further settings of config.json.

    Returns:
        The directory.
    """
    import transformers

    row = TINY[family]
    directory.mkdir(parents=True, exist_ok=True)
    entries = row.write(directory)
    common = {
        "vocab_size": len(entries),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    sizes = {} if family == "distilbert" else common
    sizes |= {"vocab_size": len(entries), "max_position_embeddings": MAX_LENGTH + row.offset}
    made = transformers.CONFIG_MAPPING[family](**(sizes | _ids(directory, family, entries) | row.sizes | changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeBERTa's modules call what PyTorch deprecates
        model = getattr(transformers, model_class or row.classes[0])(made)
    fill(model, seed).save_pretrained(directory)
    return directory


def _ids(directory: Path, family: str, entries: dict[str, int]) -> dict[str, int]:
    """Return the ids of special tokens that config.json states."""
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = {"pad_token_id": entries[settings["pad_token"]]}
    if family in {"roberta", "xlm-roberta", "camembert", "mpnet", "albert", "modernbert"}:
        begin, end = entries[settings["cls_token"]], entries[settings["sep_token"]]
        ids |= {"bos_token_id": begin, "eos_token_id": end}
        if family == "modernbert":
            ids |= {"cls_token_id": begin, "sep_token_id": end}
    return ids
