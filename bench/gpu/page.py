"""The page docs/research/gpu.md: what was measured on a GPU, and what has never run on hardware."""

from __future__ import annotations

from typing import Any

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
    ("arm64", "every figure of speed is from x86-64; [emulated](arm64.md), golden vectors and some tests have run"),
)
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
```

`run` installs the kit's wheels, runs the tests marked `gpu`, and measures fp32, fp16 and QDQ INT8 on both providers
against PyTorch in fp16, eager and compiled, on the same GPU: milliseconds of fixed shapes, the share of the measured
fp16 matmul peak, and the difference of both heads from fp32 on the CPU.
"""


def page(result: dict[str, Any] | None) -> str:
    """Return the page as Markdown, with figures where there are any."""
    if result is None:
        rows = "\n".join(f"| {name} | {what} |" for name, what in NEVER)
        body = (
            "## Never run on hardware\n\nNo machine with a GPU, and none with an Arm processor, was at hand. What "
            "needs none is tested: the options that are made, the refusals with the real `onnxruntime-gpu` wheel, the "
            "words chosen in the graph (on the CPU), outputs bound to a device (the CPU), where engines are kept. "
            "The section below describes what the code asks of a device, not what was seen.\n\n"
            f"| | never run |\n|---|---|\n{rows}\n\n"
        )
        return PAGE.format(body=body)
    measured = [subject for subject in result["rows"] if "failed" not in subject]
    failed = [subject for subject in result["rows"] if "failed" in subject]
    gpu = ", ".join(measured[0]["gpu"]) if measured else "no GPU"
    passed = "passed" if result["tests_passed"] else "FAILED"
    parts = [f"## Measured\n\n{gpu}. The tests marked `gpu` {passed}.\n"]
    if measured:
        sizes = list(measured[0]["shapes"])
        parts.append(f"| ms (share of the fp16 peak) | {' | '.join(sizes)} | top-1 | KL | NSP flips |")
        parts.append(f"|---|{'---:|' * (len(sizes) + 3)}")
        for subject in measured:
            cells = [
                f"{shape['ms']:.2f} ({shape['gflops'] / subject['peak_gflops']:.0%})"
                for shape in subject["shapes"].values()
            ]
            near = subject["fidelity"]
            cells += [f"{near['top1_agreement']:.1%}", f"{near['kl']:.2g}", f"{near['nsp_flips']:.1%}"]
            parts.append(f"| {subject['row']} | {' | '.join(cells)} |")
        for subject in measured:
            if "load_s" in subject:
                cold, warm = subject["load_s"]
                parts.append(f"\n{subject['row']}: loaded in {cold:.1f} s, the second time in {warm:.1f} s.")
    parts += [f"\n{subject['row']} did not run: {subject['failed']}" for subject in failed]
    ran = {subject["row"].rpartition(":")[2] for subject in measured} | {PROGRAMS}
    never = [(name, what) for name, what in NEVER if name.lower() not in ran]
    if never:
        parts.append("\n## Never run on hardware\n\n| | never run |\n|---|---|")
        parts += [f"| {name} | {what} |" for name, what in never]
    return PAGE.format(body="\n".join(parts) + "\n\n")
