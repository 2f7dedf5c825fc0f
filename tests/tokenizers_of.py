"""A small tokenizer of each family's kind, laid out as its own: ids of special tokens, normaliser, template."""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Any

from tests.conftest import ALPHABET, PIECES, WORDS, vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

MAX_LENGTH = 160
"""Longest input of every one of them, in tokens."""
MERGED = 500
"""Entries that byte-level BPE has beside the bytes and the special tokens."""
LETTERS = dict.fromkeys(ALPHABET + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")

BERT_ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
MPNET_ROLES = ROBERTA_ROLES | {"unk_token": "[UNK]"}
ALBERT_ROLES = BERT_ROLES | {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "pad_token": "<pad>"}
DEBERTA_ROLES = BERT_ROLES | {"bos_token": "[CLS]", "eos_token": "[SEP]"}


def write_tokenizer_of(family: str, directory: Path) -> Any:
    """Write the files that transformers saves for a family's tokenizer, and return the tokenizer.

    Args:
        family: a `model_type` of transformers, such as `roberta`.
        directory: an existing one.
    """
    from transformers import AddedToken, AutoTokenizer

    tokenizer_class, roles, make = FAMILIES[family]
    tokenizer = make()
    # A mask that is written like a word takes the space before it, in every family but BERT's and DeBERTa's.
    left = family in ("roberta", "xlm-roberta", "camembert", "mpnet", "albert", "modernbert")
    mask = AddedToken(roles["mask_token"], lstrip=left, special=True)
    tokenizer.add_special_tokens([mask if token == mask.content else token for token in dict.fromkeys(roles.values())])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": tokenizer_class, "model_max_length": MAX_LENGTH} | roles
    if left:
        flags = {"lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}
        settings["mask_token"] = {"__type": "AddedToken", "content": mask.content} | flags
    if family == "modernbert":
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    made = AutoTokenizer.from_pretrained(str(directory))
    made.save_pretrained(str(directory))
    return made


def word_piece(roles: dict[str, str]) -> Tokenizer:
    """BERT's: `##` continues a word, lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    renamed = {BERT_ROLES[role]: token for role, token in roles.items() if role in BERT_ROLES}
    ids = {renamed.get(token, token): index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=roles["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    first, last = ((roles[role], ids[roles[role]]) for role in ("cls_token", "sep_token"))
    if roles is MPNET_ROLES:
        tokenizer.post_processor = processors.RobertaProcessing(last, first)
    else:
        tokenizer.post_processor = _template(first, last)
    return tokenizer


def byte_level(roles: dict[str, str]) -> Tokenizer:
    """RoBERTa's, DeBERTa's and ModernBERT's: bytes, and what BPE makes of them; `Ġ` is a space."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary, merges = _merged()
    leading = [] if roles is BERT_ROLES else [roles[role] for role in ("cls_token", "pad_token", "sep_token")]
    if roles is DEBERTA_ROLES:
        leading = ["[PAD]", "[CLS]", "[SEP]"]
    leading += [] if roles is BERT_ROLES else [roles["unk_token"]]
    trailing = [token for token in dict.fromkeys(roles.values()) if token not in leading]
    entries = {token: index for index, token in enumerate([*leading, *vocabulary, *trailing])}
    tokenizer = Tokenizer(models.BPE(entries, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    first, last = ((roles[role], entries[roles[role]]) for role in ("cls_token", "sep_token"))
    if roles is ROBERTA_ROLES:
        tokenizer.post_processor = processors.RobertaProcessing(last, first, trim_offsets=True, add_prefix_space=False)
    else:
        tokenizer.post_processor = _template(first, last)
    if roles is BERT_ROLES:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def unigram(roles: dict[str, str], leading: list[str], *, lowercase: bool = False) -> Tokenizer:
    """XLM-R's, CamemBERT's, ALBERT's and DeBERTa-v2's: pieces with scores; `▁` is a space.

    Args:
        roles: special tokens.
        leading: the entries before the pieces, the unknown token among them.
        lowercase: whether accents and capitals go, as in ALBERT.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    trailing = [token for token in dict.fromkeys(roles.values()) if token not in leading]
    entries = [*((token, 0.0) for token in leading), *_scored(), *((token, 0.0) for token in trailing)]
    tokenizer = Tokenizer(models.Unigram(entries, leading.index(roles["unk_token"]), byte_fallback=False))
    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    if lowercase:
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        steps = [*quotes, normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), *steps]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    ids = {token: index for index, (token, _) in enumerate(entries)}
    first, last = ((roles[role], ids[roles[role]]) for role in ("cls_token", "sep_token"))
    tokenizer.post_processor = _template(first, last, doubled=roles is ROBERTA_ROLES)
    return tokenizer


def _template(first: tuple[str, int], last: tuple[str, int], *, doubled: bool = False) -> Any:
    from tokenizers.processors import TemplateProcessing

    (start, _), (end, _) = first, last
    pair = f"{start} $A {end} {end} $B {end}" if doubled else f"{start}:0 $A:0 {end}:0 $B:1 {end}:1"
    return TemplateProcessing(single=f"{start} $A {end}", pair=pair, special_tokens=[first, last])


@functools.cache
def _merged() -> tuple[list[str], list[tuple[str, str]]]:
    """Return the entries and merges of byte-level BPE trained on the words, most frequent first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + MERGED, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    # Each word its own number of times, so that no two pairs are equally frequent by design.
    tokenizer.train_from_iterator((" ".join([word] * (len(WORDS) - rank)) for rank, word in enumerate(WORDS)), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), [tuple(each) for each in model["merges"]]


def _scored() -> list[tuple[str, float]]:
    """Return pieces with log probabilities: words by rank, ends of words, letters last."""
    pieces = ["▁", *(f"▁{word}" for word in WORDS), *PIECES, *LETTERS]
    return [(piece, -math.log(rank + 2) - 4) for rank, piece in enumerate(dict.fromkeys(pieces))]


FAMILIES = {
    **{
        name: ("BertTokenizer", BERT_ROLES, lambda: word_piece(BERT_ROLES))
        for name in ("bert", "distilbert", "electra", "mobilebert", "ernie")
    },
    "mpnet": ("MPNetTokenizer", MPNET_ROLES, lambda: word_piece(MPNET_ROLES)),
    "roberta": ("RobertaTokenizer", ROBERTA_ROLES, lambda: byte_level(ROBERTA_ROLES)),
    "deberta": ("DebertaTokenizer", DEBERTA_ROLES, lambda: byte_level(DEBERTA_ROLES)),
    "modernbert": ("PreTrainedTokenizerFast", BERT_ROLES, lambda: byte_level(BERT_ROLES)),
    "xlm-roberta": (
        "XLMRobertaTokenizer",
        ROBERTA_ROLES,
        lambda: unigram(ROBERTA_ROLES, ["<s>", "<pad>", "</s>", "<unk>"]),
    ),
    "camembert": (
        "CamembertTokenizer",
        ROBERTA_ROLES,
        lambda: unigram(ROBERTA_ROLES, ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]),
    ),
    "albert": (
        "AlbertTokenizer",
        ALBERT_ROLES,
        lambda: unigram(ALBERT_ROLES, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], lowercase=True),
    ),
    "deberta-v2": (
        "DebertaV2Tokenizer",
        DEBERTA_ROLES,
        lambda: unigram(DEBERTA_ROLES, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]),
    ),
}
"""By model type: transformers' class, special tokens by role, and what makes the tokenizer."""
