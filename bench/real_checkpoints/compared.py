"""Answers of a real checkpoint's bundle, beside transformers' own model and beside its INT8 variant."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.measure.text import read_texts, sample_path
from bertport.quantize.job import Options
from bertport.quantize.quantizer import quantize
from bertport.quantize.texts import POSITIONS
from bertport.runtime import load
from bertport.runtime.bundle.directory import file_sha256
from bertport.runtime.errors import ValidationError
from bertport.runtime.session import open_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.model import Model

__all__ = ["TEXTS", "compare", "texts"]

TEXTS = 64
"""Texts that are compared: of 4 words, of 5, and so on."""
TOP = 5
"""Words for a mask that are compared."""
INT8 = "int8-dynamic"
EMBEDDING = 3
"""Place of the embedding among the outputs of that graph, behind both inputs and the hidden states."""
WITHOUT_WORDS = 500
"""Masked positions to measure INT8 on where no head fills them in: hidden states alone need no more."""


def texts() -> list[str]:
    """Return beginnings of paragraphs of the evaluation sample, each a word longer than the one before."""
    paragraphs = [text.text.split() for text in read_texts(sample_path("evaluation"))]
    long = [words for words in paragraphs if len(words) >= TEXTS + 4]
    return [" ".join(words[: count + 4]) for count, words in enumerate(long[:TEXTS])]


def compare(checkpoint: Path, bundle: Bundle, graph: Path | None, *, sentences: bool) -> dict[str, Any]:
    """Compare a bundle with what it was made of, text by text, quantize it, and compare again.

    Args:
        checkpoint: The checkpoint's directory.
        bundle: Its bundle, of fp32 alone; int8-dynamic is added.
        graph: The ONNX graph that the weights are from, which is the peer for embeddings; None where there is none.
        sentences: Whether embeddings of sentences are compared.
    """
    given = texts()
    model = load(bundle.path, variant="fp32")
    expected = hidden_states(checkpoint, given)
    states = model.features(given)
    manifest = bundle.manifest
    validation = manifest.variants["fp32"].validation
    result: dict[str, Any] = {
        "architecture": {
            "model_class": manifest.architecture.model_class,
            "layers": manifest.architecture.layers,
            "hidden_size": manifest.architecture.hidden_size,
            "parameters": manifest.architecture.parameters,
        },
        "weights_sha256": file_sha256(checkpoint / "model.safetensors"),
        "heads": sorted(manifest.heads),
        "validation": {"cases": validation.cases, "worst": validation.worst} if validation else None,
        "hidden": {
            "texts": len(given),
            "tokens": sum(map(len, states)),
            "worst": max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(states, expected, strict=True)),
        },
    }
    if "mlm" in manifest.heads:
        result["masked"] = masked_words(checkpoint, model, given)
    peer: NDArray[np.float32] | None = None
    if sentences:
        peer, named = embeddings(checkpoint, given, graph)
        ours = model.features(given, pooling="mean", normalize=True)
        result["embeddings"] = {"beside": named, "worst": float(np.abs(ours - peer).max()), **cosines(ours, peer)}
    result[INT8] = quantized(bundle, given, np.concatenate(expected), peer)
    return result


def hidden_states(checkpoint: Path, given: Sequence[str]) -> list[NDArray[np.float32]]:
    """Return the hidden states `[tokens, hidden]` of transformers' model, each text alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy() for text in given]


def masked_words(checkpoint: Path, model: Model, given: Sequence[str]) -> dict[str, Any]:
    """Mask the word in the middle of each text, and compare the words that both put there."""
    from transformers import pipeline

    mask = str(model.mask_token)
    halves = [text.split() for text in given]
    cut = [" ".join((*words[: len(words) // 2], mask, *words[len(words) // 2 + 1 :])) for words in halves]
    theirs: Any = pipeline("fill-mask", model=str(checkpoint), device="cpu", top_k=TOP)(cut)
    ours: Any = model.fill_mask(cut, top_k=TOP)
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "texts": len(cut),
        "same_words": sum([a["token_str"] for a in our] == [a["token_str"] for a in their] for our, their in pairs),
        "worst": max(abs(a["score"] - b["score"]) for our, their in pairs for a, b in zip(our, their, strict=True)),
    }


def embeddings(checkpoint: Path, given: Sequence[str], graph: Path | None) -> tuple[NDArray[np.float32], str]:
    """Return embeddings `[texts, hidden]` of length 1 that another program makes, and its name."""
    if graph is None:
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found,unused-ignore]

        encoder = SentenceTransformer(str(checkpoint), device="cpu")
        version = metadata.version("sentence-transformers")
        return encoder.encode(list(given), normalize_embeddings=True), f"sentence-transformers {version}"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    session = open_session(graph)
    inputs = [dict(tokenizer(text, return_tensors="np", return_token_type_ids=False)) for text in given]
    vectors = np.concatenate([session.run(None, feeds)[EMBEDDING] for feeds in inputs])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "the graph that its weights are from"


def quantized(
    bundle: Bundle, given: Sequence[str], expected: NDArray[np.float32], peer: NDArray[np.float32] | None
) -> dict[str, Any]:
    """Add int8-dynamic with the default budget; compare it with PyTorch's hidden states and the peer's embeddings."""
    positions = POSITIONS if "mlm" in bundle.manifest.heads else WITHOUT_WORDS
    options = Options(positions=positions, force=True)  # speed is not asked here
    try:
        [outcome] = quantize(bundle.path, [INT8], options=options)
    except ValidationError as error:
        return {"refused": str(error)}
    int8 = load(bundle.path, variant=INT8)
    result = {
        "bytes": outcome.measured.size,
        "of_fp32": outcome.measured.size_of_reference,
        "accuracy": outcome.measured.accuracy.to_json(),
        "hidden": cosines(np.concatenate(int8.features(given)), expected),
    }
    if peer is not None:
        result["embeddings"] = cosines(int8.features(given, pooling="mean", normalize=True), peer)
    return result


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, float]:
    """Return the mean and the least cosine of rows of two arrays `[rows, width]`."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    products = (ours * theirs).sum(axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
    return {"mean": float(products.mean()), "least": float(products.min())}
