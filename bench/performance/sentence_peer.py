"""sentence-transformers with each of its backends, which averages the vectors of a text's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.performance.peers import Opening, Peer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.measure.speed.loaded import Answer

__all__ = ["SentenceTransformers"]


class SentenceTransformers(Peer):
    """sentence-transformers; its variant is a backend and, but for torch, the file of it: `onnx:onnx/model.onnx`."""

    def __init__(self, opening: Opening) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        if opening.threads:
            torch.set_num_threads(opening.threads)
        backend, _, file = str(opening.variant).partition(":")
        settings: dict[str, Any] = {"file_name": file} if file else {}
        if backend == "onnx":
            settings["provider"] = "CPUExecutionProvider"
        load: Any = SentenceTransformer  # typed for the backends of one version
        self.model = load(str(opening.path), device="cpu", backend=backend, model_kwargs=settings)

    def answer(self, task: str, inputs: Sequence[Any]) -> list[Answer]:  # noqa: ARG002 — it knows one
        """Answer one batch."""
        vectors = self.model.encode(list(inputs), batch_size=len(inputs), show_progress_bar=False)
        return [{"vector": vector.tolist()} for vector in vectors]
