"""A bundle's weights as the models that baselines run: the same numbers, so that only the way of running differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from bertport.measure.onnx_files import read_model
from bertport.runtime.errors import BertportError, BundleError, MissingDependencyError
from bertport.runtime.heads import MLM, NSP, POOLER
from bertport.runtime.providers.table import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.directory import Bundle

__all__ = ["BASELINES", "BaselineError", "check_baseline", "prepare_baseline", "restore_checkpoint", "stored_weights"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
CONFIG = "config.json"
LEADING = frozenset({"configuration_files", "auto_map", "attn_implementation", "experts_implementation"})
"""Keys of a configuration by which transformers takes something from elsewhere; so do those that begin with `_`."""
NEEDS = {"transformers": ("torch", "transformers", "onnx"), "optimum": ("torch", "transformers", "onnx", "optimum")}
"""Packages of each baseline."""
BASELINES = tuple(NEEDS)
"""What else can take part: the fill-mask pipeline of transformers on PyTorch, and of Optimum on ONNX Runtime."""
_PROGRAM = "import sys; from bertport.measure.speed.restoring import main; main(*sys.argv[1:])"


class BaselineError(BertportError, RuntimeError):
    """A baseline that could not be made from a bundle."""


def check_baseline(name: str) -> None:
    """See that a baseline's packages are installed.

    Raises:
        MissingDependencyError: when one is not.
    """
    from importlib.util import find_spec

    for package in NEEDS[name]:
        if find_spec(package) is None:
            what = f"--baseline {name}"
            raise MissingDependencyError(what, package, "export")


def prepare_baseline(name: str, bundle: Bundle, directory: Path) -> Path:
    """Make what a baseline loads, in a process of its own: PyTorch's memory and threads end with it.

    Args:
        name: `transformers` or `optimum`.
        bundle: Whose weights to take.
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
        [sys.executable, "-c", _PROGRAM, name, str(bundle.path), str(out)],
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
                found = "nothing" if array is None else f"shape {array.shape}"
                raise BaselineError(
                    f"the graph has {found} for {name}, and the model needs shape {tuple(parameter.shape)}"
                )
            parameter.copy_(torch.from_numpy(array.copy()))
