"""Golden vectors: a bundle's file of texts with their ids, and of inputs with the outputs that each graph must give.

`docs/reference/golden.md` states the format. They are made and checked in `bertport.runtime.golden`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from bertport.runtime.bundle.manifest import GoldenVectors
from bertport.runtime.bundle.parsing import OMITTED, json_values, parse
from bertport.runtime.bundle.strict_json import refuse_unwritable, strict_json
from bertport.runtime.errors import BundleError
from bertport.runtime.heads import decoded_outputs
from bertport.runtime.installation import upgrade_advice

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import FileEntry, Manifest

__all__ = [
    "FILE",
    "MATRIX",
    "Golden",
    "GoldenBatch",
    "GoldenInputs",
    "GoldenOutput",
    "GoldenRow",
    "GoldenText",
    "GoldenVariant",
    "listing",
    "read_golden",
    "with_variant",
]

FILE = "golden.json"
"""The file's name in a new bundle."""
VERSION = 1
"""The version of the format that is written, and the newest that is read."""
VERSION_KEY = "golden_version"
LARGEST = 1 << 20
"""Bytes of the file that are read; it has some thousand for each variant."""
MOST_TEXTS = 64
"""Texts in the file, at most."""
LONGEST_TEXT = 4096
"""Characters of a text, so that checking a bundle tokenizes no more than a few pages."""
MOST_BATCHES = 8
"""Batches in the file, at most."""
MOST_TOKENS = 512
"""Tokens of a batch, padding included: what one text of usual length takes, also where every position is decoded."""
MOST_POSITIONS = 64
"""Positions that are decoded in a batch, at most."""
MATRIX = 2
"""Axes of an output that is computed at positions alone; one of every token has three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenText:
    """A text, or a pair, with the ids that the tokenizer makes of it."""

    text: str
    """The first text."""
    pair: str | None = None
    """The second text of a pair; None for one text."""
    ids: tuple[int, ...]
    """Token ids, special tokens included."""
    type_ids: tuple[int, ...]
    """Segment of each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenInputs:
    """The inputs of one run, by the names of the graph's inputs; None for one that the model does not have."""

    input_ids: tuple[tuple[int, ...], ...]
    """Token ids [batch, sequence]."""
    attention_mask: tuple[tuple[int, ...], ...]
    """1 for tokens and 0 for padding [batch, sequence]."""
    token_type_ids: tuple[tuple[int, ...], ...] | None = field(default=None, metadata={OMITTED: True})
    """Segment of each token [batch, sequence]."""
    masked_positions: tuple[int, ...] | None = field(default=None, metadata={OMITTED: True})
    """Flat indices into batch x sequence [positions] that serving graphs decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenBatch:
    """One batch."""

    inputs: GoldenInputs
    """Inputs of the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRow:
    """A row of an output, taken as a matrix of its last axis."""

    batch: int
    """Index of the batch."""
    row: int
    """Index of the row in the matrix."""
    columns: tuple[int, ...] | None = None
    """Columns whose values are listed; None for all."""
    values: tuple[float, ...]
    """Their values."""
    largest: int = 0
    """Number of leading values that are the largest of the whole row, in descending order."""
    rms: float
    """Root of the mean of the squares of all values of the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenOutput:
    """Expected values of one output of a graph."""

    tolerance: float
    """Largest absolute difference that is allowed."""
    shapes: tuple[tuple[int, ...], ...]
    """The output's shape for each batch."""
    rows: tuple[GoldenRow, ...]
    """Some of its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenVariant:
    """Expected outputs of one variant's graph."""

    made_on: dict[str, str]
    """Environment that computed the values: provider, instruction set, version of ONNX Runtime."""
    outputs: dict[str, GoldenOutput]
    """Expected values by the name of the graph's output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Golden vectors of a bundle."""

    texts: tuple[GoldenText, ...]
    """Texts with their ids."""
    batches: tuple[GoldenBatch, ...]
    """Batches that every graph is run on."""
    variants: dict[str, GoldenVariant]
    """Expected outputs, by the variant's name."""

    def to_bytes(self) -> bytes:
        """Return the file's content.

        Raises:
            ValueError: for a number that is not finite.
        """
        values = {VERSION_KEY: VERSION} | json_values(self)
        return (json.dumps(values, allow_nan=False, separators=(",", ":")) + "\n").encode("ascii")

    def feeds(self) -> list[dict[str, NDArray[np.int64]]]:
        """Return what a graph is given for each batch: int64, [batch, sequence] or [positions]."""
        import numpy as np  # not above: to copy a bundle needs none

        return [
            {name: np.array(value, dtype=np.int64) for name, value in json_values(batch.inputs).items()}
            for batch in self.batches
        ]

    def of(self, variants: Collection[str]) -> Golden:
        """Return the golden vectors of some variants alone."""
        kept = {name: vectors for name, vectors in self.variants.items() if name in variants}
        return dataclasses.replace(self, variants=kept)


def read_golden(bundle: Bundle) -> Golden | None:
    """Return a bundle's golden vectors; None where it has none.

    Raises:
        BundleError: for a file that is missing, changed, too large, of a later format, or asks for what no graph of the
            bundle takes.
    """
    stated = bundle.manifest.golden_vectors
    if stated is None:
        return None
    name = stated.file
    size = bundle.manifest.files[name].size
    if size > LARGEST:
        raise BundleError(
            f"{name} has {size:,} bytes, and golden vectors have {LARGEST:,} at most: the bundle is damaged; export "
            "again"
        )
    value = strict_json(bundle.read(name), name)
    refuse_unwritable(value, name)
    version = value.get(VERSION_KEY) if isinstance(value, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{name} has no {VERSION_KEY}: the bundle is damaged; export again")
    if version > VERSION:
        raise BundleError(
            f"{name} has format {version} and this version of bertport reads up to {VERSION}: {upgrade_advice()}"
        )
    golden: Golden = parse(Golden, value, name, strict=False)
    _check(golden, bundle.manifest, name)
    return golden


def with_variant(golden: Golden, name: str, vectors: GoldenVariant | None) -> Golden:
    """Return golden vectors with those of a variant replaced, or removed for None."""
    others = {other: kept for other, kept in golden.variants.items() if other != name}
    return dataclasses.replace(golden, variants=others | ({name: vectors} if vectors else {}))


def listing(manifest: Manifest, name: str, entry: FileEntry) -> Manifest:
    """Return a manifest that lists a file as its golden vectors, in place of the one that it names.

    Args:
        manifest: as it was.
        name: of the file inside the bundle.
        entry: its size and hash.
    """
    old = manifest.golden_vectors
    files: Mapping[str, FileEntry] = {
        path: kept for path, kept in manifest.files.items() if old is None or path != old.file
    }
    return dataclasses.replace(
        manifest,
        golden_vectors=dataclasses.replace(old, file=name) if old else GoldenVectors(file=name),
        files=dict(sorted({**files, name: entry}.items())),
    )


def _check(golden: Golden, manifest: Manifest, name: str) -> None:
    """Refuse more work than golden vectors take, and values that do not go together."""
    if len(golden.texts) > MOST_TEXTS or len(golden.batches) > MOST_BATCHES:
        _refuse(name, f"has {len(golden.texts)} texts and {len(golden.batches)} batches")
    for text in golden.texts:
        if len(text.text) + len(text.pair or "") > LONGEST_TEXT or len(text.ids) != len(text.type_ids):
            _refuse(name, f"has a text of {len(text.text):,} characters and {len(text.ids):,} ids")
    for batch in golden.batches:
        _check_inputs(batch.inputs, manifest, name)
    for variant in golden.variants:
        _check_outputs(golden, manifest, variant, name)


def _check_outputs(golden: Golden, manifest: Manifest, variant: str, name: str) -> None:
    """Refuse values of a variant's outputs that its graph cannot give."""
    for output, expected in golden.variants[variant].outputs.items():
        if len(expected.shapes) != len(golden.batches) or not expected.tolerance >= 0:
            _refuse(name, f"has {len(expected.shapes)} shapes of {output[:80]!r} of {variant[:80]!r}")
        if not expected.rows:  # any graph would hold
            _refuse(name, f"lists no row of {output[:80]!r} of {variant[:80]!r}")
        decoded = _serves(manifest, variant) and output in decoded_outputs([output])
        for row in expected.rows:
            _check_row(row, expected, name)
            positions = golden.batches[row.batch].inputs.masked_positions or ()
            if decoded and len(expected.shapes[row.batch]) == MATRIX and row.row >= len(positions):
                _refuse(name, f"lists a row of {output[:80]!r} for which no position is decoded")


def _serves(manifest: Manifest, variant: str) -> bool:
    return variant in manifest.variants and manifest.variants[variant].kind == "serving"


def _check_inputs(inputs: GoldenInputs, manifest: Manifest, name: str) -> None:
    rows, width = len(inputs.input_ids), max(map(len, inputs.input_ids), default=0)
    if not 0 < rows * width <= MOST_TOKENS or width > manifest.max_length:
        _refuse(name, f"has a batch of {rows:,} rows of {width:,} tokens")
    given = (
        (inputs.input_ids, manifest.architecture.vocab_size),
        (inputs.attention_mask, 2),
        (inputs.token_type_ids, max(1, manifest.architecture.type_vocab_size)),
    )
    for values, end in given:
        if values is not None and (
            [len(row) for row in values] != [width] * rows or any(not 0 <= item < end for row in values for item in row)
        ):
            _refuse(name, f"has inputs that are not {rows} rows of {width} numbers from 0 to {end - 1}")
    positions = inputs.masked_positions or ()
    if len(positions) > MOST_POSITIONS or any(not 0 <= position < rows * width for position in positions):
        _refuse(name, f"decodes {len(positions):,} positions of a batch of {rows * width}")


def _check_row(row: GoldenRow, expected: GoldenOutput, name: str) -> None:
    """Refuse a row that the output of its batch does not have."""
    shape = expected.shapes[row.batch] if 0 <= row.batch < len(expected.shapes) else ()
    columns, rows = shape[-1] if shape else 0, 1
    for size in shape[:-1]:
        rows *= size
    listed = columns if row.columns is None else len(row.columns)
    if not (
        shape
        and 0 <= row.row < rows
        and listed == len(row.values)
        and all(0 <= column < columns for column in row.columns or ())
        and 0 <= row.largest <= len(row.values)
    ):
        _refuse(name, f"lists {len(row.values)} values of a row that is not there")


def _refuse(name: str, what: str) -> NoReturn:
    raise BundleError(f"{name} {what}, which is not valid: the bundle is damaged; export again")
