"""From a bundle's directory to a model: which variant on which provider, and only files that are as exported."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from bertport.runtime.bundle import Bundle
from bertport.runtime.elsewhere import tell
from bertport.runtime.embedded import default_bundle
from bertport.runtime.errors import ProviderError
from bertport.runtime.graph import open_graph
from bertport.runtime.model import Model
from bertport.runtime.providers import AUTO, candidates, onnxruntime
from bertport.runtime.tokens import TOKENIZER_FILES, Tokens
from bertport.runtime.variants import choices

if TYPE_CHECKING:
    import os

    from bertport.runtime.providers import Provider

__all__ = ["load"]


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    variant: str | None = None,
    provider: str = AUTO,
    threads: int | None = None,
) -> Model:
    """Open a bundle to ask it.

    Args:
        path: the bundle's directory; None for the embedded default.
        variant: one of the bundle's variants; None for its default, or the best for the provider.
        provider: `cpu`, `cuda`, `tensorrt`, `openvino`, or `auto` for the best that really works here.
        threads: threads within an operator; None for one per physical core.

    Returns:
        A model, safe to use from several threads.

    Raises:
        PathError: when there is no such directory, or no embedded default.
        BundleError: when it is not a bundle, or a file that is needed is missing or changed.
        UnknownNameError: for a variant or provider that there is not.
        ProviderError: when the provider does not work here; never does another one take its place.
        MissingDependencyError: when ONNX Runtime is not installed.
    """
    bundle = Bundle.open(default_bundle() if path is None else path)
    pairs = choices(bundle.manifest, variant, provider, candidates(provider))
    *hopeful, (name, row) = pairs
    for each, candidate in hopeful:  # more than one only under `auto`, which goes on to what works
        with suppress(ProviderError):
            return _open(bundle, each, candidate, threads)
    return _open(bundle, name, row, threads)


def _open(bundle: Bundle, variant: str, provider: Provider, threads: int | None) -> Model:
    entry = bundle.manifest.variants[variant]
    texts = [name for name in TOKENIZER_FILES if name in bundle.manifest.files]
    bundle.check(texts)
    with bundle.checking((entry.file, *entry.external_data)):  # waiting for it is a tenth of the time to load
        onnxruntime()
        tokens = Tokens.read(bundle)
    tell(bundle, variant, provider)
    return Model(bundle, variant, open_graph(bundle.file(entry.file), provider, threads=threads), tokens)
