"""The sections of a page of performance: ratios, streams, settings, where the time goes, a second session."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.performance.bars import NAMES
from bertport.runtime.providers.table import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm"})
"""Operators that multiply matrices, whose last output axis is the right matrix's columns."""
EIGHT_BIT = frozenset({"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulInteger", "QLinearMatMul", "QGemm"})
"""Operators that multiply matrices in 8 bits."""
ATTENTION = "MultiHeadAttention"
"""The operator of fused attention."""
LEAST_SHARE = 0.01
"""Operators that take less of a run are put together."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, its columns but the first to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def ratios_table(ratios: Sequence[dict[str, Any]]) -> str:
    """Show how many times as fast each of bertport's groups is than the best row of every other."""
    shown = [ratio for ratio in ratios if not ratio["than"].startswith("bare")]
    ours = list(dict.fromkeys(ratio["subject"] for ratio in shown))
    rows = []
    for best in dict.fromkeys(ratio["row"] for ratio in shown):
        cells = {ratio["subject"]: ratio["times"] for ratio in shown if ratio["row"] == best}
        rows.append((best, *(f"{cells[name][0]:.2f}x ({cells[name][1]:.2f} to {cells[name][2]:.2f})" for name in ours)))
    return f"{table(('times as fast as the best of a group', *ours), rows)}\n"


def streams_section(rows: Sequence[dict[str, Any]]) -> str:
    """Show what several batches at once, each on its share of the cores, give beside one batch on all of them."""
    ran = [row for row in rows if "failed" not in row]
    several = [row for row in ran if row["streams"] > 1]
    count = several[0]["streams"] if several else 0
    body = []
    for row in several:
        name = row["subject"].removesuffix(f", {count} streams")
        one = next((other for other in ran if other["subject"] == name), None)
        cells = [
            cell
            for entry in (one, row)
            for cell in (
                (
                    f"{entry['texts_per_second']:.1f}",
                    f"{entry['ms_for_an_answer']:.1f}",
                    f"{entry['peak_mib']:.0f}",
                )
                if entry
                else ("", "", "")
            )
        ]
        body.append((name, *cells))
    head = ("", *(f"{streams}: {what}" for streams in (1, count) for what in ("texts/s", "ms", "MiB")))
    return (
        f"#### One stream and {count}\n\nOne batch at a time on all cores, and {count} at once on a core each, for as "
        "many callers, or, where bertport makes the batches, in one call. `ms` is the mean time until a call's or a "
        "batch's answer. More cores were not measured, and this page claims nothing about them.\n\n"
        f"{table(head, body)}\n"
    )


def fidelity(measured: dict[str, float] | None) -> str:
    """Say how near answers are to those of transformers in fp32."""
    if measured is None:
        return ""
    if "top1_agreement" in measured:
        return f"{measured['top1_agreement']:.1%} the same, {measured['largest_score_change']:.1g}"
    if "flips" in measured:
        return f"{measured['flips']:.1%} flips, {measured['largest_probability_change']:.1g}"
    return f"{measured['worst_cosine']:.6f}"


def reasons(result: dict[str, Any]) -> str:
    """Say where the time goes in the variants that miss a target, from their profiles."""
    missed = [bar["bar"] for bar in result["figures"]["bars"] if not bar["met"] and bar["found"] != "not measured"]
    said = []
    for name, model in result["models"].items():
        if not model["profile"] or not any(bar.startswith(NAMES[name]) for bar in missed):
            continue
        for variant, operators in model["profile"]["operators"].items():
            total = sum(operator["ms"] for operator in operators)
            shares = {"products": 0.0, "attention": 0.0, "other operators": 0.0}
            for operator in operators:
                kind = (
                    "products"
                    if operator["operator"] in PRODUCTS | EIGHT_BIT
                    else ("attention" if operator["operator"] == ATTENTION else "other operators")
                )
                shares[kind] += operator["ms"] / total
            listed = ", ".join(f"{share:.0%} {kind}" for kind, share in shares.items())
            said.append(f"- {NAMES[name]}, {variant}, a run of 1x128: {listed} of {total:.1f} ms.")
    if not said:
        return ""
    return (
        "Where a target is missed, this is where the time goes by ONNX Runtime's profiler; the tables below list every "
        "operator. The time of the products is that of ONNX Runtime's kernels, which peers use too. The other "
        "operators are the price of per-token scales and float channels, which keep answers close to fp32's (see the "
        "fidelity beside each speed); Optimum's preset has neither.\n\n" + "\n".join(said) + "\n\n"
    )


def settings_section(model: dict[str, Any]) -> str:
    """Show what bertport's own settings are worth: throughput of each beside the others of its kind."""
    count = len(model["lengths"]["fill-mask"])
    provider = PROVIDERS["cpu"]
    rows = [(name, f"{count / median(seconds):.1f}") for name, seconds in model["choices"].items()]
    return (
        f"### Settings\n\nfill-mask with the variant {model['variants'][1]}, one setting changed at a time from what "
        f"bertport ships with: a run counted as {provider.overhead_tokens} tokens, {provider.batch_tokens} tokens in a "
        f"batch, tokenizing {'while' if provider.overlap else 'after'} running.\n\n{table(('', 'texts/s'), rows)}\n"
    )


def profile_sections(model: dict[str, Any], peak: float) -> list[str]:
    """Show what a run costs beside its tokens, and what each operator of a run takes."""
    profile = model["profile"]
    return [_cost(profile["cost"]), *(_operators(name, profile, peak) for name in profile["operators"])]


def _cost(costs: dict[str, Any]) -> str:
    rows = [
        (name, f"{cost['fixed_ms']:.2f}", f"{1e3 * cost['ms_per_token']:.0f}", f"{cost['overhead_tokens']:.0f}")
        for name, cost in costs.items()
    ]
    return (
        "### What a run costs beside its tokens\n\nFitted to the times of runs of 8 to 64 tokens; a run of any length "
        "reads every weight once. The last column is how many tokens of padding cost as much as one more run. "
        f"bertport counts {PROVIDERS['cpu'].overhead_tokens} tokens on every CPU, so its batches do not depend on a "
        f"measurement.\n\n{table(('', 'ms a run', 'microseconds a token', 'a run in tokens'), rows)}\n"
    )


def _operators(variant: str, profile: dict[str, Any], peak: float) -> str:
    """List a run's operators: products by shape, with their speed, and the others."""
    alone = {tuple(product["shape"]): product["gflops"] for product in profile["products"]}
    operators = profile["operators"][variant]
    total = sum(operator["ms"] for operator in operators)
    rows, rest, bound = [], 0.0, 0.0
    for operator in operators:
        speed = operator["flops"] / operator["ms"] / 1e6 if operator["flops"] else 0.0
        shape = product_shape(operator)
        best = alone.get(shape) if shape else None
        if operator["flops"]:
            # What the kernel gives at that shape alone; products of activations were not run alone.
            bound += operator["flops"] / best / 1e6 if best else operator["ms"]
        if operator["ms"] < LEAST_SHARE * total:
            rest += operator["ms"]
            continue
        cells = (
            f"{operator['operator']} {'x'.join(map(str, shape))}" if shape else operator["operator"],
            str(operator["count"]),
            f"{operator['ms']:.2f}",
            f"{operator['ms'] / total:.0%}",
            f"{speed:.0f} ({speed / peak:.0%})" if speed else "",
            f"{best:.0f} ({best / peak:.0%})" if best else "",
        )
        rows.append(cells)
    rows.append(("all others", "", f"{rest:.2f}", f"{rest / total:.0%}", "", ""))
    head = ("", "calls", "ms", "share", "GFLOP/s (of peak)", "kernel alone, best")
    flops = sum(operator["flops"] for operator in operators)
    said = ""
    if alone and variant == "fp32":  # 8-bit products are not counted
        said = (
            f"\nAltogether {total:.2f} ms for {flops / 1e9:.2f} GFLOP: {flops / total / 1e6 / peak:.0%} of the peak of "
            f"{peak:.0f} GFLOP/s. The products take {bound:.2f} ms if each runs as fast as its kernel does alone at "
            f"that shape, so no arrangement of these operators could exceed {flops / bound / 1e6 / peak:.0%} of the "
            "peak. Decoding one position reads the whole vocabulary's matrix for two operations a weight, which memory "
            "limits.\n"
        )
    return (
        f"### Where a run of 1x128 goes: {variant}\n\nBy ONNX Runtime's profiler, whose own work is included; one "
        f"position decoded. A product is shown as rows x inner size x columns.\n\n"
        f"{table(head, rows)}\n{said}"
    )


def product_shape(operator: dict[str, Any]) -> tuple[int, int, int] | None:
    """Return the rows, inner size and columns of a product with a weight; None for any other operator."""
    shapes = operator["shapes"]
    # A product of two activations lists both, with an axis for the heads.
    if operator["operator"] not in PRODUCTS or any(len(shape) > 3 for shape in shapes):  # noqa: PLR2004 — as said
        return None
    left, out = shapes[0], shapes[-1]
    count = 1
    for size in left[:-1]:
        count *= size
    return count, left[-1], out[-1]


def sessions_section(sessions: list[dict[str, Any]] | None) -> str:
    """Show what a second model in a process costs."""
    if not sessions:
        return ""
    rows = [(session["case"], f"{session['ms']:.2f}", f"{session['peak_mib']:.0f}") for session in sessions]
    return (
        "## A second model in a process\n\nThe default variant of the default model, one text at a time "
        f"(`python -m bench.performance.second_session`).\n\n{table(('', 'ms for a text', 'peak MiB'), rows)}\n\n"
    )
