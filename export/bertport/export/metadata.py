"""Metadata of the manifest: dimensions, the card's languages and licence, versions of packages."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.config import normalized
from bertport.export.checkpoint.source import read_part
from bertport.runtime.bundle.manifest import Architecture
from bertport.runtime.errors import CheckpointError
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from bertport.export.graph.wrapper import EncoderWithHeads

__all__ = ["architecture", "read_datasets", "read_front_matter", "tool_versions"]

TOOLS = ("bertport", "optimum", "optimum-onnx", "transformers", "torch", "onnx", "onnxruntime", "tokenizers")

FRONT_MATTER = 2**18
"""Bytes of a card that are read; those with the results of hundreds of benchmarks have half of it."""
MOST_TAGS = 1000
"""Languages or data sets that a card may name; a longer list is not read."""
LONGEST = 200
"""Characters of a language tag, or of a licence."""
NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
"""Scalars of YAML that stand for no value."""


def architecture(model: EncoderWithHeads, model_class: str) -> Architecture:
    """Return the dimensions of a model, from transformers' config, as Optimum reads it, and its parameters."""
    sizes = normalized(model.family, model.config)
    return Architecture(
        model_class=model_class,
        layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        attention_heads=sizes.num_attention_heads,
        intermediate_size=sizes.intermediate_size,
        vocab_size=sizes.vocab_size,
        type_vocab_size=model.segments,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def read_front_matter(directory: Path) -> tuple[tuple[str, ...], str | None]:
    """Return the languages and the licence stated in the YAML front matter of a checkpoint's README.md.

    A card that is missing or cannot be read states nothing, and so does a value that is neither text nor a list of it.
    """
    matter = _front_matter(directory / "README.md")
    tags = _texts(matter.get("language")) or _texts(matter.get("languages"))
    licences = _texts(matter.get("license"))
    return tags, licences[0] if licences else None


def read_datasets(directory: Path) -> tuple[str, ...]:
    """Return the data that a checkpoint was trained on, as its README.md states it; none where it cannot be read."""
    return _texts(_front_matter(directory / "README.md").get("datasets"))


def _front_matter(path: Path) -> dict[Any, Any]:
    """Return the front matter of a card, every scalar of it as text ("no" is Norwegian); empty where there is none."""
    try:
        return _parsed(read_part(path, FRONT_MATTER))
    except CheckpointError:
        return {}


@lru_cache(maxsize=1)  # a card with many results takes a second, and is asked for more than one thing
def _parsed(content: bytes) -> dict[Any, Any]:
    """Return the front matter at the beginning of a card; empty where it cannot be read."""
    import yaml

    class Loader(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML ships no types
        """YAML loader: texts, lists and dicts of what is written out, and no alias."""

        def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 — as above
            if self.check_event(yaml.events.AliasEvent):
                problem = "aliases, which can stand for more than memory holds, are not read"
                raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
            return super().compose_node(parent, index)

    try:
        matter, end, _ = content.partition(b"\n---")
        if not content.startswith(b"---") or (not end and len(content) > FRONT_MATTER):
            return {}
        values = yaml.load(matter.removeprefix(b"---").decode(), Loader=Loader)  # noqa: S506 — makes no objects
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    """Return the texts that an entry states; none of a list that holds anything else."""
    values = value if isinstance(value, list) else [value]
    stated = [value for value in values if not (isinstance(value, str) and value in NOTHING)]
    if len(stated) > MOST_TAGS:
        return ()
    texts = tuple(text for text in stated if isinstance(text, str) and len(text) <= LONGEST and text.isprintable())
    return texts if len(texts) == len(stated) else ()


def tool_versions() -> dict[str, str]:
    """Return the versions of the packages that make a bundle, and of Python."""
    versions = {}
    for name in TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # ONNX Runtime comes under several names (onnxruntime-gpu, …); its module knows its version.
            if name == "onnxruntime":
                versions[name] = onnxruntime().__version__
    return versions | {"python": platform.python_version()}
