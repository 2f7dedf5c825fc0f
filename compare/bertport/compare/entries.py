"""The entries of a comparison: variants on providers, and the baselines; one row of the report each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.measure.quality.model import size_of
from bertport.measure.speed.tasks import decodes
from bertport.measure.speed.workload import WorkerSpec
from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.select import suits
from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import as_unicode
from bertport.runtime.providers import plugins
from bertport.runtime.providers.table import AUTO, PROVIDERS, onnxruntime
from bertport.runtime.session import check_path

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bertport.runtime.providers.table import Provider

__all__ = ["REFERENCE", "VARIANT", "ComparedBundle", "Entry", "baseline_entries", "make_entries", "open_bundles"]

REFERENCE = "fp32"
"""The variant that is taken as right, where a bundle has it; else its portable graph."""

VARIANT = "variant"
"""Kind of an entry that is not a baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedBundle:
    """A bundle that takes part."""

    label: str
    """Name of the bundle in the report; differs from that of every other bundle."""
    bundle: Bundle
    """The bundle."""

    @property
    def reference(self) -> str:
        """Name of the variant that the others are compared with."""
        return REFERENCE if REFERENCE in self.bundle.manifest.variants else "portable"

    def reference_among(self, entries: Iterable[Entry]) -> Entry | None:
        """Return the entry that the bundle's others are compared with; None where it does not take part."""
        mine = (entry for entry in entries if entry.bundle == self.label)
        return next((entry for entry in mine if entry.variant == self.reference), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row: a model in one setting."""

    bundle: str
    """Label of its bundle; of the one whose weights it has, for a baseline."""
    kind: str
    """`variant`, or the name of a baseline."""
    recipe: str
    """Recipe by which its weights are stored, such as `int8-dynamic`."""
    size_bytes: int | None
    """Bytes of the graph and the weights it needs; None where that is not known yet."""
    spec: WorkerSpec
    """Specification of the worker process."""

    @property
    def name(self) -> str:
        """Name of the row in the report; differs from that of every other row."""
        return self.spec.name

    @property
    def variant(self) -> str | None:
        """Return the name of the bundle's variant; None for a baseline."""
        return self.spec.variant

    @property
    def provider(self) -> str:
        """A row of the runtime's table of providers."""
        return self.spec.provider


def open_bundles(paths: Sequence[str | os.PathLike[str]]) -> list[ComparedBundle]:
    """Open bundles, and label each by its name, with its directory or a number where names repeat.

    Raises:
        PathError, BundleError: for what is not a bundle, and for a path that ONNX Runtime cannot be told.
    """
    bundles = [Bundle.open(path) for path in paths]
    for bundle in bundles:
        check_path(bundle.path)
    names = [bundle.manifest.name for bundle in bundles]
    if len(set(names)) < len(names):
        names = [as_unicode(bundle.path.resolve().name) for bundle in bundles]
    seen: Counter[str] = Counter()
    labelled = []
    for name, bundle in zip(names, bundles, strict=True):
        seen[name] += 1
        label = f"{name} ({seen[name]})" if names.count(name) > 1 else name
        labelled.append(ComparedBundle(label=label, bundle=bundle))
    return labelled


def make_entries(
    bundles: Sequence[ComparedBundle],
    *,
    variants: Iterable[str] = (),
    providers: Iterable[str] = (),
    library: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> tuple[list[Entry], list[str]]:
    """Pair variants with providers.

    Args:
        bundles: The bundles.
        variants: Names of variants, to which the references are added; every serving variant where there are none.
        providers: Names of providers; those that work on this machine without being asked for where there are none.
        library: Path of the plugin that holds those that do not come with ONNX Runtime; None for their packages'.
        threads: Threads within an operator.

    Returns:
        The rows, references first within their bundle, and a sentence for each variant that was left out.

    Raises:
        UnknownNameError: for a variant that no bundle has, or an unknown provider.
        ProviderError: for a provider that is not available here.
        UsageError: when nothing is left to compare.
    """
    variants, providers = tuple(dict.fromkeys(variants)), tuple(dict.fromkeys(providers))
    known = {name for compared in bundles for name in compared.bundle.manifest.variants}
    for name in variants:
        if name not in known:
            raise UnknownNameError("variant", name, sorted(known))
    rows = _providers(providers, library)
    entries, left_out = [], []
    for compared in bundles:
        manifest = compared.bundle.manifest
        names = sorted(manifest.variants, key=lambda name: name != compared.reference)
        for name in names:
            variant = manifest.variants[name]
            prefix = f"{compared.label}: " if len(bundles) > 1 else ""
            unasked = name not in variants if variants else manifest.repeats(name)
            if unasked and name != compared.reference:
                if not variants:
                    how = "with every position decoded" if decodes(manifest.heads) else "as they were exported"
                    left_out.append(f"{prefix}{name}: the same weights {how} (--variant {name})")
                continue
            suited = [row for row in rows if suits(variant.requires, row)]
            left_out += [
                f"{prefix}{name} on {row.name}: it is not made for {row.name}" for row in rows if row not in suited
            ]
            entries += [
                Entry(
                    bundle=compared.label,
                    kind=VARIANT,
                    recipe=variant.recipe,
                    size_bytes=size_of(compared.bundle, name),
                    spec=WorkerSpec(
                        name=f"{prefix}{name}{f' on {row.name}' if len(rows) > 1 else ''}",
                        bundle=str(compared.bundle.path),
                        variant=name,
                        provider=row.name,
                        provider_library=str(library) if library is not None and row.plugin is not None else None,
                        threads=threads,
                    ),
                )
                for row in suited
            ]
    if not entries:
        names_of = ", ".join(compared.label for compared in bundles)
        why = f" ({'; '.join(left_out)})" if left_out else ""
        raise UsageError(
            f"nothing to compare: {names_of} has no variant for {', '.join(row.name for row in rows)}{why}: "
            "choose another --provider or --variant"
        )
    return entries, left_out


def baseline_entries(
    names: Iterable[str],
    bundles: Sequence[ComparedBundle],
    directories: dict[tuple[str, str], Path],
    threads: int | None,
    task: str,
) -> list[Entry]:
    """Make a row per baseline and bundle; `directories` says where each baseline's model is, by both."""
    return [
        Entry(
            bundle=compared.label,
            kind=name,
            recipe="fp32",
            size_bytes=_weights(directories[compared.label, name]),
            spec=WorkerSpec(
                name=f"{compared.label}: {name}" if len(bundles) > 1 else name,
                file=str(directories[compared.label, name]),
                baseline=name,
                task=task,
                threads=threads,
            ),
        )
        for compared in bundles
        for name in dict.fromkeys(names)
        if (compared.label, name) in directories
    ]


def _providers(asked: Sequence[str], library: str | os.PathLike[str] | None) -> list[Provider]:
    """Return the rows to measure on; those of a library beside those that come with ONNX Runtime."""
    if asked:
        held = [name for name in asked if name not in PROVIDERS or PROVIDERS[name].plugin is not None]
        if library is not None and not held:
            raise UsageError(
                f"no plugin holds {', '.join(asked)}, which come with ONNX Runtime: leave out the library, or name a "
                "provider that it holds"
            )
        rows = [row for name in asked for row in plugins.rows(name, library if name in held else None)]
        return list({row.name: row for row in rows}.values())  # `auto`, or a library, may hold what is named beside it
    built_in = set(onnxruntime().get_available_providers())
    automatic = sorted(
        (row for row in PROVIDERS.values() if row.auto and row.ort in built_in), key=lambda row: row.name != "cpu"
    )
    return automatic if library is None else [*automatic, plugins.of_library(library, AUTO)]


def _weights(directory: Path) -> int:
    """Return the bytes of a checkpoint's weights, or of an ONNX graph with its external data."""
    suffixes = (".safetensors", ".bin", ".onnx", ".onnx_data", ".data")
    return sum(path.stat().st_size for path in directory.rglob("*") if path.suffix in suffixes)
