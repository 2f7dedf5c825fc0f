"""Checking golden vectors: whether the tokenizer and the graphs of a bundle give what they must, on what runs here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.bundle.directory import Bundle
from bertport.runtime.bundle.golden import read_golden
from bertport.runtime.errors import BundleError, InputTextError, ProviderError, UnknownNameError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.loading import load
from bertport.runtime.providers.table import AUTO
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.runtime.bundle.golden import Golden, GoldenOutput, GoldenRow, GoldenVariant
    from bertport.runtime.session import Graph
    from bertport.runtime.text.encoder import Text

__all__ = ["GoldenReport", "ProvenOutput", "ProvenVariant", "verify_golden"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenOutput:
    """Largest difference of an output from its golden values, and the one allowed."""

    tolerance: float
    """Largest difference that is allowed."""
    largest_difference: float
    """Largest difference seen; infinite where the shape differs or a value is not finite."""
    compared: int
    """Number of values compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenVariant:
    """Result of checking a variant; one that was not run has the reason."""

    name: str
    """Name of the variant."""
    provider: str | None
    """The provider that it ran on; None where it was not run."""
    outputs: dict[str, ProvenOutput]
    """Outputs by name; empty where it was not run."""
    not_run: str | None = None
    """Reason why it was not run; None where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenReport:
    """Result of checking a bundle's golden vectors."""

    texts: int
    """Number of texts whose ids were compared."""
    variants: tuple[ProvenVariant, ...]
    """The variants, in the bundle's order."""
    failures: tuple[str, ...]
    """A sentence for each thing that differs; empty where all is as it must be."""


@dataclass(slots=True)
class _Differences:
    """Differences of an output's values from the expected ones."""

    largest: float = 0.0
    """Largest difference; infinite for a value that is not finite."""
    compared: int = 0
    """Number of values compared."""
    farthest: str = "none"
    """The place of the largest difference, and the two values."""
    shape: str = ""
    """Error in the output's shape; empty where there is none."""

    def compare(self, expected: GoldenOutput, values: Sequence[NDArray[np.float32]]) -> None:
        """Compare an output's values for each batch with what is expected."""
        for batch, (value, shape) in enumerate(zip(values, expected.shapes, strict=True)):
            if value.shape != shape:
                self.shape = f"has the shape {list(value.shape)} for batch {batch}, and {list(shape)} was expected"
                self.largest = math.inf
                return
        for row in expected.rows:
            value = values[row.batch]
            self._compare_row(row, value.reshape(-1, value.shape[-1])[row.row])

    def _compare_row(self, row: GoldenRow, value: NDArray[np.float32]) -> None:
        columns = range(len(value)) if row.columns is None else row.columns
        for column, wanted in zip(columns, row.values, strict=True):
            self._add(f"batch {row.batch}, row {row.row}, column {column}", float(value[column]), wanted)
        mean = float(np.sqrt(np.mean(np.square(value, dtype=np.float64))))
        self._add(f"the root mean square of batch {row.batch}, row {row.row}", mean, row.rms)
        if 0 < row.largest < len(value):
            others = np.delete(value, [*columns][: row.largest])
            least = row.values[row.largest - 1]  # what is below it may be anything
            place = f"the largest of the other columns of batch {row.batch}, row {row.row}"
            self._add(place, max(least, float(others.max())), least)

    def _add(self, place: str, value: float, wanted: float) -> None:
        difference = abs(value - wanted)
        difference = difference if math.isfinite(difference) else math.inf
        self.compared += 1
        if difference > self.largest:
            self.largest = difference
            self.farthest = f"{place}: {value:.6g}, expected {wanted:.6g}"


def verify_golden(  # noqa: PLR0913 — each is one choice, by keyword
    path: str | os.PathLike[str],
    *,
    variants: Collection[str] = (),
    provider: str = AUTO,
    provider_options: Mapping[str, str | float | bool] | None = None,
    provider_library: str | os.PathLike[str] | None = None,
    digest: str | None = None,
) -> GoldenReport:
    """Check a bundle's tokenizer and graphs by its golden vectors, on this machine.

    Args:
        path: the bundle's directory.
        variants: those to check; all when there are none, of which those that cannot be run here are named as not run.
        provider: an execution provider, as `load` takes it; so the next two.
        provider_options: its options.
        provider_library: the library that holds it.
        digest: the digest that the bundle must have; None for any.

    Returns:
        What was compared, how far it is from the golden values, and a sentence for each failure.

    Raises:
        PathError, BundleError: when there is no such bundle, it is damaged, or it has no golden vectors.
        UnknownNameError: for an unknown variant or provider.
        ProviderError: when a variant that was asked for, or every variant, cannot be run on the provider here, and the
            tokenizer makes the ids that it must.
    """
    bundle = Bundle.open(path, digest=digest)
    known = bundle.manifest.variants
    for name in variants:
        if name not in known:
            raise UnknownNameError("variant", name, known)
    golden = read_golden(bundle)
    if golden is None:
        raise BundleError(f"{bundle.path} has no golden vectors: add them with bertport golden {bundle.path}")
    failures = _wrong_ids(golden, Tokens.read(bundle))
    proven = []
    for name in variants or known:
        if name not in golden.variants:
            reason = f"it has no golden vectors: add them with bertport golden {bundle.path}"
            if variants and not failures:
                raise BundleError(f"variant {name!r} of {bundle.path} cannot be checked: {reason}")
            proven.append(ProvenVariant(name=name, provider=None, outputs={}, not_run=reason))
            continue
        try:
            graph = load(
                bundle.path,
                variant=name,
                provider=provider,
                provider_options=provider_options,
                provider_library=provider_library,
                digest=bundle.digest,
            ).graph
        except ProviderError as error:
            if variants and not failures:  # which would be lost with it
                raise
            proven.append(ProvenVariant(name=name, provider=None, outputs={}, not_run=error.message))
            continue
        outputs, wrong = _proven(name, graph, golden, golden.variants[name])
        failures += wrong
        proven.append(ProvenVariant(name=name, provider=graph.provider.name, outputs=outputs))
    if not failures and all(variant.not_run for variant in proven):
        raise ProviderError(f"no variant of {bundle.path} was checked: {proven[0].not_run}")
    return GoldenReport(texts=len(golden.texts), variants=tuple(proven), failures=tuple(failures))


def _wrong_ids(golden: Golden, tokens: Tokens) -> list[str]:
    """Return a sentence for each text of which the tokenizer makes other ids or segments."""
    failures = []
    texts: list[Text] = [text.text if text.pair is None else (text.text, text.pair) for text in golden.texts]
    for expected, encoded in zip(golden.texts, tokens.encode(texts), strict=True):
        if isinstance(encoded, InputTextError):
            failures.append(f"the tokenizer refuses {excerpt(expected.text, 80)}: {encoded.message}")
            continue
        for what, given, wanted in (
            ("ids", encoded.ids.tolist(), list(expected.ids)),
            ("segments", encoded.type_ids.tolist(), list(expected.type_ids)),
        ):
            if given != wanted:
                at = next((at for at, (a, b) in enumerate(zip_longest(given, wanted)) if a != b), 0)
                failures.append(
                    f"the tokenizer makes other {what} of {excerpt(expected.text, 80)} (from token {at} on: "
                    f"{excerpt(given[at : at + 4], 60)}, expected {excerpt(wanted[at : at + 4], 60)}): it is not the "
                    "one that the golden vectors were made with"
                )
    return failures


def _proven(
    name: str, graph: Graph, golden: Golden, expected: GoldenVariant
) -> tuple[dict[str, ProvenOutput], list[str]]:
    """Return how far a graph is from what is expected of it, and a sentence for each output that is too far."""
    where = f"variant {name!r} on {graph.provider.name}"
    if not expected.outputs:
        return {}, [f"{where} has golden vectors of no output: make them anew with bertport golden --overwrite"]
    outputs = [output for output in expected.outputs if output in graph.outputs]
    failures = [
        f"{where} has no output {excerpt(output, 80)}: its graph is not the one that the golden vectors were made with"
        for output in expected.outputs
        if output not in graph.outputs
    ]
    if not outputs:
        return {}, failures
    try:
        values = [graph.run(feeds, outputs) for feeds in golden.feeds()]
    except Exception as error:  # noqa: BLE001 — ONNX Runtime's errors share no base
        reason = excerpt(one_line(error), 300)
        return {}, [*failures, f"{where} fails on the golden vectors' inputs ({reason}): choose another provider"]
    proven = {}
    for output in outputs:
        tolerance = expected.outputs[output].tolerance
        wrong = _Differences()
        wrong.compare(expected.outputs[output], [batch[output] for batch in values])
        proven[output] = ProvenOutput(tolerance=tolerance, largest_difference=wrong.largest, compared=wrong.compared)
        if wrong.shape:
            failures.append(f"{where}: {output} {wrong.shape}: its graph computes otherwise")
        elif not wrong.largest <= tolerance:
            failures.append(
                f"{where}: {output} is up to {wrong.largest:.2g} from its golden values, and {tolerance:g} is "
                f"allowed ({wrong.farthest}): its graph, or the kernels that run it, compute otherwise"
            )
    return proven, failures
