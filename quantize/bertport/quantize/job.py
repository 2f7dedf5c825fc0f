"""A job: what the variants of one command are made from and measured with, and what is refused before any is begun."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bertport.measure.budget import DROP, Budget, budget_for
from bertport.measure.quality import samples
from bertport.measure.quality.heads import HEADS, measured_rows
from bertport.quantize.calibration.ranges import DEFAULT, Calibration, method_named
from bertport.quantize.calibrator import Calibrator
from bertport.quantize.evaluation import REFERENCE, Measurement, open_reference
from bertport.quantize.graph.fusion import fuse, load_plain
from bertport.quantize.graph.rewrite import NARROWEST, linears
from bertport.quantize.isa import AUTO, saturates
from bertport.quantize.labelled import LabelledAccuracy, LabelledJudge, LabelledMaterial
from bertport.quantize.recipes.source import GraphSource
from bertport.quantize.recipes.table import RECIPES, Recipe
from bertport.quantize.search.evaluator import Evaluator
from bertport.quantize.texts import LEAST_POSITIONS, PAIRS, POSITIONS, read_evaluation
from bertport.quantize.weights.cache import WeightCache
from bertport.quantize.weights.calibrated import calibrate_weights
from bertport.runtime.bundle.select import BF16
from bertport.runtime.errors import BundleError, MissingDependencyError, ProviderError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import first_missing
from bertport.runtime.providers.checks import obstacle
from bertport.runtime.providers.cpu import cpu
from bertport.runtime.providers.table import PROVIDERS, onnxruntime

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Sequence

    import onnx

    from bertport.measure.labelled.options import DataChoice
    from bertport.measure.quality.results import Fidelity
    from bertport.quantize.deadline import Deadline, Progress
    from bertport.quantize.texts import Evaluation
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.bundle.manifest import Variant
    from bertport.runtime.bundle.measured import MeasuredSpeed
    from bertport.runtime.providers.cpu import InstructionSet
    from bertport.runtime.providers.table import Provider

__all__ = [
    "Job",
    "Options",
    "Outcome",
    "Refused",
    "calibrator_for",
    "check_packages",
    "measured_budget",
    "prepare",
    "provider_for",
    "read_data",
    "read_source",
    "refuse_idle_settings",
    "refuse_unmeasured",
    "start_job",
]

PACKAGES = ("onnxruntime", "onnx", "onnx_ir", "ml_dtypes", "sympy")
"""Modules that graphs are made with: those of the extra, and what ONNX Runtime's own tools import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A variant that was added."""

    name: str
    """Name of the variant."""
    variant: Variant
    """Its entry in the manifest."""
    measured: Measurement
    """Its accuracy, speed and size."""
    default: bool
    """Whether it is the bundle's default: what `load` takes on CPUs of a class that nothing was measured on."""
    labelled: LabelledAccuracy | None = None
    """Its accuracy on labelled data beside fp32's; None without such data."""
    taken: MeasuredSpeed | None = None
    """The fastest that was measured on this class of CPU, this or another: what `auto` takes here; None for none."""

    @property
    def first(self) -> bool:
        """Whether it is that one itself."""
        return self.taken is not None and self.taken.variant == self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A variant that was measured and not added."""

    name: str
    """Name of the variant."""
    measured: Measurement
    """Its accuracy, speed and size; no speed and no size where it was refused for its accuracy."""
    reason: str
    """The sentence of the error that follows."""
    labelled: LabelledAccuracy | None = None
    """Its accuracy on labelled data beside fp32's; None where none was measured."""


def _ignore(told: object) -> None:  # noqa: ARG001 — the signature
    return


def _silent(stage: str, done: int, count: int) -> None:  # noqa: ARG001 — the signature of progress
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options for making and measuring variants."""

    isa: str = AUTO
    """The instruction set to make them for, as in `isa.CHOICES`."""
    budget: Budget | None = None
    """Bounds on the distance from fp32; None for the default budget, limited to the heads that the bundle has."""
    text: str | os.PathLike[str] | None = None
    """Held-out text to measure accuracy on; None for the sample that ships."""
    calibration: str | os.PathLike[str] | None = None
    """Text for the search and for calibration; None for the other sample that ships."""
    calibrating: Calibration = DEFAULT
    """Options of calibration, for recipes that calibrate activations."""
    positions: int = POSITIONS
    """Masked positions to measure on, about."""
    pairs: int = PAIRS
    """Sentence pairs to measure on, at most."""
    labelled: DataChoice | None = None
    """Labelled data to measure on as well; None for none. Nothing is calibrated or searched for on it."""
    truncation: bool = False
    """Whether texts of the labelled data that are too long are cut, in place of being refused."""
    overwrite: bool = False
    """Whether a variant that is there may be made again."""
    force: bool = False
    """Whether one that is slower than fp32 here is written all the same, and marked, and one whose providers are not
    here is measured on the CPU."""
    time_limit: float | None = None
    """Seconds from `started` after which the search for a variant within the budget ends with the best it has found."""
    started: float = field(default_factory=time.monotonic)
    """Start of the command, by `time.monotonic`."""
    progress: Progress = _silent
    """Told of the stage, what is done of it, and how much there is."""
    told: Callable[[Outcome | Refused], None] = _ignore
    """Given each variant as soon as it was added or refused."""
    noted: Callable[[str], None] = _ignore
    """Given each sentence on what is odd about the labelled data, before anything long runs, and on a table of layers
    that is not saved."""

    def __post_init__(self) -> None:
        """Check the numbers and the method of calibration: a mistake must not cost a measurement.

        Raises:
            UsageError: for a time limit that is none, and a number of samples of which nothing can be measured.
            UnknownNameError: for an unknown method of calibration.
        """
        limit = self.time_limit
        if limit is not None and not (isinstance(limit, int | float) and 0 < limit < math.inf):
            raise UsageError(f"a time limit is a number of seconds above 0, not {limit!r}")
        calibrating = self.calibrating
        sizes = ("positions", self.positions, 1), ("pairs", self.pairs, 0), ("samples", calibrating.samples, 1)
        for name, size, least in sizes:
            if not isinstance(size, int) or isinstance(size, bool) or size < least:
                raise UsageError(f"{name} is a whole number from {least} up, not {excerpt(size)}")
        method_named(calibrating.method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Graph source and evaluator of the variants of one command."""

    options: Options
    """Options for making and measuring them."""
    evaluator: Evaluator
    """Measures candidates."""
    budget: Budget
    """Bounds on their distance from fp32."""
    source: GraphSource
    """Source of their graphs."""
    calibrator: Calibrator | None
    """Calibrates the graph for recipes that ask for it; None where none does."""


def start_job(
    recipes: Sequence[Recipe], bundle: Bundle, options: Options, *, isa: InstructionSet | None, deadline: Deadline
) -> Job:
    """Read what is needed for some recipes; what cannot be measured is refused before anything costly is done.

    Args:
        recipes: The recipes.
        bundle: The bundle.
        options: How to make and measure variants.
        isa: The instruction set to make them for; None for a CPU of which nothing is known.
        deadline: When the search for a variant within the budget ends.

    Raises:
        MissingDependencyError: without a package that makes graphs.
        BundleError, UsageError, MissingHeadError, InputTextError, PathError: as `quantize` says.
    """
    check_packages()
    material = read_data(bundle, options)
    evaluator = dataclasses.replace(prepare(bundle, options), deadline=deadline)
    budget = measured_budget(evaluator, options)
    _check_calibration(recipes, bundle, options, budget)
    if material:
        evaluator = dataclasses.replace(evaluator, judge=LabelledJudge.of(bundle, material, options.progress))
    source = read_source(recipes, bundle, isa, options)
    calibrator = calibrator_for(recipes, bundle, source, options)
    return Job(options=options, evaluator=evaluator, budget=budget, source=source, calibrator=calibrator)


def check_packages() -> None:
    """See that what makes graphs is installed, before anything is measured.

    Raises:
        MissingDependencyError: when it is not.
    """
    if missing := first_missing(PACKAGES):
        raise MissingDependencyError("quantize", missing, "cpu,quantize")


def read_data(bundle: Bundle, options: Options) -> LabelledMaterial | None:
    """Return the labelled data of a command, read and checked; None where it has none.

    Raises:
        UsageError: for a bound on a drop without data, and as `LabelledMaterial.read` says.
        MissingHeadError, UnknownNameError, InputTextError, PathError, MissingDependencyError: as
            `bertport.measure.labelled.data.read_labelled` says.
    """
    drops = options.budget.drops if options.budget else {}
    if options.labelled is None or options.labelled.data is None:
        if drops:
            raise UsageError(
                f"the budget bounds {next(iter(drops))}{DROP}, which is measured on labelled data: name the file with "
                "--data, or leave the bound out"
            )
        return None
    options.progress(f"reading {options.labelled.data}", 0, 0)
    material = LabelledMaterial.read(
        options.labelled, bundle, drops, calibration=options.calibration, truncation=options.truncation
    )
    for note in material.notes:
        options.noted(note)
    return material


def measured_budget(evaluator: Evaluator, options: Options) -> Budget:
    """Return the budget that variants of a bundle are held to.

    Raises:
        MissingHeadError: for a bound that was asked for on a head that is not there.
        UsageError: for one on pairs where there are none to measure on.
    """
    heads = set(measured_rows(evaluator.bundle.manifest.heads))
    if not any(sample.kind in samples.OF_TWO for sample in evaluator.evaluation.samples):
        heads = _without_pairs(heads, options, f"{evaluator.evaluation.name} makes no pair of sentences")
    return budget_for(options.budget, heads)


def _without_pairs(heads: Collection[str], options: Options, reason: str) -> set[str]:
    """Return the heads that are measured without pairs of sentences.

    Raises:
        UsageError: for a bound that was asked for on one of the others.
    """
    paired = {name for name in heads if HEADS[name].samples <= samples.OF_TWO}
    for limit in (limit for name in sorted(paired) for limit in HEADS[name].limits):
        if options.budget is not None and limit.name in options.budget.bounds:
            raise UsageError(
                f"the budget bounds {limit.meaning} ({limit.name}), and {reason} to measure them on: give more "
                "--pairs, or text of several sentences a paragraph, or leave the bound out"
            )
    return set(heads) - paired


def _check_calibration(recipes: Iterable[Recipe], bundle: Bundle, options: Options, budget: Budget) -> None:
    """Read the calibration text, if only its beginning, before anything is measured: a mistake must not cost more."""
    bounded = budget.bounds or budget.drops
    if any(row.calibrates_weights or row.scheme or (bounded and row.emitter) for row in recipes):
        # Two pairs are the least of which strangers are asked: sentences of one text alone are refused here already.
        read_evaluation(bundle, options.calibration, sample="calibration", positions=LEAST_POSITIONS, pairs=2)


def prepare(bundle: Bundle, options: Options) -> Evaluator:
    """Read the held-out text and open the fp32 graph; what cannot be measured is refused before."""
    _check_source(bundle)
    heads = set(measured_rows(bundle.manifest.heads))
    budget_for(options.budget, heads if options.pairs else _without_pairs(heads, options, "--pairs 0 leaves none"))
    evaluation = read_evaluation(
        bundle, options.text, sample="evaluation", positions=options.positions, pairs=options.pairs
    )
    return Evaluator(
        bundle=bundle,
        reference=open_reference(bundle),
        evaluation=evaluation,
        text=options.text,
        calibration=options.calibration,
        progress=options.progress,
    )


def read_source(
    recipes: Sequence[Recipe], bundle: Bundle, instruction_set: InstructionSet | None, options: Options
) -> GraphSource:
    """Read the fp32 serving graph, as it is and fused, and calibrate 8-bit weights where a recipe takes them.

    Both are empty where every recipe shares fp32's.
    """
    if all(recipe.shares_fp32 for recipe in recipes):
        import onnx

        empty, weights = onnx.ModelProto(), WeightCache(saturating=saturates(instruction_set))
        return GraphSource(plain=empty, fused=empty, instruction_set=instruction_set, weights=weights)
    options.progress("fusing the fp32 graph", 0, 0)
    with bundle.opening(REFERENCE) as path:
        plain = load_plain(path)
        _refuse_narrow(recipes, bundle, plain)
        gc.collect()  # onnx_ir's graphs refer to themselves, and would hold weights that were replaced
        keeps_plain = any(recipe.takes_plain for recipe in recipes)
        fused = fuse(load_plain(path) if keeps_plain else plain, bundle.manifest.architecture)
    saturating = saturates(instruction_set)
    weights = (
        calibrate_weights(bundle, fused, options.calibration, saturating=saturating, progress=options.progress)
        if any(recipe.calibrates_weights for recipe in recipes)
        else WeightCache(saturating=saturating)
    )
    plain = plain if keeps_plain else fused
    return GraphSource(plain=plain, fused=fused, instruction_set=instruction_set, weights=weights)


def _refuse_narrow(recipes: Iterable[Recipe], bundle: Bundle, plain: onnx.ModelProto) -> None:
    """Refuse a graph of which a recipe would change nothing.

    Raises:
        UsageError: for such a graph.
    """
    idle = [row.name for row in recipes if row.emitter]
    if idle and not linears(plain):
        raise UsageError(
            f"no matrix of the model at {bundle.path} has {NARROWEST} rows and columns, below which 8 bits save "
            f"nothing, so {idle[0]} would leave it as it is: use the variant {REFERENCE!r}"
        )


def calibrator_for(
    recipes: Iterable[Recipe], bundle: Bundle, source: GraphSource, options: Options
) -> Calibrator | None:
    """Return what calibrates the graph, or None where no recipe asks for it; it reads its text at once."""
    if not any(row.scheme for row in recipes):
        return None
    how = options.calibrating
    return Calibrator(bundle, source.plain, how, text=options.calibration, progress=options.progress)


def refuse_idle_settings(recipes: Iterable[Recipe], options: Options) -> None:
    """Refuse settings of the calibration where nothing is calibrated.

    Raises:
        UsageError: for such a setting.
    """
    idle = [
        setting.name
        for setting in dataclasses.fields(Calibration)
        if getattr(options.calibrating, setting.name) != getattr(DEFAULT, setting.name)
    ]
    if idle and not any(row.scheme for row in recipes):
        names = ", ".join(row.name for row in RECIPES.values() if row.scheme)
        raise UsageError(
            f"a calibration {' and '.join(idle)} was set, but none of the recipes asked for calibrates activations: "
            f"leave it out, or ask for one that does ({names})"
        )


def refuse_unmeasured(budget: Budget, accuracy: Fidelity, evaluation: Evaluation, options: Options) -> None:
    """Refuse a bound that was asked for where its figure is counted on no sample: it would count as held.

    Raises:
        UsageError: for such a bound.
    """
    idle = budget.of_nothing(accuracy)
    if idle and options.budget is not None:
        raise UsageError(
            f"the budget bounds {idle[0].meaning} ({idle[0].name}), and {evaluation.name} gives none to measure it on: "
            "give more text or --pairs, or leave the bound out"
        )


def provider_for(recipe: Recipe, *, force: bool = False) -> Provider:
    """Return the first of a recipe's providers that works here; by force the CPU where none does.

    Raises:
        ProviderError: when none does. On the CPU one that shares fp32's graph would be fp32: it is not forced.
    """
    if recipe.shares_fp32:
        return _computing(recipe)
    built_in = onnxruntime().get_available_providers()
    for row in map(PROVIDERS.__getitem__, recipe.providers):
        # A wheel lists what it was built with, whether the libraries and the device for it are here or not.
        if (row.plugin is not None or row.ort in built_in) and obstacle(row, recipe.precision) is None:
            return row
    if force:
        return PROVIDERS["cpu"]
    *others, last = recipe.providers
    named = f"{', '.join(others)} and {last}" if others else last
    raise ProviderError(
        f"{recipe.name} is for {named}, which this machine does not have, so it cannot be loaded and timed here: "
        "use a machine that does, or pass --force to have it measured on the CPU only"
    )


def _computing(recipe: Recipe) -> Provider:
    """Return the provider that computes the fp32 graph in a recipe's precision.

    Raises:
        ProviderError: when the CPU does not, or the provider does not start here.
    """
    [name] = recipe.providers
    here, row = cpu(), PROVIDERS[name]
    if recipe.precision == BF16 and not here.bf16:  # no package would help
        raise ProviderError(
            f"{recipe.name} needs a CPU that multiplies bfloat16 (AVX512-BF16 or AMX-BF16), and {here.model} does not, "
            "so it would be slower than fp32: choose another recipe"
        )
    reason = obstacle(row, recipe.precision)
    if reason is not None:
        raise ProviderError(f"{recipe.name} needs the provider {name!r}, which does not start here: {reason}")
    return row


def _check_source(bundle: Bundle) -> None:
    variant = bundle.manifest.variants.get(REFERENCE)
    if variant is None or variant.kind != "serving":
        raise BundleError(
            f"the bundle at {bundle.path} has no fp32 serving graph to quantize: take the bundle that it was packed "
            "from, or export the checkpoint again"
        )
