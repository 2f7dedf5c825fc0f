"""Weight files: located, and the names and shapes of their tensors read, before any model is built."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertport.export.checkpoint.foreign import explain
from bertport.export.checkpoint.source import read_json
from bertport.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import torch

__all__ = ["FORMATS", "SINGLE", "WeightFiles", "each_tensor", "find_weights", "read_shapes", "read_tensors"]

SINGLE = "model.safetensors"
"""The file of a checkpoint whose weights are all in one, as it is written."""
FORMATS = (
    (SINGLE, "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Single file and index of shards, in order of preference."""
READ = ("float32", "float16", "bfloat16", "float64")
"""Types of numbers that are read; others are parts of a value, whose scales are stored apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The files that hold a checkpoint's tensors, all of one format."""

    paths: tuple[Path, ...]
    """One file, or the shards in the order of their names."""
    indexed: frozenset[str] = frozenset()
    """Tensors that the index promises; empty for a single file."""

    @property
    def safe(self) -> bool:
        """Whether they are safetensors rather than pickles."""
        return self.paths[0].suffix == ".safetensors"


def find_weights(directory: Path) -> WeightFiles:
    """Find a checkpoint's weight files: safetensors first, then PyTorch's pickles.

    Raises:
        CheckpointError: when there are none, or a shard is missing or lies outside the directory.
    """
    for single, index in FORMATS:
        if (directory / single).is_file():
            return WeightFiles(paths=(directory / single,))
        if (directory / index).is_file():
            return _shards(directory, index)
    names = ", ".join(name for pair in FORMATS for name in pair)
    raise explain(directory, f"it has no weights (looked for {names})")


def read_shapes(files: WeightFiles) -> dict[str, tuple[int, ...]]:
    """Return the shape of every stored tensor; safetensors are not read beyond their headers.

    Raises:
        CheckpointError: when a file is truncated, damaged, or is not what its name says.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files.paths:
        if files.safe:
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(path, framework="pt") as file:
                    shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 — not a dict
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from error
        else:
            shapes |= {name: tuple(tensor.shape) for name, tensor in _unpickle(path).items()}
    missing = sorted(files.indexed - shapes.keys())
    if missing:
        raise CheckpointError(
            f"the weights in {files.paths[0].parent} lack {missing[0]}, which their index names: copy them again"
        )
    return shapes


def read_tensors(files: WeightFiles, wanted: Mapping[str, str], *, as_stored: bool = False) -> dict[str, torch.Tensor]:
    """Read tensors as float32, copied from the files.

    Args:
        files: the weight files.
        wanted: the name a tensor is to have, by the name under which it is stored.
        as_stored: whether they keep the type that they are stored in.

    Raises:
        CheckpointError: as for `each_tensor`, and when two stored tensors of one name differ.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path, stored, value in each_tensor(files, wanted, as_stored=as_stored):
        name = wanted[stored]
        if name in tensors and not tensors[name].equal(value):
            raise CheckpointError(
                f"{path}: the tensor {stored} differs from another one stored for {name}: keep only one of them"
            )
        tensors[name] = value
    return tensors


def each_tensor(
    files: WeightFiles, wanted: Collection[str], *, as_stored: bool = False
) -> Iterator[tuple[Path, str, torch.Tensor]]:
    """Yield the file, the stored name and the value of each tensor, of which no more than one is in memory here.

    Args:
        files: the weight files.
        wanted: names under which tensors are stored.
        as_stored: whether they keep the type that they are stored in; float32 otherwise.

    Raises:
        CheckpointError: when a file is damaged, or a tensor is not dense, not floating point or not finite.
    """
    import torch

    for path in files.paths:
        for stored, tensor in _tensors(path, files, wanted):
            form = "meta, which has no values" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
            if form != "strided":
                raise CheckpointError(
                    f"{path}: the tensor {stored} is stored as {form}; dense tensors can be read: save the "
                    "checkpoint with dense weights"
                )
            kind = str(tensor.dtype).removeprefix("torch.")
            if kind not in READ:
                raise CheckpointError(
                    f"{path}: the tensor {stored} is of type {kind}; {', '.join(READ)} can be read: convert the "
                    "checkpoint to one of them"
                )
            # Copied, since the file may change while the model is in use.
            value = tensor.clone() if as_stored else tensor.to(torch.float32, copy=True)
            if not bool(torch.isfinite(value).all()):
                raise CheckpointError(
                    f"{path}: the tensor {stored} holds values that are not finite: copy or download the checkpoint "
                    "again"
                )
            yield path, stored, value


def _tensors(path: Path, files: WeightFiles, wanted: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a file with the names under which they are stored."""
    if not files.safe:
        yield from ((name, tensor) for name, tensor in _unpickle(path).items() if name in wanted)
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name in wanted]  # noqa: SIM118 — not a dict
        for name in names:
            # Opened again for each, so that what was read of a mapped file does not stay in memory beside the copies.
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name)
            yield name, tensor
            del tensor
    except (SafetensorError, OSError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _unpickle(path: Path) -> dict[str, torch.Tensor]:
    """Load a pickle of tensors with the unpickler that builds nothing but tensors."""
    import torch

    try:
        # A zip file can be mapped; the format of before PyTorch 1.6 cannot.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, to those who wrote the file
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds objects other than tensors, which are never loaded: convert it to safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    ):
        raise CheckpointError(f"{path} does not hold a state dict (names and tensors): save it with save_pretrained")
    return value


def _shards(directory: Path, index: str) -> WeightFiles:
    weight_map = read_json(directory / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{directory / index} has no weight_map of names to files: restore the checkpoint's file")
    paths = []
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            raise CheckpointError(
                f"{directory / index} names {json.dumps(name)}, which is not a file beside it: do not use it"
            )
        if not (directory / name).is_file():
            raise CheckpointError(
                f"{directory} lacks the shard {name} that {index} names: copy or download the checkpoint again"
            )
        paths.append(directory / name)
    return WeightFiles(paths=tuple(paths), indexed=frozenset(weight_map))


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path} is truncated or damaged ({reason}): copy or download the checkpoint again")
