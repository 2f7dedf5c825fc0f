"""Models to be scored: a bundle through bertport's runtime, or a checkpoint through PyTorch, behind one call."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bertport.runtime import load
from bertport.runtime.bundle.directory import MANIFEST, Bundle
from bertport.runtime.bundle.select import suits
from bertport.runtime.excerpts import one_line
from bertport.runtime.heads import MLM, NSP
from pretraining.errors import RecipeError
from pretraining.vocabulary import read_tokenizer

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
NEEDED = "the scores are of the heads mlm and nsp: name a bundle or a BertForPreTraining that has both"


class Scorer(Protocol):
    """A model with both heads."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, without truncation and padding."""

    @property
    def max_length(self) -> int:
        """Longest input, in tokens."""

    def __call__(self, input_ids: Ids, token_type_ids: Ids, positions: Ids) -> tuple[Logits, Logits]:
        """Run one batch without padding.

        Args:
            input_ids: token ids. Shape: (rows, length)
            token_type_ids: 0 or 1. Shape: (rows, length)
            positions: flat indices, into rows x length, of the tokens to predict. Shape: (masked,)

        Returns:
            MLM logits of shape (masked, vocabulary) and NSP logits of shape (rows, 2).
        """


class BundleScorer:
    """A variant of a bundle, run as `bertport.runtime.load` runs it.

    Raises:
        RecipeError: for a bundle without both heads.
    """

    def __init__(self, path: Path, variant: str, *, provider: str = "cpu") -> None:
        self.model = load(path, variant=variant, provider=provider)
        manifest = self.model.bundle.manifest
        if not {MLM, NSP} <= manifest.heads.keys():
            raise RecipeError(f"{path} has the heads {', '.join(manifest.heads) or 'none'}, and {NEEDED}")
        self.max_length = manifest.max_length
        self.tokenizer = read_tokenizer(path / "tokenizer.json")

    def __call__(self, input_ids: Ids, token_type_ids: Ids, positions: Ids) -> tuple[Logits, Logits]:
        """Run one batch; see `Scorer`."""
        feeds = {
            "input_ids": input_ids,
            "attention_mask": np.ones_like(input_ids),
            "token_type_ids": token_type_ids,
            "masked_positions": positions,
        }
        values = self.model.graph.run(feeds, ["logits", "seq_relationship_logits"])
        logits = values["logits"]
        if "masked_positions" not in self.model.graph.inputs:  # a portable graph decodes every position
            logits = logits.reshape(input_ids.size, -1)[positions]
        return logits, values["seq_relationship_logits"]


class CheckpointScorer:
    """A checkpoint directory, run by PyTorch in float32.

    Raises:
        RecipeError: for one that transformers cannot read, or that lacks weights of the encoder or of a head.
    """

    def __init__(self, path: Path) -> None:
        from transformers import BertForPreTraining

        kind: Any = BertForPreTraining  # whose annotation has the model alone
        try:
            model, loading = kind.from_pretrained(path, output_loading_info=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = one_line(error)[:200]
            raise RecipeError(f"transformers cannot read {path} ({reason}), and {NEEDED}") from error
        if lost := sorted(loading["missing_keys"]):
            raise RecipeError(f"{path} lacks {lost[0]}, and {NEEDED}")
        self.model = model.eval()
        self.max_length = int(self.model.config.max_position_embeddings)
        self.tokenizer = read_tokenizer(path / "tokenizer.json")

    def __call__(self, input_ids: Ids, token_type_ids: Ids, positions: Ids) -> tuple[Logits, Logits]:
        """Run one batch; see `Scorer`."""
        import torch

        with torch.no_grad():
            output = self.model.bert(
                input_ids=torch.from_numpy(input_ids), token_type_ids=torch.from_numpy(token_type_ids)
            )
            hidden = output.last_hidden_state.flatten(0, 1)[torch.from_numpy(positions)]
            mlm = self.model.cls.predictions(hidden)
            nsp = self.model.cls.seq_relationship(output.pooler_output)
        return mlm.numpy(), nsp.numpy()


def serving_variants(bundle: Bundle, provider: str = "cpu") -> list[str]:
    """Name the variants that `load` can choose on a provider, the default one first."""
    manifest = bundle.manifest
    names = [
        name
        for name, variant in manifest.variants.items()
        if variant.kind == "serving" and suits(variant.requires, provider)
    ]
    return sorted(names, key=lambda name: (name != manifest.default_variant, name))


def is_bundle(path: Path) -> bool:
    """Return whether a path is a bundle, not a checkpoint directory."""
    return (path / MANIFEST).is_file()
