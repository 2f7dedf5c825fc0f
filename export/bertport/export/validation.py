"""Every output of every graph against PyTorch, on a grid of shapes; a difference fails the export."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertport.export.passes.gather_positions import MASKED_POSITIONS
from bertport.runtime.errors import ValidationError
from bertport.runtime.manifest import Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bertport.export.model import BertWithHeads

__all__ = ["Case", "Vocabulary", "grid", "validate", "worst_difference"]

BATCHES = (1, 3)
LENGTHS = (2, 16, 128)
SEED = 20260101


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The ids that inputs are made of."""

    ordinary: Sequence[int]
    """Every id but those of special tokens."""
    cls: int
    """Begins an input."""
    sep: int
    """Ends a segment."""
    pad: int
    """Fills up a batch."""
    mask: int
    """Stands for a masked token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One batch to compare."""

    name: str
    """Its place in the grid, for messages."""
    inputs: dict[str, NDArray[np.int64]]
    """`input_ids`, `attention_mask` and `token_type_ids`, [batch, sequence]."""
    positions: tuple[NDArray[np.int64], ...]
    """Values of `masked_positions` to try on a graph that has it: flat indices, [n]."""


def grid(vocabulary: Vocabulary, *, max_length: int, segments: int) -> Iterator[Case]:
    """Give batches of every combination of batch size, length, padding and number of segments.

    Args:
        vocabulary: the ids to draw from.
        max_length: the longest input; it is one of the lengths.
        segments: rows of the token type embedding; with one, there are no pairs.
    """
    random = np.random.default_rng(SEED)
    lengths = sorted({min(length, max_length) for length in (*LENGTHS, max_length)})
    for batch, length, padded, pairs in itertools.product(BATCHES, lengths, (False, True), (False, True)):
        if pairs and segments == 1:
            continue
        ids = random.choice(np.asarray(vocabulary.ordinary, dtype=np.int64), size=(batch, length))
        mask = np.ones_like(ids)
        types = np.zeros_like(ids)
        ids[random.random(ids.shape) < 0.15] = vocabulary.mask  # noqa: PLR2004 — the share that BERT was trained with
        for row in range(batch):
            real = length - int(random.integers(1, max(2, length // 2 + 1))) if padded else length
            ids[row, 0] = vocabulary.cls
            ids[row, real - 1 :] = vocabulary.sep if real > 1 else vocabulary.cls
            ids[row, real:] = vocabulary.pad
            mask[row, real:] = 0
            if pairs:
                middle = real // 2
                ids[row, middle] = vocabulary.sep
                types[row, middle + (real > 2) : real] = 1  # noqa: PLR2004 — in [CLS][SEP] the second is segment 1
        # Padded positions are compared as well: both sides compute them from the same inputs.
        asked = np.sort(random.permutation(batch * length)[: max(1, batch * length // 7)]).astype(np.int64)
        positions = (asked, asked[:0]) if length == lengths[min(1, len(lengths) - 1)] else (asked,)
        name = (
            f"batch {batch}, length {length}, {'padded' if padded else 'full'}, {1 + pairs} segment{'s'[: int(pairs)]}"
        )
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        yield Case(name=name, inputs=inputs, positions=positions)


def validate(
    model: BertWithHeads,
    graphs: Mapping[str, Path],
    cases: Sequence[Case],
    *,
    atol: float,
    step: Callable[[str], None] = lambda _: None,
) -> dict[str, Validation]:
    """Compare graphs with the model in ONNX Runtime on the CPU.

    Args:
        model: the PyTorch reference, float32, in evaluation mode.
        graphs: the graphs by the name of their variant.
        cases: the batches.
        atol: the largest absolute difference allowed in any output.
        step: told the name of each case before it is run.

    Returns:
        The validation of each graph.

    Raises:
        ValidationError: naming the worst output, shape and element, when a difference exceeds `atol`.
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sessions = {
        name: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for name, path in graphs.items()
    }
    worst: dict[str, dict[str, float]] = {name: {} for name in graphs}
    failures: list[tuple[float, str]] = []
    for case in cases:
        step(case.name)
        with torch.inference_mode():
            outputs = model(**{name: torch.from_numpy(value) for name, value in case.inputs.items()})
        reference = {name: tensor.numpy() for name, tensor in outputs.items()}
        for variant, session in sessions.items():
            for expected, feeds in _runs(session, case, reference):
                found = session.run(None, feeds)
                for name, value in zip((output.name for output in session.get_outputs()), found, strict=True):
                    difference, element = worst_difference(expected[name], value)
                    worst[variant][name] = max(worst[variant].get(name, 0.0), difference)
                    if not difference <= atol:
                        where = (
                            f"output {name} of {variant}, shape {list(value.shape)} ({case.name}), element {element}"
                        )
                        failures.append((difference, where))
    if failures:
        difference, where = max(failures)
        message = (
            f"the exported graph differs from PyTorch by {difference:.3g}, more than {atol:g}, at worst in {where}: "
            "nothing was written; choose another --opset, or a larger --atol if that is enough for you"
        )
        raise ValidationError(message)
    return {name: Validation(atol=atol, cases=len(cases), worst=differences) for name, differences in worst.items()}


def worst_difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, list[int]]:
    """Give the largest absolute difference, and the index of the element that has it.

    Infinity stands for another shape, and for an element that is not finite on one side.
    """
    if expected.shape != found.shape:
        return float("inf"), []
    if not expected.size:
        return 0.0, []
    difference = np.abs(expected - found)
    difference[~(np.isfinite(expected) & np.isfinite(found))] = np.inf
    element = np.unravel_index(int(difference.argmax()), difference.shape)
    return float(difference[element]), [int(index) for index in element]


def _runs(
    session: object, case: Case, reference: dict[str, NDArray[np.float32]]
) -> Iterator[tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.int64]]]]:
    """Give the expected outputs and the inputs of each run of a graph on one case."""
    names = {each.name for each in session.get_inputs()}  # type: ignore[attr-defined]  # onnxruntime ships no types
    inputs = {name: value for name, value in case.inputs.items() if name in names}
    if MASKED_POSITIONS not in names:
        yield reference, inputs
        return
    logits = reference["logits"]
    rows = logits.reshape(-1, logits.shape[-1])
    for positions in case.positions:
        yield reference | {"logits": rows[positions]}, inputs | {MASKED_POSITIONS: positions}
