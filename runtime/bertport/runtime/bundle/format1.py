"""Manifests of format 1, which bertport 0.1.0 wrote: read for good, in the shape of format 2.

Format 1 listed providers for each variant, which made old bundles blind to new ones; what a variant needs of a
provider follows from its recipe. It ignored fields that it did not know, and still does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from bertport.runtime.bundle import manifest as current
from bertport.runtime.bundle.parsing import parse
from bertport.runtime.heads import HEADS, NSP

__all__ = ["read"]

PRECISIONS = {
    "int8-dynamic": "int8-dynamic",
    "int8-static": "int8-static-symmetric",
    "int8-static-cpu": "int8-static",
    "int8-weight-only": "int8-weight-only",
    "int4-weight-only": "int4-weight-only",
    "fp16": "fp16",
    "fp32": "fp32",
    "fp32-weights16": "fp32",
}
"""Precision of each recipe."""
DTYPES = {
    "fp32": ("float32",),
    "fp16": ("float16", "float32"),
    "int8-static": ("float32", "int8"),
    "int8-static-cpu": ("float32", "int8", "uint8"),
    "int8-dynamic": ("float32", "int8", "uint8"),
    "int8-weight-only": ("float32", "uint8"),
    "int4-weight-only": ("float32", "uint8"),
}
"""Element types of each recipe, in the graphs that 0.1.0 made."""
IN_16_BITS = "fp32-weights16"
"""The recipe whose matrices are float16; what a bundle's quantized graphs take over from it is so too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSentence:
    """Meaning of the columns of `seq_relationship_logits`."""

    labels: tuple[str, ...]
    """A label per column."""
    positive: int
    """The column that says that B follows A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One graph of the bundle."""

    file: str
    """Path of the graph."""
    kind: str
    """`portable` or `serving`."""
    recipe: str
    """Storage of its weights, by the name of the recipe: `fp32`, `int8-dynamic`, …"""
    providers: tuple[str, ...]
    """Short names of the providers it is for."""
    isa: str | None = None
    """The CPU instruction set it was made for."""
    opset: int
    """Version of the standard operator set."""
    ir_version: int
    """ONNX IR version."""
    domains: dict[str, int] = field(default_factory=dict)
    """Operator domains beside the standard one."""
    outputs: tuple[str, ...]
    """Names of the outputs."""
    external_data: tuple[str, ...] = ()
    """Files that hold initialisers."""
    validation: current.Validation | None = None
    """Difference from PyTorch."""
    fidelity: dict[str, Any] | None = None
    """Difference from fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a bundle says of itself."""

    name: str
    created: str
    source: current.Source
    architecture: current.Architecture
    heads: tuple[str, ...]
    """Names of the heads present."""
    next_sentence: NextSentence | None
    """None without the NSP head."""
    max_length: int
    lowercase: bool | None
    languages: tuple[str, ...]
    licence: str | None
    variants: dict[str, Variant]
    default_variant: str
    tools: dict[str, str]
    files: dict[str, current.FileEntry]


def read(value: dict[str, Any]) -> current.Manifest:
    """Return a manifest of format 1 in the shape of format 2.

    Raises:
        BundleError: for a missing or ill-typed field.
    """
    old: Manifest = parse(Manifest, value, "manifest.json", strict=False)
    halved = any(variant.recipe == IN_16_BITS for variant in old.variants.values())
    return current.Manifest(
        name=old.name,
        created=old.created,
        source=old.source,
        architecture=old.architecture,
        inputs=current.encoder_inputs(),
        heads=_heads(old),
        max_length=old.max_length,
        lowercase=old.lowercase,
        languages=old.languages,
        licence=old.licence,
        variants={name: _variant(variant, halved=halved) for name, variant in old.variants.items()},
        default_variant=old.default_variant,
        tools=old.tools,
        files=old.files,
    )


def _heads(old: Manifest) -> dict[str, current.HeadEntry]:
    known = current.heads_of(HEADS.keys() & set(old.heads))
    heads = {}
    for name in old.heads:
        head = known.get(name) or current.HeadEntry(output=name, axes=())
        if name == NSP:
            stated = old.next_sentence
            labels, positive = (stated.labels, stated.positive) if stated else (None, None)
            head = replace(head, labels=labels, positive=positive)
        heads[name] = head
    return heads


def _variant(old: Variant, *, halved: bool) -> current.Variant:
    dtypes = DTYPES.get(old.recipe, ("float32",))
    if halved:
        dtypes = tuple(sorted({"float16", *dtypes}))
    return current.Variant(
        file=old.file,
        kind=old.kind,
        recipe=old.recipe,
        requires=current.Requires(
            operator_domains={
                current.OPSET: old.opset,
                **{name: version for name, version in old.domains.items() if name not in {"", current.OPSET}},
            },
            ir_version=old.ir_version,
            dtypes=dtypes,
            precision=PRECISIONS.get(old.recipe) or _precision(old),
            isa=old.isa,
        ),
        outputs=old.outputs,
        external_data=old.external_data,
        validation=old.validation,
        fidelity=old.fidelity,
    )


def _precision(old: Variant) -> str:
    """Return the precision of a recipe that bertport never had, by the providers that its maker named."""
    if "cpu" not in old.providers:
        return "fp16"
    return "fp32" if len(old.providers) > 1 else "int8-dynamic"
