"""Calibration: running the fp32 graph on text, and keeping of each activation what 8 bits need to know.

Each text runs alone, at its own length, so that there is no padding to leave out; what is kept of it is a
histogram, or a maximum for each channel, whose size does not grow with the text.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from bertport.measure.quality.heads import sample_kinds
from bertport.measure.quality.model import in_order, make_batch, open_onnx, read_sample_tokenizer, streams
from bertport.measure.quality.samples import TASK_KINDS, TEXTS, masked_samples, pair_samples, refuse_unread
from bertport.measure.quality.task_samples import plain_samples, task_samples
from bertport.measure.text import fingerprint, read_texts, sample_path
from bertport.quantize.blas import one_thread
from bertport.quantize.calibration.histogram import Histogram
from bertport.quantize.calibration.ranges import SAMPLES
from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import as_unicode

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from bertport.measure.quality.samples import Sample
    from bertport.quantize.deadline import Progress
    from bertport.runtime.bundle.directory import Bundle

__all__ = [
    "LEAST_SAMPLES",
    "CalibrationText",
    "histograms",
    "observe",
    "read_calibration",
]

LEAST_SAMPLES = 8
"""The least number of samples: the ranges of fewer would be left by the next text."""
LONGEST = 128
"""Tokens of the longest sample: attention is as wide, but the ranges of activations do not depend on it."""
FLOAT32 = 4
"""Bytes of a weight; integers of 64 bits are few."""
LARGEST = 2_000_000_000
"""Bytes of a graph's weights from which protobuf does not write it as one; XLM-R large has 2.2 GB."""
ENOUGH = 10**9
"""More masked positions than any text has: the number of samples is what bounds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationText:
    """Samples for calibration, and the text file that they come from."""

    samples: tuple[Sample, ...]
    """Masked texts, then pairs, then those of heads that are trained for a task."""
    name: str
    """Name of the file of texts."""
    sha256: str
    """Fingerprint of the texts."""

    @property
    def tokens(self) -> int:
        """Number of tokens in all."""
        return sum(len(sample.input_ids) for sample in self.samples)


class Recorder(Protocol):
    """A recorder of an activation."""

    def add(self, values: NDArray[np.floating]) -> None:
        """Record some values, of shape (..., channels)."""


def read_calibration(
    bundle: Bundle, path: str | os.PathLike[str] | None = None, *, samples: int = SAMPLES
) -> CalibrationText:
    """Read texts and make samples of them, drawn evenly, of the kinds that the bundle's heads are measured on.

    Half of them are masked texts and half sentence pairs where the bundle has a head for these. Where it has heads that
    are trained for a task, what they read takes the place of half of them, and of all where it fills in no masks. A
    bundle that has no head for either reads texts as they are written, and so does one whose heads read none of them.

    Args:
        bundle: The bundle.
        path: A file of texts; None for the sample that ships.
        samples: How many; all that there are where the texts give fewer.

    Raises:
        InputTextError, PathError: for a file that is missing, empty, too short, or not text.
    """
    source = sample_path("calibration") if path is None else Path(path)
    texts = read_texts(source)
    tokenizer = read_sample_tokenizer(bundle)
    refuse_unread(texts, tokenizer.tokenizer, source.name, shipped=path is None, option="--calibration")
    longest = min(LONGEST, bundle.manifest.max_length)
    kinds = sample_kinds(bundle.manifest, texts)
    tasks, fills = [kind for kind in TASK_KINDS if kind in kinds], TEXTS in kinds
    general = samples if not tasks else samples // 2 if fills else 0
    paired = general // 2 if bundle.manifest.judges_pairs else 0
    pairs = list(pair_samples(texts, tokenizer, max_tokens=longest, limit=paired)) if paired else []
    single = (
        masked_samples(texts, tokenizer, max_tokens=longest, limit=ENOUGH)
        if fills
        else plain_samples(texts, tokenizer, max_tokens=longest, whole=path is not None)
    )
    chosen = (*itertools.islice(single, general - len(pairs)), *pairs)
    of_kind = math.ceil((samples - len(chosen)) / max(1, len(tasks)))
    for kind in tasks:
        made = task_samples(
            {kind}, texts, tokenizer, max_tokens=longest, positions=of_kind, pairs=of_kind, whole=path is not None
        )
        chosen += tuple(made[: samples - len(chosen)])
    chosen = chosen or tuple(itertools.islice(single, samples))
    if len(chosen) < min(LEAST_SAMPLES, samples):
        raise InputTextError(
            f"{source} is too short to calibrate on: it gives {len(chosen)} texts, at least {LEAST_SAMPLES} are needed"
            ": give more text"
        )
    return CalibrationText(samples=chosen, name=as_unicode(source.name), sha256=fingerprint(texts))


def observe(
    model: onnx.ModelProto,
    recorders: Mapping[str, Recorder],
    samples: Iterable[Sample],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Run a graph on samples, each alone in its batch, and record its activations.

    Each recorder gets the samples in their order; several recorders work at once.

    Args:
        model: A serving graph, its weights in memory; it is not changed.
        recorders: The recorders, by name of the activation.
        samples: What to run.
        progress: Told of how many samples are done.
    """
    if not recorders:
        return
    with _with_outputs(model, recorders) as source:
        graph, names = open_onnx(source, threads=1), list(recorders)
    answers = in_order(lambda sample: graph.run(make_batch([sample]), names), samples, streams())
    # Taking note of a sample can take as long as running it: one thread for all recorders left the others idle.
    with one_thread(), ThreadPoolExecutor(streams()) as pool:
        for done, activations in enumerate(answers, 1):
            for _ in pool.map(lambda item: recorders[item[0]].add(item[1]), activations.items()):
                pass  # raises what was raised there
            progress(done)


@contextmanager
def _with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> Iterator[bytes | Path]:
    """Yield a graph whose outputs are activations, and only them: in memory, or a file where it is too large for that.

    The graph itself has other outputs meanwhile, as a copy would hold all weights once more.
    """
    import onnx
    from onnx import TensorProto, helper

    kept = [onnx.ValueInfoProto.FromString(output.SerializeToString()) for output in model.graph.output]
    try:
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        if sum(FLOAT32 * math.prod(tensor.dims) for tensor in model.graph.initializer) < LARGEST:
            yield model.SerializeToString()
            return
        with TemporaryDirectory(prefix="bertport-calibration-") as folder:
            path = Path(folder) / "graph.onnx"
            onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}_data")
            onnx.load_external_data_for_model(model, folder)  # saving took the weights out of it
            yield path
    finally:
        del model.graph.output[:]
        model.graph.output.extend(kept)


def histograms(
    model: onnx.ModelProto,
    names: Iterable[str],
    text: CalibrationText,
    progress: Progress,
    *,
    without: Mapping[str, NDArray[np.int64]] | None = None,
) -> dict[str, Histogram]:
    """Make a histogram of each named activation.

    Args:
        model: A serving graph, its weights in memory; it is not changed.
        names: Names of the activations.
        text: What to run.
        progress: Told of what is done and of how much.
        without: Channels that do not count, by name of the activation.
    """
    without = without or {}
    recorded = {name: _Counted(without.get(name, ())) for name in names}
    observe(
        model,
        recorded,
        text.samples,
        progress=lambda done: progress("calibrating", done, len(text.samples)),
    )
    return {name: counted.histogram for name, counted in recorded.items()}


class _Counted:
    """Counts the values of an activation, but for some channels."""

    def __init__(self, without: Sequence[int] | NDArray[np.int64]) -> None:
        self.histogram, self._without = Histogram(), without

    def add(self, values: NDArray[np.floating]) -> None:
        """Count some values, of shape (..., channels)."""
        import numpy as np

        self.histogram.add(np.delete(values, self._without, axis=-1) if len(self._without) else values)
