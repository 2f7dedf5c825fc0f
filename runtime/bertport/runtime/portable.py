"""Packing variants in portable form: graphs that other programs open as they are, proven by golden vectors.

transformers.js, Optimum and programs like them give a graph what the tokenizer makes of a text, look for its file under
names of their own, and decode every position. `bundle/portable_graph.py` has the form.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.bundle.golden import read_golden, with_variant
from bertport.runtime.bundle.manifest import FileEntry
from bertport.runtime.bundle.packing import fill, names_to_pack, part
from bertport.runtime.bundle.portable_graph import FormError, portable_golden, portable_graph
from bertport.runtime.bundle.writer import new_bundle
from bertport.runtime.errors import BundleError, UsageError, ValidationError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.golden import verify_golden
from bertport.runtime.heads import decoded_outputs
from bertport.runtime.onnx_wire import MalformedError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from bertport.runtime.bundle.golden import Golden
    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["FILES", "pack_portable"]

FP32 = "fp32"
FILES = {
    FP32: "onnx/model.onnx",
    "int8-dynamic": "onnx/model_quantized.onnx",
    "int8-static": "onnx/model_int8.onnx",
    "int8-static-cpu": "onnx/model_uint8.onnx",
    "int4-weight-only": "onnx/model_q4.onnx",
    "fp16": "onnx/model_fp16.onnx",
}
"""Files by recipe, as transformers.js names them for its `dtype`: fp32, q8, int8, uint8, q4 and fp16."""
PLAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""Names of recipes of which a file's is made; a bundle may state any."""
TIMED = frozenset({"speed", "slower_than_reference"})
"""What a record of fidelity says of the speed, which was that of a graph that decodes only what is asked for."""


def pack_portable(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    variants: Collection[str] = (),
    *,
    overwrite: bool = False,
    digest: str | None = None,
) -> Bundle:
    """Write a bundle that holds some variants of another, their graphs in portable form.

    Args:
        path: the bundle's directory.
        output: directory of the new bundle; it appears when its graphs have given their golden values, as far as they
            can run here, and not before.
        variants: those to keep, as `pack` takes them.
        overwrite: whether a bundle at `output` may be replaced.
        digest: the digest that the bundle must have; None for any.

    Returns:
        The new bundle.

    Raises:
        PathError, UnknownNameError, BundleError: as `pack` raises them.
        UsageError: for a variant that has no portable form, or no golden vectors.
        ValidationError: when a portable form does not give its golden values.
        ProviderError: when none of the variants can be run here, and so not be proven.
    """
    source, target = Bundle.open(path, digest=digest), Path(output)
    names = names_to_pack(source, target, variants)
    for name in names:
        _refuse_without_form(source, name)
    golden = _golden_of(source, names)
    with new_bundle(target, overwrite=overwrite) as building:
        manifest, golden, forms = _write_forms(building, source, part(source.manifest, names), golden)
        fill(building, source, manifest, golden, written=forms)
        _prove(building, target)
    return Bundle.open(target)


def _golden_of(source: Bundle, names: Collection[str]) -> Golden:
    """Return the golden vectors of some variants.

    Raises:
        UsageError: for a variant that has none.
    """
    golden = read_golden(source)
    if golden is None or (lacking := [name for name in names if name not in golden.variants]):
        name = next(iter(names if golden is None else lacking))
        raise UsageError(
            f"variant {name!r} has no golden vectors, by which its portable form is proven: make them with "
            f"bertport golden {source.path}"
        )
    return golden.of(names)


def _refuse_without_form(source: Bundle, name: str) -> None:
    """Refuse a variant whose portable form the bundle has already, or that would have no file of its own.

    Raises:
        UsageError: for such a variant.
    """
    variants = source.manifest.variants
    shares_fp32 = name == FP32 or (FP32 in variants and variants[name].file == variants[FP32].file)
    if shares_fp32 and "portable" in variants:
        raise UsageError(
            f"the portable form of {name!r} is the variant 'portable', which was proven when it was exported: pass "
            "--variant portable"
        )
    if PLAIN.fullmatch(variants[name].recipe) is None:
        raise UsageError(
            f"the portable form of {name!r} would be named after its recipe, {excerpt(variants[name].recipe)}, which "
            "is no name of a recipe: do not use a bundle from this source"
        )


def _write_forms(
    building: Path, source: Bundle, manifest: Manifest, golden: Golden
) -> tuple[Manifest, Golden, dict[str, FileEntry]]:
    """Write the portable forms of the serving graphs of a manifest.

    Args:
        building: the directory to write them into.
        source: the bundle that the graphs are from.
        manifest: the part of its manifest.
        golden: the golden vectors of its variants.

    Returns:
        The manifest and the golden vectors that state the forms, and the forms' files.
    """
    before, forms = _graphs(manifest), dict[str, FileEntry]()
    for name, variant in manifest.variants.items():
        if variant.kind != "serving":
            continue
        file = FILES.get(variant.recipe, f"onnx/model_{variant.recipe.replace('-', '_')}.onnx")
        if file in {other.file for key, other in manifest.variants.items() if key != name}:
            raise UsageError(
                f"two variants would be {file} in portable form, {name!r} is one: pack it without the other"
            )
        with source.opening(name) as graph:
            content = _form(graph, manifest, name)
        (building / file).parent.mkdir(exist_ok=True)
        (building / file).write_bytes(content)
        forms[file] = FileEntry(size=len(content), sha256=file_sha256(building / file))
        manifest, golden = _with_form(manifest, name, file, golden)
    replaced = before - _graphs(manifest)
    files = {path: entry for path, entry in manifest.files.items() if path not in replaced} | forms
    return dataclasses.replace(manifest, files=files), golden, forms


def _graphs(manifest: Manifest) -> set[str]:
    """Return the files of all graphs and of their weights."""
    return {file for variant in manifest.variants.values() for file in (variant.file, *variant.external_data)}


def _form(graph: Path, manifest: Manifest, name: str) -> bytes:
    outputs = manifest.variants[name].outputs
    aliases = {head.output: head.aliases for head in manifest.heads.values() if head.aliases and head.output in outputs}
    try:
        return portable_graph(graph, outputs, aliases)
    except FormError as error:
        raise UsageError(f"the portable form of {name!r} cannot be written: {error}; pack it without") from error
    except (MalformedError, UnicodeDecodeError, LookupError) as error:
        raise BundleError(
            f"the graph of variant {name!r} does not have the inputs and outputs that its manifest states ({error!r}): "
            "export again"
        ) from error


def _with_form(manifest: Manifest, name: str, file: str, golden: Golden) -> tuple[Manifest, Golden]:
    """Return a manifest and golden vectors that state a variant in portable form."""
    variant = manifest.variants[name]
    record = variant.fidelity and {key: value for key, value in variant.fidelity.items() if key not in TIMED}
    changed = dataclasses.replace(variant, file=file, kind="portable", external_data=(), fidelity=record)
    vectors = golden.variants[name]
    if decoded_outputs(variant.outputs):
        vectors = portable_golden(golden, vectors)
    return (
        dataclasses.replace(manifest, variants={**manifest.variants, name: changed}),
        with_variant(golden, name, vectors),
    )


def _prove(building: Path, target: Path) -> None:
    """See that the graphs give their golden values, and warn of those that cannot run here.

    Raises:
        ValidationError: for one that does not.
    """
    report = verify_golden(building)
    if report.failures:
        raise ValidationError(f"the portable form at {target} differs from its golden vectors: {report.failures[0]}")
    for variant in report.variants:
        if variant.not_run:
            warnings.warn(
                f"the portable form of {variant.name!r} was not proven, as it cannot run here: {variant.not_run}",
                UserWarning,
                stacklevel=3,
            )
