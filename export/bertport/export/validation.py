"""Every output of every graph against PyTorch; a difference fails the export."""

from __future__ import annotations

from contextlib import contextmanager
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

__all__ = ["validate", "worst_difference"]

SMALL_MODEL = 5_000_000
"""Parameters below which PyTorch is run on one thread: a barrier after every operator costs more than it brings."""


def validate(
    model: BertWithHeads,
    graphs: Mapping[str, Path],
    cases: Sequence[Case],
    *,
    atol: float,
    step: Callable[[str], None] = lambda _: None,
) -> dict[str, Validation]:
    """Compare graphs with the model in ONNX Runtime on the CPU.

    Padded positions are compared as well: both sides compute them from the same inputs.

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
    sessions = {name: _session(path) for name, path in graphs.items()}
    worst: dict[str, dict[str, float]] = {name: {} for name in graphs}
    failures: list[tuple[float, str]] = []
    for case in cases:
        step(case.name)
        reference = _reference(model, case)
        for variant, session in sessions.items():
            for expected, feeds in _runs(session, case, reference):
                found = _run(session, feeds, f"{variant} ({case.name})")
                for name, value in zip((output.name for output in session.get_outputs()), found, strict=True):
                    difference, element = worst_difference(expected[name], value)
                    worst[variant][name] = max(worst[variant].get(name, 0.0), difference)
                    if not difference <= atol:
                        where = f"output {name} of {variant}, shape {list(value.shape)}, element {element}"
                        failures.append((difference, f"{where} ({case.name})"))
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

    Infinity stands for another shape, and for an element that is not finite.

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


def _reference(model: BertWithHeads, case: Case) -> dict[str, NDArray[np.float32]]:
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


def _runs(
    session: Any,  # noqa: ANN401 — onnxruntime ships no types
    case: Case,
    reference: dict[str, NDArray[np.float32]],
) -> Iterator[tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.int64]]]]:
    """Give the expected outputs and the inputs of each run of a graph on one case."""
    names = {each.name for each in session.get_inputs()}
    inputs = {name: value for name, value in case.inputs.items() if name in names}
    if MASKED_POSITIONS not in names:
        yield reference, inputs
        return
    logits = reference["logits"]
    rows = logits.reshape(-1, logits.shape[-1])
    for positions in case.positions:
        yield reference | {"logits": rows[positions]}, inputs | {MASKED_POSITIONS: positions}
