"""Google's original checkpoints: TensorFlow's variables under the names of the released BERT code.

`bert_config.json`, `vocab.txt` and `bert_model.ckpt.index` with its data, as google-research/bert wrote them. The
variables are read by TensorFlow itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.export.checkpoint.config import names_code
from bertport.export.checkpoint.source import copy_small_files, read_json
from bertport.export.checkpoint.tensors import left_out
from bertport.export.checkpoint.weights import FORMATS, SINGLE
from bertport.runtime.errors import CheckpointError, MissingDependencyError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CONFIG", "Converted", "convert", "find_variables", "read_variables", "write_converted"]

CONFIG = "bert_config.json"
INDEX = ".index"
TRAINING = re.compile(
    r"(^|/)(global_step|adam_[mv]|Adam(_\d+)?|beta\d_power|good_steps|loss_scale|[^/]*Optimizer\w*)(/|$)"
)
"""Variables of training: the step, and two slots that Adam keeps for each weight."""
RENAMES = (
    (r"/", "."),
    (r"\blayer_(\d+)\b", r"layer.\1"),
    (r"_embeddings$", "_embeddings.weight"),
    (r"\.(kernel|gamma)$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"^cls\.predictions\.output_bias$", "cls.predictions.bias"),
    (r"^cls\.predictions\.output_weights$", "cls.predictions.decoder.weight"),
    (r"\.output_weights$", ".weight"),
    (r"\.output_bias$", ".bias"),
)
"""Patterns of names and what takes their place in transformers, applied in this order."""
ENCODER = "bert/"
HEADS = ("cls/predictions/", "cls/seq_relationship/")
DECODER = "cls.predictions.decoder.weight"
NAMED = 5
"""Names that a message gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Variables as transformers' BERT has them."""

    tensors: dict[str, NDArray[np.floating]]
    """Tensors by transformers' names; matrices of linear layers are transposed, [out, in]."""
    notes: tuple[str, ...]
    """Sentences on what was left out."""


def find_variables(directory: Path) -> Path | None:
    """Return the path prefix of a TensorFlow checkpoint's files; None where other weights are there, or no settings.

    Raises:
        CheckpointError: when there are several.
    """
    if not (directory / CONFIG).is_file() or any((directory / name).is_file() for pair in FORMATS for name in pair):
        return None
    prefixes = sorted(path.with_name(path.name.removesuffix(INDEX)) for path in directory.glob(f"*{INDEX}"))
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{directory} holds {len(prefixes)} TensorFlow checkpoints "
            f"({', '.join(path.name for path in prefixes[:NAMED])}): leave one of them beside {CONFIG}"
        )
    return prefixes[0] if prefixes else None


def read_variables(prefix: Path) -> dict[str, NDArray[Any]]:
    """Read the floating-point variables of a checkpoint by TensorFlow, but for those of training.

    Raises:
        MissingDependencyError: when TensorFlow is not installed.
        CheckpointError: when it cannot read them.
    """
    if missing := first_missing(("tensorflow",)):
        raise MissingDependencyError("a TensorFlow checkpoint", missing, missing)
    before = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # what it says of this machine's GPUs and instructions is no use here
    try:
        import tensorflow as tf

        reader = tf.train.load_checkpoint(str(prefix))
        kinds = reader.get_variable_to_dtype_map()
        wanted = [name for name, kind in kinds.items() if kind.is_floating and not TRAINING.search(name)]
        return {name: reader.get_tensor(name) for name in sorted(wanted)}
    except (LookupError, OSError, RuntimeError, ValueError) as error:  # what its C++ part makes of its errors
        raise _unreadable(prefix, error) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "tensorflow":
            raise
        raise _unreadable(prefix, error) from error
    finally:
        if before is None:
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]
        else:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = before


def convert(variables: Mapping[str, NDArray[Any]]) -> Converted:
    """Return variables under transformers' names, in PyTorch's layout.

    The decoder is the word embedding, as in the released code, unless the checkpoint has one of its own.

    Raises:
        CheckpointError: when they hold no BERT encoder.
    """
    import numpy as np

    tensors: dict[str, NDArray[np.floating]] = {}
    left = []
    for name, value in variables.items():
        if not name.startswith((ENCODER, *HEADS)):
            left.append(name)
            continue
        target = name
        for pattern, replacement in RENAMES:
            target = re.sub(pattern, replacement, target)
        array = value.T if name.endswith("/kernel") else value
        tensors[target] = np.ascontiguousarray(array.astype(np.float32))
    if not any(name.startswith(ENCODER) for name in variables):
        raise CheckpointError(
            f"the TensorFlow checkpoint holds no variables of a BERT, whose names begin with {ENCODER} (it has "
            f"{', '.join(map(excerpt, list(variables)[:NAMED])) or 'none'}): give one that the released BERT code wrote"
        )
    return Converted(tensors=tensors, notes=tuple(left_out(left)))


def write_converted(prefix: Path, directory: Path) -> Converted:
    """Write a TensorFlow checkpoint as one of transformers: its weights, config and the files of its tokenizer.

    Args:
        prefix: what `find_variables` returned.
        directory: an empty one.

    Raises:
        MissingDependencyError: when TensorFlow is not installed.
        CheckpointError: when the checkpoint cannot be read.
    """
    from safetensors.numpy import save_file

    stated = read_json(prefix.parent / CONFIG)
    converted = convert(read_variables(prefix))
    save_file(converted.tensors, directory / SINGLE, metadata={"format": "pt"})
    config = {"model_type": "bert"} | {name: value for name, value in stated.items() if not names_code(name)}
    if DECODER in converted.tensors:
        config["tie_word_embeddings"] = False
    copy_small_files(prefix.parent, directory, config)
    return converted


def _unreadable(prefix: Path, error: Exception) -> CheckpointError:
    said = excerpt(one_line(error), 200)
    return CheckpointError(f"TensorFlow cannot read {prefix} ({said}): copy or download the checkpoint again")
