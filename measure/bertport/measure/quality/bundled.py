"""What measuring takes out of a bundle: graphs, the tokenizer, and the model's conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.measure.quality.model import OnnxGraph
from bertport.measure.quality.results import Conventions
from bertport.runtime.text.tokenizer import TOKENIZER, Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.model import Model

__all__ = ["conventions", "graph_of", "read_tokenizer", "size_of"]


def graph_of(model: Model) -> OnnxGraph:
    """Return the graph of a model that `bertport.runtime.load` opened, to be measured as it serves."""
    return OnnxGraph(model.graph.session)


def read_tokenizer(bundle: Bundle) -> Tokenizer:
    """Read a bundle's tokenizer, without the truncation and padding that some checkpoints store in it.

    Raises:
        BundleError: when the bundle lists none, or it is changed.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(bundle.read(TOKENIZER).decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def conventions(bundle: Bundle) -> Conventions:
    """Read the conventions of a bundle's model; the padding id is 0 where its tokenizer has none, as in BERT."""
    return Conventions(
        max_length=bundle.manifest.max_length,
        pad=Tokens.read(bundle).pad_id or 0,
        heads=bundle.manifest.heads,
    )


def size_of(bundle: Bundle, variant: str) -> int:
    """Return the bytes of a variant's graph and of the files that hold its weights.

    A file that two variants share counts for each: it is what one variant needs to be there.
    """
    entry = bundle.manifest.variants[variant]
    return sum(bundle.manifest.files[name].size for name in {entry.file, *entry.external_data})
