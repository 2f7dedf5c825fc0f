"""What the checkpoint's config and card and this machine's packages have to say for the manifest."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

from bertport.runtime.manifest import Architecture
from bertport.runtime.providers import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from bertport.export.model import BertWithHeads

__all__ = ["architecture", "read_front_matter", "tool_versions"]

TOOLS = ("bertport", "optimum", "optimum-onnx", "transformers", "torch", "onnx", "onnxruntime", "tokenizers")


def architecture(config: Any, model: BertWithHeads, model_class: str) -> Architecture:  # noqa: ANN401 — a BertConfig
    """Give the dimensions of a model, from transformers' config and its parameters."""
    return Architecture(
        model_class=model_class,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        type_vocab_size=config.type_vocab_size,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def read_front_matter(directory: Path) -> tuple[tuple[str, ...], str | None]:
    """Give the languages and the licence stated in the YAML front matter of a checkpoint's README.md.

    A card that is missing or cannot be read states nothing.
    """
    import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

    try:
        text = (directory / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return (), None
    if not text.startswith("---"):
        return (), None
    try:
        matter = yaml.safe_load(text.split("\n---", 1)[0].removeprefix("---"))
    except yaml.YAMLError:
        return (), None
    if not isinstance(matter, dict):
        return (), None
    languages = matter.get("language") or matter.get("languages") or []
    languages = [languages] if isinstance(languages, str) else languages
    # YAML reads Norwegian's tag, "no", as false.
    tags = tuple("no" if each is False else str(each) for each in languages) if isinstance(languages, list) else ()
    licence = matter.get("license")
    licence = licence[0] if isinstance(licence, list) and licence else licence
    return tags, str(licence) if licence else None


def tool_versions() -> dict[str, str]:
    """Give the versions of the packages that make a bundle, and of Python."""
    versions = {}
    for name in TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # ONNX Runtime comes under several names (onnxruntime-gpu, …); its module knows its version.
            if name == "onnxruntime":
                versions[name] = onnxruntime().__version__
    return versions | {"python": platform.python_version()}
