"""The bundle's contract as frozen values: what `manifest.json` says, and nothing about files or graphs."""

from __future__ import annotations

import dataclasses
import types
import typing
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import excerpt

__all__ = [
    "FORMAT_VERSION",
    "Architecture",
    "FileEntry",
    "Manifest",
    "NextSentence",
    "Source",
    "Validation",
    "Variant",
]

FORMAT_VERSION = 1
"""The manifest format that this version writes, and the newest that it reads."""
MOST_QUOTED = 200
"""Characters of a name that an error repeats."""
LONGEST_PATH = 512
"""Characters of a file's path inside the bundle."""
NSP_COLUMNS = 2
"""Of `seq_relationship_logits`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of the bundle."""

    size: int
    """Size in bytes."""
    sha256: str
    """SHA-256 of the content, in hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The checkpoint a bundle was exported from."""

    name: str
    """Hub id, or the name of the local directory."""
    revision: str | None
    """Commit of the Hub repository; None for a local directory."""
    weights_sha256: dict[str, str]
    """SHA-256 of each weight file, by file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The encoder's dimensions."""

    model_class: str
    """transformers' class of the checkpoint, for example `BertForPreTraining`."""
    layers: int
    """Number of encoder layers."""
    hidden_size: int
    """Width of the hidden states."""
    attention_heads: int
    """Attention heads per layer."""
    intermediate_size: int
    """Width of the feed-forward layers."""
    vocab_size: int
    """Rows of the word embedding."""
    type_vocab_size: int
    """Rows of the token type embedding: 2 where sentence pairs were trained."""
    parameters: int
    """Number of parameters, the tied matrix counted once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSentence:
    """What the columns of `seq_relationship_logits` mean."""

    labels: tuple[str, ...] = ("is_next", "not_next")
    """A readable label per column; BERT's polarity is 0: B follows A, 1: B is from another place."""
    positive: int = 0
    """The column that says that B follows A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How far a graph was from PyTorch fp32 when it was exported."""

    atol: float
    """Tolerance that held, absolute."""
    cases: int
    """Number of input batches compared."""
    worst: dict[str, float]
    """Largest absolute difference seen, by output name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One graph of the bundle."""

    file: str
    """Path of the graph inside the bundle."""
    kind: str
    """`portable` (every position decoded, opens anywhere) or `serving` (has the input `masked_positions`)."""
    recipe: str
    """How its weights are stored: `fp32`, `int8-dynamic`, …"""
    providers: tuple[str, ...]
    """Short names of the providers it is for, best first."""
    isa: str | None = None
    """The CPU instruction set it was made for; None where any will do."""
    opset: int
    """Version of the standard operator set."""
    ir_version: int
    """ONNX IR version."""
    domains: dict[str, int] = field(default_factory=dict)
    """Operator domains beside the standard one, with their versions."""
    outputs: tuple[str, ...]
    """Names of the graph's outputs, in order."""
    external_data: tuple[str, ...] = ()
    """Files inside the bundle that hold the graph's initialisers, beside the graph itself."""
    validation: Validation | None = None
    """Difference from PyTorch, for graphs that were compared with it."""
    fidelity: dict[str, Any] | None = None
    """Difference from the fp32 variant as measured, for quantized variants (see docs/quantization.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a bundle says of itself."""

    format_version: int = FORMAT_VERSION
    name: str
    """Name shown to people."""
    created: str
    """UTC time of the export, ISO 8601."""
    source: Source
    architecture: Architecture
    heads: tuple[str, ...]
    """The heads present, out of `mlm`, `nsp` and `pooler`."""
    next_sentence: NextSentence | None
    """None without the NSP head."""
    max_length: int
    """Longest input, in tokens, special tokens included."""
    lowercase: bool | None
    """Whether the tokenizer lower-cases; None where it cannot be told."""
    languages: tuple[str, ...]
    """BCP 47 tags as the checkpoint's card states them; empty where it does not."""
    licence: str | None
    """Licence of the weights as the checkpoint's card states it; None where it does not."""
    variants: dict[str, Variant]
    """By name; `portable` is always there."""
    default_variant: str
    """The variant that `load` takes when none is asked for and the provider suits it."""
    tools: dict[str, str]
    """Versions of what made the bundle, by package name."""
    files: dict[str, FileEntry]
    """Every file of the bundle but manifest.json and README.md, by path."""

    def to_json(self) -> dict[str, Any]:
        """Give the manifest as JSON values."""
        value = dataclasses.asdict(self)
        return typing.cast("dict[str, Any]", _lists_for_tuples(value))

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Read a manifest from JSON values, ignoring fields that it does not know.

        Raises:
            BundleError: for a newer format, a missing or ill-typed field, or a path that leaves the bundle.
        """
        version = value.get("format_version") if isinstance(value, dict) else None
        if not isinstance(version, int):
            message = (
                "manifest.json has no format_version: this is not a bertport bundle; make one with `bertport export`"
            )
            raise BundleError(message)
        if version > FORMAT_VERSION:
            message = (
                f"the bundle has format {version} and this version of bertport reads up to {FORMAT_VERSION}: "
                "pip install --upgrade bertport"
            )
            raise BundleError(message)
        manifest: Manifest = _parse(cls, value, "manifest.json")
        for variant in manifest.variants.values():
            for path in (variant.file, *variant.external_data):
                if path not in manifest.files:
                    message = (
                        f"manifest.json names {path[:MOST_QUOTED]!r} but does not list it among its files: export again"
                    )
                    raise BundleError(message)
        for path in manifest.files:
            _refuse_outside(path)
        if manifest.max_length < 1:
            message = f"manifest.json: max_length is {manifest.max_length} tokens: the bundle is damaged; export again"
            raise BundleError(message)
        meaning = manifest.next_sentence
        if meaning and (len(meaning.labels) != NSP_COLUMNS or meaning.positive not in range(NSP_COLUMNS)):
            message = (
                f"manifest.json gives {len(meaning.labels)} labels to the two columns of next-sentence, and calls "
                f"column {meaning.positive} positive: the bundle is damaged; export again"
            )
            raise BundleError(message)
        if manifest.default_variant not in manifest.variants:
            message = (
                f"manifest.json names the default variant {manifest.default_variant[:MOST_QUOTED]!r}, "
                "which it does not describe"
            )
            raise BundleError(message)
        return manifest


def _refuse_outside(path: str) -> None:
    if len(path) > LONGEST_PATH:
        message = (
            f"manifest.json names {excerpt(path)}, of {len(path):,} characters, and a path has {LONGEST_PATH} at most: "
            "the bundle is damaged; export again"
        )
        raise BundleError(message)
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or "\0" in path:
        named = path[:MOST_QUOTED]
        message = f"manifest.json names {named!r}, which is outside the bundle: do not use a bundle from this source"
        raise BundleError(message)


def _lists_for_tuples(value: object) -> object:
    match value:
        case dict():
            return {key: _lists_for_tuples(item) for key, item in value.items()}
        case tuple() | list():
            return [_lists_for_tuples(item) for item in value]
    return value


def _parse(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401, C901, PLR0911 — a type in, a value of it out; one branch per kind
    """Turn a JSON value into a value of the annotated type `kind`, or say what was expected where."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        given: dict[str, Any] = {}
        for each in dataclasses.fields(kind):
            if each.name in value:
                given[each.name] = _parse(hints[each.name], value[each.name], f"{where}: {each.name}")
            elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
                message = f"{where} lacks the field {each.name!r}: the bundle is damaged; export again"
                raise BundleError(message)
        return kind(**given)  # type: ignore[operator]  # narrowed to a class above, which mypy cannot follow
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return _parse(next(each for each in arguments if each is not type(None)), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_parse(arguments[0], item, where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _parse(arguments[1], item, f"{where}: {key[:MOST_QUOTED]}") for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # JSON's integers have no end
            return float(value)
    if origin is None and isinstance(kind, type) and isinstance(value, kind) and (kind is bool or value is not True):
        return value
    expected = getattr(kind, "__name__", kind)
    message = f"{where}: expected {expected}, found {excerpt(value, 80)}: the bundle is damaged; export again"
    raise BundleError(message)
