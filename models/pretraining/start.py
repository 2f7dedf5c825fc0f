"""Start of a run: its tokenizer and its model, from an encoder or from nothing."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from bertport.runtime.bundle.directory import file_sha256

from . import encoder, vocabulary
from .corpus import read_sections
from .errors import RecipeError
from .model import Start, from_config, from_encoder, weights_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Starting point of a run."""

    name: str
    """The encoder's name, or the file name of the configuration."""
    path: Path
    """The checkpoint directory, or the configuration file."""
    sha256: str
    """SHA-256 of its weights, or of the configuration."""
    tokenizer: Tokenizer
    """Without truncation or padding."""

    def model(self, *, layers: int | None) -> Start:
        """Read or make the model; random weights come from torch's generator."""
        if self.path.is_dir():
            return from_encoder(self.path, layers=layers)
        return from_config(self.path, vocab_size=self.tokenizer.get_vocab_size(with_added_tokens=True))


def open_encoder(init: str, cache: Path) -> Origin:
    """Open a checkpoint directory, or the pinned encoder by its name.

    Raises:
        RecipeError: when it is not there, cannot be fetched, or lacks a file.
    """
    path = encoder.fetch_pinned(cache) if init == encoder.PINNED else Path(init)
    if not path.is_dir():
        raise RecipeError(
            f"--init {init}: no such directory; name a checkpoint directory, or {encoder.PINNED} for the pinned encoder"
        )
    for name in ("config.json", "tokenizer.json"):
        if not (path / name).is_file():
            raise RecipeError(
                f"--init {init}: {name} is missing there; expected config.json, tokenizer.json and the weights"
            )
    sha256 = file_sha256(weights_file(path))
    return Origin(
        name=encoder.PINNED if sha256 == encoder.WEIGHTS_SHA256 else path.resolve().name,
        path=path,
        sha256=sha256,
        tokenizer=vocabulary.read_tokenizer(path / "tokenizer.json"),
    )


def open_scratch(config: Path, corpus: Path, output: Path, *, vocab_size: int) -> Origin:
    """Open a configuration and a vocabulary trained on the corpus, which is kept in `output` for later resumptions."""
    trained = output / f"vocabulary-{vocab_size}"
    if not (trained / "tokenizer.json").is_file():
        texts = (paragraph for _, paragraphs in read_sections(corpus) for paragraph in paragraphs)
        trained.mkdir(parents=True, exist_ok=True)
        unfinished = trained / "tokenizer.json.tmp"
        vocabulary.train_tokenizer(texts, vocab_size).save(str(unfinished))
        unfinished.replace(trained / "tokenizer.json")
    return Origin(
        name=config.name,
        path=config,
        sha256=file_sha256(config),
        tokenizer=vocabulary.read_tokenizer(trained / "tokenizer.json"),
    )
