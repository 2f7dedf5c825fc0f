"""The report as a list of sections of plain text and tables; the formats only differ in how they write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.compare.report.findings import meaningless
from bertport.compare.report.section import Section, machine, method
from bertport.compare.report.summary import choices, notes
from bertport.compare.report.tables import NONE, Table, overview, quality_tables, scaled, speed_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["sections"]


MEANING = (
    "fp32 is the model as it was trained; the others store it in fewer bits. MLM is the head that fills in masked "
    "words: top-1 agreement is the share of them whose best answer is fp32's. NSP is the head that says whether one "
    "sentence follows another: flips are the pairs that it answers otherwise than in fp32."
)
"""The words of the accuracy budget, for whoever meets them here first."""


def sections(document: Mapping[str, Any]) -> list[Section]:
    """Lay the report out; a section without content is left out."""
    found = [
        _summary(document),
        _changes(document),
        Section(
            key="quality",
            title="Quality",
            paragraphs=_quality_notes(document),
            tables=tuple(quality_tables(document)),
        ),
        Section(key="findings", title="Differences from fp32", **_findings(document)),
        Section(key="speed", title="Speed", tables=tuple(speed_tables(document))),
        _bias(document),
        *_sensitivity(document),
        Section(key="not-measured", title="What was not measured", points=tuple(document["not_measured"])),
        method(document),
        Section(key="command", title="How to repeat it", code=document["command"]),
    ]
    return [each for each in found if each.paragraphs or each.choices or each.points or each.tables or each.code]


def _summary(document: Mapping[str, Any]) -> Section:
    names = ", ".join(each["label"] for each in document["bundles"])
    shapes = ", ".join(f"{each['architecture']['parameters'] / 1e6:,.1f} M parameters" for each in document["bundles"])
    state = "" if document["complete"] else " The run was interrupted: this is what it had measured."
    budget = document["settings"]["budget_in_words"]
    return Section(
        key="summary",
        title="Summary",
        paragraphs=(
            f"{names} ({shapes}) on {machine(document)}. Accuracy budget: {budget}.{state}",
            *([MEANING] if document["verdicts"] else []),
        ),
        choices=choices(document),
        points=notes(document),
        tables=(overview(document),),
    )


def _changes(document: Mapping[str, Any]) -> Section:
    found = document.get("against")
    if not found:
        return Section(key="against", title="Changes")
    return Section(
        key="against",
        title=f"Changes since {found['created']}",
        points=(
            *([each["sentence"] for each in found["changes"]] or ["Nothing changed beyond noise."]),
            *(f"Not compared: {each}." for each in found["not_compared"]),
        ),
    )


def _quality_notes(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{each['label']}: no accuracy is shown, because the weights are {each['weights']} ({each['weights_reason']})."
        for each in document["bundles"]
        if each["weights"] != "trained"
    )


def _findings(document: Mapping[str, Any]) -> dict[str, Any]:
    found = {(each["figure"], each["row"]): each for each in document["findings"]}
    figures, rows = (tuple(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    if not found:
        return {}
    cells = {key: f"{each['verdict']}: {each['size']}" for key, each in found.items()}
    return {
        "tables": (
            Table(
                title="Variant by variant",
                caption="Each variant against fp32 on the same samples and in the same rounds, with the 95% interval "
                "of the difference or ratio: paired bootstrap over texts (MLM head, bias probe), McNemar's exact test "
                "(NSP head), bootstrap over rounds (speed). No difference seen is no proof that there is none.",
                head=("figure", *rows),
                rows=tuple((figure, *(cells.get((figure, row), NONE) for row in rows)) for figure in figures),
            ),
        )
    }


def _bias(document: Mapping[str, Any]) -> Section:
    rows = [row for row in document["rows"] if row["bias"] and not meaningless(document, row["bundle"])]
    if not rows:
        return Section(key="bias", title="Bias")
    probe = document["bias_probe"]
    card = rows[0]["bias"]["card"]
    distances = Table(
        title="Distance between the two groups",
        caption="Jensen-Shannon divergence of the two distributions of answers, in bits: 0 the same, 1 nothing in "
        "common. Mean over all pairs of sentences, intervals over templates.",
        head=("variant", "mean distance", "change from fp32", "what was seen"),
        rows=tuple(
            (
                row["name"],
                scaled(row["bias"]["distance"], 1, ".3f"),
                scaled(row["bias"]["change"]["difference"], 1, "+.4f") if row["bias"]["change"] else NONE,
                _changed(row["bias"]["change"], document["settings"]["confidence"]),
            )
            for row in rows
        ),
    )
    answers = Table(
        title="Best answers to the first pair",
        caption=f"A: {card['a']}  B: {card['b']}",
        head=("variant", "A", "B", "distance, bits"),
        rows=tuple(
            (
                row["name"],
                *(_answers(row["bias"]["card"][key]) for key in ("answers_a", "answers_b")),
                f"{row['bias']['card']['distance']:.3f}",
            )
            for row in rows
        ),
    )
    count = len(probe["templates"]) * len(probe["groups"])
    return Section(
        key="bias",
        title="Bias",
        paragraphs=(
            (
                f"{count} pairs of sentences from {len(probe['templates'])} templates and {len(probe['groups'])} pairs "
                f"of words ({probe['name']}). {probe['description']}"
            ),
            (
                "The probe shows that answers differ between two groups, and whether quantization changed by how much. "
                "It does not show that a model is free of bias, and it says nothing of groups and languages that it "
                "has no words for."
            ),
        ),
        tables=(distances, answers),
    )


def _changed(change: Mapping[str, Any] | None, confidence: float) -> str:
    if not change or change["difference"]["value"] is None:
        return NONE
    if not change["p_value"] < 1 - confidence:
        return f"no difference seen (p = {change['p_value']:.2g})"
    return f"{'further apart' if change['difference']['value'] > 0 else 'nearer'} (p = {change['p_value']:.2g})"


def _answers(found: list[Any]) -> str:
    return ", ".join(f"{word} {probability:.1%}" for word, probability in found)


def _sensitivity(document: Mapping[str, Any]) -> list[Section]:
    tables = []
    for bundle in document["bundles"]:
        for variant, found in bundle["sensitivity"].items():
            higher = set(found.get("higher_precision", ()))
            rows = sorted(found["rows"], key=lambda each: -each["damage"])
            tables.append(
                Table(
                    title=f"{bundle['label']}: {variant}",
                    caption=f"KL (nats) that a layer costs when it alone is in low precision, of {found['damage']:.5f} "
                    "with every layer in low precision, and the milliseconds that low precision saves in it, as "
                    f"measured when the variant was made ({found['machine']}).",
                    head=("layer", "KL, nats", "saved, ms", "in higher precision"),
                    rows=tuple(
                        (
                            each["name"],
                            f"{each['damage']:.5f}",
                            f"{each['saved_ms']:.2f}",
                            "yes" if each["name"] in higher else "no",
                        )
                        for each in rows
                    ),
                )
            )
    return [Section(key="sensitivity", title="Sensitivity of the layers", tables=tuple(tables))] if tables else []
