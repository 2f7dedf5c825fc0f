"""Behaviour of ONNX Runtime's plugins for hardware that is not here: their operators and their answers.

    python -m bench.plugins webgpu     # on a GPU that the CPU computes, compared with cpu: docs/data/webgpu.json
    python -m bench.plugins engines    # TensorRT for RTX's engines, without a GPU: docs/data/tensorrt-rtx.json
    python -m bench.plugins page       # writes the figures into docs/research/plugins.md; --check compares

No speed is measured. `webgpu` needs Linux and root, or leave to make namespaces; both install what they need below
out/bench/plugins, from a package index and, without Chromium, from Debian. Each takes minutes. With --bundle NAME,
which may be repeated and tries the program, nothing is written. The bundles are made once: remove
out/bench/plugins/bundles where recipes have changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from bench.checkout import ROOT, check_section, provenance, read_data, write_section
from bench.plugins import engines, webgpu
from bench.plugins.bundles import bundles
from bench.plugins.page import section

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = "bench.plugins"
PAGE = ROOT / "docs" / "research" / "plugins.md"
DATA = {name: ROOT / "docs" / "data" / f"{name}.json" for name in ("webgpu", "tensorrt-rtx")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("webgpu", "engines", "page"))
    parser.add_argument("--bundle", action="append", help="one of the bundles; may be repeated")
    parser.add_argument("--check", action="store_true", help="fail where the page is not what the data say")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.what == "page":
        text = section(*(read_data(path, PROGRAM) for path in DATA.values()))
        (check_section if options.check else write_section)(PAGE, text, *([PROGRAM] if options.check else []))
        return
    recipes = engines.RECIPES if options.what == "engines" else ()
    made = bundles(recipes, options.bundle)
    if options.what == "engines":
        trt = engines.tensorrt_rtx()
        data = {"version": trt.__version__, "targets": list(engines.TARGETS), "bundles": {}}
        for name, path in made.items():
            data["bundles"][name] = told(name, engines.engines_of(path, trt))
            written(DATA["tensorrt-rtx"], data, trial=options.bundle is not None)
    elif not options.inside:
        sys.exit(webgpu.in_namespace([options.what, *(f"--bundle={name}" for name in options.bundle or ())]))
    else:
        data = {"versions": webgpu.versions(), "bundles": {}}
        for name, path in made.items():
            data["bundles"][name] = told(name, webgpu.compared(path))
            written(DATA["webgpu"], data, trial=options.bundle is not None)
        if wrong := webgpu.judged(data["bundles"]):
            sys.exit(wrong)


def told(name: str, results: dict[str, Any]) -> dict[str, Any]:
    """Print the results of a bundle, and return them."""
    print(name, json.dumps(results), flush=True)
    return results


def written(path: Path, data: dict[str, Any], *, trial: bool) -> None:
    """Write what was found, with when and where; a trial is printed alone."""
    if not trial:
        path.write_text(json.dumps({**provenance(), **data}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
