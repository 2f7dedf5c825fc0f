"""The page docs/research/gpu.md: what was measured on a GPU, and what has never run on hardware."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

FIGURES = "gpu.jsonl"
"""File of the kit with a line of JSON for each figure, in the order in which they were measured."""
MODELS = {"default": "The default model", "base": "A BERT-base with seeded random weights"}
"""Titles of the tables."""
PEAK = "peak"
"""The row that is the GPU itself."""
LONGEST = "128x128"
"""The shape whose tokens are the cheapest, by which the fixed cost of a run is counted in tokens."""
SHORTEST = "1x16"
PROGRAMS = "the programs here"
NEVER = (
    (
        "CUDA",
        (
            "a session on a device: fp16 by default, outputs bound to it, words chosen on it, arena limits, placement "
            "of nodes; the versions of driver and libraries that `bertport doctor` reports; how much padding a run is "
            "worth (estimated at 1,024 tokens)"
        ),
    ),
    (
        "TensorRT",
        (
            "an engine: profiles, engine and timing cache, the progress of a cold build, warm starts, fp16 and QDQ "
            "INT8, fp16 before INT8 by default; how much padding a run is worth"
        ),
    ),
    (PROGRAMS, "`python -m bench.gpu run`, and the tests marked `gpu`"),
    ("training", "`models/pretrain.py`, by tokens and by the clock: it was rehearsed on a CPU"),
    ("arm64", "every figure of speed is from x86-64; [emulated](arm64.md), golden vectors and some tests have run"),
)
TENSORRT = """## TensorRT

TensorRT was never run. The package index from which the files for the GPU machine come has its libraries only as a
source that downloads them from NVIDIA, and TensorRT for RTX refuses compute capability 9.0, which the H100 and the H200
have. What is checked instead needs no GPU: which operators are taken, the options and their values, the optimization
profile, and the names under which engines are kept. Where the libraries of `tensorrt-cu13` are installed,
`python -m bench.gpu run` measures TensorRT too and prints its rows: please open an issue and attach `gpu.jsonl`.
"""
PAGE = """# On a GPU

`provider="cuda"` and `provider="tensorrt"` are rows of the same table as `cpu`, and as strict:
[the Python interface](../reference/python.md#where-it-runs) says how. This page lists what has run on
hardware. `python -m bench.gpu page` writes it.

{body}
## What is done there

- **CUDA** gets the fp16 variant where the bundle has one (`bertport quantize BUNDLE --recipe fp16`). Inputs and outputs
  are bound to the device. For fill-mask the graph gains LogSoftmax and TopK when it is loaded, so for each mask only a
  few numbers leave the device, not the vocabulary's logits. The arena grows by what is asked for and holds at most
  4 GiB (`gpu_mem_limit`); fp32 is computed without TF32 (`use_tf32`). ONNX Runtime gives each session a stream of its
  own.
- **TensorRT** takes graphs of standard operators: fp16 by itself where the bundle has it, else the QDQ variant
  `int8-static`, else fp32. 8 bits cost accuracy: where there is fp16 too, you have to ask for them. A fused graph
  is refused, and the error names the variant to use instead. One optimization profile covers every length from 1 to the
  bundle's longest and is tuned for 128 tokens: ONNX Runtime's provider builds several but runs only the first
  (ort#31624). Engines are kept under the user's cache directory (`XDG_CACHE_HOME`), by graph, shapes, precision,
  options, GPU and versions; the timing cache by GPU and versions. A build that takes minutes is announced on standard
  error, with its progress.
- Both: a compute node that was left to another provider is an error; shape nodes on the CPU, and TopK on CUDA under
  TensorRT, are not.

## Measuring

```sh
python -m bench.gpu prepare kit    # on a machine with a network, in dev.py's environment
python -m bench.gpu run kit        # on a machine with CUDA 13's driver, without a network
python -m bench.gpu pack out/kit   # for a machine that has PyTorch and takes little at a time: parts, and the calls
python -m bench.gpu pack out/kit --train train.jsonl.xz heldout.jsonl.xz    # and train the default model further there
```

`run` installs the kit's wheels, runs the tests marked `gpu`, and measures the default model and a BERT-base: fp32, fp16
and, of the default model, QDQ INT8 on CUDA and on TensorRT, and PyTorch in fp16 on the same GPU with eager attention,
with SDPA, and compiled with SDPA. It takes milliseconds of fixed shapes, the share of the fp16 matmul peak measured in
the same run, texts a second of real lengths, the server under load, and the difference of both heads from fp32 on the
CPU. PyTorch's rows choose the words on the device too, and tokenize and batch as bertport does, but make no words of
ids. Each figure is written as soon as it is there, and a second `run` measures what is missing. With `--installed` it
uses the Python that runs it, the code of the checkout, and the few packages that `pack` brings.

`pack` writes `.gpu-kit`: folders of at most 50 MB with their SHA-256, and `calls.json` with each command, in order, and
the folder that it takes along. What comes back is `gpu.jsonl`, of which `python -m bench.gpu page gpu.jsonl` makes this
page, `gpu.log` with all that was said, `gpu.md`, and `doctor.json`.

With `--train` a training of the default model is started first, which takes 5 minutes by the clock: the wheels travel
and the tests run beside it, rows are measured when it has ended. `pack` tokenizes the texts into 16-bit ids and brings
the weights that ship, heads included, as `bertport restore` makes them of the bundle. Pairs and masks are drawn on the
device. The weights come back in 16 bits, in parts of less than 16 MiB, under `trained`. Here
`python -m bench.gpu.training join trained RUN` checks and joins them, and `models/export_default.py RUN` goes on from
there. Batches of 65,536 tokens and a peak rate of 1e-3 are guesses: nothing of this has run on a GPU.
"""


def gathered(lines: Iterable[str]) -> dict[str, Any]:
    """Return all figures of a run: each line adds to a row, or to the whole; a line that was cut is left out.

    A row that was measured to its end has not failed, whatever became of an earlier try.
    """
    result: dict[str, Any] = {"tests_passed": None, "gpu": [], "rows": []}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        try:
            figure = json.loads(line)
        except ValueError:
            continue
        if "row" not in figure or (figure["row"] == PEAK and "failed" not in figure):
            result |= {name: value for name, value in figure.items() if name not in {"model", "row", "done"}}
        if "row" not in figure:
            continue
        key = figure["model"], figure["row"]
        if key not in rows:
            rows[key] = {}
            result["rows"].append(rows[key])
        row = rows[key]
        for name, value in figure.items():
            row[name] = {**row.get(name, {}), **value} if isinstance(value, dict) else value
        if "done" in figure:
            row.pop("failed", None)
    return result


def page(result: dict[str, Any] | None) -> str:
    """Return the page as Markdown, with figures where there are any: those that `gathered` returned."""
    if result is None:
        never_run = "\n".join(f"| {name} | {what} |" for name, what in NEVER)
        body = (
            "## Never run on hardware\n\nNo machine with a GPU, and none with an Arm processor, was at hand. What "
            "needs none is tested: the options that are made, the refusals with the real `onnxruntime-gpu` wheel, the "
            "words chosen in the graph (on the CPU), outputs bound to a device (the CPU), where engines are kept. "
            "The section below describes what the code asks of a device, not what was seen.\n\n"
            f"| | never run |\n|---|---|\n{never_run}\n\n{TENSORRT}"
        )
        return PAGE.format(body=body)
    rows = [row for row in result["rows"] if row["row"] != PEAK]
    measured = [row for row in rows if "shapes" in row]
    passed = {True: "passed", False: "FAILED", None: "did not run to their end"}[result["tests_passed"]]
    parts = [f"## Measured\n\n{', '.join(result['gpu']) or 'no GPU'}. The tests marked `gpu` {passed}."]
    peak = result.get("peak_gflops")
    if peak:
        parts.append(f"\nThe peak of fp16 products, of two matrices of 8192x8192, was {peak / 1000:.0f} TFLOP/s.")
    for model, title in MODELS.items():
        parts += _table(title, [row for row in rows if row["model"] == model], peak)
    parts += [
        f"\n{row['model']} {row['row']} {'ended early' if 'shapes' in row else 'did not run'}: {row['failed']}"
        for row in result["rows"]
        if "failed" in row
    ]
    ran = {row["row"].rpartition(":")[2] for row in measured} | {PROGRAMS}
    never = [(name, what) for name, what in NEVER if name.lower() not in ran]
    if never:
        parts.append("\n## Never run on hardware\n\n| | never run |\n|---|---|")
        parts += [f"| {name} | {what} |" for name, what in never]
    parts += [] if "tensorrt" in ran else [f"\n{TENSORRT.rstrip()}"]
    return PAGE.format(body="\n".join(parts) + "\n")


def _table(title: str, rows: list[dict[str, Any]], peak: float | None) -> list[str]:
    """Return a model's table, and what else was measured of it."""
    measured = [row for row in rows if "shapes" in row]
    if not measured:
        return []
    sizes = list(dict.fromkeys(size for row in measured for size in row["shapes"]))
    heads = [*sizes, "run's cost in tokens", "texts/s", "top-1", "KL", "NSP flips", "largest difference"]
    parts = [
        f"\n### {title}\n",
        f"| ms (share of the fp16 peak) | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for row in measured:
        cells = [_cell(row["shapes"].get(size), peak) for size in sizes]
        cells.append(_cost_in_tokens(row["shapes"]))
        cells.append(f"{row['texts_per_s']:,.0f}" if "texts_per_s" in row else "")
        near = row.get("fidelity")
        cells += [
            f"{near['top1_agreement']:.1%}" if near else "",
            f"{near['kl']:.2g}" if near else "",
            f"{near['nsp_flips']:.1%}" if near else "",
            f"{near['most']:.2g}" if near else "",
        ]
        parts.append(f"| {row['row']} | {' | '.join(cells)} |")
    for row in rows:
        if "load_s" in row:
            cold, warm = row["load_s"]
            parts.append(f"\n{row['row']}: loaded in {cold:.1f} s, the second time in {warm:.1f} s.")
        if "server" in row:
            seen = row["server"]
            parts.append(
                f"\n{row['row']}: {seen['requests_per_s']:,.0f} requests a second, p50 {seen['p50_ms']:.1f} ms, "
                f"p99 {seen['p99_ms']:.1f} ms, statuses {json.dumps(seen['outcomes'])}."
            )
    return parts


def _cell(cost: dict[str, float] | None, peak: float | None) -> str:
    """Return the time of a shape, with its share of the peak."""
    if cost is None:
        return ""
    return f"{cost['ms']:.2f}" + (f" ({cost['gflops'] / peak:.0%})" if peak else "")


def _cost_in_tokens(shapes: dict[str, dict[str, float]]) -> str:
    """Return what a run costs beside its tokens, in tokens: the time of the shortest at the speed of the largest."""
    if SHORTEST not in shapes or LONGEST not in shapes:
        return ""
    tokens = {shape: int(shape.split("x")[0]) * int(shape.split("x")[1]) for shape in (SHORTEST, LONGEST)}
    spent = shapes[SHORTEST]["ms"] * tokens[LONGEST] / shapes[LONGEST]["ms"]
    return f"{max(0, spent - tokens[SHORTEST]):,.0f}"
