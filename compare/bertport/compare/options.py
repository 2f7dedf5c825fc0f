"""Options of a comparison, checked as soon as they are given: a mistake must not cost a measurement."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from bertport.compare.presets import FULL, Preset, check_whole, preset_named
from bertport.measure.budget import default_budget, parse_budget
from bertport.measure.labelled.options import DataChoice
from bertport.measure.speed.baselines import BASELINES, check_baseline
from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt

__all__ = ["Options"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a comparison: what to compare, and how.

    Raises:
        UsageError: for a value of the wrong type, or out of range.
        UnknownNameError: for an unknown effort, baseline or limit of the budget.
        MissingDependencyError: for a baseline whose packages are not installed.
    """

    bundles: tuple[PathLike, ...] = ()
    """Directories of bundles; the embedded default where there are none."""
    output: PathLike
    """Directory of the report."""
    effort: Preset | str = FULL
    """Preset, or its name: a row of `bertport.compare.presets.PRESETS`, which says how much to measure."""
    text: PathLike | None = None
    """File of texts; None for the sample that ships."""
    templates: PathLike | None = None
    """File of the bias probe; None for the one that ships."""
    baselines: tuple[str, ...] = ()
    """Other libraries to measure in the same run."""
    variants: tuple[str, ...] = ()
    """Variants to measure; all serving ones where there are none."""
    providers: tuple[str, ...] = ()
    """Providers to measure on; those that work here where there are none."""
    provider_library: PathLike | None = None
    """Plugin that holds those of them that do not come with ONNX Runtime; None for those of their packages."""
    threads: int | None = None
    """Threads within an operator."""
    budget: str = field(default_factory=default_budget)
    """Accuracy budget of the recommendation, as `bertport.measure.budget` reads it."""
    labelled: DataChoice | None = None
    """Labelled data to measure rows on; None for none."""
    metrics: tuple[str, ...] = ()
    """Metrics on it, the first of which is plotted; all of its task where there are none."""
    limit: int | None = None
    """Only so many of its examples, the first; None for all."""
    truncation: bool = False
    """Cut examples that are too long instead of refusing them."""
    random_weights: bool = False
    """Said by the user: the weights are random, so accuracy means nothing."""
    seed: int = 0
    """Random seed of masks, pairs, inputs, arrivals and resamples."""
    resume: bool = False
    """Go on with what an interrupted run left in the output."""
    command: str = ""
    """The command line, for the report."""

    def __post_init__(self) -> None:
        """Check every value, and put each into the type that the rest of the program reads."""
        settle = object.__setattr__  # the class is frozen for everybody else
        settle(
            self,
            "bundles",
            tuple(str(path) for path in _several("bundles", self.bundles, (str, os.PathLike), "directories")),
        )
        settle(self, "output", Path(_path("output", self.output)))
        settle(self, "effort", preset_named(self.effort))
        for name in ("text", "templates", "provider_library"):
            value = getattr(self, name)
            settle(self, name, None if value is None else str(_path(name, value)))
        for name in ("baselines", "variants", "providers", "metrics"):
            settle(self, name, _several(name, getattr(self, name), (str,), "names"))
        for name in self.baselines:
            if name not in BASELINES:
                raise UnknownNameError("baseline", name, BASELINES)
            check_baseline(name)
        for name in ("threads", "limit"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        parse_budget(self.budget)
        check_whole("seed", self.seed, 0)
        _check_choice(self.labelled)
        for name in ("random_weights", "resume", "truncation"):
            if not isinstance(value := getattr(self, name), bool):
                raise UsageError(f"{name} is True or False, not {excerpt(value)}")
        if not isinstance(self.command, str):
            raise UsageError(f"command is the text of a command line, not {excerpt(self.command)}")

    @property
    def sizes(self) -> Preset:
        """The preset of the effort."""
        return preset_named(self.effort)


def _check_choice(labelled: object) -> None:
    if not isinstance(labelled, DataChoice | None):
        raise UsageError(f"labelled is a DataChoice or None, not {excerpt(labelled)}")


def _several(name: str, value: object, kinds: tuple[type, ...], what: str) -> tuple[str, ...]:
    """Read a sequence; a single text is one by type, and never what was meant."""
    if isinstance(value, list | tuple) and all(isinstance(item, kinds) for item in value):
        return tuple(value)
    one = f": write ({excerpt(value, 40)},) for a single one" if isinstance(value, kinds) else ""
    raise UsageError(f"{name} is a tuple of {what}, not {excerpt(value)}{one}")


def _path(name: str, value: object) -> PathLike:
    if isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str) and os.fspath(value):
        return value
    raise UsageError(f"{name} is a path, not {excerpt(value)}")
