"""The bundle's contract as frozen values: what `manifest.json` says, and nothing about files or graphs.

Whatever format was read, the values have the shape of format 2, and that is what is written. In its open places
(inputs, heads, pooling, what a variant requires, task metrics, golden vectors) keys that this version does not know are
kept and written again; anywhere else they are refused.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.digest import digest_of, sealed
from bertport.runtime.bundle.parsing import MOST_QUOTED, OMITTED, json_values, parse
from bertport.runtime.errors import BundleError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import HEADS, NSP
from bertport.runtime.installation import upgrade_advice

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "FORMAT_VERSION",
    "OPSET",
    "Architecture",
    "FileEntry",
    "GoldenVectors",
    "HeadEntry",
    "Input",
    "Manifest",
    "Pooling",
    "Requires",
    "Source",
    "Stored",
    "Validation",
    "Variant",
    "encoder_inputs",
    "heads_of",
    "read_manifest",
    "refuse_outside",
]

FORMAT_VERSION = 2
"""The manifest format that this version writes, and the newest that it reads."""
DEEPEST = 100
"""Levels of objects and lists; those of today take six."""
LONGEST_PATH = 512
"""Characters of a file's path inside the bundle."""
LONGEST_INPUT = 1_000_000
"""Tokens; attention over as many would take terabytes."""
OPSET = "ai.onnx"
"""The domain of the standard operators."""


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
class Input:
    """One input of the encoder."""

    dtype: str
    """Element type."""
    axes: tuple[str, ...]
    """A name per axis."""
    constant: int | None = None
    """The value of every element where the tokenizer does not give it; None where it does."""
    further: dict[str, Any] = field(default_factory=dict)
    """What this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadEntry:
    """One head of the model, and what its output means."""

    output: str
    """Name of the graph's output."""
    axes: tuple[str, ...]
    """A name per axis of the output, as the portable graph gives it."""
    labels: tuple[str, ...] | None = None
    """A readable label per column of the last axis; None where it does not classify."""
    problem_type: str | None = None
    """As transformers calls it, for example `single_label_classification`; None where it does not classify."""
    positive: int | None = field(default=None, metadata={OMITTED: True})
    """Of two labels the one that says yes: for next-sentence, that B follows A."""
    further: dict[str, Any] = field(default_factory=dict)
    """What this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How one vector is made of a text's."""

    mode: str
    """`mean`, `cls`, `pooler`, …"""
    normalize: bool = False
    """Whether it is divided by its Euclidean length."""
    further: dict[str, Any] = field(default_factory=dict)
    """What this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How far a graph was from PyTorch fp32 when it was exported."""

    atol: float
    """Tolerance that held, absolute."""
    cases: int
    """Number of input batches compared."""
    seeds: tuple[int, ...] = ()
    """Of the random inputs; none where they were not recorded."""
    worst: dict[str, float]
    """Largest absolute difference seen, by output name."""
    worst_padding: dict[str, float] = field(default_factory=dict)
    """The same at padded positions, where they were judged apart: nobody reads them."""
    decided_by_float64: int = 0
    """Number of values in which PyTorch and the graph both strayed from float64, and the graph was no farther."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requires:
    """What a variant needs of an execution provider."""

    operator_domains: dict[str, int]
    """Versions of the operator sets used, by domain; the standard one is `ai.onnx`."""
    ir_version: int
    """ONNX IR version."""
    dtypes: tuple[str, ...]
    """Element types that are stored or computed in, but for the integers and truth values that serve shapes."""
    precision: str
    """How products are computed: fp32, fp16, int8-dynamic, int8-static (unsigned activations), int8-static-symmetric,
    int8-weight-only or int4-weight-only."""
    isa: str | None = None
    """The CPU instruction set it was made for; None where any will do."""
    further: dict[str, Any] = field(default_factory=dict)
    """What this version does not know."""

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return self.operator_domains[OPSET]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One graph of the bundle."""

    file: str
    """Path of the graph inside the bundle."""
    kind: str
    """`portable` (every position decoded, opens anywhere) or `serving` (has the input `masked_positions`)."""
    recipe: str
    """How its weights are stored: `fp32`, `int8-dynamic`, …"""
    requires: Requires
    """What it needs of a provider."""
    outputs: tuple[str, ...]
    """Names of the graph's outputs, in order."""
    external_data: tuple[str, ...] = ()
    """Files inside the bundle that hold the graph's initialisers, beside the graph itself."""
    validation: Validation | None = None
    """Difference from PyTorch, for graphs that were compared with it."""
    fidelity: dict[str, Any] | None = None
    """Difference from the fp32 variant as measured, for quantized variants (docs/reference/quantization.md)."""
    task_metrics: dict[str, Any] = field(default_factory=dict)
    """Figures on labelled tasks, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenVectors:
    """Inputs with the outputs that they must give."""

    file: str
    """Path inside the bundle."""
    further: dict[str, Any] = field(default_factory=dict)
    """What this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a bundle says of itself."""

    name: str
    """Name shown to people."""
    created: str
    """UTC time of the export, ISO 8601."""
    source: Source
    architecture: Architecture
    inputs: dict[str, Input]
    """Of the encoder, by name."""
    heads: dict[str, HeadEntry]
    """The heads present, by name: `mlm`, `nsp`, `pooler`, or what a later version adds."""
    pooling: Pooling | None = None
    """How one vector is made of a text's; None where the checkpoint does not say."""
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
    golden_vectors: GoldenVectors | None = None
    """Inputs with the outputs that they must give; None where there are none."""
    tools: dict[str, str]
    """Versions of what made the bundle, by package name."""
    files: dict[str, FileEntry]
    """Every file of the bundle but manifest.json and README.md, by path."""

    @property
    def judges_pairs(self) -> bool:
        """Whether the head that judges pairs of texts is there, and a second segment for it to tell them apart by."""
        return NSP in self.heads and self.architecture.type_vocab_size > 1

    @property
    def segments(self) -> int | None:
        """The value of every element of `token_type_ids`; None where the tokenizer gives them."""
        given = self.inputs.get("token_type_ids")
        return given.constant if given else None

    def to_bytes(self) -> bytes:
        """Return the content of `manifest.json`, its digest included.

        Raises:
            BundleError: for what JSON cannot hold.
        """
        try:
            return sealed({"format_version": FORMAT_VERSION} | json_values(self))
        except ValueError as error:
            raise BundleError(
                f"the manifest cannot be written as JSON ({error}): measure again, or export again"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values, as `to_bytes` writes them."""
        value: dict[str, Any] = json.loads(self.to_bytes())
        return value

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Read a manifest of any format from JSON values; a digest among them is not looked at.

        Format 1 ignores fields that it does not know; format 2 refuses them outside its open places.

        Raises:
            BundleError: for a newer format, a missing, unknown or ill-typed field, or a path that leaves the bundle.
        """
        from bertport.runtime.bundle import format1

        if not isinstance(value, dict) or type(version := value.get("format_version")) is not int:
            raise BundleError(
                "manifest.json has no format_version: this is not a bertport bundle; make one with `bertport export`"
            )
        if version > FORMAT_VERSION:
            raise BundleError(
                f"the bundle has format {version} and this version of bertport reads up to {FORMAT_VERSION}: "
                + upgrade_advice()
            )
        if version < 1:
            raise BundleError(
                f"manifest.json states format {version}, and the first was 1: the bundle is damaged; export again"
            )
        if version == 1:
            manifest = format1.read(value)
        else:
            fields = {key: each for key, each in value.items() if key not in {"format_version", "digest"}}
            manifest = parse(cls, fields, "manifest.json")
        _check(manifest)
        return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A manifest as it was read."""

    manifest: Manifest
    """What it says, in the shape of format 2."""
    digest: str
    """What stands for all of it: see `bertport.runtime.bundle.digest`."""
    format_version: int
    """The format it is stored in."""


def read_manifest(content: bytes) -> Stored:
    """Read the content of a `manifest.json`.

    Raises:
        BundleError: for what is no manifest, or was changed after it was written.
    """
    try:
        value = json.loads(
            content.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"manifest.json is not JSON ({excerpt(str(error), 200)}): the bundle is damaged; export again"
        ) from error
    stated = None
    if isinstance(value, dict) and value.get("format_version") == FORMAT_VERSION:
        stated = value.get("digest")
        if stated is None:
            raise BundleError(
                "manifest.json lacks its digest, which format 2 needs: the bundle is damaged; copy it again"
            )
    digest = digest_of(content, stated)
    if digest is None or (stated is not None and digest != stated):
        raise BundleError(
            f"manifest.json is not as it was written (it states the digest {excerpt(stated, 80)} and has "
            f"{digest or 'another'}): copy the bundle again, or export again"
        )
    _refuse_nested(value)
    _refuse_surrogates(value)
    manifest = Manifest.from_json(value)
    return Stored(manifest=manifest, digest=digest, format_version=value["format_version"])


def encoder_inputs(*, segments: int | None = None) -> dict[str, Input]:
    """Return the inputs of a BERT.

    Args:
        segments: the value of every element of `token_type_ids`; None where the tokenizer gives them.
    """
    constants = {"input_ids": None, "attention_mask": None, "token_type_ids": segments}
    return {
        name: Input(dtype="int64", axes=("batch", "sequence"), constant=constant)
        for name, constant in constants.items()
    }


def heads_of(names: Iterable[str]) -> dict[str, HeadEntry]:
    """Return what a manifest says of heads, by the table of heads."""
    return {
        head.name: HeadEntry(
            output=head.output,
            axes=head.axes,
            labels=head.labels,
            problem_type=head.problem_type,
            positive=head.positive,
        )
        for head in map(HEADS.__getitem__, names)
    }


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members, no two of one name."""
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {excerpt(repeated, 80)} is there twice")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON's")


def _finite(text: str) -> float:
    """Read a number; one that is too large for a float would be an infinity, which JSON cannot hold."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is larger than any float")
    return value


def _refuse_nested(value: object) -> None:
    """Refuse what is nested deeper than Python's stack lets it be written again; its open places hold anything."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            each
            for outer in level
            for each in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(each, dict | list)
        ]
        if not level:
            return
    raise BundleError(f"manifest.json is nested more than {DEEPEST} levels deep: the bundle is damaged; export again")


def _refuse_surrogates(value: object) -> None:
    """Refuse text that has no UTF-8 (half of a pair of escapes), as it could be neither shown nor written again.

    Called when the nesting is known to be bounded.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(each)
    elif isinstance(value, list):
        for each in value:
            _refuse_surrogates(each)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BundleError(
                f"manifest.json has a text that is not Unicode text ({excerpt(value, 80)}): the bundle is damaged; "
                "export again"
            ) from error


def _check(manifest: Manifest) -> None:
    """Refuse what is well formed and cannot be."""
    named = {path for each in manifest.variants.values() for path in (each.file, *each.external_data)}
    if manifest.golden_vectors:
        named.add(manifest.golden_vectors.file)
    for path in sorted(named - manifest.files.keys()):
        raise BundleError(
            f"manifest.json names {path[:MOST_QUOTED]!r} but does not list it among its files: export again"
        )
    for path in manifest.files:
        refuse_outside(path)
    if not 1 <= manifest.max_length <= LONGEST_INPUT:
        stated = excerpt(manifest.max_length, 40)
        raise BundleError(f"manifest.json: max_length is {stated} tokens: the bundle is damaged; export again")
    for name, variant in manifest.variants.items():
        if OPSET not in variant.requires.operator_domains:
            raise BundleError(
                f"manifest.json: variant {name[:MOST_QUOTED]!r} requires no version of {OPSET}: "
                "the bundle is damaged; export again"
            )
    _check_inputs(manifest)
    _check_labels(manifest)
    if manifest.default_variant not in manifest.variants:
        raise BundleError(
            f"manifest.json names the default variant {manifest.default_variant[:MOST_QUOTED]!r}, "
            "which it does not describe"
        )


def _check_inputs(manifest: Manifest) -> None:
    """Refuse a constant that is no row of the embedding of segments, and one for ids or the mask.

    Inputs that only a later version knows are its own affair.
    """
    rows = {"input_ids": 0, "attention_mask": 0, "token_type_ids": manifest.architecture.type_vocab_size}
    for name in rows.keys() & manifest.inputs.keys():
        each = manifest.inputs[name]
        if each.constant is not None and each.constant not in range(rows[name]):
            raise BundleError(
                f"manifest.json: the input {name[:MOST_QUOTED]!r} is {each.constant} everywhere, which it cannot be: "
                "the bundle is damaged; export again"
            )


def _check_labels(manifest: Manifest) -> None:
    """Refuse labels that are not those of the columns."""
    for name, head in manifest.heads.items():
        labels, positive = head.labels or (), head.positive
        row = HEADS.get(name) if head.labels is not None else None
        count, columns = len(labels), f"the columns of the head {name[:MOST_QUOTED]!r}"
        if row and row.label_count is not None:
            count, columns = row.label_count, f"the {row.label_count} columns of {row.title}"
        optional = row is None or row.positive is None
        if len(labels) != count or (positive not in range(count) and not (optional and positive is None)):
            raise BundleError(
                f"manifest.json gives {len(labels)} labels to {columns}, and calls column {positive} positive: "
                "the bundle is damaged; export again"
            )


def refuse_outside(path: str) -> None:
    """Refuse a path that is none inside a bundle.

    Raises:
        BundleError: for such a path.
    """
    if len(path) > LONGEST_PATH:
        raise BundleError(
            f"manifest.json names {excerpt(path)}, of {len(path):,} characters, and a path has {LONGEST_PATH} at most: "
            "the bundle is damaged; export again"
        )
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or "\0" in path:
        named = path[:MOST_QUOTED]
        raise BundleError(
            f"manifest.json names {named!r}, which is outside the bundle: do not use a bundle from this source"
        )
