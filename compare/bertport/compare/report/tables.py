"""The tables of the report, once for every format: a title, a caption, headings, and cells of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.compare.report.findings import interval, meaningless, settings_shapes
from bertport.measure.budget import UNDECIDED
from bertport.measure.quality.heads import limit_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NONE", "Table", "overview", "quality_tables", "scaled", "speed_tables"]

MIB = 2**20
NONE = "–"  # noqa: RUF001 — an en dash, for a cell without a figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table."""

    title: str
    """Its heading."""
    caption: str
    """How it is to be read."""
    head: tuple[str, ...]
    """Headings of the columns; the first names rows."""
    rows: tuple[tuple[str, ...], ...]
    """Cells."""


def scaled(estimate: Mapping[str, Any] | None, factor: float, form: str) -> str:
    """Write an estimate times a factor, or a dash."""
    if not estimate or estimate["value"] is None:
        return NONE
    found = {name: None if estimate[name] is None else factor * estimate[name] for name in ("value", "low", "high")}
    return interval(found, form)


def percent(estimate: Mapping[str, Any] | None, form: str = ".1f") -> str:
    """Write a share in percent with its interval."""
    text = scaled(estimate, 100, form)
    return text if text == NONE else text.replace(" (", "% (", 1) if "(" in text else f"{text}%"


def milliseconds(estimate: Mapping[str, Any] | None) -> str:
    """Write seconds in milliseconds with their interval."""
    return scaled(estimate, 1e3, "")


def divergence(estimate: Mapping[str, Any]) -> str:
    """Write a KL divergence: five decimals, or two digits where nothing of it would be left."""
    least = 1e-4
    return scaled(estimate, 1, ".5f" if (estimate["value"] or 0) >= least else ".2g")


def overview(document: Mapping[str, Any]) -> Table:
    """One line per row: what most readers want."""
    rows: list[tuple[str, ...]] = []
    for row in document["rows"]:
        quality, speed = row["quality"] or {}, row["speed"]
        mlm = quality.get("mlm") or {}
        stands = row["kind"] == "variant" and not meaningless(document, row["bundle"])
        single, offline = speed["single_stream"], speed["offline"]
        rows.append(
            (
                row["name"] + (" (reference)" if row["reference"] else ""),
                megabytes(row["size_bytes"]),
                milliseconds(single["p90"] if single else None),
                scaled(row["times_faster"].get("SingleStream"), 1, ".2f") if not row["reference"] else "1",
                scaled(offline["texts_per_second"] if offline else None, 1, ""),
                percent(mlm.get("accuracy_candidate")) if stands else NONE,
                percent(mlm.get("top1_agreement")) if not row["reference"] and row["kind"] == "variant" else NONE,
                "failed" if row["failed"] else "" if offline else "not finished",
            )
        )
    head: tuple[str, ...] = (
        "variant",
        "size, MB",
        "SingleStream p90, ms",
        "times as fast as fp32",
        "Offline, texts/s",
        "MLM top-1 accuracy",
        "MLM top-1 agreement",
        "state",
    )
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return Table(
        title="At a glance",
        caption="95% intervals in brackets. SingleStream p90: nine of ten texts are answered in this time, one after "
        "the other. Offline: all texts in one call. Agreement: masked tokens with the same best answer as fp32.",
        head=head,
        rows=tuple(rows),
    )


def megabytes(size: float | None) -> str:
    """Write a number of bytes in MB."""
    return f"{size / 1e6:,.1f}" if size else NONE


def budget_table(document: Mapping[str, Any]) -> list[Table]:
    """Lay out the verdict on each bound of the budget, from this run and from quantization; none without verdicts."""
    rows = [
        (
            judged["row"],
            limit_named(each["limit"]).meaning,
            limit_named(each["limit"]).asked(each["bound"]),
            _figure(each["limit"], each["run"]),
            _figure(each["limit"], each["record"]),
            each["verdict"] + (" (at quantization)" if each["by"] == "record" else ""),
            _more(each),
        )
        for judged in document["verdicts"]
        for each in judged["bounds"]
    ]
    if not rows:
        return []
    caption = (
        "Held or broken where the whole 95% interval is on one side of the bound, undecided where the bound is in it. "
        "A verdict is this run's; where this run cannot tell, and the text is the sample that ships, it is that of the "
        "figure that was measured at quantization, when the variant was made. More needed: so many more samples would "
        "decide, about, if the figure stays as it is."
    )
    head = ("variant", "figure", "asked", "this run", "at quantization", "verdict", "more needed")
    return [Table(title="Accuracy budget", caption=caption, head=head, rows=tuple(rows))]


def _figure(limit: str, judged: Mapping[str, Any] | None) -> str:
    if not judged:
        return NONE
    row = limit_named(limit)
    text = percent(judged, ".2f") if row.counts else scaled(judged, 1, row.fine)
    return f"{text} of {judged['count']:,}"


def _more(bound: Mapping[str, Any]) -> str:
    if bound["verdict"] != UNDECIDED:
        return NONE
    more = bound["run"]["more"]
    return f"{more:,} {limit_named(bound['limit']).unit}" if more else "beyond reach"


def sizes(estimates: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Write how many samples and texts rows were measured on: a range where verdicts needed more of some."""
    found = []
    for name in ("count", "clusters"):
        least, most = (pick(each[name] for each in estimates) for pick in (min, max))
        found.append(f"{least:,}" if least == most else f"{least:,} to {most:,}")
    return found[0], found[1]


def quality_tables(document: Mapping[str, Any]) -> list[Table]:
    """One table per head, of the rows whose quality was measured."""
    rows = [row for row in document["rows"] if row["quality"]]
    tables = budget_table(document)
    mlm = [(row, row["quality"]["mlm"]) for row in rows if row["quality"]["mlm"]]
    if mlm:
        tables.append(
            Table(
                title="Masked-language-model head",
                caption="{} masked positions in {} texts, ".format(*sizes([found["kl"] for _, found in mlm])) +
                "masked by BERT's procedure with a fixed seed. Agreement and KL are with fp32.",
                head=(
                    "variant", "top-1 accuracy", "top-5 accuracy", "pseudo-perplexity", "top-1 agreement",
                    "top-5 overlap", "KL, nats",
                ),
                rows=tuple(_mlm(document, row, found) for row, found in mlm),
            )
        )  # fmt: skip
    nsp = [(row, row["quality"]["nsp"]) for row in rows if row["quality"]["nsp"]]
    if nsp:
        tables.append(
            Table(
                title="Next-sentence head",
                caption=f"{sizes([found['flips'] for _, found in nsp])[0]} pairs, about half true continuations.",
                head=("variant", "accuracy", "flips", "mean change of probability", "largest change", "KL, nats"),
                rows=tuple(
                    (
                        row["name"],
                        percent(found["accuracy_candidate"]) if not meaningless(document, row["bundle"]) else NONE,
                        *(
                            (NONE,) * 4
                            if row["reference"]
                            else (
                                percent(found["flips"], ".2f"),
                                scaled(found["mean_change"], 1, ".4f"),
                                f"{found['largest_change']:.4f}",
                                divergence(found["kl"]),
                            )
                        ),
                    )
                    for row, found in nsp
                ),
            )
        )
    hidden = [(row, row["quality"]) for row in rows if row["quality"]["hidden"] and not row["reference"]]
    if hidden:
        tables.append(
            Table(
                title="Hidden states and stability",
                caption="Cosine of a token's last hidden state with fp32's. Moved: KL between a text's answers alone "
                "and with other texts in the batch, or padded to twice its length.",
                head=("variant", "mean cosine", "smallest cosine", "moved by batch mates, nats", "by padding, nats"),
                rows=tuple(
                    (
                        row["name"],
                        scaled(found["hidden"]["cosine"], 1, ".4f"),
                        f"{found['hidden']['worst']:.4f}",
                        *(_moved(found["stability"], kind) for kind in ("batch_mates", "padding")),
                    )
                    for row, found in hidden
                ),
            )
        )
    return tables


def _mlm(document: Mapping[str, Any], row: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    stands = not meaningless(document, row["bundle"])
    return (
        row["name"],
        percent(found["accuracy_candidate"]) if stands else NONE,
        percent(found["top5_accuracy_candidate"]) if stands else NONE,
        scaled(found["perplexity_candidate"], 1, ".2f") if stands else NONE,
        *(
            (NONE,) * 3
            if row["reference"]
            else (
                percent(found["top1_agreement"]),
                percent(found["top5_agreement"]),
                divergence(found["kl"]),
            )
        ),
    )


def _moved(stability: Mapping[str, Any] | None, kind: str) -> str:
    movement = (stability or {}).get(kind)
    if not movement or not movement["kl"]:
        return NONE
    return scaled(movement["kl"], 1, ".5f") if movement["kl"]["high"] else "0"


def speed_tables(document: Mapping[str, Any]) -> list[Table]:
    """One table per scenario, and one for the batches of one length."""
    rows = document["rows"]
    tables = []
    single = [(row, row["speed"]["single_stream"]) for row in rows if row["speed"]["single_stream"]]
    if single:
        runs = single[0][1]
        tables.append(
            Table(
                title="SingleStream: one text after the other",
                caption=f"{runs['runs']:,} timed answers in {len(runs['rounds'])} rounds, after {runs['warmup_runs']} "
                "of warm-up; milliseconds from text to answer. MLPerf's figure is the 90th percentile. Same "
                "answer: texts to which a baseline's best answer is fp32's.",
                head=(
                    "variant",
                    "median",
                    "p90",
                    "p99",
                    "times as fast as fp32",
                    "tokenize / run / finish",
                    "peak, MiB",
                    "same answer",
                ),
                rows=tuple(
                    (
                        row["name"],
                        *(milliseconds(found[name]) for name in ("median", "p90", "p99")),
                        "1" if row["reference"] else scaled(row["times_faster"].get("SingleStream"), 1, ".2f"),
                        " / ".join(f"{share:.0%}" for share in found["stages"].values()) or NONE,
                        f"{found['peak_bytes'] / MIB:,.0f}",
                        percent(row["same_answers"]) if row["kind"] != "variant" else NONE,
                    )
                    for row, found in single
                ),
            )
        )
    offline = [(row, row["speed"]["offline"]) for row in rows if row["speed"]["offline"]]
    if offline:
        tables.append(
            Table(
                title="Offline: all texts at once",
                caption=f"{document['text']['inputs']['texts']} texts in one call, {len(offline[0][1]['rounds'])} "
                "rounds. Tokens counted are real ones; padded ones are what the model computed.",
                head=("variant", "texts/s", "tokens/s", "times as fast as fp32", "real tokens", "padded tokens",
                      "of matmul peak"),
                rows=tuple(
                    (
                        row["name"],
                        scaled(found["texts_per_second"], 1, ""),
                        scaled(found["tokens_per_second"], 1, ",.0f"),
                        "1" if row["reference"] else scaled(row["times_faster"].get("Offline"), 1, ".2f"),
                        f"{found['real_tokens']:,}",
                        f"{found['padded_tokens']:,}",
                        f"{found['share_of_peak']:.0%}" if found["share_of_peak"] else NONE,
                    )
                    for row, found in offline
                ),
            )
        )  # fmt: skip
    server = [(row, each) for row in rows for each in row["speed"]["server"]]
    if server:
        tables.append(
            Table(
                title="Server: requests at random times",
                caption="Poisson arrivals at a rate set by the reference's SingleStream speed, the same for all, "
                "answered first come first served; milliseconds from arrival to answer. MLPerf's figure is the "
                "99th percentile.",
                head=("variant", "requests/s", "median", "p90", "p99", "note"),
                rows=tuple(
                    (
                        row["name"],
                        f"{found['requests_per_second']:.3g}",
                        *(milliseconds(found[name]) for name in ("median", "p90", "p99")),
                        "overloaded: it answers more slowly than requests come" if found["overloaded"] else NONE,
                    )
                    for row, found in server
                ),
            )
        )
    names = settings_shapes(document)
    if any(row["speed"]["shapes"] for row in rows):
        tables.append(
            Table(
                title="Batches of one length",
                caption="The graph alone on random tokens, one position decoded in each row; median milliseconds, and "
                "the share of the machine's fp32 matmul peak (8-bit arithmetic can exceed it).",
                head=("variant", *(name.replace("x", " x ") for name in names)),
                rows=tuple(
                    (row["name"], *(_shape(row["speed"]["shapes"].get(name)) for name in names))
                    for row in rows
                    if row["speed"]["shapes"]
                ),
            )
        )
    starts = [(row, row["speed"]["start"]) for row in rows if row["speed"]["start"]]
    if starts:
        tables.append(
            Table(
                title="Start",
                caption="Fresh processes: from the start of Python to the first answer, and of that the loading of the "
                "model; seconds. Memory is the most that was resident up to the first answers.",
                head=("variant", "cold start, s", "load, s", "peak, MiB", "size, MB"),
                rows=tuple(
                    (
                        row["name"],
                        scaled(found["cold_start"], 1, ".2f"),
                        scaled(found["load"], 1, ".2f"),
                        f"{found['peak_bytes_of_one_answer'] / MIB:,.0f}",
                        megabytes(row["size_bytes"]),
                    )
                    for row, found in starts
                ),
            )
        )
    return tables


def _shape(found: Mapping[str, Any] | None) -> str:
    if not found:
        return NONE
    peak = f", {found['share_of_peak']:.0%} of peak" if found["share_of_peak"] else ""
    return f"{milliseconds(found['median'])}{peak}"
