"""`bertport compare`: the command."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from bertport.compare.codec import encode
from bertport.compare.presets import PRESETS
from bertport.measure.budget import default_budget, parse_budget
from bertport.measure.interrupts import InterruptionError
from bertport.measure.labelled.options import data_options
from bertport.measure.quality.heads import known_limits
from bertport.measure.speed.baselines import BASELINES
from bertport.runtime.commands import completion
from bertport.runtime.commands.options import LIBRARY, truncation
from bertport.runtime.commands.output import keep_apart, show, show_json
from bertport.runtime.errors import BertportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.compare.report.document import Report
    from bertport.measure.labelled.options import DataChoice

__all__ = ["RegressionError", "compare"]

READ_WITH_FROM = frozenset({"output", "source", "against", "tolerance", "budget", "as_json"})
"""Parameters that a report which is there is read with."""


class RegressionError(BertportError):
    """Something got worse than the old report, beyond the tolerance and beyond noise."""

    exit_code = 3


@click.command()
@click.argument("bundles", nargs=-1, type=click.Path(), metavar="[BUNDLE]...")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Directory for the report.")
@click.option(
    "--effort",
    type=click.Choice(list(PRESETS)),
    default="full",
    show_default=True,
    help="Number of samples and rounds: fewer make wider intervals.",
)
@click.option("--quick", is_flag=True, help="The same as --effort quick: about a minute for a small model.")
@click.option("--text", type=click.Path(), help="Your text: a paragraph a line, or JSON lines.  [default: a sample]")
@data_options()
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Only this metric; may be repeated, the first is plotted.  [default: the task's]",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the data's first N examples.  [default: all]")
@truncation
@click.option("--templates", type=click.Path(), help="Templates of the bias probe, JSON.  [default: those that ship]")
@click.option(
    "--baseline", "baselines", type=click.Choice(BASELINES), multiple=True, help="Measure this library in the same run."
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="Only this variant and fp32; may be repeated.",
    shell_complete=completion.variants,
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="Only this provider; may be repeated.",
    shell_complete=completion.providers,
)
@click.option("--provider-library", type=click.Path(), metavar="PATH", help=LIBRARY)
@click.option("--threads", type=click.IntRange(1), help="Threads within an operator.  [default: ONNX Runtime's choice]")
@click.option(
    "--accuracy-budget",
    "budget",
    metavar="LIMITS",
    help=f"How far from fp32 a recommended variant may be: {', '.join(known_limits())}, or none.  "
    f"[default: {default_budget(', ')}]",
)
@click.option("--random-weights", is_flag=True, help="The weights are random: no accuracy, no recommendation.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of masks, inputs and resamples."
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted comparison in the output directory.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Measure nothing: render this report.json.")
@click.option("--against", type=click.Path(path_type=Path), help="Say what changed since this report.json.")
@click.option(
    "--tolerance",
    default="0.05",
    show_default=True,
    metavar="X",
    help="With --against: exit with code 3 if a figure is worse by more than this share and noise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def compare(  # noqa: PLR0913 — one parameter per option
    *,
    bundles: tuple[str, ...],
    output: Path,
    effort: str,
    quick: bool,
    text: str | None,
    labelled: DataChoice,
    metrics: tuple[str, ...],
    limit: int | None,
    truncation: bool,
    templates: str | None,
    baselines: tuple[str, ...],
    variants: tuple[str, ...],
    providers: tuple[str, ...],
    provider_library: str | None,
    threads: int | None,
    budget: str | None,
    random_weights: bool,
    seed: int,
    resume: bool,
    source: Path | None,
    against: Path | None,
    tolerance: str,
    as_json: bool,
) -> None:
    """Measure variants side by side, quality and speed, and write a report.

    OUTPUT gets report.html, report.md, report.json and report.csv. Without BUNDLE, the embedded default. Needs
    the extras cpu and compare; --data needs evaluate as well, --baseline transformers export, --baseline optimum
    export-optimum.
    """
    from bertport.compare.report.assembly import assemble, conclude
    from bertport.compare.report.document import read_report
    from bertport.compare.report.files import REPORT_FILES, write_report
    from bertport.compare.report.html import check_packages
    from bertport.compare.report.regressions import differences, parse_tolerance
    from bertport.compare.resume import exclusive_output

    check_packages()
    labelled.refuse_idle(metrics, limit, truncation)
    bounds = None if budget is None else parse_budget(budget)
    limits = parse_tolerance(tolerance)
    old = read_report(against) if against else None
    if source is not None:
        _refuse_measuring(bundles)
        report = conclude(read_report(source), bounds)
    for name in REPORT_FILES:
        keep_apart(output / name, (text, templates, labelled.data), bundles)
    with exclusive_output(output):
        journal = None
        if source is None:
            from bertport.compare.options import Options
            from bertport.compare.runner import Comparison
            from bertport.runtime.commands.progress import Progress

            options = Options(
                bundles=bundles,
                output=output,
                effort=PRESETS["quick" if quick else effort],
                text=text,
                labelled=labelled if labelled.data else None,
                metrics=metrics,
                limit=limit,
                truncation=truncation,
                templates=templates,
                baselines=baselines,
                variants=variants,
                providers=providers,
                provider_library=provider_library,
                threads=threads,
                budget=default_budget() if budget is None else budget,
                random_weights=random_weights,
                seed=seed,
                resume=resume,
                command=shlex.join(["bertport", *sys.argv[1:]]),
            )
            comparison = Comparison(options, Progress(sys.stderr))
            report = assemble(comparison.run())
            journal = comparison.journal
        report = dataclasses.replace(report, against=differences(old, report, limits) if old else None)
        paths = write_report(report, output)
        if journal and report.complete:
            journal.remove()
    if as_json:
        show_json(encode(report), indent=1)
    else:
        show(_summary(report, paths))
    _finish(report, output)


def _refuse_measuring(bundles: tuple[str, ...]) -> None:
    """Refuse what says how to measure beside --from, which measures nothing.

    Raises:
        UsageError: for bundles, and for options that nothing reads.
    """
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
        and parameter.name not in READ_WITH_FROM
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if bundles or given:
        idle = ", ".join([*(["BUNDLE"] if bundles else []), *given])
        raise UsageError(f"--from takes a report as it is: leave {idle} out")


def _summary(report: Report, paths: Mapping[str, Path]) -> str:
    from bertport.compare.report.sections import verdict_sentences
    from bertport.compare.report.tables import overview
    from bertport.runtime.commands.render import table

    glance = overview(report)
    parts = [table([glance.head, *glance.rows], right=set(range(1, len(glance.head))))]
    parts += [f"{advice.bundle}: {advice.goal.lower()}: {advice.choice or 'none'}" for advice in report.recommendations]
    parts += ["\n  ".join(verdict_sentences(judged)) for judged in report.verdicts]
    if report.against:
        parts += [change.sentence for change in report.against.changes] or ["nothing changed beyond noise"]
    parts.append("written: " + ", ".join(str(path) for path in paths.values()))
    return "\n".join(parts)


def _finish(report: Report, output: Path) -> None:
    """End with the exit code that programs look at."""
    if not report.complete:
        raise InterruptionError(f"interrupted: the report in {output} holds what was measured; --resume goes on")
    regressions = [change.sentence for change in report.against.changes if change.regression] if report.against else []
    if regressions:
        count = f"{len(regressions)} regression{'s' if len(regressions) > 1 else ''}"
        raise RegressionError(f"{count} beyond the tolerance: {'; '.join(regressions)}")
    failures = [row.failed for row in report.rows if row.failed]
    if len(failures) == len(report.rows):
        raise UsageError(f"nothing could be measured: {'; '.join(failures)}")
