"""The tokenizer: read from a checkpoint or trained on the corpus, and written beside the result."""

import json
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from tokenizers.trainers import WordPieceTrainer

from .errors import RecipeError
from .objective import SpecialTokens

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens by the names that tokenizer_config.json gives them, in the order of a new vocabulary."""
_MOST_LETTERS = 1000


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json, without the truncation and padding that some checkpoints store in it.

    Raises:
        RecipeError: where there is none.
    """
    if not path.is_file():
        raise RecipeError(f"{path.parent} has no {path.name}: save the fast tokenizer of the checkpoint there")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train an uncased WordPiece tokenizer with BERT's normalisation and its special tokens as the first ids.

    The same texts give the same vocabulary.
    """
    normalizer = BertNormalizer(lowercase=True)
    normalized = [normalizer.normalize_str(text) for text in texts]
    learner = Tokenizer(WordPiece(unk_token=SPECIAL["unk_token"]))
    learner.pre_tokenizer = BertPreTokenizer()
    letters = _alphabet(normalized)
    # The trainer numbers continuations in the order of a hash map, and breaks ties between merges by number: two
    # trainings would differ. Continuations that are there before it starts keep their numbers.
    continuations = [f"##{letter}" for letter in letters if not _is_punctuation(letter)]
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL.values(), *letters, *continuations],
        limit_alphabet=len(letters),
        initial_alphabet=letters,
        show_progress=False,
    )
    learner.train_from_iterator(normalized, trainer)
    tokenizer = Tokenizer(WordPiece(learner.get_vocab(), unk_token=SPECIAL["unk_token"]))
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    # tokenizers 0.22 and 0.23 disagree on the names of these arguments, not on their order: [SEP], then [CLS].
    tokenizer.post_processor = BertProcessing(
        *((token, tokenizer.token_to_id(token)) for token in (SPECIAL["sep_token"], SPECIAL["cls_token"]))
    )
    return tokenizer


def _alphabet(texts: Iterable[str]) -> list[str]:
    """Return the most frequent characters, in the order of their code points."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    frequent = sorted(counts, key=lambda letter: (-counts[letter], letter))
    return sorted([letter for letter in frequent if not letter.isspace()][:_MOST_LETTERS])


def _is_punctuation(letter: str) -> bool:
    """Return whether BERT makes a word of its own of a character, so that it never continues one."""
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


def save_tokenizer(tokenizer: Tokenizer, directory: Path, *, max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and vocab.txt as transformers reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    normalizer = json.loads(tokenizer.to_str())["normalizer"]
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        "model_max_length": max_length,
        **SPECIAL,
    }
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    entries = sorted(vocabulary, key=vocabulary.__getitem__)
    (directory / "vocab.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """Read the special ids of a BERT tokenizer; random replacements exclude them and the unused entries.

    Raises:
        RecipeError: for a tokenizer that lacks one of them.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if lacking := [entry for entry in ("[CLS]", "[SEP]", "[MASK]") if entry not in vocabulary]:
        raise RecipeError(f"the vocabulary has no {' and no '.join(lacking)}: take a BERT with a WordPiece tokenizer")
    ordinary = [index for entry, index in vocabulary.items() if not (entry.startswith("[") and entry.endswith("]"))]
    return SpecialTokens(
        cls=vocabulary["[CLS]"],
        sep=vocabulary["[SEP]"],
        mask=vocabulary["[MASK]"],
        vocab_size=len(vocabulary),
        ordinary=np.sort(np.asarray(ordinary, dtype=np.int64)),
    )
