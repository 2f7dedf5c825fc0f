"""Answer from a bundle: fill-mask, next-sentence and features through ONNX Runtime, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.runtime.providers import telemetry

if TYPE_CHECKING:
    from bertport.runtime.loading import load
    from bertport.runtime.model import Model
    from bertport.runtime.pipelines.pipeline import Pipeline, pipeline

__all__ = ["Model", "Pipeline", "load", "pipeline"]

telemetry.turn_off()  # here, because this is imported before anything that imports ONNX Runtime


def __getattr__(name: str) -> object:
    """Import the interface when it is first asked for: the command line's help needs none of numpy and tokenizers."""
    if name in {"Pipeline", "pipeline"}:
        from bertport.runtime.pipelines import pipeline as module

        return getattr(module, name)
    if name in __all__:
        from bertport.runtime import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
