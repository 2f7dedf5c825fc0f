"""Give a bundle's weights back as a transformers checkpoint, so that peers run on exactly the same numbers.

python bench/restore.py [BUNDLE] OUT
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.runtime.bundle import Bundle
from bertport.runtime.embedded import default_bundle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def restore(bundle: Path, out: Path) -> Path:
    """Write the checkpoint that `bundle` was exported from, rounded as the bundle stores it.

    Args:
        bundle: a bundle whose portable graph has the names of the checkpoint's tensors.
        out: the directory to fill; it may exist.

    Raises:
        ValueError: when the graph lacks a tensor of the model, or holds one of another shape.
    """
    from transformers import BertConfig, BertForMaskedLM, BertForPreTraining

    opened = Bundle.open(bundle)
    opened.verify()
    config: Any = BertConfig.from_pretrained(bundle)
    whole = {"mlm", "nsp", "pooler"} <= set(opened.manifest.heads)
    model: Any = (BertForPreTraining if whole else BertForMaskedLM)(config)
    load_weights(model, stored_weights(bundle / opened.manifest.variants["portable"].file))
    model.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (bundle / name).is_file():
            shutil.copy(bundle / name, out / name)
    return out


def stored_weights(graph: Path) -> dict[str, NDArray[np.float32]]:
    """Give the graph's weights by the checkpoint's names and in PyTorch's order, which is MatMul's transposed."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph)
    transposed = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    stored: dict[str, NDArray[np.float32]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            name = tensor.name.removesuffix(".float16")  # matrices may be stored in 16 bits, with a Cast to `name`
            array = numpy_helper.to_array(tensor).astype(np.float32)
            stored[name] = array.T if name in transposed else array
    return stored


def load_weights(model: Any, stored: dict[str, NDArray[np.float32]]) -> None:  # noqa: ANN401 — transformers is untyped
    """Fill every parameter of a transformers model; the tied decoder is the word embedding itself."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            array = stored.get(name)
            if array is None or array.shape != tuple(parameter.shape):
                found = "nothing" if array is None else f"shape {array.shape}"
                message = f"the graph has {found} for {name}, and the model needs shape {tuple(parameter.shape)}"
                raise ValueError(message)
            parameter.copy_(torch.from_numpy(array.copy()))


def main() -> None:
    """Restore the bundle named on the command line, or the default."""
    *bundle, out = map(Path, sys.argv[1:])
    path = restore(bundle[0] if bundle else default_bundle(), Path(out))
    print(json.dumps({"checkpoint": str(path)}))


if __name__ == "__main__":
    main()
