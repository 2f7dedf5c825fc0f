"""Making golden vectors: texts with their ids, and what each graph of a bundle gives for batches of them."""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.bundle.changes import replace_golden, tidy
from bertport.runtime.bundle.directory import Bundle, file_sha256
from bertport.runtime.bundle.golden import (
    FILE,
    Golden,
    GoldenBatch,
    GoldenInputs,
    GoldenOutput,
    GoldenRow,
    GoldenText,
    GoldenVariant,
    listing,
    read_golden,
    with_variant,
)
from bertport.runtime.bundle.manifest import FileEntry
from bertport.runtime.bundle.select import CPU, suits
from bertport.runtime.bundle.writer import write_manifest
from bertport.runtime.errors import BundleError, OutputError, ProviderError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.heads import POSITIONS, SEGMENTS, decoded_outputs
from bertport.runtime.loading import load
from bertport.runtime.providers.cpu import cpu
from bertport.runtime.providers.table import AUTO, PROVIDERS, onnxruntime
from bertport.runtime.session import open_graph
from bertport.runtime.text.encoder import Encoded, parts_of
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest, Variant
    from bertport.runtime.session import Graph
    from bertport.runtime.text.encoder import Text

    Outputs = Mapping[str, NDArray[np.float32]]
    Feeds = Mapping[str, NDArray[np.int64]]

__all__ = ["golden_of", "vectors_of", "write_first", "write_golden"]

REFERENCE = "fp32"
"""The variant from which others are a measured distance away."""
FP32 = "fp32"
"""The precision, as manifests state it, of graphs that are held to a bound."""
FP32_TOLERANCE = 1e-4
"""Largest difference of a graph that computes in float32: that of an export from PyTorch. Between ONNX Runtime's CPU
provider with AVX2 and AVX-512, with and without its optimizations, OpenVINO in f32 and WebGPU 0.00002 was seen."""
LARGEST_FACTOR, RMS_FACTOR = 2, 6
"""Tolerance of other graphs in units of their distance from fp32: the larger of twice the largest difference and six
times the root mean square. Where products are in 8 bits, another order of summing float32 moves an activation across
the border of two steps, and what follows from it grows to the size of the rounding itself: the default bundle's
int8-dynamic under OpenVINO was 0.09 from ONNX Runtime in logits, at a distance of 0.17 from fp32 (0.045 root mean
square), and 0.023 in next-sentence logits at 0.025 (0.013). A few values, as of a classifier of two texts, may be near
fp32 by chance, which the root mean square is less so."""
FEW_COLUMNS = 16
"""Columns of a row that is listed whole."""
SPREAD = 4
"""Columns that are listed of a longer row, from its first to its last."""
LARGEST = 5
"""Columns that are listed beside those of a row of logits over the vocabulary: the largest."""
DIGITS = 7
"""Significant digits of a value: float32 has no more."""
SINGLE = (
    "The cat sat on the mat.",
    "Cr\u00e8me br\u00fbl\u00e9e, \u00c5ngstr\u00f6m: 3,50 \u20ac.",
    "Zzxqj \u2603 \u6f22\u5b57?",
)
"""Texts without a mask: plain, with accents and capitals, and with what a vocabulary may lack."""
MASKED = ("The capital of France is {mask}.", "She {mask} a letter and {mask} it.")
"""Texts with one mask, and with two."""
PAIR = ("She went to the store.", "She bought milk.")


PER_TOKEN = 3
"""Axes of an output that has a row for each token."""


def write_golden(path: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Bundle, dict[str, str]]:
    """Add golden vectors of every variant that has none to a bundle.

    Values are those of the CPU provider, and of a variant that is not for it those of the best provider here.

    Args:
        path: the bundle's directory.
        overwrite: whether all are made anew, the texts and batches too. Old ones of a variant that is given none stay,
            where texts and batches are as they were.

    Returns:
        The bundle as it is now, and why a variant was given none, by its name: it cannot be run here, it fails or gives
        no finite numbers, or there is no fp32 graph to say how far it may be.

    Raises:
        PathError, BundleError: when there is no such bundle, it is damaged, or it cannot be written.
    """
    tidy(path)
    bundle = Bundle.open(path)
    bundle.check(bundle.manifest.files)
    if not overwrite:
        old = read_golden(bundle)
        golden, left_out = golden_of(bundle, old)
        return bundle if golden == old else replace_golden(bundle, golden), left_out
    golden, left_out = golden_of(bundle)
    with suppress(BundleError):  # old ones that cannot be read go
        if (old := read_golden(bundle)) and (old.texts, old.batches) == (golden.texts, golden.batches):
            for name, vectors in old.of(left_out).variants.items():
                golden = with_variant(golden, name, vectors)
                left_out[name] += "; its old ones stay"
    return replace_golden(bundle, golden), left_out


def write_first(directory: Path) -> None:
    """Write golden vectors of every variant into a bundle that is being built and has its manifest.

    Raises:
        OutputError: for a variant of which none can be made.
    """
    bundle = Bundle.open(directory)
    golden, left_out = golden_of(bundle)
    for name, reason in left_out.items():
        raise OutputError(f"no golden vectors can be made of variant {name!r}: {reason}")
    path = directory / FILE
    path.write_bytes(golden.to_bytes())
    entry = FileEntry(size=path.stat().st_size, sha256=file_sha256(path))
    write_manifest(directory, listing(bundle.manifest, FILE, entry))


def golden_of(bundle: Bundle, old: Golden | None = None) -> tuple[Golden, dict[str, str]]:
    """Return golden vectors of a bundle, and why a variant has none, by its name.

    Args:
        bundle: the bundle.
        old: its golden vectors, which are kept; None for none.

    Raises:
        BundleError: for a bundle that is damaged.
    """
    tokens = Tokens.read(bundle)
    if old is None:
        texts = _texts(tokens, bundle.manifest)
        old = Golden(texts=texts, batches=_batches(texts, tokens, bundle.manifest), variants={})
    made, left_out = dict(old.variants), dict[str, str]()
    reference: Sequence[Outputs] = ()
    known = bundle.manifest.variants
    for name in sorted(known, key=lambda name: name != REFERENCE):  # what others are compared with comes first
        exact = known[name].requires.precision == FP32
        if name in made and (name != REFERENCE or known.keys() <= made.keys()):
            continue
        if not (exact or reference):
            lacks = "no outputs of" if REFERENCE in left_out else "no variant"
            left_out[name] = f"the bundle has {lacks} {REFERENCE!r} to say how far its values may be from others"
            continue
        try:
            graph = _opened(bundle, name)
            values = _values(graph, old, known[name])
            vectors = vectors_of(old, graph, known[name], reference, values=values)
        except (ProviderError, OutputError) as error:
            left_out[name] = error.message
            continue
        made.setdefault(name, vectors)
        reference = values if name == REFERENCE else reference
    ordered = {name: made[name] for name in known if name in made}
    return Golden(texts=old.texts, batches=old.batches, variants=ordered), left_out


def _opened(bundle: Bundle, name: str) -> Graph:
    """Return the graph of a variant on the CPU provider, or where it is not for that, on the best provider here.

    Raises:
        ProviderError: when it cannot be run here.
    """
    requires = bundle.manifest.variants[name].requires
    on_cpu = suits(requires, CPU)
    if requires.precision != FP32 or not on_cpu:
        return load(bundle.path, variant=name, provider=CPU if on_cpu else AUTO, digest=bundle.digest).graph
    checked = bundle.check_variant(name)  # all that is left of loading where nothing is to be chosen
    with checked.opening() as path:
        # Two small batches: on one thread nothing waits, and a small model takes half the time.
        return open_graph(path, PROVIDERS[CPU], threads=1, external_data=checked.external_data)


def _values(graph: Graph, golden: Golden, variant: Variant) -> Sequence[Outputs]:
    """Return the outputs of a variant's graph for each batch.

    Raises:
        ProviderError: when the graph fails.
    """
    try:
        return [graph.run(feeds, variant.outputs) for feeds in golden.feeds()]
    except Exception as error:  # ONNX Runtime's errors share no base
        reason = excerpt(one_line(error), 300)
        raise ProviderError(
            f"{variant.file} fails on {graph.provider.name} ({reason}): quantize or export again"
        ) from error


def vectors_of(
    golden: Golden,
    graph: Graph,
    variant: Variant,
    reference: Sequence[Outputs],
    *,
    values: Sequence[Outputs] | None = None,
) -> GoldenVariant:
    """Return golden vectors of a variant.

    Args:
        golden: the bundle's, of which the batches are taken.
        graph: the variant's.
        variant: its entry in the manifest.
        reference: the outputs of the bundle's fp32 serving graph for each batch; what is not in fp32 is given as much
            room as it is away from them, and what is in fp32 needs none of them.
        values: the outputs of the graph for each batch, where they are known.

    Raises:
        OutputError: for a graph that gives no finite numbers.
    """
    feeds = golden.feeds()
    values = [graph.run(batch, variant.outputs) for batch in feeds] if values is None else values
    outputs = {}
    for name in variant.outputs:
        given = [batch[name] for batch in values]
        if not all(np.isfinite(value).all() for value in given):
            raise OutputError(
                f"the output {name} of {variant.file} has NaN or infinity, which no golden vectors can be made of: "
                "quantize or export again"
            )
        away: Sequence[NDArray[np.float32]] = ()
        if variant.requires.precision != FP32:  # a bundle of the portable graph alone has no reference
            away = [
                _real(name, value, batch) - _real(name, right[name], batch)
                for value, right, batch in zip(given, reference, feeds, strict=True)
            ]
        outputs[name] = GoldenOutput(
            tolerance=_tolerance(variant, away),
            shapes=tuple(value.shape for value in given),
            rows=tuple(
                _row(number, row, _matrix(value)[row], top=_is_decoded(name))
                for number, (value, batch) in enumerate(zip(given, feeds, strict=True))
                for row in _listed(name, value, batch)
            ),
        )
    made_on = {
        "provider": graph.provider.name,
        "instruction_set": cpu().instruction_set,
        "onnxruntime": str(onnxruntime().__version__),
    }
    return GoldenVariant(made_on=made_on, outputs=outputs)


def _texts(tokens: Tokens, manifest: Manifest) -> tuple[GoldenText, ...]:
    """Return texts of every kind that a model takes, those with masks first, with their ids."""
    masked = [text.format(mask=tokens.mask_token) for text in MASKED] if tokens.mask_id is not None else []
    texts: list[Text] = [*masked, *SINGLE, *([PAIR] if tokens.takes_pairs else [])]
    pairs = zip(texts, tokens.encode(texts), strict=True)
    segments = manifest.architecture.type_vocab_size if SEGMENTS in manifest.inputs else sys.maxsize
    known = [
        (text, encoded)
        for text, encoded in pairs  # without a second segment a model may have a tokenizer that knows one
        if isinstance(encoded, Encoded) and encoded.type_ids.max() < segments
    ]
    if not known:  # the model takes a few tokens, or the tokenizer reads no English
        [encoded] = tokens.encode([tokens.sample])
        if not isinstance(encoded, Encoded):
            raise encoded
        known = [(tokens.sample, encoded)]
    return tuple(_text(text, encoded) for text, encoded in known)


def _text(text: Text, encoded: Encoded) -> GoldenText:
    first, *second = parts_of(text)
    ids, types = encoded.ids.tolist(), encoded.type_ids.tolist()
    return GoldenText(text=first, pair=second[0] if second else None, ids=tuple(ids), type_ids=tuple(types))


def _batches(texts: Sequence[GoldenText], tokens: Tokens, manifest: Manifest) -> tuple[GoldenBatch, ...]:
    """Return the first text as a batch of one row, and the others as one that is padded to the longest."""
    decoded = any(_is_decoded(head.output) for head in manifest.heads.values())
    groups = [group for group in (texts[:1], texts[1:]) if group]
    return tuple(_batch(group, tokens, segments=SEGMENTS in manifest.inputs, decoded=decoded) for group in groups)


def _batch(texts: Sequence[GoldenText], tokens: Tokens, *, segments: bool, decoded: bool) -> GoldenBatch:
    width = max(len(text.ids) for text in texts)

    def padded(rows: Iterable[tuple[int, ...]], filler: int) -> tuple[tuple[int, ...], ...]:
        return tuple((*row, *[filler] * (width - len(row))) for row in rows)

    ids = padded((text.ids for text in texts), tokens.pad_id or 0)
    positions = [place for place, index in enumerate(chain.from_iterable(ids)) if index == tokens.mask_id]
    inputs = GoldenInputs(
        input_ids=ids,
        attention_mask=padded(((1,) * len(text.ids) for text in texts), 0),
        token_type_ids=padded((text.type_ids for text in texts), 0) if segments else None,
        masked_positions=tuple(positions or [0]) if decoded else None,  # an empty one is not for every provider
    )
    return GoldenBatch(inputs=inputs)


def _is_decoded(output: str) -> bool:
    return bool(decoded_outputs([output]))


def _matrix(value: NDArray[np.float32]) -> NDArray[np.float32]:
    return value.reshape(-1, value.shape[-1])


def _places(output: str, value: NDArray[np.float32], batch: Feeds) -> NDArray[np.int64]:
    """Return the rows of an output's matrix that mean something: those of tokens, or of positions that are asked for.

    An output that is decoded has a row per position asked for in a serving graph, and one per token in a portable one.
    """
    if value.ndim < PER_TOKEN:
        return np.arange(len(_matrix(value)))
    return batch[POSITIONS] if _is_decoded(output) else np.flatnonzero(batch["attention_mask"])


def _real(output: str, value: NDArray[np.float32], batch: Feeds) -> NDArray[np.float32]:
    return _matrix(value)[_places(output, value, batch)]


def _listed(output: str, value: NDArray[np.float32], batch: Feeds) -> list[int]:
    """Return the rows that are listed: all, but of an output per token the first, middle or last of each text."""
    places = _places(output, value, batch)
    if value.ndim < PER_TOKEN or _is_decoded(output):
        return [int(place) for place in places]
    rows, width = batch["attention_mask"].shape
    texts = [places[places // width == row] for row in range(rows)]
    if rows == 1:
        return sorted({int(text[at]) for text in texts for at in (0, len(text) // 2, -1)})
    return [int(text[(0, len(text) // 2, -1)[row % 3]]) for row, text in enumerate(texts)]


def _row(batch: int, number: int, row: NDArray[np.float32], *, top: bool) -> GoldenRow:
    """Return what is listed of a row of an output."""
    count = len(row)
    columns = None
    if count > FEW_COLUMNS:
        largest = [int(index) for index in np.argsort(-row, kind="stable")[:LARGEST]] if top else []
        columns = tuple(dict.fromkeys([*largest, *(int(at) for at in np.linspace(0, count - 1, SPREAD))]))
    return GoldenRow(
        batch=batch,
        row=number,
        columns=columns,
        values=tuple(_rounded(value) for value in (row if columns is None else row[list(columns)])),
        largest=LARGEST if top and columns else 0,
        rms=_rounded(_rms(row)),
    )


def _rounded(value: float, digits: int = DIGITS) -> float:
    return float(f"{value:.{digits}g}")


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _tolerance(variant: Variant, away: Sequence[NDArray[np.float32]]) -> float:
    """Return the largest difference that is allowed of an output, from how far its values are from those of fp32."""
    least = max(FP32_TOLERANCE, variant.validation.atol if variant.validation else 0)
    if variant.requires.precision == FP32:
        return least
    distances = np.concatenate([values.ravel() for values in away])
    allowed = max(LARGEST_FACTOR * float(np.abs(distances).max(initial=0)), RMS_FACTOR * _rms(distances))
    return max(least, _rounded(allowed, 2))
