"""What a comparison found, in sentences, and what it did not measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["FEW_TEXTS", "findings", "interval", "meaningless", "not_measured", "settings_shapes"]

FEW_TEXTS = 30
"""Fewer texts than this give intervals that are too narrow: the percentile bootstrap needs some dozens of clusters."""


def meaningless(document: Mapping[str, Any], bundle: str) -> bool:
    """Tell whether a bundle's accuracy says nothing: random weights, stated or seen."""
    return any(each["weights"] != "trained" for each in document["bundles"] if each["label"] == bundle)


def interval(estimate: Mapping[str, Any] | None, form: str = "") -> str:
    """Write an estimate with its interval; without a format, to three significant digits."""
    if not estimate or estimate["value"] is None:
        return "not measured"
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if low is None or high is None:
        return number(value, form)
    return f"{number(value, form)} ({number(low, form)} to {number(high, form)})"


def number(value: float, form: str = "") -> str:
    """Write a number to three significant digits, or to whole ones from 100 on, or as the format says."""
    if not form:
        size = abs(value)
        form = next(
            (each for least, each in ((100, ",.0f"), (10, ".1f"), (1, ".2f"), (0.1, ".3f")) if size >= least), ""
        )
    return f"{value:{form or '.3g'}}"


def findings(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Test each variant against its reference, paired, and say what was seen.

    Returns:
        `row`, `figure`, `sentence`, `no_difference_seen`, and the `verdict` and the `size` that are in the sentence, in
        the order of the rows.
    """
    found = []
    level = 1 - document["settings"]["confidence"]
    for row in document["rows"]:
        if row["reference"] or row["failed"] or row["kind"] != "variant":
            continue
        tests = [] if meaningless(document, row["bundle"]) else _tests(row)
        for figure, difference, form, better in tests:
            estimate, p_value = difference["difference"], difference["p_value"]
            none = not p_value < level
            if estimate["value"] is None:
                continue
            verdict = "better" if (estimate["value"] > 0) == better else "worse"
            size = interval(estimate, form)
            seen = "no difference seen" if none else f"{verdict} than fp32"
            found.append(
                {
                    "row": row["name"],
                    "figure": figure,
                    "no_difference_seen": none,
                    "verdict": seen,
                    "size": f"{size}, p = {p_value:.2g}",
                    "sentence": f"{figure}: {seen}; difference {size}, p = {p_value:.2g} ({difference['test']}), "
                    f"{estimate['count']:,} {_unit(figure)} in {estimate['clusters']:,} {_cluster(figure)}",
                }
            )
        for workload, ratio in row["times_faster"].items():
            none = ratio["no_difference_seen"]
            verdict = "no difference seen" if none else f"{'faster' if ratio['value'] > 1 else 'slower'} than fp32"
            found.append(
                {
                    "row": row["name"],
                    "figure": f"Speed, {workload}",
                    "no_difference_seen": none,
                    "verdict": verdict,
                    "size": f"{interval(ratio)} times as fast",
                    "sentence": f"Speed, {workload}: {verdict}; {interval(ratio)} times as fast, "
                    f"{ratio['clusters']:,} rounds",
                }
            )
    return found


def _tests(row: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str, bool]]:
    quality = row["quality"] or {}
    tests: list[tuple[str, Mapping[str, Any], str, bool]] = []
    if mlm := quality.get("mlm"):
        tests.append(("MLM top-1 accuracy", mlm["accuracy_difference"], "+.2%", True))
        tests.append(("MLM top-5 accuracy", mlm["top5_accuracy_difference"], "+.2%", True))
        tests.append(("MLM loss: -log p of the original token (nats)", mlm["nll_difference"], "+.4f", False))
    if nsp := quality.get("nsp"):
        tests.append(("NSP accuracy", nsp["accuracy_difference"], "+.2%", True))
    if (bias := row["bias"]) and bias["change"]:
        tests.append(("Distance between groups in the bias probe (bits)", bias["change"], "+.4f", False))
    return tests


def _unit(figure: str) -> str:
    return "pairs" if figure.startswith(("NSP", "Distance")) else "positions"


def _cluster(figure: str) -> str:
    return "templates" if figure.startswith("Distance") else "texts"


def not_measured(document: Mapping[str, Any], left_out: Iterable[str]) -> list[str]:
    """Say what a reader might take for measured and was not."""
    rows, texts = document["rows"], document["text"]["texts"]
    found = list(left_out)
    if not document["complete"]:
        found.insert(0, "This run was interrupted: figures that are missing were not reached (--resume goes on).")
    found += [f"{row['name']}: {row['failed']}" for row in rows if row["failed"]]
    if document["text"]["inputs"]["task"] != "fill-mask":
        found.append("MLM figures and fill-mask speed: a bundle has no MLM head; the scenarios ask for features.")
    for bundle in document["bundles"]:
        found += _missing_of(bundle, [row["name"] for row in rows if row["failed"]])
    if texts < FEW_TEXTS:
        found.append(
            f"Reliable intervals of quality: {texts} texts are too few for them to mean much, {FEW_TEXTS} would do."
        )
    if {row["provider"] for row in rows} == {"cpu"}:
        found.append("Other execution providers than the CPU's.")
    if any(row["kind"] != "variant" for row in rows):
        found.append("Quality of the baselines: they run the same fp32 weights; only their best answers are compared.")
    if document["settings"]["name"] == "quick":
        found.append("Small differences: --quick takes few samples and few rounds, so its intervals are wide.")
    longest = max(_longest_shape(document), *document["text"]["inputs"]["lengths"])
    room = min(bundle["max_length"] for bundle in document["bundles"])
    if longest < room:
        found.append(f"Inputs longer than {longest} tokens; the model takes {room}.")
    found.append("Energy, several processes on one machine, and requests over a network.")
    return found


def _missing_of(bundle: Mapping[str, Any], failed: list[str]) -> list[str]:
    label, found = bundle["label"], []
    if "nsp" not in bundle["heads"]:
        found.append(f"{label}: NSP, a head that it does not have.")
    if bundle["weights"] != "trained":
        found.append(
            f"{label}: accuracy and the bias probe mean nothing ({bundle['weights_reason']}), and nothing is "
            "recommended; agreement with fp32 and speed stand."
        )
    if bundle["reference"] is None:
        found.append(f"{label}: quality, because its reference variant does not take part.")
    elif bundle["reference"] in failed:
        found.append(f"{label}: quality, because its reference variant failed.")
    return found


def _longest_shape(document: Mapping[str, Any]) -> int:
    return max((int(name.split("x")[1]) for name in settings_shapes(document)), default=0)


def settings_shapes(document: Mapping[str, Any]) -> list[str]:
    """Name the batches of one length, as far as any row has them."""
    names = {name for row in document["rows"] for name in row["speed"]["shapes"]}
    return sorted(names, key=lambda name: tuple(map(int, name.split("x"))))
