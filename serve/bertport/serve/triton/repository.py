"""Writing a model repository: the graph and its weights under a version, the configuration beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bertport.runtime.bundle.default import default_bundle
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.bundle.packing import copy_file
from bertport.runtime.bundle.select import suits
from bertport.runtime.bundle.siblings import real
from bertport.runtime.bundle.writer import new_bundle
from bertport.runtime.errors import BundleError, PathError, UnknownNameError, UsageError
from bertport.serve.triton.configuration import DEVICES, OPTIMIZATIONS, Configuration
from bertport.serve.triton.signature import signature_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from bertport.runtime.bundle.manifest import Manifest

__all__ = ["CONFIGURATION", "MAX_BATCH_SIZE", "MOST", "Written", "write_repository"]

CONFIGURATION = "config.pbtxt"
VERSION = "1"
"""Directory of the first version of a model."""
MAX_BATCH_SIZE = 32
"""Default of the most rows in a run: the runtime's own batches of short texts on a CPU have as many."""
MOST = 2**31 - 1
"""Largest number of Triton's 32-bit fields."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Names of models that are directories, and parts of addresses, everywhere."""
PROVIDER = {"cpu": "cpu", "gpu": "cuda"}
"""The provider of ONNX Runtime that instances of Triton use, by device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Files that were written."""

    path: Path
    """The repository."""
    configuration: Configuration
    """Of its one model."""
    variant: str
    """The variant whose graph it is."""
    digest: str
    """Of the bundle."""
    note: str | None
    """Reason why the variant is not the bundle's default one; None where it is, or was asked for."""


def write_repository(  # noqa: PLR0913 — what can be said of a model, each with a default
    path: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    variant: str | None = None,
    name: str | None = None,
    max_batch_size: int = MAX_BATCH_SIZE,
    max_queue_delay: int = 500,
    instances: int = 1,
    device: str = "cpu",
    threads: int = 0,
    optimization: str = "all",
    digest: str | None = None,
) -> Written:
    """Write a model repository with one model, the graph of a variant; it appears when it is whole, and not before.

    Args:
        path: the bundle's directory; None for the embedded one.
        output: directory of the repository, which is not there yet.
        variant: the variant; None for the default one, or the first that the settings allow.
        name: what clients call the model; None for the bundle's name.
        max_batch_size: rows that Triton may put into one run; 0 to run each request by itself.
        max_queue_delay: microseconds that a request may wait for others.
        instances: runs at the same time, on each device.
        device: `cpu` or `gpu`.
        threads: of a run on the CPU; 0 for one per core.
        optimization: of the graph, when it is loaded: `all`, `extended`, `basic` or `none`.
        digest: the digest that the bundle must have; None for any.

    Raises:
        PathError: when there is no such bundle, or the output exists, is inside the bundle or cannot be written.
        UnknownNameError: for an unknown variant, device or optimization.
        UsageError: for a graph that cannot be batched and is to be, or does not run on the device.
        BundleError: when a file is missing or changed.
    """
    for kind, given, known in (("device", device, DEVICES), ("optimization", optimization, OPTIMIZATIONS)):
        if given not in known:
            raise UnknownNameError(kind, given, known)
    for what, number, least in (
        ("max_batch_size", max_batch_size, 0),
        ("max_queue_delay", max_queue_delay, 0),
        ("threads", threads, 0),
        ("instances", instances, 1),
    ):
        if not least <= number <= MOST:
            raise UsageError(f"{what} is {number} and has to be between {least} and {MOST:,}")
    bundle, target = Bundle.open(default_bundle() if path is None else path, digest=digest), Path(output)
    if target.exists() or target.is_symlink():
        raise PathError(f"{target} exists: choose another output; Triton takes several repositories")
    if real(target).is_relative_to(real(bundle.path)):
        raise PathError(f"{target} is inside the bundle: choose a place outside of {bundle.path}")
    chosen, note = _variant(bundle, variant, device, batched=bool(max_batch_size))
    entry = bundle.manifest.variants[chosen]
    configuration = Configuration(
        name=_name(bundle.manifest, name),
        file=PurePosixPath(entry.file).name,
        signature=signature_of(bundle.file(entry.file)),
        max_batch_size=max_batch_size,
        max_queue_delay=max_queue_delay,
        instances=instances,
        device=device,
        threads=threads,
        optimization=optimization,
        comments=tuple(_comments(bundle, chosen)),
    )
    bundle.check_variant(chosen)
    with new_bundle(target, overwrite=False) as building:
        model = building / configuration.name
        for source, place in _files(bundle, chosen):
            _copy(bundle, source, model / VERSION / place)
        (model / CONFIGURATION).write_text(configuration.to_text(), encoding="utf-8")
    return Written(path=target, configuration=configuration, variant=chosen, digest=bundle.digest, note=note)


def _variant(bundle: Bundle, asked: str | None, device: str, *, batched: bool) -> tuple[str, str | None]:
    """Return the variant to take, and why it is not the default one."""
    variants = bundle.manifest.variants
    if asked is not None:
        if asked not in variants:
            raise UnknownNameError("variant", asked, variants)
        if reason := _unfit(bundle, asked, device, batched=False):  # what cannot be batched, the configuration refuses
            other = _other_device(bundle, [asked], device)
            raise UsageError(f"variant {asked!r} {reason}: choose another{f', or --device {other}' if other else ''}")
        return asked, None
    default = bundle.manifest.default_variant
    reasons: dict[str, str] = {}
    for name in dict.fromkeys((default, *variants)):
        reason = _unfit(bundle, name, device, batched=batched)
        if reason is None:
            return name, f"variant {name!r} is taken: {default!r} {reasons[default]}" if name != default else None
        reasons[name] = reason
    advice = "export it again, which makes the variant portable"
    if any(_unfit(bundle, name, device, batched=False) is None for name in variants):
        advice = "pass --max-batch-size 0, to run each request by itself"
    elif other := _other_device(bundle, variants, device):
        advice = f"pass --device {other}"
    raise UsageError(
        f"no variant of {bundle.path} can be served by Triton: "
        + "; ".join(f"{name} {why}" for name, why in reasons.items())
        + f": {advice}"
    )


def _other_device(bundle: Bundle, names: Iterable[str], device: str) -> str | None:
    """Return the device, other than this one, that computes one of the variants; None where there is none."""
    others = (other for other in DEVICES if other != device)
    return next((other for other in others for name in names if not _unfit(bundle, name, other, batched=False)), None)


def _unfit(bundle: Bundle, name: str, device: str, *, batched: bool) -> str | None:
    """Return what is against a variant; None where nothing is."""
    variant = bundle.manifest.variants[name]
    if not suits(variant.requires, PROVIDER[device]):
        return f"computes in {variant.requires.precision}, which ONNX Runtime does not on a {device.upper()}"
    ragged = signature_of(bundle.file(variant.file)).not_batched() if batched else None
    return None if ragged is None else f"has {ragged!r}, without a row for each text, and cannot be batched by Triton"


def _name(manifest: Manifest, asked: str | None) -> str:
    """Return the model's name; of the bundle's own, what no directory can be called becomes a hyphen."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", manifest.name).lstrip("._-")[:128] or "model" if asked is None else asked
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--name is {name[:100]!r}: give letters, digits, points, hyphens and underscores, 128 at most"
        )
    return name


def _files(bundle: Bundle, variant: str) -> Iterator[tuple[str, PurePosixPath]]:
    """Yield a variant's files: the path in the bundle, and that from the graph's own directory."""
    entry = bundle.manifest.variants[variant]
    folder = PurePosixPath(entry.file).parent
    for name in dict.fromkeys((entry.file, *entry.external_data)):
        yield name, PurePosixPath(name).relative_to(folder)  # a graph's weights lie beside it or below, as was checked


def _copy(bundle: Bundle, name: str, target: Path) -> None:
    copy_file(bundle.file(name), target)
    if file_sha256(target) != bundle.manifest.files[name].sha256:
        raise BundleError(f"{bundle.path / name} changed while it was copied: try again when no process writes there")


def _comments(bundle: Bundle, variant: str) -> Iterator[str]:
    manifest = bundle.manifest
    constant = {name: given.constant for name, given in manifest.inputs.items() if given.constant is not None}
    yield f"Made by bertport of {manifest.name}, variant {variant}, {bundle.digest}."
    yield "Clients send token ids: tokenize with the bundle's tokenizer.json, pad a request to its longest text."
    for name, value in constant.items():
        yield f"Every element of {name} is {value}."
    for head in manifest.heads.values():
        if head.labels:
            yield f"Columns of {head.output}: {', '.join(map(repr, head.labels))}."
