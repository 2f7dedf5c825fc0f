"""Turn what bench.performance measured into figures, a page and plots."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.performance.classes import CLASSES, class_of
from bench.performance.sections import profile_sections, sessions_section, settings_section, table
from bertport.measure.statistics import median_ratio
from bertport.runtime.batching import plan
from bertport.runtime.providers.table import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MIB = 2**20
NAMES = {"default": "Default model", "base": "BERT-base with seeded random weights", "tiny": "Tiny model, for trying"}
BARS = (
    # model, what is compared, with what, at least
    ("base", "bertport fp32", "transformers", 2.6),
    ("base", "bertport fp32", "optimum fp32", 1.5),
    ("base", "bertport int8", "transformers", 4.6),
    ("base", "bertport int8", "optimum int8", 2.1),
    ("default", "bertport int8", "transformers", 6.0),
    ("default", "bertport fp32", "transformers", 4.0),
)
"""The bars, for fill-mask on real lengths; the best batch size of each peer counts."""
OVERHEAD, SHARE_OF_PEAK = 1.15, 0.8
"""Its other two: time over that of the bare tokenizer and session, and the share of the matmul peak at 1x128."""


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Draw from the runs what the page shows: per row its speed and fidelity, ratios, and the bars."""
    peak = result["machine"]["matmul_gflops"]
    collected: dict[str, Any] = {"rows": [], "ratios": [], "shapes": [], "bars": [], "peak": peak}
    for name, model in result["models"].items():
        for measurement in model["rows"]:
            collected["rows"].append(_row(name, model, measurement, peak))
        for shape in model["shapes"]:
            rows, length = shape["shape"]
            seconds = median(call for turn in shape["rounds"] for call in turn)
            gflops = needed(model["architecture"], [length] * rows, rows) / seconds / 1e9
            collected["shapes"].append(
                {"model": name, **shape, "ms": 1e3 * seconds, "share_of_peak": gflops / peak, "rounds": None}
            )
        for task in dict.fromkeys(measurement["task"] for measurement in model["rows"]):
            collected["ratios"] += _ratios(
                name, task, [measurement for measurement in model["rows"] if measurement["task"] == task]
            )
    collected["bars"] = _bars(collected)
    return collected


def needed(architecture: dict[str, Any], lengths: Sequence[int], decoded: int) -> float:
    """Count the floating-point operations that cannot be avoided: no padding, masked positions alone decoded.

    Per token and layer 8h^2 (queries, keys, values, output) + 4hi (feed-forward) + 4Sh (attention), per decoded
    position 2h^2 + 2hV; a multiplication and its addition are two operations.
    """
    hidden, inner = architecture["hidden_size"], architecture["intermediate_size"]
    encoder = sum(
        length * architecture["layers"] * (8 * hidden**2 + 4 * hidden * inner + 4 * length * hidden)
        for length in lengths
    )
    return float(encoder + decoded * (2 * hidden**2 + 2 * hidden * architecture["vocab_size"]))


def _row(name: str, model: dict[str, Any], measurement: dict[str, Any], peak: float) -> dict[str, Any]:
    subject, task = measurement["subject"], measurement["task"]
    base = {"model": name, "task": task, "subject": subject["name"], "group": subject["group"]}
    if "failed" in measurement:
        return base | {"failed": measurement["failed"]}
    lengths = model["lengths"][task]
    totals = [sum(turn) for turn in measurement["rounds"]]
    calls = 1e3 * np.array([call for turn in measurement["rounds"] for call in turn])
    decoded = len(lengths) if task == "fill-mask" else 0
    return base | {
        "texts_per_second": len(lengths) / median(totals),
        "real_tokens": sum(lengths),
        "run_tokens": _run_tokens(lengths, subject),
        "texts_at_once": subject["at_once"] or len(lengths),
        **{f"p{level}_ms": float(np.percentile(calls, level)) for level in (50, 90, 99)},
        "calls": len(calls),
        "peak_mib": measurement["peak_bytes"] / MIB,
        "load_s": measurement["load_s"],
        "share_of_peak": needed(model["architecture"], lengths, decoded) / median(totals) / 1e9 / peak,
        "fidelity": _fidelity(model["rows"], measurement),
    }


def _run_tokens(lengths: Sequence[int], subject: dict[str, Any]) -> int:
    """Count the tokens that are run, padding included."""
    if subject["peer"] in {"bertport", "bare"}:
        if subject["at_once"]:
            return sum(lengths)
        provider = PROVIDERS["cpu"]
        batches = plan(lengths, budget=provider.batch_tokens, overhead=provider.overhead_tokens)
        return sum(len(batch) * lengths[batch[0]] for batch in batches)
    size = subject["at_once"]
    parts = (lengths[begin : begin + size] for begin in range(0, len(lengths), size))
    return sum(len(part) * max(part) for part in parts)


def _fidelity(rows: Iterable[dict[str, Any]], measurement: dict[str, Any]) -> dict[str, float] | None:
    """Compare the answers with those of transformers one text at a time, which pads nothing and rounds nothing."""
    reference = next(
        (
            candidate["answers"]
            for candidate in rows
            if candidate["task"] == measurement["task"]
            and candidate["subject"]["name"] == "transformers, batches of 1"
            and candidate.get("answers")
        ),
        None,
    )
    answers = measurement.get("answers")
    if not reference or not answers:
        return None
    pairs = list(zip(reference, answers, strict=True))
    if measurement["task"] == "fill-mask":
        same = [a["token"] == b["token"] for a, b in pairs]
        moved = [abs(a["score"] - b["score"]) for a, b in pairs if a["token"] == b["token"]]
        return {"top1_agreement": float(np.mean(same)), "largest_score_change": max(moved, default=0.0)}
    if measurement["task"] == "next-sentence":
        flips = [(a["probability"] > 0.5) != (b["probability"] > 0.5) for a, b in pairs]  # noqa: PLR2004 — one of two
        moved = [abs(a["probability"] - b["probability"]) for a, b in pairs]
        return {"flips": float(np.mean(flips)), "largest_probability_change": max(moved)}
    cosines = [
        float(np.dot(a["vector"], b["vector"]) / np.linalg.norm(a["vector"]) / np.linalg.norm(b["vector"]))
        for a, b in pairs
    ]
    return {"worst_cosine": min(cosines)}


def _ratios(name: str, task: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times faster bertport's rows are than the best row of every other group."""
    ran = [measurement for measurement in rows if "rounds" in measurement]
    totals = {measurement["subject"]["name"]: [[sum(turn)] for turn in measurement["rounds"]] for measurement in ran}

    def best(group: str) -> str:
        names: list[str] = [
            measurement["subject"]["name"] for measurement in ran if measurement["subject"]["group"] == group
        ]
        return min(names, key=lambda candidate: median(turn[0] for turn in totals[candidate]))

    groups = dict.fromkeys(measurement["subject"]["group"] for measurement in ran)
    ratios = []
    for ours in (group for group in groups if group.startswith("bertport")):
        for theirs in (group for group in groups if not group.startswith("bertport")):
            if theirs.startswith("bare") and theirs.removeprefix("bare") != ours.removeprefix("bertport"):
                continue
            estimate = median_ratio(totals[best(theirs)], totals[best(ours)])
            ratios.append(
                {
                    "model": name,
                    "task": task,
                    "subject": ours,
                    "than": theirs,
                    "row": best(theirs),
                    "times": [estimate.value, estimate.low, estimate.high],
                }
            )
    return ratios


def _bars(figures: dict[str, Any]) -> list[dict[str, Any]]:
    bars = []
    for model, subject, than, least in BARS:
        for ratio in figures["ratios"]:
            if (ratio["model"], ratio["task"], ratio["subject"], ratio["than"]) == (model, "fill-mask", subject, than):
                text = f"{NAMES[model]}: {subject} against the best of {than}"
                value = ratio["times"][0]
                bars.append(
                    {"bar": text, "wanted": f"at least {least}x", "found": _times(ratio), "met": value >= least}
                )
    for ratio in figures["ratios"]:
        if ratio["model"] == "default" and ratio["task"] == "fill-mask" and ratio["than"].startswith("bare"):
            value = 1 / ratio["times"][0]
            text = f"{NAMES['default']}: {ratio['subject']}, time over that of its tokenizer and session alone"
            bars.append(
                {"bar": text, "wanted": f"at most {OVERHEAD:.2f}", "found": f"{value:.2f}", "met": value <= OVERHEAD}
            )
    for shape in figures["shapes"]:
        if shape["shape"] == [1, 128] and shape["group"] == "bertport fp32" and shape["model"] != "tiny":
            share = shape["share_of_peak"]
            text = f"{NAMES[shape['model']]}: fp32 at 1x128, share of the matmul peak"
            wanted = f"at least {SHARE_OF_PEAK:.0%}"
            bars.append({"bar": text, "wanted": wanted, "found": f"{share:.0%}", "met": share >= SHARE_OF_PEAK})
    return bars


def _times(ratio: dict[str, Any]) -> str:
    value, low, high = ratio["times"]
    return f"{value:.2f}x ({low:.2f} to {high:.2f})"


PAGE = """# Performance: {title}

From text to answer, beside what people use today: the same weights, the same texts, one machine, taking turns. Written
by `{command}`; the figures are in [data/{stem}.json](../data/{stem}.json).{other}.

{machine}

{conditions}

{bars}{models}{sessions}
## How it was measured

{rounds}.

Every subject has a process of its own; in a round each answers all inputs once, in one order and in
the next round in the reverse one, while nothing else may measure on the machine. Before, each answers all inputs once,
which is the warm-up and gives what fidelity is computed from. Throughput is that of the median round; intervals are 95%
bootstrap intervals of the ratio, over rounds. Each call is timed: `texts at once` says how many it answers, and the
percentiles are those of calls. Peak memory is that of the process, which bertport's rows of one precision share.

The inputs are sentences of data/evaluation.txt with their own lengths, drawn with a fixed seed. {texts}.

One word is masked for fill-mask; next-sentence has pairs, half of them neighbours; features are the mean of the tokens.
`run tokens` counts padding, `real tokens` does not. The share of the peak is that of the work that cannot be avoided
(no padding, one position decoded in a text), so a caller that does more has a lower one; a multiplication and its
addition are two operations, there as in the peak, which is the fastest of the products of two 1024x1024 matrices that
ONNX Runtime ran in a second, on as many threads as it chooses for the subjects. Fidelity is against
transformers in fp32, one text at a time: how often the best word is the same and by how much its probability moves; how
many verdicts flip and by how much a probability moves; the smallest cosine of two vectors. Random weights give nearly
uniform probabilities, whose best word changes by a hair: there the change of the score tells, not the agreement.

- *tokenizer and session alone* is bertport's graph without bertport: the tokenizers package and ONNX Runtime in the
  same batches, and no answers made.
- *transformers* is its pipeline in PyTorch (for next-sentence, which has none, the model), *optimum* its ONNX Runtime
  models in the same pipeline, in fp32 and in its own 8-bit preset for this machine ({preset}).
- *onnxruntime, padded* and *openvino, padded* run the portable graph, which decodes every position, in batches padded
  to their longest. ONNX Runtime fuses at load.

## What is not done

- *Tokenizing while the graph runs*, on a CPU: both want the same cores. On a GPU it is done. The settings above have
  both.
- *Larger batches* than {batch_tokens} tokens, on a CPU: the products are as fast as they get, and the memory grows.
- *Reusing the buffers of inputs*: those of a full batch hold {buffer_kb:.0f} KB, beside activations of megabytes, which
  ONNX Runtime's arena reuses. What all of bertport's own work costs is the difference to *tokenizer and session alone*.
- *Dropping a mask of ones*: it is one addition to the attention's scores in each layer, within `Add` where the
  operators of a run are listed; leaving it out takes a second graph in memory.
- *Binding inputs and outputs*, on a CPU: what leaves the graph is a row of logits for each masked word, which nothing
  copies.
"""


def stem(result: dict[str, Any]) -> str:
    """Name the files of a result: each class of CPU has its own."""
    return class_of(result["machine"]["instruction_set"]).stem


def _others(name: str) -> str:
    """Return where the pages of the other classes are."""
    return ", ".join(f"[{row.title}]({row.stem}.md)" for row in CLASSES.values() if row.stem != name)


def page(result: dict[str, Any]) -> str:
    """Return the page as Markdown, every figure of it drawn from `result`."""
    figures, machine = result["figures"], result["machine"]
    versions = {**machine["versions"], **{name: text for name, text in result["versions"].items() if text}}
    said = (
        f"{machine['cpu']}, {machine['usable_cores']:g} cores, instruction set {machine['instruction_set']}, "
        f"fp32 matmul peak {machine['matmul_gflops']:.0f} GFLOP/s as measured in the same run; {machine['system']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    conditions = ""
    if "vnni" in machine["instruction_set"] or machine["instruction_set"] == "amx":
        conditions = (
            "This machine multiplies 8-bit numbers with VNNI. The bars below were set for two cores without it, where "
            "8 bits gain less; bertport's peers use the same instructions here."
        )
    if result.get("hidden"):
        conditions = (
            "This CPU has AVX-512 and VNNI, which bench.avx2 hid from ONNX Runtime, PyTorch and NumPy: "
            "what ran is what these run on a CPU of AVX2 alone, at the speed of this one. OpenVINO was left out: its "
            "libraries would have seen what is hidden."
        )
    bars = ""
    if figures["bars"]:
        rows = [(bar["bar"], bar["wanted"], bar["found"], "yes" if bar["met"] else "**no**") for bar in figures["bars"]]
        bars = f"## The bars\n\n{table(('', 'wanted', 'found', 'met'), rows)}\n\n"
    sections = "".join(_section(name, model, figures, stem(result)) for name, model in result["models"].items())
    presets = sorted({model["optimum_preset"] for model in result["models"].values()})
    return PAGE.format(
        command=result["command"],
        stem=stem(result),
        title=class_of(machine["instruction_set"]).title,
        other=f" The same on CPUs with {_others(stem(result))}",
        machine=said,
        conditions=conditions,
        bars=bars,
        models=sections,
        rounds="; ".join(f"{NAMES[name]}: {model['rounds']} rounds" for name, model in result["models"].items()),
        texts="; ".join(
            f"{NAMES[name]}: " + ", ".join(f"{len(lengths)} for {task}" for task, lengths in model["lengths"].items())
            for name, model in result["models"].items()
        ),
        batch_tokens=f"{PROVIDERS['cpu'].batch_tokens:,}",
        buffer_kb=3 * 8 * PROVIDERS["cpu"].batch_tokens / 1000,  # ids, mask and segments, 8 bytes each
        sessions=sessions_section(result.get("sessions")),
        preset=", ".join(presets),
    ).replace("\n\n\n", "\n\n")


def _section(name: str, model: dict[str, Any], figures: dict[str, Any], stem: str) -> str:
    shape = model["architecture"]
    introduction = (
        f"## {NAMES[name]}\n\n{shape['layers']} layers of width {shape['hidden_size']}, "
        f"{shape['parameters']:,} parameters; bertport's variants: {', '.join(model['variants'])}.\n\n"
        f"![texts a second](../data/{stem}-{name}.svg)\n"
    )
    parts = [introduction]
    head = (
        "",
        "texts/s",
        "texts at once",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "peak MiB",
        "real / run tokens",
        "share of peak",
        "fidelity",
    )
    for task in dict.fromkeys(row["task"] for row in figures["rows"] if row["model"] == name):
        rows = [_cells(row) for row in figures["rows"] if (row["model"], row["task"]) == (name, task)]
        ratios = [
            (ratio["subject"], ratio["row"], _times(ratio))
            for ratio in figures["ratios"]
            if (ratio["model"], ratio["task"]) == (name, task) and not ratio["than"].startswith("bare")
        ]
        parts.append(f"### {task}\n\n{table(head, rows)}\n")
        parts.append(f"{table(('', 'against the best of its group', 'times faster'), ratios)}\n")
    shapes = [measured for measured in figures["shapes"] if measured["model"] == name]
    sizes = list(dict.fromkeys(tuple(measured["shape"]) for measured in shapes))
    rows = []
    for group in dict.fromkeys(measured["group"] for measured in shapes):
        of_group = {tuple(measured["shape"]): measured for measured in shapes if measured["group"] == group}
        cells = [f"{of_group[size]['ms']:.1f} ({of_group[size]['share_of_peak']:.0%})" for size in sizes]
        rows.append((group, *cells))
    columns = ("ms (share of peak)", *(f"{rows_}x{length}" for rows_, length in sizes))
    parts.append(
        "### Fixed shapes\n\nThe graph alone, on random ids; bertport decodes one position in each row, others all.\n\n"
        f"{table(columns, rows)}\n"
    )
    if not shapes:
        parts.pop()
    parts += profile_sections(model, figures["peak"]) if model["profile"] else []
    parts += [settings_section(model)] if model["choices"] else []
    return "\n".join(parts) + "\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in row:
        return (row["subject"], "failed", *([""] * 7), row["failed"][:80])
    return (
        row["subject"],
        f"{row['texts_per_second']:.1f}",
        f"{row['texts_at_once']}",
        *(f"{row[f'p{level}_ms']:.2f}" for level in (50, 90, 99)),
        f"{row['peak_mib']:.0f}",
        f"{row['real_tokens']} / {row['run_tokens']}",
        f"{row['share_of_peak']:.0%}",
        _said(row["fidelity"]),
    )


def _said(fidelity: dict[str, float] | None) -> str:
    if fidelity is None:
        return ""
    if "top1_agreement" in fidelity:
        return f"{fidelity['top1_agreement']:.1%} the same, {fidelity['largest_score_change']:.1g}"
    if "flips" in fidelity:
        return f"{fidelity['flips']:.1%} flips, {fidelity['largest_probability_change']:.1g}"
    return f"{fidelity['worst_cosine']:.6f}"


def plots(result: dict[str, Any], directory: Path) -> None:
    """Draw each model's throughput by task: the best row of every group."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bertport"  # so that the same figures give the same file
    from matplotlib import pyplot as plt

    for name in result["models"]:
        of_model = [row for row in result["figures"]["rows"] if row["model"] == name and "failed" not in row]
        tasks = list(dict.fromkeys(row["task"] for row in of_model))
        drawing, axes = plt.subplots(
            1, len(tasks), figsize=(4.2 * len(tasks), 3.6), squeeze=False, layout="constrained"
        )
        for axis, task in zip(axes[0], tasks, strict=True):
            speeds: dict[str, float] = {}
            for row in of_model:
                if row["task"] == task and not row["group"].startswith("bare") and "single" not in row["group"]:
                    speeds[row["group"]] = max(speeds.get(row["group"], 0.0), row["texts_per_second"])
            ordered = sorted(speeds.items(), key=lambda pair: pair[1])
            colours = ["#1f6f8b" if group.startswith("bertport") else "#b8b8b8" for group, _ in ordered]
            bars = axis.barh([group for group, _ in ordered], [value for _, value in ordered], color=colours)
            axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
            axis.margins(x=0.15)
            axis.set_title(task)
            axis.set_xlabel("texts a second")
            axis.spines[["top", "right"]].set_visible(False)
        drawing.savefig(directory / f"{stem(result)}-{name}.svg", metadata={"Date": None})
        plt.close(drawing)
