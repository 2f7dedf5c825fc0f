"""Turn what bench.performance measured into figures: per row its speed and fidelity, ratios, and the bars."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.performance.bars import bars
from bench.performance.ratios import ratios
from bertport.runtime.batching import plan
from bertport.runtime.providers.table import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["figures", "needed"]

MIB = 2**20


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
            collected["ratios"] += ratios(
                name, task, [measurement for measurement in model["rows"] if measurement["task"] == task]
            )
    collected["bars"] = bars(result, collected)
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
    base |= {"streams": subject["streams"], "batch": subject["batch"]}
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
        "texts_at_once": subject["batch"] or len(lengths),
        "ms_for_an_answer": 1e3 * median(totals) / _in_turn(len(lengths), subject),
        "turns": len(totals),
        **{f"p{level}_ms": float(np.percentile(calls, level)) for level in (50, 90, 99)},
        "calls": len(calls),
        "peak_mib": measurement["peak_bytes"] / MIB,
        "load_s": measurement["load_s"],
        "share_of_peak": needed(model["architecture"], lengths, decoded) / median(totals) / 1e9 / peak,
        "fidelity": _fidelity(model["rows"], measurement),
    }


def _in_turn(count: int, subject: dict[str, Any]) -> float:
    """Return how many batches a stream answers one after the other; 1 where all texts are given in one call."""
    return -(-count // subject["batch"]) / subject["streams"] if subject["batch"] else 1.0


def _run_tokens(lengths: Sequence[int], subject: dict[str, Any]) -> int:
    """Count the tokens that are run, padding included."""
    if subject["peer"] in {"bertport", "bare"}:
        if subject["batch"]:
            return sum(lengths)
        provider = PROVIDERS["cpu"]
        budget = provider.batch_tokens
        if subject["streams"] > 1:  # a batch for each stream
            budget = min(budget, -(-sum(lengths) // subject["streams"]))
        batches = plan(lengths, budget=budget, overhead=provider.overhead_tokens)
        return sum(len(batch) * lengths[batch[0]] for batch in batches)
    size = subject["batch"]
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
