"""The report as a list of sections of plain text and tables; the formats only differ in how they write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertport.compare.report.bias import bias_paragraphs, bias_tables
from bertport.compare.report.document import TRAINED
from bertport.compare.report.formatting import MB, NONE, capitalized, figure, mebibytes, sentence
from bertport.compare.report.labelled import labelled_notes, labelled_paragraphs, labelled_points, labelled_tables
from bertport.compare.report.recommend import NOT_MEASURED
from bertport.compare.report.significance import LABELLED
from bertport.compare.report.tables import Table, overview, quality_tables, speed_tables
from bertport.measure.budget import HELD, UNDECIDED
from bertport.measure.quality.heads import HEADS
from bertport.measure.statistics import says_no_difference
from bertport.runtime.commands.progress import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertport.compare.measurements import DataInfo
    from bertport.compare.report.document import Report, Row, TextInfo, Verdict
    from bertport.measure.quality.results import HeadFigures
    from bertport.measure.quality.rows import Head

__all__ = ["Choice", "Section", "notes", "sections", "verdict_sentences"]

GIB = 2**30
TESTS = {"bootstrap": "paired bootstrap over texts", "mcnemar": "McNemar's exact test"}
"""Statistical tests in words, by the names that a `Difference` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Recommendation for one goal."""

    goal: str
    """For people."""
    row: str
    """Name of the row that is chosen."""
    reason: str
    """A sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section."""

    key: str
    """Its name for links and for the plots that belong to it."""
    title: str
    """Its heading."""
    paragraphs: tuple[str, ...] = ()
    """Text."""
    choices: tuple[Choice, ...] = ()
    """Recommendations."""
    points: tuple[str, ...] = ()
    """A list."""
    tables: tuple[Table, ...] = ()
    """Tables."""
    code: str = ""
    """A command."""


def sections(report: Report) -> list[Section]:
    """Lay the report out; a section without content is left out."""
    every = [
        _summary(report),
        _changes(report),
        Section(
            key="labelled",
            title="Labelled data",
            paragraphs=labelled_paragraphs(report),
            points=labelled_points(report),
            tables=labelled_tables(report),
        ),
        Section(
            key="quality",
            title="Quality",
            paragraphs=_quality_notes(report),
            tables=tuple(quality_tables(report)),
        ),
        Section(key="findings", title="Differences from fp32", tables=_findings(report)),
        Section(key="speed", title="Speed", tables=tuple(speed_tables(report))),
        Section(key="bias", title="Bias", paragraphs=bias_paragraphs(report), tables=bias_tables(report)),
        Section(key="sensitivity", title="Sensitivity of the layers", tables=_sensitivity(report)),
        Section(key="not-measured", title="What was not measured", points=report.not_measured),
        _method(report),
        Section(key="command", title="How to repeat it", code=report.command),
    ]
    return [
        section
        for section in every
        if section.paragraphs or section.choices or section.points or section.tables or section.code
    ]


def _summary(report: Report) -> Section:
    names = ", ".join(bundle.label for bundle in report.bundles)
    sizes = ", ".join(f"{bundle.architecture.parameters / 1e6:,.1f} M parameters" for bundle in report.bundles)
    state = "" if report.complete else " The run was interrupted: this is what it had measured."
    budget = report.settings.budget_in_words
    return Section(
        key="summary",
        title="Summary",
        paragraphs=(
            f"{names} ({sizes}) on {_machine(report)}. Accuracy budget: {budget}.{state}",
            *([_meaning(report)] if report.verdicts else []),
        ),
        choices=_choices(report),
        points=notes(report),
        tables=(overview(report),),
    )


def _meaning(report: Report) -> str:
    """Return the words of the accuracy budget, for readers who meet them here first."""
    heads = {name for bundle in report.bundles for name in bundle.heads}
    words = [head.meaning for head in HEADS.values() if head.name in heads and head.meaning]
    start = "fp32 is the model as it was trained; the others store it in fewer bits."
    return " ".join([start, *words])


def _choices(report: Report) -> tuple[Choice, ...]:
    several = len(report.bundles) > 1
    return tuple(
        Choice(
            goal=f"{advice.bundle}: {advice.goal.lower()}" if several else advice.goal,
            row=advice.choice,
            reason=sentence(advice.reason),
        )
        for advice in report.recommendations
        if advice.choice is not None
    )


def notes(report: Report) -> tuple[str, ...]:
    """Say once, for all goals, what the choices cost and save, which variants are out, and what is uncertain."""
    chosen = list(dict.fromkeys(advice.choice for advice in report.recommendations if advice.choice))
    rows = {row.name: row for row in report.rows}
    costs = [text for name in chosen for text in _costs_and_saves(report, rows[name]) if text]
    judged = [
        f"{'. '.join(verdict_sentences(judged))}."
        for judged in report.verdicts
        if judged.verdict != HELD or judged.row in chosen
    ]
    return (*_without_choice(report), *labelled_notes(report), *costs, *judged)


def _without_choice(report: Report) -> Iterator[str]:
    """Yield a sentence for each reason for which nothing is recommended."""
    missing: dict[tuple[str, str], list[str]] = {}
    for advice in report.recommendations:
        if advice.choice is None:
            missing.setdefault((advice.bundle, advice.reason), []).append(advice.goal)
    for (bundle, reason), goals in missing.items():
        every = len(goals) == sum(advice.bundle == bundle for advice in report.recommendations)
        yield f"{bundle}: {sentence(reason)}" if every else f"{bundle}, {', '.join(goals)}: {sentence(reason)}"


def verdict_sentences(judged: Verdict) -> tuple[str, ...]:
    """Return what is known of a variant and the budget: why it is broken, or undecided, or by what it is held."""
    start = f"Accuracy budget of {judged.row}: {judged.verdict}"
    if not judged.bounds:
        return (start if judged.verdict == HELD else f"{start}: nothing that it bounds was",)
    if judged.verdict == NOT_MEASURED:
        start += " in full"
    of_bounds = (bound.sentence for bound in judged.bounds if bound.verdict == judged.verdict)
    return start, *map(capitalized, judged.near if judged.verdict in {UNDECIDED, NOT_MEASURED} else of_bounds)


def _costs_and_saves(report: Report, row: Row) -> tuple[str, ...]:
    name = report.bundle(row.bundle).reference
    reference = next((row for row in report.rows if row.name == name), None)
    if reference is None or reference.name == row.name:
        return ()
    return _costs(row, report.settings.confidence), _saves(row, reference)


def _costs(row: Row, confidence: float) -> str:
    parts = [
        part
        for head in HEADS.values()
        if (figures := row.head(head.name))
        for part in _costs_of(head, figures, confidence)
    ]
    return f"What {row.name} costs: {'; '.join(parts)}." if parts else ""


def _costs_of(head: Head, figures: HeadFigures, confidence: float) -> Iterator[str]:
    """Yield the answers that change, and what becomes of the first labelled metric."""
    for column in head.reported:
        if column.cost:
            yield f"{figure(figures.estimate(column.key), _short(column.form))} {column.cost}"
    for test in head.tests[:1]:
        candidate, reference = (figures.estimate(key).value for key in (test.candidate, test.reference))
        difference = figures.difference(test.key)
        seen = "no difference seen" if says_no_difference(difference, confidence) else f"p = {difference.p_value:.2g}"
        form = _short(test.form)
        yield f"{test.title} {candidate:{form}}, fp32 {reference:{form}} ({seen})"


def _short(form: str) -> str:
    """Return a format for a sentence: a share has one decimal, and nothing has a plus sign."""
    return ".1%" if form.endswith("%") else form.removeprefix("+")


def _saves(row: Row, reference: Row) -> str:
    parts = []
    if row.size_bytes and reference.size_bytes:
        parts.append(f"{row.size_bytes / MB:,.1f} MB on disk instead of {reference.size_bytes / MB:,.1f}")
    one, other = row.speed.start, reference.speed.start
    if one and other:
        memory = [start.peak_bytes_of_one_answer for start in (one, other)]
        if all(memory):
            parts.append(f"{mebibytes(memory[0])} MiB of memory for one answer instead of {mebibytes(memory[1])}")
        seconds = [start.cold_start.value for start in (one, other)]
        answer = "it" if all(memory) else "the first answer"
        parts.append(f"{seconds[0]:.2f} s from the start of Python to {answer} instead of {seconds[1]:.2f}")
    return f"What {row.name} saves: {'; '.join(parts)}." if parts else ""


def _changes(report: Report) -> Section:
    against = report.against
    if against is None:
        return Section(key="against", title="Changes")
    return Section(
        key="against",
        title=f"Changes since {against.created}",
        points=(
            *([change.sentence for change in against.changes] or ["Nothing changed beyond noise."]),
            *(f"Not compared: {why}." for why in against.not_compared),
        ),
    )


def _quality_notes(report: Report) -> tuple[str, ...]:
    return tuple(
        f"{bundle.label}: no accuracy is shown, because the weights are {bundle.weights} ({bundle.weights_reason})."
        for bundle in report.bundles
        if bundle.weights != TRAINED
    )


def _findings(report: Report) -> tuple[Table, ...]:
    findings = [finding for finding in report.findings if not finding.id.startswith(LABELLED)]  # they have a table
    titles = {finding.id: finding.figure for finding in findings}
    names = list(dict.fromkeys(finding.row for finding in findings))
    if not titles:
        return ()
    cells = {(finding.id, finding.row): f"{finding.verdict}: {finding.size}" for finding in findings}
    table = Table(
        title="Variant by variant",
        caption="Each variant against fp32 on the same samples and in the same rounds, with the 95% interval "
        f"of the difference or ratio: {_tests_in_words(report)}. "
        "Seeing no difference does not prove that there is none.",
        head=("figure", *names),
        rows=tuple((title, *(cells.get((key, name), NONE) for name in names)) for key, title in titles.items()),
    )
    return (table,)


def _tests_in_words(report: Report) -> str:
    """Return which statistical test each kind of finding is of."""
    tested: dict[str, list[str]] = {}
    for head in HEADS.values():
        measured = [figures for row in report.rows if (figures := row.head(head.name))]
        for name in dict.fromkeys(figures.difference(test.key).test for test in head.tests for figures in measured):
            tested.setdefault(name, []).append(f"{head.name.upper()} head")
    probes = [probe for row in report.rows for probe in (row.bias, row.label_bias) if probe]
    for name in dict.fromkeys(probe.change.test for probe in probes if probe.change):
        tested.setdefault(name, []).append("bias probe")
    words = [f"{TESTS.get(name, name)} ({', '.join(subjects)})" for name, subjects in tested.items()]
    return ", ".join([*words, "bootstrap over rounds (speed)"])


def _sensitivity(report: Report) -> tuple[Table, ...]:
    return tuple(
        Table(
            title=f"{bundle.label}: {variant}",
            caption=f"KL (nats) that a layer costs when it alone is in low precision, of {table.damage:.5f} with every "
            "layer in low precision, and the milliseconds that low precision saves in it, as measured when the variant "
            f"was made ({table.machine}).",
            head=("layer", "KL, nats", "saved, ms", "in higher precision"),
            rows=tuple(
                (
                    layer.name,
                    f"{layer.damage:.5f}",
                    f"{layer.saved_ms:.2f}",
                    "yes" if layer.name in (table.higher_precision or ()) else "no",
                )
                for layer in table.costliest()
            ),
        )
        for bundle in report.bundles
        for variant, table in bundle.sensitivity.items()
    )


def _machine(report: Report) -> str:
    """Return the machine in one phrase."""
    machine = report.machine
    return f"{machine.cpu}, {machine.usable_cores:g} cores usable, instruction set {machine.instruction_set}"


def _method(report: Report) -> Section:
    """Return the section that says where and how it was measured."""
    settings = report.settings
    versions = {**report.machine.versions, **report.packages}
    threads = settings.threads or "ONNX Runtime's choice (one for each physical core)"
    points = (
        _where(report),
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.",
        (
            f"Settings: {settings.preset.name}; threads: {threads}; seed {settings.seed}; {settings.resamples:,} "
            f"bootstrap resamples; intervals of {settings.confidence:.0%}."
        ),
        _text(report.text, report.data),
        (
            "Each variant runs in a process of its own; the processes take turns, in alternating order, and rounds are "
            "what the intervals of speed resample. Intervals of quality resample texts."
        ),
        f"Measured {report.created} in {duration(report.seconds)}.",
    )
    return Section(key="method", title="Machine, versions, settings", points=points)


def _where(report: Report) -> str:
    machine = report.machine
    memory = f", {machine.memory_bytes / GIB:.0f} GiB of memory" if machine.memory_bytes else ""
    peak = f"{machine.matmul_gflops:.0f} GFLOP/s in fp32" if machine.matmul_gflops else "not measured"
    busy = machine.busy
    load = f" Processes that ran or waited, on average over the minute before: {busy:g}." if busy is not None else ""
    return (
        f"Machine: {_machine(report)}; {machine.physical_cores} physical cores{memory}; {machine.system}. "
        f"Matmul peak: {peak}.{load}"
    )


def _text(text: TextInfo, data: DataInfo | None) -> str:
    inputs = text.inputs
    least, median, most = (inputs.percentiles[level] for level in ("0", "50", "100"))
    cut = f", {inputs.cut} cut" if inputs.cut else ""
    data_of = f"the examples of {data.name}" if data else "them"
    return (
        f"Text: {text.name}, {text.texts:,} texts, SHA-256 {text.sha256[:16]}. Scenarios answer {inputs.texts} of "
        f"{data_of} (task {inputs.task}), {least:.0f} to {most:.0f} tokens long, median {median:.0f}{cut}. Real "
        f"tokens: {inputs.real_tokens:,}; padded to the longest of a batch of 8: "
        f"{inputs.padded_tokens_in_batches_of_8:,}; all padded to the longest: {inputs.padded_tokens_to_longest:,}."
    )
