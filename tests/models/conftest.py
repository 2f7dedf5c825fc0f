"""A tiny text, vocabulary and configuration for the recipes, and its own machine lock."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from pretraining import machine
from pretraining.corpus import Corpus, tokenize
from pretraining.model import from_config
from pretraining.objective import SpecialTokens
from pretraining.vocabulary import save_tokenizer, special_tokens, train_tokenizer

SUBJECTS = {
    "sea": ["The captain", "The sailor", "An old pilot", "The ship's boy"],
    "farm": ["The farmer", "A young girl", "The old horse", "My uncle"],
    "town": ["The lawyer", "A tired clerk", "The mayor", "Her landlord"],
}
ENDINGS = {
    "sea": ["watched the waves from the deck.", "tied the ropes before the storm.", "looked for land in the west."],
    "farm": ["carried hay into the barn.", "went slowly down to the field.", "drank cold water from the well."],
    "town": ["wrote a letter to the bank.", "walked along the crowded street.", "waited in the office until noon."],
}


def write_text(path: Path, *, sections: int, seed: int) -> Path:
    """Write a corpus file whose sections each stay with one of three subjects, so that there is something to learn."""
    rng = random.Random(seed)  # noqa: S311 — text, not secrets
    with path.open("w", encoding="utf-8") as file:
        for number in range(sections):
            topic = rng.choice(sorted(SUBJECTS))
            paragraphs = [
                " ".join(f"{rng.choice(SUBJECTS[topic])} {rng.choice(ENDINGS[topic])}" for _ in range(12))
                for _ in range(8)
            ]
            file.write(json.dumps({"id": f"{topic}#{number}", "paragraphs": paragraphs}) + "\n")
    return path


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "train.jsonl", sections=30, seed=1)


@pytest.fixture(scope="session")
def heldout_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "heldout.jsonl", sections=8, seed=2)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    texts = [text for table in (SUBJECTS, ENDINGS) for column in table.values() for text in column]
    return train_tokenizer(texts * 5, 200)


@pytest.fixture(scope="session")
def special(tokenizer: Tokenizer) -> SpecialTokens:
    return special_tokens(tokenizer)


@pytest.fixture(scope="session")
def corpus(text_file: Path, tokenizer: Tokenizer) -> Corpus:
    return tokenize(text_file, tokenizer)


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
    }
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undo what a test before has set: threads that wait for one another cost more than they save on a tiny model."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests off the machine's real lock: a training run in the background would be held up by them."""
    path = tmp_path / "machine.lock"
    monkeypatch.setattr(machine, "MACHINE_LOCK", path)
    return path


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, config_file: Path) -> Path:
    """A seeded tiny checkpoint with the heads that pretraining leaves on it."""
    path = tmp_path_factory.mktemp("encoder") / "tiny"
    torch.manual_seed(3)
    from_config(config_file, vocab_size=len(tokenizer.get_vocab())).model.save_pretrained(path)
    save_tokenizer(tokenizer, path, max_length=512)
    return path
