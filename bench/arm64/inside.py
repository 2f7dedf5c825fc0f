"""Program for the arm64 CPU: golden vectors of a bundle, reported as a line of JSON a variant.

    python inside.py BUNDLE VARIANT...

`python -m bench.arm64 run` starts it so in the emulator, where it is no module (not `python -m bench.arm64.inside`).

Nothing but the runtime is needed.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from pathlib import Path

from bertport.runtime.errors import BertportError
from bertport.runtime.golden import verify_golden

FEATURES = ("asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme")
"""Features of the CPU, by Linux's names, by which ONNX Runtime chooses its kernels."""


def features() -> list[str]:
    """Return those of `FEATURES` that the CPU says it has."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    words = next(line.partition(":")[2].split() for line in lines if line.startswith("Features"))
    return [name for name in FEATURES if name in words]


def main(bundle: str, variants: list[str]) -> None:
    """Print what runs here, then what became of each variant."""
    import numpy as np
    import tokenizers

    from bertport.runtime.providers.table import onnxruntime

    told = {
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime().__version__,
        "numpy": np.__version__,
        "tokenizers": tokenizers.__version__,
        "features": features(),
    }
    print(json.dumps(told), flush=True)
    for variant in variants:
        print(json.dumps(became(bundle, variant)), flush=True)


def became(bundle: str, variant: str) -> dict[str, object]:
    """Return how far each output is from its golden values, None for infinitely far, or why the variant was refused."""
    try:
        report = verify_golden(bundle, variants=[variant], provider="cpu")
    except BertportError as error:
        return {"refused": error.message}
    [proven] = report.variants
    outputs = {
        name: {
            # JSON has no word for infinity.
            "difference": output.largest_difference if math.isfinite(output.largest_difference) else None,
            "tolerance": output.tolerance,
            "compared": output.compared,
        }
        for name, output in proven.outputs.items()
    }
    return {"outputs": outputs, "failures": report.failures}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
