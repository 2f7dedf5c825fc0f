"""Graph validation: every output of every graph against PyTorch; a difference fails the export."""

from __future__ import annotations

import copy
import dataclasses
import operator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.bundle.manifest import Validation
from bertport.runtime.errors import BertportError, ValidationError
from bertport.runtime.heads import POSITIONS, decoded_outputs, is_per_token
from bertport.runtime.session import FATAL_ONLY, open_session, session_options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bertport.export.graph.wrapper import EncoderWithHeads
    from bertport.export.validation.cases import Case

    Outputs = NDArray[np.floating]

__all__ = ["check_aliases", "notes", "validate", "worst_difference"]

SMALL_MODEL = 5_000_000
"""Parameters below which PyTorch is run on one thread: a barrier after every operator costs more than it brings."""
AS_NEAR = 3
"""Largest ratio of a graph's distance from float64 to that of PyTorch's float32, where both stray beyond the tolerance.

Each sums the same products in an order of its own, so over many rows their rounding errors are about as large as each
other's. Not in each value, nor in each row, where one may be lucky: so a column counts, over every batch."""
SHARE = 0.01
"""Largest distance of PyTorch's float32 from float64 by which it may decide, as a share of a column's spread.

A graph that is `AS_NEAR` times as far then still has 97% of what tells one row from another. Beyond it a fault could
not be told from rounding; models that were trained stray by some 1e-5 of it."""
NEIGHBOURS = 2
"""Number of models beside the reference that show PyTorch's errors, each with some weights moved to the next float32.

In a text on which rounding is amplified, all values of a model are off together: by much, or by luck by little."""
MOVED = 0.125
"""The share of weights moved in them: less than rounding the weights to float32 moved them."""
COMMON = 0.99
"""The share of columns that a worst value must be unusual among, for it not to count for other columns too."""
BLOCK = 2**16
"""Elements that are compared at once: they stay in the processor's cache, and take no fresh memory each time."""
PADDING = 100
"""Factor on the tolerance for padded positions.

No output depends on a padded position: it is hidden from every other position, and left out of every answer. It still
holds the product of the same weights, so a large difference shows a fault; rounding errors are larger than elsewhere,
as nothing was trained to be read there (1.4e-4 where all-MiniLM-L6-v2's real tokens differ by 7e-6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run of a graph on a batch: its outputs, beside those of PyTorch."""

    case: Case
    """The batch."""
    variant: str
    """The graph."""
    positions: NDArray[np.int64] | None
    """Its input `masked_positions`; None for a graph that has no such input."""
    outputs: dict[str, NDArray[np.float32]]
    """Outputs by name."""

    def expected(self, reference: dict[str, Outputs]) -> dict[str, Outputs]:
        """Return PyTorch's outputs at the places where this run has outputs."""
        outputs = {name: reference[name] for name in self.outputs if name in reference}
        if self.positions is not None:
            for name in decoded_outputs(outputs):
                outputs[name] = reference[name].reshape(-1, reference[name].shape[-1])[self.positions]
        return outputs

    def read(self, output: str) -> NDArray[np.bool_]:
        """Return which rows of an output are read, of its shape without the last axis: all but those of padding."""
        real = _read(self.case, output)
        return real if self.positions is None or not decoded_outputs([output]) else np.take(real, self.positions)


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
    read: bool
    """Whether it is of rows that are read, or of padding."""


class _Columns:
    """The errors of PyTorch's float32 in each column of an output, and the spread of its values, over all batches."""

    def __init__(self, width: int) -> None:
        self.farthest = np.zeros(width)
        """The largest error."""
        self._shares, self._erring = np.zeros(width), 0
        self._first: NDArray[np.floating] | None = None
        self._sums, self._squares, self._rows = np.zeros(width), np.zeros(width), 0

    def add(self, single: Outputs, double: Outputs, rows: NDArray[np.bool_]) -> None:
        """Accumulate the errors of some rows of an output, in float32 against float64."""
        for one, exact, chosen in zip(single, double, rows, strict=True):  # text by text: an output may be large
            values = exact[chosen]
            if not len(values):
                continue
            errors = _errors(one[chosen], values)
            np.maximum(self.farthest, errors.max(axis=0), out=self.farthest)
            # Relative to their row: one that is ill-conditioned would outweigh all others.
            largest = errors.max(axis=1, keepdims=True)
            erring = largest[:, 0] > 0
            self._shares += (errors[erring] / largest[erring]).sum(axis=0)
            self._erring += int(erring.sum())
            self._first = values[0] if self._first is None else self._first
            values = values - self._first  # a spread of 1 around 1e30 has no digits left when squared
            self._sums += values.sum(axis=0)
            self._squares += (values * values).sum(axis=0)
            self._rows += len(values)

    def strays(self) -> NDArray[np.floating]:
        """Return how far float32 strays in each column: its worst, or what is common where that was luck."""
        usual = self._shares / max(self._erring, 1)
        if not usual.any():
            return self.farthest
        ratios = self.farthest[usual > 0] / usual[usual > 0]
        return np.maximum(self.farthest, usual * np.quantile(ratios, COMMON, method="higher"))

    def spread(self) -> NDArray[np.floating]:
        """Return the standard deviation of each column."""
        rows = max(self._rows, 1)
        return np.sqrt(np.maximum(self._squares / rows - (self._sums / rows) ** 2, 0))


def validate(  # noqa: PLR0913 — two sides, and how they are compared
    model: EncoderWithHeads,
    graphs: Mapping[str, Path],
    cases: Sequence[Case],
    *,
    atol: float,
    step: Callable[[str], None] = lambda _: None,
    without: Collection[str] = (),
) -> dict[str, Validation]:
    """Compare graphs with the model in ONNX Runtime on the CPU.

    What is read must agree with PyTorch: every output of a text, and of a token that is no padding. Padded positions
    are compared too, and recorded apart: they may differ by `PADDING` times as much, and must be finite, since what is
    not would reach real tokens through attention. Where a difference is too large, the model is run in float64 as
    well, on every batch, and the graph is right if it is at most `AS_NEAR` times as far from that as PyTorch's float32
    is, in each column of the output; unless that strays by more than `SHARE` of the column's spread, where nothing
    can be told. The digits that a value itself does not have in float32 count for neither.

    Args:
        model: the PyTorch reference, float32, in evaluation mode.
        graphs: the graphs by the name of their variant.
        cases: the batches.
        atol: the largest absolute difference allowed in any output that is read.
        step: told the name of each case before it is run.
        without: outputs that graphs have and the model has not.

    Returns:
        The validation of each graph.

    Raises:
        ValidationError: naming the worst output, shape and element, when a difference exceeds `atol`; when the model
            is too ill-conditioned in float32 for it to be judged, or its own outputs are not finite.
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
                for name in (output for output in run.outputs if output not in without):
                    read = run.read(name)
                    differences += _compare(run, name, expected, read, atol, worst[variant], read=True)
                    if not read.all():
                        limit = PADDING * atol
                        differences += _compare(run, name, expected, ~read, limit, padding[variant], read=False)
    decided = _decide(model, sessions, cases, differences, atol=atol, step=step)
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


def check_aliases(graph: Path, aliases: Mapping[str, Collection[str]], case: Case) -> None:
    """Compare the further names of a portable graph's outputs with the outputs themselves, bit for bit.

    Args:
        graph: the graph, whose own outputs were compared with PyTorch.
        aliases: by the name of an output those of the whole of it, or of each column of its last axis.
        case: the batch to run.

    Raises:
        ValidationError: naming one that is not what it stands for.
    """
    if not aliases:
        return
    [run] = _runs(_session(graph), case, graph.name)
    for output, names in aliases.items():
        whole = run.outputs[output]
        for column, name in enumerate(names):
            expected = whole if len(names) == 1 else whole[..., column]
            if not np.array_equal(run.outputs[name], expected):
                raise ValidationError(f"the output {name} of {graph.name} is not that of {output}: nothing was written")


def notes(validations: Mapping[str, Validation]) -> list[str]:
    """Return a sentence for each graph that float64 found to be right where its difference from PyTorch is large."""
    return [
        f"{validation.decided_by_float64:,} values of {name} differ from PyTorch by more than {validation.atol:g} "
        f"(up to {max(*validation.worst.values(), *validation.worst_padding.values()):.2g}): "
        "PyTorch's float32 strays as far from float64, so the graph counts as right"
        for name, validation in validations.items()
        if validation.decided_by_float64
    ]


def _compare(  # noqa: PLR0913, PLR0917 — two sides, what of them, and how
    run: _Run,
    output: str,
    expected: dict[str, Outputs],
    rows: NDArray[np.bool_],
    limit: float,
    worst: dict[str, float],
    *,
    read: bool,
) -> list[_Difference]:
    """Compare some rows of an output, record the worst difference, and return it if it is too large."""
    value = run.outputs[output]
    size, element = worst_difference(expected[output], value, rows)
    worst[output] = max(worst.get(output, 0.0), size)
    if size <= limit:
        return []
    where = f"output {output} of {run.variant}, shape {list(value.shape)}, element {element} ({run.case.name})"
    return [_Difference(size=size, where=where, run=dataclasses.replace(run, outputs={}), output=output, read=read)]


def _decide(  # noqa: PLR0913 — as for validate
    model: EncoderWithHeads,
    sessions: Mapping[str, Any],
    cases: Sequence[Case],
    differences: Sequence[_Difference],
    *,
    atol: float,
    step: Callable[[str], None],
) -> dict[str, int]:
    """Return the number of values of each graph that are right by float64.

    PyTorch's own errors are taken from every batch, since those that are large are few.

    Raises:
        ValidationError: for the output that differs most of those that are not.
    """
    decided = dict.fromkeys(sessions, 0)
    if not differences:
        return decided
    worst: dict[tuple[str, str, bool], _Difference] = {}
    for difference in sorted(differences, key=operator.attrgetter("size"), reverse=True):
        worst.setdefault((difference.run.variant, difference.output, difference.read), difference)
        if not np.isfinite(difference.size):
            _require_finite(_reference(model, difference.run.case), difference.run.case)
            raise _wrong(difference, atol)
    exact = copy.deepcopy(model).double()
    near = [_perturbed(model, seed) for seed in range(NEIGHBOURS)]
    torchs: dict[tuple[str, bool], _Columns] = {}
    graphs: dict[tuple[str, str, bool], NDArray[np.floating]] = {}
    for case in cases:
        step(f"{case.name}, in float64")
        references = single, double = _reference(model, case), _reference(exact, case)
        beside = [_reference(neighbour, case) for neighbour in near]
        for output, read in dict.fromkeys((output, read) for _, output, read in worst):
            columns = torchs.setdefault((output, read), _Columns(single[output].shape[-1]))
            for outputs in (single, *(others for others in beside if np.isfinite(others[output]).all())):
                columns.add(outputs[output], double[output], _read(case, output) == read)
        here = [difference for difference in differences if difference.run.case is case]
        for difference, run in _rerun(sessions, here):
            count, errors = _strays(difference, run, references, atol)
            decided[run.variant] += count
            key = (run.variant, difference.output, difference.read)
            graphs[key] = np.maximum(graphs.get(key, 0.0), errors)
    needed = max(difference.size / (1 if difference.read else PADDING) for difference in differences)
    for key, difference in worst.items():
        _judge(difference, torchs[difference.output, difference.read], graphs[key], atol=atol, needed=needed)
    return decided


def _perturbed(model: EncoderWithHeads, seed: int) -> EncoderWithHeads:
    """Return the model with some weights moved to the next float32: as accurate, with rounding errors of its own."""
    import torch

    neighbour = copy.deepcopy(model)
    random = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for parameter in neighbour.parameters():
            chance = torch.rand(parameter.shape, generator=random)
            aside = torch.nextafter(parameter, torch.where(chance < MOVED / 2, -torch.inf, torch.inf).to(parameter))
            # The largest number has none beside it, and 0 has one that most processors are slow with.
            moved = (chance < MOVED) & aside.isfinite() & (parameter != 0)
            parameter.copy_(torch.where(moved, aside, parameter))
    return neighbour


def _rerun(sessions: Mapping[str, Any], differences: Sequence[_Difference]) -> Iterator[tuple[_Difference, _Run]]:
    """Run graphs again on a batch on which they differed, for their outputs."""
    for variant in dict.fromkeys(difference.run.variant for difference in differences):
        for run in _runs(sessions[variant], differences[0].run.case, variant):
            for difference in differences:
                if difference.run.variant == variant and difference.run.positions is run.positions:
                    yield difference, run


def _strays(
    difference: _Difference, run: _Run, references: tuple[dict[str, Outputs], dict[str, Outputs]], atol: float
) -> tuple[int, NDArray[np.floating]]:
    """Return how many values of an output differ too much, and how far each column of it is from float64.

    Args:
        difference: what was found.
        run: the same run again, with its outputs.
        references: PyTorch's outputs in float32 and in float64.
        atol: the tolerance.
    """
    name, values = difference.output, run.outputs[difference.output]
    single, double = (run.expected(outputs)[name] for outputs in references)
    count, farthest = 0, np.zeros(values.shape[-1])
    for value, one, exact, chosen in zip(values, single, double, run.read(name) == difference.read, strict=True):
        count += int((np.abs(one[chosen] - value[chosen]) > _limit(atol, read=difference.read)).sum())
        np.maximum(farthest, _errors(value[chosen], exact[chosen]).max(axis=0, initial=0), out=farthest)
    return count, farthest


def _judge(
    difference: _Difference, torchs: _Columns, farthest: NDArray[np.floating], *, atol: float, needed: float
) -> None:
    """Require that a graph is as near to float64 as PyTorch is, and that this tells something.

    Args:
        difference: the worst of the output.
        torchs: PyTorch's errors.
        farthest: the graph's, by column.
        atol: the tolerance.
        needed: the tolerance that every difference would be within.

    Raises:
        ValidationError: when it is not.
    """
    limit = _limit(atol, read=difference.read)
    strays, spread = torchs.strays(), torchs.spread()
    column = int((farthest / np.maximum(limit, AS_NEAR * strays)).argmax())
    if farthest[column] > max(limit, AS_NEAR * strays[column]):
        raise _wrong(
            difference,
            atol,
            (
                f"; in its column {column} PyTorch is up to {strays[column]:.2g} from float64, the graph "
                f"{farthest[column]:.2g}"
            ),
        )
    bound = np.maximum(limit, SHARE * spread)
    column = int((farthest / bound).argmax())
    if farthest[column] > AS_NEAR * bound[column]:
        raise ValidationError(
            f"the model is ill-conditioned in float32: column {column} of PyTorch's own {difference.output} is up to "
            f"{strays[column]:.2g} from float64, more than {SHARE:.0%} of its spread ({spread[column]:.2g}), so a "
            "wrong graph cannot be told from a right one: nothing was written; choose an --atol above "
            f"{needed:.3g} if that is enough for you"
        )


def _limit(atol: float, *, read: bool) -> float:
    return atol if read else PADDING * atol


def _read(case: Case, output: str) -> NDArray[np.bool_]:
    """Return which rows of an output of the model are read, of its shape without the last axis."""
    real: NDArray[np.bool_] = case.inputs["attention_mask"] == 1
    return real if is_per_token(output) else np.ones(len(real), dtype=bool)


def _errors(values: Outputs, exact: Outputs) -> Outputs:
    """Return how far values are from those in float64, beyond the digits that float32 has for them at all."""
    errors: Outputs = np.abs(values - exact)
    errors -= np.finfo(np.float32).eps * np.abs(exact)
    return np.maximum(errors, 0, out=errors)


def _require_finite(outputs: Mapping[str, Outputs], case: Case) -> None:
    """Refuse a model whose own outputs are not finite.

    Raises:
        ValidationError: naming the first of them.
    """
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise ValidationError(
                f"the model's own output {name} is not finite in PyTorch ({case.name}): its weights are too large for "
                "float32, and nothing was written; export a checkpoint whose outputs are numbers"
            )


def _wrong(difference: _Difference, atol: float, reason: str = "") -> ValidationError:
    return ValidationError(
        f"the exported graph differs from PyTorch by {difference.size:.3g}, more than {atol:g}, at worst in "
        f"{difference.where}{reason}: nothing was written; choose another --opset, or a larger --atol if that is "
        "enough for you"
    )


def worst_difference(
    expected: NDArray[np.float32], values: NDArray[np.float32], rows: NDArray[np.bool_] | None = None
) -> tuple[float, list[int]]:
    """Return the largest absolute difference, and the index of the element that has it.

    Infinity stands for another shape, and for an element that is not finite.

    Args:
        expected: what is right.
        values: what is compared with it.
        rows: which rows count, of the shape without its last axis; None for all.

    >>> worst_difference(np.float32([[0, 1]]), np.float32([[0, 3]]))
    (2.0, [0, 1])
    """
    if expected.shape != values.shape:
        return float("inf"), []
    if not expected.size:
        return 0.0, []
    width = expected.shape[-1]
    sides = expected.reshape(-1, width), values.reshape(-1, width)
    counted = None if rows is None else rows.reshape(-1)
    worst, place, block = -1.0, 0, max(1, BLOCK // width)
    for begin in range(0, len(sides[0]), block):
        one, other = (side[begin : begin + block] for side in sides)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            difference = np.asarray(one - other)
        np.abs(difference, out=difference)
        difference[~np.isfinite(difference)] = np.inf
        if counted is not None:
            difference[~counted[begin : begin + block]] = 0
        element = int(difference.argmax())
        if difference.flat[element] > worst:
            worst, place = float(difference.flat[element]), begin * width + element
    return worst, [int(index) for index in np.unravel_index(place, expected.shape)]


def _session(path: Path) -> Any:  # noqa: ANN401 — onnxruntime ships no types
    # PyTorch's threads work in turn with ONNX Runtime's; whichever waits must not spin on the other's cores.
    options = session_options(config={"session.intra_op.allow_spinning": "0"}, log_level=FATAL_ONLY)
    options.enable_cpu_mem_arena = False  # it would keep what batches of other shapes took, until the session ends
    try:
        return open_session(path, options)
    except BertportError:
        raise
    except Exception as error:  # onnxruntime raises classes of its own, bare Exception among their bases
        raise ValidationError(
            f"ONNX Runtime cannot load the exported graph {path.name} ({error}): nothing was written; "
            "choose another --opset"
        ) from error


def _run(session: Any, feeds: dict[str, NDArray[np.int64]], where: str) -> list[NDArray[np.float32]]:  # noqa: ANN401 — as above
    try:
        outputs: list[NDArray[np.float32]] = session.run(None, feeds)
    except Exception as error:  # as above
        raise ValidationError(
            f"ONNX Runtime cannot run the exported graph {where} ({error}): nothing was written; choose another --opset"
        ) from error
    return outputs


def _reference(model: EncoderWithHeads, case: Case) -> dict[str, Outputs]:
    """Run the model, in the precision of its weights."""
    import torch

    from bertport.export.graph.wrapper import compute

    with _threads(sum(parameter.numel() for parameter in model.parameters())):
        outputs = compute(model, {name: torch.from_numpy(case.inputs[name]) for name in model.inputs})
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
    names = {argument.name for argument in session.get_inputs()}
    inputs = {name: value for name, value in case.inputs.items() if name in names}
    outputs = [value.name for value in session.get_outputs()]
    for positions in case.positions if POSITIONS in names else (None,):
        feeds = inputs if positions is None else inputs | {POSITIONS: positions}
        values = _run(session, feeds, f"{variant} ({case.name})")
        yield _Run(case=case, variant=variant, positions=positions, outputs=dict(zip(outputs, values, strict=True)))
