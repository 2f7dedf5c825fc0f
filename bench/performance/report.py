"""The page of what bench.performance measured, and its plots."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from bench.performance.bars import NAMES
from bench.performance.classes import CLASSES, class_of
from bench.performance.models import FITTED
from bench.performance.sections import (
    fidelity,
    profile_sections,
    ratios_table,
    reasons,
    sessions_section,
    settings_section,
    streams_section,
    table,
)
from bench.performance.subjects import SINGLE, STREAMS
from bertport.runtime.providers.table import PROVIDERS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["page", "plots", "stem"]

APART = (SINGLE, STREAMS)
"""Ends of the names of groups that plots leave out."""

BASE = """- BERT-base's *int8* is built like the variant that held the budget on the default model: layer by layer the
  same shares of channels in float and divided, and the same layers in 16 bits.
"""
EXPLAINED: tuple[dict[str, str], ...] = (
    {
        "bare fp32": "*tokenizer and session alone* is bertport's graph without bertport: the tokenizers package and "
        "ONNX Runtime in the same batches, without making answers.",
    },
    {
        "transformers": "*transformers* is its pipeline in PyTorch (for next-sentence, which has no pipeline, the "
        "model), in fp32 and, where the CPU has it, loaded in bf16.",
        "optimum fp32": "*optimum* is its ONNX Runtime models in the same pipeline, in fp32 and in its own 8-bit "
        "preset for this machine ({preset}).",
    },
    {
        "onnxruntime": "*onnxruntime* runs the portable graph, which decodes every position, in batches padded to "
        "their longest. ONNX Runtime fuses at load.",
    },
    {
        "openvino": "*openvino* runs the same graph with OpenVINO's defaults and its hint for low latency; on a CPU "
        "with bf16 it then computes in bf16.",
        "openvino fp32": "*openvino fp32* runs the same graph with the same hint, and is told not to compute in bf16.",
        "openvino int8": "*openvino int8* runs the 8-bit model that optimum-intel makes with NNCF, calibrated on "
        "{fitted} paragraphs.",
        "openvino plugin": "*openvino plugin* is ONNX Runtime with that plugin's defaults.",
    },
    {
        "optimum-intel": "*optimum-intel* has these models in transformers' pipelines.",
        "sentence-transformers torch": "*sentence-transformers* has them, and Optimum's, as its backends, and is given "
        "the tokens' mean.",
    },
)
"""Items of the list that explains the rows: by group a sentence, which is shown where the page has such rows."""
ONE_TURN = """A size of batch that took 1.25 times as
long as its group's best in the first round took no further turns: its row says "1 turn". """
"""What is said where such rows are; figures of before that rule have none."""
PAGE = """# Performance: {title}

From text to answer, compared with what people use today: the same weights, texts and machine, in turns. Written
by `{command}`; the figures are in [data/{stem}.json](../data/{stem}.json).{other}.

{machine}

{conditions}

{bars}{reasons}{models}{sessions}
## How it was measured

{rounds}.

Every subject has a process of its own, in the environment that it needs. In a round each answers all inputs once; the
next round has the reverse order. Nothing else may measure on the machine. First each answers all inputs once: this is
the warm-up, and fidelity is computed from these answers. {turns}Throughput is that of the
median round; intervals are 95% bootstrap intervals of the ratio, over rounds. Each call is timed: `texts at once` says
how many it answers, and the percentiles are those of calls. Peak memory is that of the process after its warm-up with
batches of that size and smaller ones; rows of one precision share a process.

The inputs are sentences of data/evaluation.txt with their own lengths, drawn with a fixed seed. {texts}.

One word is masked for fill-mask; next-sentence has pairs, half of them neighbours; features are the mean of the tokens.
`run tokens` counts padding, `real tokens` does not. The share of the peak counts only the work that cannot be avoided
(no padding, one position decoded in a text), so a caller that does more has a lower one. The peak is the fastest
product of two 1024x1024 matrices that ONNX Runtime ran in a second, on as many threads as it chooses for the subjects.
In both, a multiplication and its addition are two operations. Fidelity is against
transformers in fp32, one text at a time: how often the best word is the same and by how much its probability moves; how
many verdicts flip and by how much a probability moves; the smallest cosine of two vectors. Random weights give nearly
uniform probabilities, whose best word changes with the smallest difference; look at the change of the score, not at the
agreement.

{explained}
{base}
## What is not done

- *Tokenizing while the graph runs*, on a CPU: both want the same cores. On a GPU it is done. The settings above have
  both.
- *Larger batches* than {batch_tokens} tokens, on a CPU: the products are as fast as they get, and the memory grows.
- *Reusing the buffers of inputs*: those of a full batch hold {buffer_kb:.0f} KB, beside activations of megabytes, which
  ONNX Runtime's arena reuses. All of bertport's own work costs the difference from *tokenizer and session alone*.
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
    versions = {**machine["versions"], **result["versions"]}
    beside = "; ".join(
        f"{name} with {', '.join(f'{package} {version}' for package, version in packages.items())}"
        for name, packages in result["beside"].items()
    )
    said = (
        f"{machine['cpu']}, {machine['usable_cores']:g} cores, instruction set {machine['instruction_set']}, "
        f"fp32 matmul peak {machine['matmul_gflops']:.0f} GFLOP/s as measured in the same run; {machine['system']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}. Environments of their own: {beside}. "
        f"Measured on {result['date'][:10]} at commit {result['commit'][:12]}, in {result['seconds'] / 60:.0f} minutes "
        "after everything was made."
    )
    conditions = ""
    if changes := result.get("changed_since"):
        conditions = (
            f"These are figures of bertport {machine['versions']['bertport']} beside transformers "
            f"{versions['transformers']}: what `bertport quantize` makes as `int8-dynamic` has changed since (commits "
            f"{', '.join(changes)}), the embedded model's graphs have not."
        )
    if result.get("hidden"):
        both = "openvino" in result["beside"]
        conditions += (
            " This CPU has AVX-512 and VNNI, which bench.avx2 hid from ONNX Runtime, PyTorch"
            f"{', NumPy and OpenVINO' if both else ' and NumPy'}: they ran what they run on a CPU with AVX2 alone, "
            f"at the speed of this one. {'The plugin of OpenVINO' if both else 'OpenVINO'} was left out: its libraries "
            "would have seen what is hidden."
        )
    if result.get("as_intel"):
        conditions += (
            " OpenVINO's plugin runs only on Intel CPUs. For its rows ONNX Runtime was made to report an Intel CPU "
            "(bench.intel); users cannot do that."
        )
    bars = ""
    if figures["bars"]:
        rows = [(bar["bar"], bar["wanted"], bar["found"], "yes" if bar["met"] else "**no**") for bar in figures["bars"]]
        bars = f"## Targets\n\n{table(('', 'target', 'found', 'met'), rows)}\n\n"
    sections = "".join(_section(name, model, figures, stem(result)) for name, model in result["models"].items())
    presets = sorted({model["optimum_preset"] for model in result["models"].values()})
    return PAGE.format(
        command=result["command"],
        stem=stem(result),
        title=class_of(machine["instruction_set"]).title,
        other=f" The same on CPUs with {_others(stem(result))}",
        machine=said,
        conditions=conditions.strip(),
        bars=bars,
        models=sections,
        turns=ONE_TURN if any(row.get("turns") == 1 for row in figures["rows"]) else "",
        rounds="; ".join(f"{NAMES[name]}: {model['rounds']} rounds" for name, model in result["models"].items()),
        texts="; ".join(
            f"{NAMES[name]}: " + ", ".join(f"{len(lengths)} for {task}" for task, lengths in model["lengths"].items())
            for name, model in result["models"].items()
        ),
        batch_tokens=f"{PROVIDERS['cpu'].batch_tokens:,}",
        buffer_kb=3 * 8 * PROVIDERS["cpu"].batch_tokens / 1000,  # ids, mask and segments, 8 bytes each
        sessions=sessions_section(result.get("sessions")),
        explained=_explained({row["group"] for row in figures["rows"]}, ", ".join(presets)),
        reasons=reasons(result),
        base=BASE if any(model.get("like_default") for model in result["models"].values()) else "",
    ).replace("\n\n\n", "\n\n")


def _explained(groups: set[str], preset: str) -> str:
    """Return the list that explains the rows, of the groups that there are."""
    items = (" ".join(sentence for group, sentence in item.items() if group in groups) for item in EXPLAINED)
    said = (item.format(preset=preset, fitted=FITTED) for item in items if item)
    return "\n".join("\n  ".join(textwrap.wrap(f"- {item}", 118, break_on_hyphens=False)) for item in said)


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
        of_task = [row for row in figures["rows"] if (row["model"], row["task"]) == (name, task)]
        ratios = [ratio for ratio in figures["ratios"] if (ratio["model"], ratio["task"]) == (name, task)]
        rows = [_cells(row) for row in of_task if row["streams"] == 1]
        parts += [f"### {task}\n\n{table(head, rows)}\n", ratios_table(ratios)]
        parts += [streams_section(of_task)] if any(row["streams"] > 1 for row in of_task) else []
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
        return (row["subject"], "failed", *([""] * 7), row["failed"][:120])
    return (
        row["subject"] + (", 1 turn" if row["turns"] == 1 else ""),
        f"{row['texts_per_second']:.1f}",
        f"{row['texts_at_once']}",
        *(f"{row[f'p{level}_ms']:.2f}" for level in (50, 90, 99)),
        f"{row['peak_mib']:.0f}",
        f"{row['real_tokens']} / {row['run_tokens']}",
        f"{row['share_of_peak']:.0%}",
        fidelity(row["fidelity"]),
    )


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
                if row["task"] == task and not row["group"].startswith("bare") and not row["group"].endswith(APART):
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
