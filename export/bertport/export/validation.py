"""Every output of every graph against PyTorch; a difference fails the export."""

from __future__ import annotations

import copy
import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.export.passes.gather_positions import MASKED_POSITIONS
from bertport.runtime.errors import ValidationError
from bertport.runtime.manifest import Validation
from bertport.runtime.providers import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bertport.export.grid import Case
    from bertport.export.model import BertWithHeads

    Outputs = NDArray[np.floating]

__all__ = ["notes", "validate", "worst_difference"]

SMALL_MODEL = 5_000_000
"""Parameters below which PyTorch is run on one thread: a barrier after every operator costs more than it brings."""
AS_NEAR = 3
"""How much farther from float64 than PyTorch's float32 a graph may be where both stray by more than the tolerance.

Each sums the same products in an order of its own, so over a batch their rounding errors are about as large as each
other's. Not in each value, nor in each row, where one may be lucky: so the farthest of an output in the batches that
were run in float64 counts."""
PADDING = 100
"""How many times the tolerance a padded position may differ by.

Nobody reads it: it is hidden from every other position, and left out of every answer. It still holds the product of
the same weights, so a large difference tells of a fault; rounding errors are larger than elsewhere, as nothing was
trained to be read there (1.4e-4 where all-MiniLM-L6-v2's real tokens differ by 7e-6)."""

PER_TOKEN = frozenset({"logits", "last_hidden_state"})
"""The outputs that have a row for each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run of a graph on a batch: what it gave, beside what PyTorch gives."""

    case: Case
    """The batch."""
    variant: str
    """The graph."""
    positions: NDArray[np.int64] | None
    """What it was given as `masked_positions`; None for a graph that does not take them."""
    outputs: dict[str, NDArray[np.float32]]
    """By name."""

    def expected(self, reference: dict[str, Outputs]) -> dict[str, Outputs]:
        """Return PyTorch's outputs at the places where this run has outputs."""
        found = {name: reference[name] for name in self.outputs}
        if self.positions is not None:
            logits = reference["logits"]
            found["logits"] = logits.reshape(-1, logits.shape[-1])[self.positions]
        return found

    def read(self, output: str) -> NDArray[np.bool_]:
        """Return which rows of an output are read, of its shape without the last axis: all but those of padding."""
        real: NDArray[np.bool_] = self.case.inputs["attention_mask"] == 1
        if output not in PER_TOKEN:
            return np.ones(len(real), dtype=bool)
        if output == "logits" and self.positions is not None:
            return np.take(real, self.positions)
        return real


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """An output that differs from PyTorch by more than it may."""

    size: float
    """The largest absolute difference."""
    where: str
    """Output, graph, shape, element and batch, for people."""
    run: _Run
    """The run, without its outputs: batches are many and large."""
    output: str
    """Name of the output."""


def validate(
    model: BertWithHeads,
    graphs: Mapping[str, Path],
    cases: Sequence[Case],
    *,
    atol: float,
    step: Callable[[str], None] = lambda _: None,
) -> dict[str, Validation]:
    """Compare graphs with the model in ONNX Runtime on the CPU.

    What is read must agree with PyTorch: every output of a text, and of a token that is no padding. Padded positions
    are compared too, and recorded apart: they may differ by `PADDING` times as much, and must be finite, since what is
    not would reach real tokens through attention. Where a difference is too large, the model is run in float64 as
    well, and the graph is right if it is at most `AS_NEAR` times as far from that as PyTorch's float32 is.

    Args:
        model: the PyTorch reference, float32, in evaluation mode.
        graphs: the graphs by the name of their variant.
        cases: the batches.
        atol: the largest absolute difference allowed in any output that is read.
        step: told the name of each case before it is run.

    Returns:
        The validation of each graph.

    Raises:
        ValidationError: naming the worst output, shape and element, when a difference exceeds `atol`.
    """
    sessions = {name: _session(path) for name, path in graphs.items()}
    worst: dict[str, dict[str, float]] = {name: {} for name in graphs}
    padding: dict[str, dict[str, float]] = {name: {} for name in graphs}
    differences: list[_Difference] = []
    for case in cases:
        step(case.name)
        reference = _reference(model, case)
        for variant, session in sessions.items():
            for run in _runs(session, case, variant):
                expected = run.expected(reference)
                for name in run.outputs:
                    read = run.read(name)
                    differences += _compare(run, name, expected, read, atol, worst[variant])
                    if not read.all():
                        differences += _compare(run, name, expected, ~read, PADDING * atol, padding[variant])
    decided = _decide(model, sessions, differences, atol=atol, step=step)
    return {
        name: Validation(
            atol=atol,
            cases=len(cases),
            seeds=tuple(dict.fromkeys(case.seed for case in cases)),
            worst=worst[name],
            worst_padding=padding[name],
            decided_by_float64=decided[name],
        )
        for name in graphs
    }


def notes(validations: Mapping[str, Validation]) -> list[str]:
    """Return a sentence for each graph that float64 found to be right where its difference from PyTorch is large."""
    return [
        f"{each.decided_by_float64:,} values of {name} differ from PyTorch by more than {each.atol:g} "
        f"(up to {max(*each.worst.values(), *each.worst_padding.values()):.2g}): "
        "PyTorch's float32 strays as far from float64, so the graph counts as right"
        for name, each in validations.items()
        if each.decided_by_float64
    ]


def _compare(  # noqa: PLR0913, PLR0917 — two sides, what of them, and how
    run: _Run,
    output: str,
    expected: dict[str, Outputs],
    rows: NDArray[np.bool_],
    limit: float,
    worst: dict[str, float],
) -> list[_Difference]:
    """Compare some rows of an output, take note of the worst difference, and return it if it is too large."""
    value = run.outputs[output]
    size, element = worst_difference(expected[output], value, rows)
    worst[output] = max(worst.get(output, 0.0), size)
    if size <= limit:
        return []
    where = f"output {output} of {run.variant}, shape {list(value.shape)}, element {element} ({run.case.name})"
    return [_Difference(size=size, where=where, run=dataclasses.replace(run, outputs={}), output=output)]


def _decide(
    model: BertWithHeads,
    sessions: Mapping[str, Any],
    differences: Sequence[_Difference],
    *,
    atol: float,
    step: Callable[[str], None],
) -> dict[str, int]:
    """Return the number of values of each graph that are right by float64; batch by batch, the worst first.

    Raises:
        ValidationError: for the first output that is not.
    """
    decided = dict.fromkeys(sessions, 0)
    by_case: dict[str, list[_Difference]] = {}
    for each in sorted(differences, key=lambda difference: -difference.size):
        if not np.isfinite(each.size):
            raise _wrong(each, atol)
        by_case.setdefault(each.run.case.name, []).append(each)
    exact = copy.deepcopy(model).double() if differences else model
    strays: dict[tuple[str, bool], float] = {}
    for name, found in by_case.items():
        case = found[0].run.case
        step(f"{name}, in float64")
        single, double = _reference(model, case), _reference(exact, case)
        for each in found:
            for run in _runs(sessions[each.run.variant], case, each.run.variant):
                if run.positions is each.run.positions:
                    decided[run.variant] += _nearer(each, run, (single, double), strays, atol)
    return decided


def _nearer(
    difference: _Difference,
    run: _Run,
    references: tuple[dict[str, Outputs], dict[str, Outputs]],
    strays: dict[tuple[str, bool], float],
    atol: float,
) -> int:
    """Return how many values of an output differ too much, once float64 has found the graph as right as PyTorch.

    Args:
        difference: what was found.
        run: the same run again, with its outputs.
        references: PyTorch's outputs in float32 and in float64.
        strays: how far PyTorch strays from float64, by output and whether it is read; brought up to date.
        atol: the tolerance.

    Raises:
        ValidationError: when the graph is too far from float64.
    """
    name, found = difference.output, run.outputs[difference.output]
    single, double = (run.expected(outputs)[name] for outputs in references)
    of_torch, of_graph, decided = np.abs(single - double), np.abs(found - double), 0
    for read, rows, limit in (
        (True, run.read(name), atol),
        (False, ~run.read(name), PADDING * atol),
    ):
        stray = strays[name, read] = max(strays.get((name, read), 0.0), float(of_torch[rows].max(initial=0)))
        farthest = float(of_graph[rows].max(initial=0))
        if farthest > max(limit, AS_NEAR * stray):
            raise _wrong(difference, atol, f"; PyTorch is up to {stray:.2g} from float64, the graph {farthest:.2g}")
        decided += int((np.abs(single - found)[rows] > limit).sum())
    return decided


def _wrong(difference: _Difference, atol: float, reason: str = "") -> ValidationError:
    return ValidationError(
        f"the exported graph differs from PyTorch by {difference.size:.3g}, more than {atol:g}, at worst in "
        f"{difference.where}{reason}: nothing was written; choose another --opset, or a larger --atol if that is "
        "enough for you"
    )


def worst_difference(
    expected: NDArray[np.float32], found: NDArray[np.float32], rows: NDArray[np.bool_] | None = None
) -> tuple[float, list[int]]:
    """Return the largest absolute difference, and the index of the element that has it.

    Infinity stands for another shape, and for an element that is not finite.

    Args:
        expected: what is right.
        found: what is compared with it.
        rows: which rows count, of the shape without its last axis; None for all.

    >>> worst_difference(np.float32([[0, 1]]), np.float32([[0, 3]]))
    (2.0, [0, 1])
    """
    if expected.shape != found.shape:
        return float("inf"), []
    if not expected.size:
        return 0.0, []
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = expected - found
    np.abs(difference, out=difference)
    np.copyto(difference, np.inf, where=~np.isfinite(difference))
    if rows is not None:
        difference[~rows] = 0
    element = np.unravel_index(int(difference.argmax()), difference.shape)
    return float(difference[element]), [int(index) for index in element]


def _session(path: Path) -> Any:  # noqa: ANN401 — onnxruntime ships no types
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    # PyTorch's threads work in turn with ONNX Runtime's; whichever waits must not spin on the other's cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, bare Exception among their bases
        message = f"ONNX Runtime cannot load the exported graph {path.name} ({error}): nothing was written"
        raise ValidationError(message) from error


def _run(session: Any, feeds: dict[str, NDArray[np.int64]], where: str) -> list[NDArray[np.float32]]:  # noqa: ANN401 — as above
    try:
        found: list[NDArray[np.float32]] = session.run(None, feeds)
    except Exception as error:  # as above
        message = f"ONNX Runtime cannot run the exported graph {where} ({error}): nothing was written"
        raise ValidationError(message) from error
    return found


def _reference(model: BertWithHeads, case: Case) -> dict[str, Outputs]:
    """Run the model, in the precision of its weights."""
    import torch

    with _threads(sum(each.numel() for each in model.parameters())), torch.inference_mode():
        outputs = model(**{name: torch.from_numpy(value) for name, value in case.inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


@contextmanager
def _threads(parameters: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    if parameters < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _runs(session: Any, case: Case, variant: str) -> Iterator[_Run]:  # noqa: ANN401 — onnxruntime ships no types
    """Run a graph on one case, once for each choice of positions where it takes one."""
    names = {each.name for each in session.get_inputs()}
    inputs = {name: value for name, value in case.inputs.items() if name in names}
    outputs = [each.name for each in session.get_outputs()]
    for positions in case.positions if MASKED_POSITIONS in names else (None,):
        feeds = inputs if positions is None else inputs | {MASKED_POSITIONS: positions}
        found = _run(session, feeds, f"{variant} ({case.name})")
        yield _Run(case=case, variant=variant, positions=positions, outputs=dict(zip(outputs, found, strict=True)))
