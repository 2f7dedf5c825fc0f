"""The baselines: fill-mask pipelines of other libraries, made from a bundle's weights and opened as their manuals say.

They run the same numbers as the bundle, so that only the way of running differs. As a program it makes one:

    python -m bertport.measure.speed.baselines transformers BUNDLE OUT
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.measure.onnx_files import read_model
from bertport.measure.speed.loaded import Answer, Loaded
from bertport.measure.speed.workload import random_batch
from bertport.runtime.errors import BertportError, BundleError, MissingDependencyError, UnknownNameError, UsageError
from bertport.runtime.heads import DEFAULT_TOP_K, MLM, NSP, POOLER
from bertport.runtime.providers.table import onnxruntime
from bertport.runtime.session import session_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bertport.measure.speed.workload import Shape, Texts, WorkerSpec
    from bertport.runtime.bundle.directory import Bundle

__all__ = [
    "BASELINES",
    "BATCH",
    "Baseline",
    "BaselineError",
    "Pipeline",
    "check_baseline",
    "open_pipeline",
    "padded_tokens",
    "prepare_baseline",
    "restore_checkpoint",
    "stored_weights",
]

BATCH = 8
"""Rows of a batch in the Offline scenario; the pipelines' own default of 1 would never batch."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
CONFIG = "config.json"
LEADING = frozenset({"configuration_files", "auto_map", "attn_implementation", "experts_implementation"})
"""Keys of a configuration by which transformers takes something from elsewhere; so do those that begin with `_`."""


class BaselineError(BertportError, RuntimeError):
    """A baseline that could not be made from a bundle."""


def check_baseline(name: str) -> None:
    """See that a baseline's packages are installed.

    Raises:
        MissingDependencyError: when one is not.
    """
    from importlib.util import find_spec

    for package in BASELINES[name].packages:
        if find_spec(package) is None:
            what = f"--baseline {name}"
            raise MissingDependencyError(what, package, "export")


def prepare_baseline(name: str, bundle: Bundle, directory: Path) -> Path:
    """Make what a baseline loads, in a process of its own: PyTorch's memory and threads end with it.

    Args:
        name: `transformers` or `optimum`.
        bundle: The bundle that holds the weights.
        directory: Where to put the models of this bundle.

    Raises:
        MissingDependencyError: when a package is not installed.
        BaselineError: when the bundle's weights are not those of a model that the baseline has.
    """
    check_baseline(name)
    out = directory / name
    if out.is_dir():
        return out
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", __name__, name, str(bundle.path), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(out, ignore_errors=True)
        said = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BaselineError(f"the baseline {name} cannot be made from {bundle.path}: {said}")
    return out


def main(name: str, bundle: str, out: str) -> None:
    """Write the checkpoint, and for Optimum its own export of it."""
    from pathlib import Path

    from bertport.runtime.bundle.directory import Bundle

    target = Path(out)
    if name == "transformers":
        restore_checkpoint(Bundle.open(bundle), target)
        return
    onnxruntime()
    from optimum.onnxruntime import ORTModelForMaskedLM  # type: ignore[import-untyped]  # it ships no types
    from transformers import AutoTokenizer

    checkpoint = restore_checkpoint(Bundle.open(bundle), target.with_name("checkpoint"))
    ORTModelForMaskedLM.from_pretrained(checkpoint, export=True).save_pretrained(target)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(target)


def restore_checkpoint(bundle: Bundle, out: Path) -> Path:
    """Write the checkpoint that a bundle was exported from, rounded as the bundle stores it.

    Args:
        bundle: One whose portable graph has the names of the checkpoint's tensors.
        out: The directory to fill; it may exist.

    Raises:
        BaselineError: when the graph lacks a tensor of the model, or holds one of another shape.
        BundleError: when a file is missing or changed.
    """
    from transformers import BertForMaskedLM, BertForPreTraining

    config = _config(bundle)
    whole = {MLM, NSP, POOLER} <= set(bundle.manifest.heads)
    model: Any = (BertForPreTraining if whole else BertForMaskedLM)(config)
    with bundle.opening("portable") as graph:
        _load_weights(model, stored_weights(graph))
    model.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if name in bundle.manifest.files:
            (out / name).write_bytes(bundle.read(name))
    return out


def _config(bundle: Bundle) -> Any:  # noqa: ANN401 — transformers is untyped
    """Read the checkpoint's configuration from the bytes that the manifest lists.

    transformers would read it by its path: the file that is there by then, or another that it names for this version.
    """
    from transformers import BertConfig

    content = bundle.read(CONFIG)
    try:
        value = json.loads(content)
        given = {key: each for key, each in value.items() if not key.startswith("_") and key not in LEADING}
        config: Any = BertConfig.from_dict(given)
    except Exception as error:
        raise BundleError(
            f"{bundle.path / CONFIG} is no configuration of a BERT ({' '.join(str(error).split())}): export again"
        ) from error
    # Or it could name code for it (CVE-2026-4372). What is saved does not keep it.
    config._attn_implementation = "eager"  # noqa: SLF001 — transformers' own way to set it on a config
    return config


def stored_weights(graph: Path) -> dict[str, NDArray[np.float32]]:
    """Return a graph's weights by the checkpoint's names and in PyTorch's order, which is MatMul's transposed."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = read_model(graph)
    transposed = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    stored: dict[str, NDArray[np.float32]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            name = tensor.name.removesuffix(".float16")  # matrices may be stored in 16 bits, with a Cast to `name`
            array = numpy_helper.to_array(tensor).astype(np.float32)
            stored[name] = array.T if name in transposed else array
    # Equal tensors (biases of 0 in a model that was never trained) are stored once and handed on under their names.
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    return stored


def _load_weights(model: Any, stored: dict[str, NDArray[np.float32]]) -> None:  # noqa: ANN401 — transformers is untyped
    """Fill every parameter of a transformers model; the tied decoder is the word embedding itself."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            array = stored.get(name)
            if array is None or array.shape != tuple(parameter.shape):
                stored_shape = "nothing" if array is None else f"shape {array.shape}"
                raise BaselineError(
                    f"the graph has {stored_shape} for {name}, and the model needs shape {tuple(parameter.shape)}"
                )
            parameter.copy_(torch.from_numpy(array.copy()))


class Pipeline(Loaded):
    """A fill-mask pipeline.

    Args:
        pipe: What transformers' `pipeline` made.
    """

    def __init__(self, pipe: Any) -> None:  # noqa: ANN401 — transformers' pipelines are not typed
        self._pipe = pipe

    def answering(self, texts: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs.

        Raises:
            UsageError: for another task than fill-mask.
        """
        if texts.task != "fill-mask":
            raise UsageError(f"baselines answer fill-mask, not {texts.task}: compare bundles with the MLM head")
        top_k = texts.parameters.get("top_k", DEFAULT_TOP_K)

        def answer(inputs: Sequence[Any]) -> object:
            if len(inputs) == 1:
                return self._pipe(inputs[0], top_k=top_k)
            return self._pipe(list(inputs), top_k=top_k, batch_size=BATCH)

        return answer

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the best token of each input."""
        rows = (self._pipe(text, top_k=1) for text in texts.inputs)
        return [{"token": best["token"], "score": best["score"]} for best, *_ in rows]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        import torch

        batch = random_batch(shape)
        feeds = {
            name: torch.from_numpy(getattr(batch, name)) for name in ("input_ids", "attention_mask", "token_type_ids")
        }

        def run() -> object:
            with torch.inference_mode():
                return self._pipe.model(**feeds)

        return run


def open_pipeline(spec: WorkerSpec) -> Pipeline:
    """Open a baseline.

    Raises:
        UnknownNameError: for a baseline that there is not.
    """
    if spec.baseline not in BASELINES:
        kind = "baseline"
        raise UnknownNameError(kind, str(spec.baseline), BASELINES)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the model is in a directory: nothing is to be fetched
    return Pipeline(BASELINES[spec.baseline].open(str(spec.file), spec.threads))


def _transformers(directory: str, threads: int | None) -> object:
    import torch
    import transformers

    if threads:
        torch.set_num_threads(threads)
    # The directory may hold both heads; fill-mask leaves the other one out and says so.
    transformers.logging.set_verbosity_error()
    return transformers.pipeline("fill-mask", model=directory, device="cpu")


def _optimum(directory: str, threads: int | None) -> object:
    onnxruntime()
    import transformers
    from optimum.onnxruntime import ORTModelForMaskedLM

    options = session_options(threads=threads, config={})
    model = ORTModelForMaskedLM.from_pretrained(
        directory, provider="CPUExecutionProvider", session_options=options, local_files_only=True
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One row: another library that can take part."""

    name: str
    """What users call it."""
    packages: tuple[str, ...]
    """What must be installed."""
    distributions: tuple[str, ...]
    """Those whose versions a report states."""
    open: Callable[[str, int | None], object]
    """From a directory and a number of threads to a fill-mask pipeline."""


BASELINES: dict[str, Baseline] = {
    row.name: row
    for row in (
        Baseline(
            name="transformers",
            packages=("torch", "transformers", "onnx"),
            distributions=("torch", "transformers"),
            open=_transformers,
        ),
        Baseline(
            name="optimum",
            packages=("torch", "transformers", "onnx", "optimum"),
            distributions=("torch", "transformers", "optimum", "optimum-onnx"),
            open=_optimum,
        ),
    )
}
"""By name: the fill-mask pipeline of transformers on PyTorch, and of Optimum on ONNX Runtime."""


def padded_tokens(lengths: Sequence[int], rows: int = BATCH) -> int:
    """Count the tokens that batches in the order given take when each is padded to its longest text."""
    batches = (lengths[begin : begin + rows] for begin in range(0, len(lengths), rows))
    return sum(len(batch) * max(batch) for batch in batches)


if __name__ == "__main__":
    if len(sys.argv) != len(("program", "name", "bundle", "out")) or sys.argv[1] not in BASELINES:
        sys.exit(f"usage: python -m bertport.measure.speed.baselines {{{','.join(BASELINES)}}} BUNDLE OUT")
    try:
        main(*sys.argv[1:])
    except BertportError as error:
        sys.exit(str(error))
