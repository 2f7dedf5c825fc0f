"""Raw tensors: token ids in, the graph's own outputs back, in parts that fit the budget of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.finite import first_not_finite
from bertport.runtime.heads import (
    CHOICE,
    HEADS,
    HIDDEN,
    HIDDEN_STATES,
    LABEL,
    POSITIONS,
    SEGMENTS,
    SPAN,
    VOCABULARY,
    decoded_outputs,
)
from bertport.runtime.sliced_logits import SlicedLogits
from bertport.serve.engine.worker import RawWork
from bertport.serve.errors import BackendFailure, BadRequest, TooLarge, Unprocessable
from bertport.serve.http.wire import JSON_NUMBER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.runtime import Model
    from bertport.serve.api.tensors import Asked
    from bertport.serve.settings import Limits

__all__ = ["TASK", "Part", "Raw", "inputs_of", "join", "outputs_of", "read", "split"]

TASK = "tensors"
"""Name of requests for raw tensors in the metrics and the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Request for raw tensors."""

    feeds: Mapping[str, NDArray[np.int64]]
    """The graph's inputs `[rows, tokens]`."""
    positions: NDArray[np.int64] | None
    """Flat indices into rows x tokens whose logits are wanted, in this order; None for all."""
    outputs: tuple[str, ...]
    """Names of the graph's outputs."""
    numbers: int
    """Numbers in the answer."""
    bytes: int
    """Bytes of the answer, about: its numbers as JSON or bytes, as each output is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some rows of it."""

    work: RawWork
    """Work item that runs these rows."""
    places: NDArray[np.intp] | None
    """Indices of the logits of its positions among all that were asked for; None for all positions."""


def inputs_of(model: Model) -> dict[str, list[int]]:
    """Return the inputs that a model takes, with their shapes; -1 is any size.

    All but the first may be left out: no padding, one segment, logits at every position.
    """
    known = {"input_ids": [-1, -1], "attention_mask": [-1, -1], SEGMENTS: [-1, -1]}
    named = {name: shape for name, shape in known.items() if name in model.bundle.manifest.inputs}
    return named | ({POSITIONS: [-1]} if decoded_outputs(model.graph.outputs) else {})


def outputs_of(model: Model) -> dict[str, list[int]]:
    """Return the graph's outputs with their shapes; -1 is any size."""
    manifest = model.bundle.manifest
    sizes = {
        VOCABULARY: manifest.architecture.vocab_size,
        HIDDEN: manifest.architecture.hidden_size,
        SPAN: 2,
        CHOICE: 1,
    }
    shapes = {}
    for name, head in HEADS.items():
        entry = manifest.heads.get(name)
        own = {LABEL: len((entry.labels if entry else None) or head.labels or ())}
        if entry and entry.embedding:
            own[HIDDEN] = entry.embedding.dimension
        shapes[head.output] = [(sizes | own).get(axis, -1) for axis in head.axes]
    shapes[HIDDEN_STATES] = [-1, -1, sizes[HIDDEN]]
    return {name: shape for name, shape in shapes.items() if name in model.graph.outputs}


def read(asked: Asked, model: Model, limits: Limits) -> Raw:
    """Check what is asked for against the model: no index is out of range, and no answer too large.

    Raises:
        BadRequest, Unprocessable, TooLarge: why it cannot be.
    """
    inputs = inputs_of(model)
    # Positions mean nothing where no output is decoded at them, and never were an error.
    if unknown := asked.inputs.keys() - inputs.keys() - {POSITIONS}:
        raise BadRequest(f"there is no input {min(unknown)!r:.60} beside input_ids (there is: {', '.join(inputs)})")
    ids = _integers(asked, "input_ids", None)
    rows, length = ids.shape
    architecture = model.bundle.manifest.architecture
    if not 1 <= length <= model.tokens.max_length or not rows:
        raise Unprocessable(
            f"input_ids is {rows} x {length} and the model takes 1 to {model.tokens.max_length} tokens a row"
        )
    if rows > limits.max_items:
        raise TooLarge(f"input_ids has {rows} rows and may have {limits.max_items}: send them in several requests")
    feeds = {
        "input_ids": ids,
        "attention_mask": _integers(asked, "attention_mask", np.ones_like(ids)),
    }
    if SEGMENTS in inputs:
        feeds[SEGMENTS] = _integers(asked, SEGMENTS, np.full_like(ids, model.bundle.manifest.segments or 0))
    for name, values, end in (
        ("input_ids", ids, architecture.vocab_size),
        ("attention_mask", feeds["attention_mask"], 2),
        (SEGMENTS, feeds.get(SEGMENTS), architecture.type_vocab_size),
    ):
        if values is not None and (values.min() < 0 or values.max() >= end):
            raise Unprocessable(f"{name} holds values outside 0 to {end - 1}")
    known = outputs_of(model)
    outputs = tuple(asked.outputs or known)
    if missing := [name for name in outputs if name not in known]:
        raise Unprocessable(f"there is no output {missing[0]!r:.60} for input_ids (there is: {', '.join(known)})")
    positions = _positions(asked, ids.size)
    counts = _counts(known, outputs, rows, length, positions)
    size = sum(
        count * (4 if (asked.outputs or {}).get(name, asked.binary) else JSON_NUMBER) for name, count in counts.items()
    )
    if size > limits.max_answer_bytes:
        raise TooLarge(
            f"the answer would have about {size:,} bytes and may have {limits.max_answer_bytes:,}: "
            "name the outputs that you need, give masked_positions, ask for binary data, or send fewer rows"
        )
    return Raw(feeds=feeds, positions=positions, outputs=outputs, numbers=sum(counts.values()), bytes=size)


def split(asked: Raw, budget: int) -> list[Part]:
    """Part the rows so that each part fits the budget, or is one row."""
    rows, length = asked.feeds["input_ids"].shape
    step = max(1, budget // length)
    decodes = bool(decoded_outputs(asked.outputs))
    parts = []
    for start in range(0, rows, step):
        feeds = {name: values[start : start + step] for name, values in asked.feeds.items()}
        size = feeds["input_ids"].size
        places = None
        positions = np.arange(size if decodes else 0, dtype=np.int64)
        if asked.positions is not None and decodes:
            first = start * length
            places = np.flatnonzero((asked.positions >= first) & (asked.positions < first + size))
            positions = asked.positions[places] - first
        parts.append(Part(work=_work(feeds, positions, asked.outputs), places=places))
    return parts


def join(asked: Raw, parts: Sequence[Part], results: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return the parts' outputs joined."""
    rows, length = asked.feeds["input_ids"].shape
    decoded = decoded_outputs(asked.outputs)
    outputs: dict[str, NDArray[Any]] = {}
    for name in asked.outputs:
        pieces = [result[name] for result in results]
        whole = pieces[0] if len(pieces) == 1 else None  # what is whole already need not be copied
        if name not in decoded:
            outputs[name] = np.concatenate(pieces) if whole is None else whole
        elif asked.positions is None:
            outputs[name] = (np.concatenate(pieces) if whole is None else whole).reshape(rows, length, -1)
        else:
            logits = np.empty((len(asked.positions), pieces[0].shape[-1]), dtype=np.float32)
            for part, piece in zip(parts, pieces, strict=True):
                logits[part.places] = piece
            outputs[name] = logits
    return outputs


def _work(feeds: Mapping[str, NDArray[np.int64]], positions: NDArray[np.int64], outputs: tuple[str, ...]) -> RawWork:
    def run(model: Model) -> dict[str, NDArray[np.float32]]:
        values = model.graph.run_in_slices({**feeds, POSITIONS: positions}, list(outputs), most=model.positions)
        for name in decoded_outputs(outputs):
            logits = values[name]
            if isinstance(logits, SlicedLogits):
                logits = logits.whole()
            if POSITIONS not in model.graph.inputs:  # a portable graph decodes them all
                logits = logits.reshape(feeds["input_ids"].size, -1)[positions]
            values[name] = logits
        if bad := first_not_finite(values):
            raise BackendFailure(f"the output {bad} has NaN or infinity for this input: choose another variant")
        return values

    return RawWork(tokens=feeds["input_ids"].size, run=run)


def _integers(asked: Asked, name: str, default: NDArray[np.int64] | None) -> NDArray[np.int64]:
    values = asked.inputs.get(name)
    if values is None and default is not None:
        return default
    if values is None or values.dtype.kind not in "iu" or values.ndim != 2:  # noqa: PLR2004 — rows and tokens
        raise BadRequest(f"{name} is integers [rows, tokens]")
    if default is not None and values.shape != default.shape:
        raise BadRequest(f"{name} is {list(values.shape)} and input_ids {list(default.shape)}")
    return np.ascontiguousarray(values, dtype=np.int64)


def _positions(asked: Asked, size: int) -> NDArray[np.int64] | None:
    values = asked.inputs.get(POSITIONS)
    if values is None:
        return None
    if values.dtype.kind not in "iu" or values.ndim != 1 or len(values) > size:
        raise BadRequest(f"masked_positions is at most {size} integers in one dimension")
    if len(values) and (values.min() < 0 or values.max() >= size):
        raise Unprocessable(f"masked_positions holds values outside 0 to {size - 1}")
    return values.astype(np.int64)


def _counts(
    known: Mapping[str, list[int]],
    outputs: Sequence[str],
    rows: int,
    length: int,
    positions: NDArray[np.int64] | None,
) -> dict[str, int]:
    """Return how many numbers each output has."""
    decoded = decoded_outputs(outputs)
    counts = {}
    for name in outputs:
        *sizes, width = known[name]
        count = rows * (length if len(sizes) > 1 else 1)
        if name in decoded and positions is not None:
            count = len(positions)
        counts[name] = count * width
    return counts
