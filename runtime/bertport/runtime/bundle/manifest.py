"""Manifest: the bundle's contract as frozen values, as `manifest.json` states it; no files or graphs are touched.

Whatever format was read, the values have the shape of format 2, and that is what is written. In its open places
(inputs, heads, pooling, what a variant requires, task metrics, golden vectors) keys that this version does not know are
kept and written again; anywhere else they are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle.digest import sealed
from bertport.runtime.bundle.parsing import OMITTED, json_values
from bertport.runtime.errors import BundleError
from bertport.runtime.heads import HEADS, POOLER, SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "FORMAT_VERSION",
    "OPSET",
    "SIMILARITIES",
    "Architecture",
    "Embedding",
    "EmbeddingModule",
    "FileEntry",
    "GoldenVectors",
    "HeadEntry",
    "Input",
    "Manifest",
    "Pooling",
    "Requires",
    "Source",
    "Validation",
    "Variant",
    "encoder_inputs",
    "heads_of",
]

FORMAT_VERSION = 2
"""The manifest format that this version writes, and the newest that it reads."""
OPSET = "ai.onnx"
"""The domain of the standard operators."""
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
"""Similarity functions of vectors of texts, by the names of sentence-transformers; the last two are negative
distances."""


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
    """Fields that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModule:
    """One module of sentence-transformers that runs behind the encoder."""

    kind: str
    """`pooling`, `dense`, `layer-norm` or `normalize`."""
    modes: tuple[str, ...] | None = field(default=None, metadata={OMITTED: True})
    """Modes of a pooling of a text's hidden states, by the names of sentence-transformers: `cls`, `max`, `mean`,
    `mean_sqrt_len_tokens`, `weightedmean`, `lasttoken`; the vectors of several are concatenated."""
    include_prompt: bool | None = field(default=None, metadata={OMITTED: True})
    """False for a pooling that leaves out a prompt's tokens, of a model that has no prompts."""
    activation: str | None = field(default=None, metadata={OMITTED: True})
    """PyTorch's class of the function behind a dense layer: `Tanh`, `Identity`, …"""
    further: dict[str, Any] = field(default_factory=dict)
    """Fields that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """Settings that sentence-transformers records of a model whose head makes one vector of a text."""

    dimension: int
    """Numbers of the vector, as the graph gives it."""
    normalized: bool
    """Whether the graph divides it by its Euclidean length."""
    similarity: str
    """Similarity function of two vectors: a name of `SIMILARITIES`."""
    modules: tuple[EmbeddingModule, ...]
    """Modules that make the vector of the hidden states, in order; all of them are in the graph."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Beginnings of texts by the name of their use, for example `query`."""
    default_prompt: str | None = field(default=None, metadata={OMITTED: True})
    """Name of the prompt that texts begin with unless the caller says otherwise; None for none."""
    truncate_dim: int | None = field(default=None, metadata={OMITTED: True})
    """Numbers to which a vector is cut unless the caller says otherwise; None where it stays whole."""
    further: dict[str, Any] = field(default_factory=dict)
    """Fields that this version does not know."""

    @property
    def size(self) -> int:
        """Numbers of the vector unless the caller says otherwise."""
        return self.truncate_dim or self.dimension


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
    """Problem type as transformers calls it, for example `single_label_classification`; None without labels."""
    positive: int | None = field(default=None, metadata={OMITTED: True})
    """Column of the label that means yes: for next-sentence, that B follows A."""
    activation: str | None = field(default=None, metadata={OMITTED: True})
    """Activation that turns logits into scores, where it is not that of the problem type: `sigmoid`, `softmax` or
    `none`."""
    embedding: Embedding | None = field(default=None, metadata={OMITTED: True})
    """Modules that make vectors of texts, and the similarity function; None for a head that makes no vectors."""
    aliases: tuple[str, ...] | None = field(default=None, metadata={OMITTED: True})
    """Names by which the portable graph gives it to other runtimes too: one for the whole output, or one for each
    column of its last axis, without that axis; None where it has none. No variant lists them among its outputs."""
    source: Source | None = field(default=None, metadata={OMITTED: True})
    """The checkpoint that it was added from; None for a head of the checkpoint that the encoder is from."""
    further: dict[str, Any] = field(default_factory=dict)
    """Fields that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Pooling: how the vectors of a text's tokens become one."""

    mode: str
    """`mean`, `cls`, `pooler`, …"""
    normalize: bool = False
    """Whether it is divided by its Euclidean length."""
    further: dict[str, Any] = field(default_factory=dict)
    """Fields that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Validation: difference of a graph from PyTorch fp32 when it was exported."""

    atol: float
    """Tolerance that held, absolute."""
    cases: int
    """Number of input batches compared."""
    seeds: tuple[int, ...] = ()
    """Seeds of the random inputs; none where they were not recorded."""
    worst: dict[str, float]
    """Largest absolute difference seen, by output name."""
    worst_padding: dict[str, float] = field(default_factory=dict)
    """The same at padded positions, where they were judged apart, since no answer is made of them."""
    decided_by_float64: int = 0
    """Number of values in which PyTorch and the graph both strayed from float64, and the graph was no farther."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requires:
    """Requirements of a variant on an execution provider."""

    operator_domains: dict[str, int]
    """Versions of the operator sets used, by domain; the standard one is `ai.onnx`."""
    ir_version: int
    """ONNX IR version."""
    dtypes: tuple[str, ...]
    """Element types that are stored or computed in, but for the integers and truth values that serve shapes."""
    precision: str
    """Precision of matrix products: fp32, fp16, bf16, int8-dynamic, int8-static (unsigned activations),
    int8-static-symmetric, int8-weight-only or int4-weight-only."""
    isa: str | None = None
    """The CPU instruction set it was made for; None where any will do."""
    further: dict[str, Any] = field(default_factory=dict)
    """Fields that this version does not know."""

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
    """Storage of its weights, by the name of the recipe: `fp32`, `int8-dynamic`, …"""
    requires: Requires
    """Requirements on a provider."""
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
    """Fields that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Manifest: all that a bundle states of itself."""

    name: str
    """Name shown to people."""
    created: str
    """UTC time of the export, ISO 8601."""
    source: Source
    architecture: Architecture
    inputs: dict[str, Input]
    """Inputs of the encoder, by name."""
    heads: dict[str, HeadEntry]
    """The heads present, by name: `mlm`, `nsp`, `pooler`, or what a later version adds."""
    pooling: Pooling | None = None
    """Pooling that makes one vector of a text's hidden states; None where the checkpoint does not say."""
    max_length: int
    """Longest input, in tokens, special tokens included."""
    lowercase: bool | None
    """Whether the tokenizer lower-cases; None where it cannot be told."""
    languages: tuple[str, ...]
    """BCP 47 tags as the checkpoint's card states them; empty where it does not."""
    licence: str | None
    """Licence of the weights as the checkpoint's card states it; None where it does not."""
    variants: dict[str, Variant]
    """Variants by name; `portable` is always there."""
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
        """Whether a head that judges pairs of texts is there, and a second segment for it to tell them apart by."""
        judges = any(name in HEADS and HEADS[name].pairs for name in self.heads)
        return judges and self.architecture.type_vocab_size > 1

    @property
    def encoder_alone(self) -> bool:
        """Whether of its checkpoint no head is there but the pooler: it may hold others that were not asked for."""
        return all(name == POOLER or entry.source for name, entry in self.heads.items())

    def hashes_of(self, variant: str) -> dict[str, str]:
        """Return SHA-256 of a variant's files, by path."""
        entry = self.variants[variant]
        return {name: self.files[name].sha256 for name in (entry.file, *entry.external_data)}

    @property
    def segments(self) -> int | None:
        """The segment of every token; None where the tokenizer gives each its own. A model without segments has one."""
        given = self.inputs.get(SEGMENTS)
        return given.constant if given else 0

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

    def repeats(self, name: str) -> bool:
        """Return whether a variant decodes every position with the weights of another that decodes what is asked."""
        variant = self.variants[name]
        return variant.kind != "serving" and any(
            other.kind == "serving" and other.recipe == variant.recipe for other in self.variants.values()
        )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values, as `to_bytes` writes them."""
        value: dict[str, Any] = json.loads(self.to_bytes())
        return value


def encoder_inputs(*, segments: int | None = None) -> dict[str, Input]:
    """Return the inputs of an encoder with segments.

    Args:
        segments: the value of every element of `token_type_ids`; None where the tokenizer gives them.
    """
    constants = {"input_ids": None, "attention_mask": None, SEGMENTS: segments}
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
