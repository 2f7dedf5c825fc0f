"""`bertport quantize`: the command."""

from __future__ import annotations

import dataclasses
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from bertport.measure.budget import DROP, NO_BUDGET, Budget, default_budget, default_without_heads
from bertport.measure.interrupts import explained, stoppable
from bertport.measure.labelled.options import data_options
from bertport.measure.quality.heads import known_limits
from bertport.quantize import render
from bertport.quantize.calibration.ranges import DEFAULT_METHOD, METHODS, SAMPLES, Calibration
from bertport.quantize.deadline import parse_duration
from bertport.quantize.isa import AUTO, CHOICES
from bertport.quantize.recipes.table import RECIPES, Recipe
from bertport.runtime.bundle.select import CPU
from bertport.runtime.commands.options import truncation
from bertport.runtime.commands.output import show, show_json
from bertport.runtime.commands.progress import Progress
from bertport.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bertport.measure.labelled.options import DataChoice
    from bertport.quantize.job import Outcome, Refused
    from bertport.quantize.search.sensitivity import Layers

__all__ = ["quantize"]

KEYS = {"int16_activations": "halfway", "calibrates_weights": "fits_weights", "scheme": "form"}
"""The keys of `--list --json` that are not the field's name in `Recipe`: programs have read them since 0.1.0."""


@click.command()
@click.argument("bundle", required=False, type=click.Path())
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="NAME",
    help=f"{', '.join(RECIPES)}; may be repeated.  [default: {next(iter(RECIPES))}]",
)
@click.option(
    "--isa",
    type=click.Choice(CHOICES),
    default=AUTO,
    show_default=True,
    help="CPU instruction set to make variants for; auto is this machine's.",
)
@click.option(
    "--accuracy-budget",
    "budget",
    metavar="LIMITS",
    help=f"How far from fp32 a variant may be: {', '.join(known_limits())}, or {NO_BUDGET}; with --data, how much a "
    f"metric may drop, in its own unit: accuracy{DROP}=0.005 is half a point.  "
    f"[default: {default_budget(', ')}, as far as the bundle has the heads; {default_without_heads()} without heads]",
)
@click.option(
    "--time-limit",
    metavar="DURATION",
    help="End the search for a variant within the budget after 10m, 90s or 1h30m, with the best it has found.",
)
@data_options()
@truncation
@click.option("--text", type=click.Path(), help="Held-out text to measure on.  [default: the sample that ships]")
@click.option(
    "--calibration",
    "--calibration-text",
    "calibration",
    type=click.Path(),
    metavar="FILE",
    help="Text to calibrate and to search on.  [default: the other sample that ships]",
)
@click.option(
    "--calibration-method",
    "method",
    type=click.Choice(tuple(METHODS)),
    default=DEFAULT_METHOD,
    show_default=True,
    help="How to choose the range of activations that 8 bits cover.",
)
@click.option(
    "--calibration-samples",
    "samples",
    type=click.IntRange(1),
    default=SAMPLES,
    show_default=True,
    help="Texts and pairs to calibrate on.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1),
    metavar="ALPHA",
    expose_value=False,
    # Without a help text of its own: click 8.3 puts no space between the two.
    deprecated="outlier suppression, which is always on, takes the place of SmoothQuant; the option does nothing",
)
@click.option(
    "--positions", type=click.IntRange(1), default=2000, show_default=True, help="Masked positions to measure, about."
)
@click.option(
    "--pairs", type=click.IntRange(0), default=2000, show_default=True, help="Sentence pairs to measure, at most."
)
@click.option("--overwrite", is_flag=True, help="Make a variant again that the bundle has already.")
@click.option("--force", is_flag=True, help="Add a variant that is slower than fp32 here, marked as such.")
@click.option("--remeasure", is_flag=True, help="Measure the variants that BUNDLE has, again, on this machine.")
@click.option("--explain", is_flag=True, help="Print what each layer costs in lower precision, and what it saves.")
@click.option("--list", "list_recipes", is_flag=True, help="Print the table of recipes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def quantize(  # noqa: PLR0913 — one parameter per option
    *,
    bundle: str | None,
    recipes: tuple[str, ...],
    isa: str,
    budget: str | None,
    time_limit: str | None,
    text: str | None,
    calibration: str | None,
    method: str,
    samples: int,
    positions: int,
    pairs: int,
    labelled: DataChoice,
    truncation: bool,
    overwrite: bool,
    force: bool,
    remeasure: bool,
    explain: bool,
    list_recipes: bool,
    as_json: bool,
) -> None:
    """Add INT8 variants to BUNDLE, each measured against fp32, head by head, on this machine.

    A variant that breaks its accuracy budget (exit code 1) or is slower than fp32 (3) is not added. Needs
    the extras cpu and quantize.
    """
    started = time.monotonic()
    if list_recipes:
        rows = [_values(recipe) for recipe in RECIPES.values()]
        _answer(rows, render.recipes, as_json=as_json)
        return
    if bundle is None:
        raise UsageError("no bundle was given: bertport quantize BUNDLE, or --list for the recipes")
    if explain and remeasure:
        raise UsageError("--explain ranks layers and --remeasure measures variants: give one of the two")
    labelled.refuse_idle(truncation)
    if explain and labelled.data is not None:
        raise UsageError("--explain ranks layers, and measures nothing on labelled data: leave --data out")
    from bertport.quantize.job import Options
    from bertport.quantize.quantizer import quantize as run_quantize
    from bertport.quantize.remeasure import explain as run_explain
    from bertport.quantize.remeasure import remeasure as run_remeasure

    results: list[Outcome | Refused] = []
    tables: dict[str, tuple[Layers, list[str]]] = {}
    progress = Progress(sys.stderr)
    options = Options(
        isa=isa,
        budget=None if budget is None else Budget.parse(budget),
        time_limit=None if time_limit is None else parse_duration(time_limit),
        started=started,
        text=text,
        calibration=calibration,
        calibrating=Calibration(method=method, samples=samples),
        positions=positions,
        pairs=pairs,
        labelled=labelled,
        truncation=truncation,
        overwrite=overwrite,
        force=force,
        progress=progress.stage,
        told=results.append,
        noted=progress.note,
    )
    try:
        with stoppable(), _explained(bundle), progress:
            if explain:
                for name in recipes or [next(iter(RECIPES))]:
                    tables[name] = run_explain(bundle, name, options=options)
            else:
                (run_remeasure if remeasure else run_quantize)(bundle, recipes, options=options)
    finally:
        if results:
            _show_results(results, as_json=as_json)
        _show_tables(tables, as_json=as_json)


def _explained(bundle: str) -> AbstractContextManager[None]:
    """Turn an interruption or a lack of memory into an error that says how the bundle was left."""
    return explained(
        interrupted=f"interrupted: what was finished is in the bundle at {bundle}, and nothing else was changed",
        out_of_memory=f"out of memory: what was finished is in the bundle at {bundle}, and nothing else was changed; "
        "quantizing takes about five times the fp32 graph's size: free some memory, or use a larger machine",
    )


def _show_results(results: Sequence[Outcome | Refused], *, as_json: bool) -> None:
    """Show what was added, and what was measured of what was refused: the error that follows says why."""
    from bertport.quantize.job import Outcome

    if as_json:
        show_json(
            {
                result.name: dataclasses.asdict(result.variant)
                if isinstance(result, Outcome)
                else {"refused": result.reason, "fidelity": result.measured.to_json()}
                | ({"task_metrics": result.labelled.record()} if result.labelled else {})
                for result in results
            },
            indent=2,
        )
        return
    for result in results:
        show(render.figures(result.name, result.measured))
        if result.labelled:
            show(render.labelled(result.name, result.labelled))
        if not isinstance(result, Outcome):
            continue
        higher = (result.variant.fidelity or {}).get("higher_precision", [])
        if higher:
            kind = (result.variant.fidelity or {}).get("higher_is")
            show(f"in higher precision ({kind}) to meet the budget: {', '.join(higher)}")
        if result.default:
            show(f"{result.name} is the bundle's default on the CPU")
        if result.taken and result.first != result.default:
            variant, provider = result.taken.variant, result.taken.provider
            where = "" if provider == CPU else f" where {provider} is installed"
            show(f"auto takes {variant} on this class of CPU{where}")


def _show_tables(tables: Mapping[str, tuple[Layers, list[str]]], *, as_json: bool) -> None:
    """Show tables of layers by recipe; as JSON those of several recipes are one object, by name."""
    values = {name: layers.to_json() | {"higher_precision": higher} for name, (layers, higher) in tables.items()}
    if as_json and len(values) > 1:
        show_json(values, indent=2)
        return
    for name, (layers, higher) in tables.items():
        _answer(values[name], partial(render.layers, name, layers, higher), as_json=as_json)


def _answer(value: object, text: Callable[[], str], *, as_json: bool) -> None:
    if as_json:
        show_json(value, indent=2)
    else:
        show(text())


def _values(recipe: Recipe) -> dict[str, object]:
    """Return a row of the table without its functions."""
    values = {KEYS.get(field.name, field.name): getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    values["form"] = recipe.scheme.name if recipe.scheme else None
    return {key: value for key, value in values.items() if not callable(value)}
