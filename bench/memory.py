"""Parts that memory is made of, and whether a bound holds: each choice under a bound against the worst inputs.

    python -m bench.memory [--bundle DIR] [--variant NAME]... [--memory SIZE]...

Each row is a fresh process, which loads the model under the bound, is asked the worst, and reports
the largest resident set that the kernel saw. Writes docs/data/memory.json, and prints its tables. What is timed is only
for orientation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from bench.checkout import ROOT, commit

DATA = ROOT / "docs" / "data" / "memory.json"
MEMORY = ("192M", "256M", "384M", "512M", "1G")
SETTINGS: dict[str, dict[str, Any]] = {
    "as without a bound": {},
    "without the arena": {"arena": False},
    "without patterns": {"pattern": False},
    "without both": {"arena": False, "pattern": False},
    "the arena shrinks after each run": {"shrink": True},
    "without both, weights not packed": {"arena": False, "pattern": False, "session.disable_prepacking": "1"},
    "without both, initializers beside the arena": {
        "arena": False,
        "pattern": False,
        "session.use_device_allocator_for_initializers": "1",
    },
}
"""Settings of an ONNX Runtime session, by name."""
SHAPES = ((1, 16, 1), (1, 512, 1), (2, 512, 2), (8, 128, 8), (64, 16, 64), (1, 512, 128), (1, 512, 510))
"""Rows, tokens and positions decoded."""
MIB = 2**20


def status(field: str) -> int:
    """Return a size of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """Reset the kernel's record of this process's peak memory."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def hostile(
    bundle: str | None, variant: str, memory: str | None, streams: int | None, seconds: float
) -> dict[str, Any]:
    """Ask a model the worst there is, as many at once as it has streams."""
    from bertport.runtime import load

    warnings.simplefilter("ignore")
    model = load(bundle, variant=variant, memory=memory, streams=streams, provider="cpu")
    loaded = status("VmRSS")
    mask, longest = model.tokens.mask_token or "", model.tokens.max_length - 2
    masks, words, half = " ".join([mask] * longest), " ".join(["the"] * longest), " ".join(["a"] * (longest // 2))
    asked: list[tuple[str, list[Any], dict[str, object]]] = [
        ("fill-mask", [masks], {"top_k": 1}),
        ("fill-mask", [masks, f"{mask} b", masks], {"targets": "the"}),
        ("fill-mask", [f"a {mask}"] * 130, {}),
        ("features", ["." * longest] * 25, {}),
        ("features", [words] * 2, {"pooling": "mean"}),
        ("features", ["a"] * 400, {}),
        ("next-sentence", [(half, half)] * 4, {"truncation": True}),
        ("features", [" ".join(["the"] * length) for length in range(1, longest, 42)], {}),
        ("features", ["the " * 25_000] * 2, {"truncation": True}),
    ]
    known = model.describe()["tasks"]
    asked = [request for request in asked if request[0] in known]
    end = time.monotonic() + seconds
    while True:
        for task, inputs, parameters in asked:
            for _ in model.predict(task, inputs, **parameters):
                pass
        if time.monotonic() >= end:
            break
    bound = model.bound
    return {
        "variant": variant,
        "memory": memory,
        "choice": None if bound is None else dataclasses.asdict(bound),
        "loaded": loaded,
        "peak": status("VmHWM"),
        "after": status("VmRSS"),
    }


def session(bundle: str | None, variant: str, chosen: str) -> dict[str, Any]:
    """Measure what each shape takes in a session with some settings, and before it what the process is made of."""
    parts = {"python": status("VmRSS")}
    import numpy as np

    parts["numpy"] = status("VmRSS")
    import tokenizers  # noqa: F401 — for its size

    parts["tokenizers"] = status("VmRSS")
    from bertport.runtime.providers.table import onnxruntime

    ort = onnxruntime()
    parts["onnxruntime"] = status("VmRSS")
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.session import SETTINGS as OURS
    from bertport.runtime.session import open_session, session_options
    from bertport.runtime.text.tokenizer import Tokens

    opened = Bundle.open(bundle or default_bundle())
    tokens = Tokens.read(opened)
    parts["the tokenizer"] = status("VmRSS")
    settings = dict(SETTINGS[chosen])
    arena, pattern = settings.pop("arena", True), settings.pop("pattern", True)
    run_options = ort.RunOptions()
    if settings.pop("shrink", False):
        run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    options = session_options(config={**OURS, **{key: str(value) for key, value in settings.items()}})
    options.enable_cpu_mem_arena, options.enable_mem_pattern = arena, pattern
    path = opened.file(opened.manifest.variants[variant].file)
    graph = open_session(path, options)
    parts["a session"] = status("VmRSS")
    assert tokens  # noqa: S101 — kept until here
    shapes = []
    for rows, width, positions in SHAPES:
        forget_peak()
        ids = np.full((rows, width), 1000, dtype=np.int64)
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
            "masked_positions": np.arange(positions, dtype=np.int64),
        }
        took = []
        for _ in range(3):
            began = time.perf_counter()
            graph.run(["logits"], feeds, run_options)
            took.append(time.perf_counter() - began)
        peak, after = status("VmHWM"), status("VmRSS")
        shapes.append({"shape": [rows, width, positions], "peak": peak, "after": after, "fastest_ms": 1e3 * min(took)})
    return {"variant": variant, "settings": chosen, "parts": parts, "shapes": shapes}


def own(*arguments: object) -> dict[str, Any]:
    """Run this program in a process of its own; return what it reports."""
    command = [sys.executable, "-m", "bench.memory", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 2:  # noqa: PLR2004 — refused, in one sentence
        return {"refused": done.stderr.strip()}
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def tables(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = ["| variant | bound | chosen: streams, tokens, positions | expected at most | largest resident set |"]
    lines.append("|---|---:|---:|---:|---:|")
    for measured in result["bounds"]:
        if "refused" in measured:
            lines.append(f"| {measured['variant']} | {measured['memory']} | refused | | |")
            continue
        choice = measured["choice"]
        lines.append(
            f"| {measured['variant']} | {measured['memory'] or 'none'} | "
            + (f"{choice['streams']}, {choice['batch_tokens']}, {choice['positions']} | " if choice else "as ever | ")
            + (f"{choice['expected'] / MIB:,.0f} MiB | " if choice else " | ")
            + f"{measured['peak'] / MIB:,.0f} MiB |"
        )
    for session in result["sessions"][:1]:
        lines += ["", "| with | resident |", "|---|---:|"]
        lines += [f"| {name} | {size / MIB:,.0f} MiB |" for name, size in session["parts"].items()]
    head = " | ".join(f"{rows} x {width}, {positions} decoded" for rows, width, positions in SHAPES)
    lines += ["", f"| variant | settings | session | {head} |", "|---|---|---:|" + "---:|" * len(SHAPES)]
    for session in result["sessions"]:
        cells = " | ".join(
            f"{shape['peak'] / MIB:,.0f} MiB, {shape['fastest_ms']:.0f} ms" for shape in session["shapes"]
        )
        opened = session["parts"]["a session"] / MIB
        lines.append(f"| {session['variant']} | {session['settings']} | {opened:,.0f} MiB | {cells} |")
    return "\n".join(lines)


def measure(
    bundle: Path, variants: list[str], bounds: list[str], seconds: float, streams: int | None = None
) -> dict[str, Any]:
    """Measure every row in a process of its own."""
    from bertport.measure.machine import describe_machine

    machine = describe_machine()
    result: dict[str, Any] = {
        "machine": {"cpu": machine.cpu, "system": machine.system, "versions": machine.versions},
        "bounds": [],
        "sessions": [],
    }
    for variant in variants:
        for memory in (*bounds, None):
            print(f"{variant}, {memory or 'no bound'}", file=sys.stderr, flush=True)
            given = [*(["--memory", memory] if memory else []), *(["--streams", streams] if streams else [])]
            measured = own("--one", "--bundle", bundle, "--variant", variant, "--seconds", seconds, *given)
            result["bounds"].append({"variant": variant, "memory": memory} | measured)
        for chosen in SETTINGS:
            print(f"{variant}, {chosen}", file=sys.stderr, flush=True)
            result["sessions"].append(own("--session", chosen, "--bundle", bundle, "--variant", variant))
    return result


def main() -> None:
    """Measure, or be one of the processes measured."""
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.errors import UsageError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the embedded default when not given")
    parser.add_argument("--variant", action="append", help="may be repeated; int8-dynamic and fp32 when not given")
    parser.add_argument("--memory", action="append", help=f"may be repeated; {', '.join(MEMORY)} when not given")
    parser.add_argument("--streams", type=int, help="as many as suit when not given")
    parser.add_argument("--seconds", type=float, default=0, help="how long each is asked, at least")
    parser.add_argument("--one", action="store_true", help="be one process under a bound")
    parser.add_argument("--session", choices=SETTINGS, help="be one process with such a session")
    given = parser.parse_args()
    variants = given.variant or ["int8-dynamic", "fp32"]
    bundle = str(given.bundle or default_bundle())
    if given.session:
        print(json.dumps(session(bundle, variants[0], given.session)))
    elif given.one:
        try:
            memory = given.memory[0] if given.memory else None
            print(json.dumps(hostile(bundle, variants[0], memory, given.streams, given.seconds)))
        except UsageError as error:
            print(error.message, file=sys.stderr)
            sys.exit(error.exit_code)
    else:
        result = measure(Path(bundle).resolve(), variants, given.memory or list(MEMORY), given.seconds, given.streams)
        result |= {"commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
        DATA.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(tables(result))


if __name__ == "__main__":
    main()
