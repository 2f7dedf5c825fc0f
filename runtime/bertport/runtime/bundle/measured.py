"""Measured speed: which of a bundle's variants were timed within a budget on CPUs of this class, the fastest first.

A class of CPUs is an instruction set, and whether there is one for products of bfloat16. Figures of another class say
nothing here: the order of two variants turns round between AVX2 and AMX.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.providers import cpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.runtime.bundle.manifest import Manifest, Variant

__all__ = ["MeasuredSpeed", "class_here", "fastest_measured", "speed_here"]

REFERENCE_PROVIDER = "cpu"
"""Short name of the provider under which fp32 is timed for ratios that compare."""
FASTEST = 1000.0
"""Ratio to fp32 from which on a record is no measurement of an encoder."""
UNBOUNDED = "none"
"""The budget in the record of a variant that was held to none, or broke it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSpeed:
    """Speed of a variant over fp32 on the provider `cpu`, as it was measured on this class of CPU."""

    variant: str
    """Name of the variant."""
    provider: str
    """Short name of the provider that it was measured on."""
    ratios: Mapping[str, tuple[float, float, float]]
    """Ratio and the ends of its interval, by shape, such as `1x128`."""

    @property
    def ratio(self) -> float:
        """Geometric mean over the shapes."""
        return math.exp(math.fsum(math.log(ratio) for ratio, _, _ in self.ratios.values()) / len(self.ratios))

    @property
    def spread(self) -> float:
        """Half of the interval of the mean's logarithm; the shapes were timed one by one, and are independent."""
        return math.hypot(*(math.log(high / low) / 2 for _, low, high in self.ratios.values())) / len(self.ratios)

    @property
    def pays(self) -> bool:
        """Whether it is faster than fp32, and at no shape slower beyond the noise."""
        return self.ratio > 1 and all(high > 1 for _, _, high in self.ratios.values())

    def ties(self, other: MeasuredSpeed) -> bool:
        """Return whether the difference from another is within the intervals of both."""
        return abs(math.log(self.ratio / other.ratio)) <= math.hypot(self.spread, other.spread)

    def __str__(self) -> str:
        """Return the variant, its provider and its ratio, for people."""
        return f"{self.variant} on {self.provider} {self.ratio:.2f}x"


def class_here() -> str:
    """Return the class of this CPU, for people."""
    here = cpu.cpu()
    return f"{here.instruction_set}, {'with' if here.bf16 else 'without'} bf16"


def speed_here(name: str, variant: Variant) -> MeasuredSpeed | None:
    """Return a variant's speed over fp32 on the CPU; None where it was not measured within a budget on this class.

    The record comes from a file: what is not as this version writes it counts as not measured.
    """
    record = variant.fidelity or {}
    provider = record.get("provider", REFERENCE_PROVIDER)
    if not isinstance(provider, str) or record.get("reference_provider", provider) != REFERENCE_PROVIDER:
        return None  # the ratio is one over fp32 on another device
    budget = record.get("budget")
    if not isinstance(budget, str) or budget == UNBOUNDED or not _measured_here(record.get("machine")):
        return None
    try:
        ratios = {
            str(shape): (float(speed["speedup"]), float(speed["low"]), float(speed["high"]))
            for shape, speed in record["speed"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    sound = all(0 < low <= ratio <= high < FASTEST for ratio, low, high in ratios.values())
    return MeasuredSpeed(variant=name, provider=provider, ratios=ratios) if ratios and sound else None


def fastest_measured(manifest: Manifest, speeds: list[MeasuredSpeed]) -> list[MeasuredSpeed]:
    """Return variants that pay, the fastest first, by the shapes that all of them were timed at.

    The bundle's default goes before what it ties with: nobody is given another variant for the noise.

    Args:
        manifest: of the bundle.
        speeds: those of the variants that can be taken.
    """
    common = set.intersection(*(set(speed.ratios) for speed in speeds)) if speeds else set()
    if not common:
        return []
    alike = [
        dataclasses.replace(speed, ratios={shape: speed.ratios[shape] for shape in sorted(common)})
        for speed in speeds
        if speed.pays
    ]
    alike.sort(key=lambda speed: -speed.ratio)
    default = next((speed for speed in alike if speed.variant == manifest.default_variant), None)
    if default is None:
        return alike
    others = [speed for speed in alike if speed is not default]
    place = next((index for index, speed in enumerate(alike) if speed.ties(default)), 0)
    return [*others[:place], default, *others[place:]]


def _measured_here(machine: Any) -> bool:  # noqa: ANN401 — whatever the manifest holds
    """Return whether a record's machine is of this CPU's class."""
    if not isinstance(machine, dict):
        return False
    flags, here = machine.get("flags"), cpu.cpu()
    names = {flag for flag in flags if isinstance(flag, str)} if isinstance(flags, list | tuple) else set()
    bf16 = not cpu.BF16.isdisjoint(names)
    return machine.get("instruction_set") == here.instruction_set and bf16 == here.bf16
