"""Selection of a variant for a provider: what variants require is matched against what providers have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.runtime.bundle.measured import class_here, fastest_measured, speed_here
from bertport.runtime.errors import ProviderError, UnknownNameError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.providers import cpu
from bertport.runtime.providers.table import AUTO, PROVIDERS, row_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bertport.runtime.bundle.manifest import Manifest, Requires
    from bertport.runtime.bundle.measured import MeasuredSpeed
    from bertport.runtime.providers.table import Provider

__all__ = [
    "BF16",
    "CPU",
    "choices",
    "fastest_here",
    "overflows",
    "preferred",
    "providers_for",
    "reason",
    "suits",
    "without_gpu",
]

CPU = "cpu"
BF16 = "bf16"
"""Precision of matrix products in bfloat16, as manifests name it."""
WHOLE = "take the bundle that it was packed from, or export the checkpoint again"
"""Advice on a bundle that lacks fp32: that variant runs everywhere."""


def without_gpu(provider: str, library: str | None) -> str:
    """Return the provider to load where no GPU is kept for the model: for `auto` it is `cpu`.

    `auto` takes any GPU that it sees, and Ray does not hide a node's GPUs from a process that asks for none.

    Args:
        provider: the name that was asked for; any other than `auto` stays.
        library: path of a plugin that holds it: there `auto` means the library's provider, and stays.
    """
    return CPU if provider == AUTO and library is None else provider


def suits(requires: Requires, provider: str | Provider) -> bool:
    """Return whether a provider, by its name in the table or its row, has all that a variant requires.

    Whatever this machine is: that the CPU has it is another question.
    """
    known = row_of(provider)
    return (
        requires.precision in known.precisions
        and known.operator_domains.issuperset(requires.operator_domains)
        and known.dtypes.issuperset(requires.dtypes)
    )


def providers_for(requires: Requires) -> list[str]:
    """Return the providers that a variant is for: the CPU before those that have to be installed for."""
    return sorted((name for name in PROVIDERS if suits(requires, name)), key=lambda name: name != CPU)


def choices(
    manifest: Manifest, variant: str | None, provider: str, candidates: Sequence[Provider]
) -> list[tuple[str, Provider]]:
    """Return pairs of variant and provider, in the order to try.

    Without a variant, what was measured on this class of CPU goes before what a row prefers.

    Args:
        manifest: of the bundle.
        variant: the variant asked for; None for the one that suits the provider.
        provider: the provider asked for, or `auto`.
        candidates: the provider's row, or under `auto` those worth trying, best first.

    Raises:
        UnknownNameError: for a variant that the bundle does not have.
        ProviderError: when nothing in the bundle is for these providers.
    """
    if variant is not None and variant not in manifest.variants:
        raise UnknownNameError("variant", variant, manifest.variants)
    pairs = []
    for candidate in candidates:
        name = preferred(manifest, candidate) if variant is None else variant
        if variant is not None:
            _refuse_unfit(manifest, variant, candidate)
        if name is not None and suits(manifest.variants[name].requires, candidate):
            pairs.append((name, candidate))
    if variant is None:
        pairs = _by_measurement(manifest, provider, pairs, candidates)
    elif not pairs and provider == AUTO:
        pairs = _where_measured(manifest, variant)
    if pairs:
        return pairs
    tried = ", ".join(candidate.name for candidate in candidates) if provider == AUTO else provider
    if variant is None:
        raise _no_variant(manifest, tried, candidates)
    requires = manifest.variants[variant].requires
    suited = [
        name
        for name, variant in manifest.variants.items()
        if any(_runs_here(variant.requires, candidate) for candidate in candidates)
    ]
    made = providers_for(requires) or [f"what this version does not know ({excerpt(requires.precision, 60)})"]
    message = (
        f"variant {variant!r} is made for {', '.join(made)}, not for {tried}: "
        f"choose another provider, or a variant that is (here: {', '.join(suited) or 'none'})"
    )
    raise ProviderError(message)


def _no_variant(manifest: Manifest, tried: str, candidates: Sequence[Provider]) -> ProviderError:
    """Return the error of a bundle that has no variant for some providers, or none for this CPU."""
    suited = [
        f"{name} is made for {known.requires.isa or 'CPUs that multiply bf16'}"
        for name, known in manifest.variants.items()
        if any(suits(known.requires, candidate) for candidate in candidates)
    ]
    if suited:
        return ProviderError(
            f"the bundle {manifest.name} has no variant for this CPU ({class_here()}), as {' and '.join(suited)}: "
            f"{WHOLE}"
        )
    made = sorted({provider for known in manifest.variants.values() for provider in providers_for(known.requires)})
    return ProviderError(
        f"the bundle {manifest.name} has no variant for {tried} (made for: {', '.join(made)}): choose another"
    )


def _refuse_unfit(manifest: Manifest, variant: str, provider: Provider) -> None:
    """Refuse a variant that was asked for where it cannot be right.

    Raises:
        ProviderError: for operators that the provider does not know, and for 8-bit products that overflow on this CPU.
    """
    requires, other = manifest.variants[variant].requires, preferred(manifest, provider)
    if unknown := sorted(requires.operator_domains.keys() - provider.operator_domains):
        raise ProviderError(
            f"variant {variant!r} has operators that {provider.name} does not know (of {', '.join(unknown)}): "
            f"{f'choose variant {other!r}, or' if other else 'choose'} another provider"
        )
    if provider.on_cpu and overflows(requires.isa):
        raise ProviderError(
            f"variant {variant!r} is made for {requires.isa}; on this CPU "
            f"({cpu.cpu().instruction_set}) its 8-bit products overflow and its answers would be wrong: "
            f"{f'choose variant {other!r}, or run bertport quantize here' if other else WHOLE}"
        )


def _by_measurement(
    manifest: Manifest, provider: str, pairs: list[tuple[str, Provider]], candidates: Sequence[Provider]
) -> list[tuple[str, Provider]]:
    """Return pairs of variant and provider with what was measured to be faster on this class of CPU put first.

    Under `auto` a GPU goes before all the same, and nothing comes behind the CPU, which always works. A provider that
    was asked for runs the first of them or says why not.
    """
    rows = {**(PROVIDERS if provider == AUTO else {}), **{candidate.name: candidate for candidate in candidates}}
    measured = [(speed.variant, rows[speed.provider]) for speed in fastest_here(manifest, rows)]
    gpus = [pair for pair in pairs if provider == AUTO and pair[1].name != CPU]
    ordered = [*gpus, *measured, *(pair for pair in pairs if pair not in (*gpus, *measured))]
    on_cpu = next((place for place, pair in enumerate(ordered) if pair[1].name == CPU), len(ordered))
    return ordered[: on_cpu + 1] if provider == AUTO else ordered[:1]


def preferred(manifest: Manifest, provider: str | Provider) -> str | None:
    """Return the variant to take for a provider, by its name or row: by the recipes that the row names, best first.

    Then come the bundle's default, and those that decode only what is asked for.
    """
    recipes = row_of(provider).recipes
    suited = [name for name, variant in manifest.variants.items() if _runs_here(variant.requires, provider)]

    def rank(name: str) -> tuple[int, bool, bool]:
        variant = manifest.variants[name]
        named = next((place for place, recipe in enumerate(recipes) if variant.recipe.startswith(recipe)), len(recipes))
        # False sorts before True.
        return named, name != manifest.default_variant, variant.kind != "serving"

    return min(suited, key=rank, default=None)


def fastest_here(manifest: Manifest, providers: Collection[str] = PROVIDERS) -> list[MeasuredSpeed]:
    """Return the variants that were measured within a budget on this class of CPU and pay, the fastest first.

    Args:
        manifest: of the bundle.
        providers: short names of those that may run them, here or not.
    """
    speeds = [speed for name, variant in manifest.variants.items() if (speed := speed_here(name, variant))]
    usable = [
        speed
        for speed in speeds
        if speed.provider in providers
        and speed.provider in PROVIDERS
        and _runs_here(manifest.variants[speed.variant].requires, speed.provider)
    ]
    return fastest_measured(manifest, usable)


def reason(
    manifest: Manifest, asked: tuple[str | None, str], chosen: tuple[str, Provider], passed: Sequence[str]
) -> str:
    """Return why a variant and a provider were chosen, in a sentence.

    Args:
        manifest: of the bundle.
        asked: the variant, None for any, and the provider, or `auto`.
        chosen: what was opened of `choices`.
        passed: why each of those before it does not run here.
    """
    (variant, provider), (name, row) = asked, chosen
    measured = fastest_here(manifest, PROVIDERS if provider == AUTO else {row.name})
    ratios = f"{', '.join(map(str, measured))} as fast as fp32 on cpu"
    where = f"on this class of CPU ({class_here()})"
    if variant is not None:
        said = f"variant {variant!r} was asked for"
        said += f", and {row.name} is the first provider here that runs it" if provider == AUTO else ""
    elif any((speed.variant, speed.provider) == (name, row.name) for speed in measured):
        first = measured[0].variant == name != manifest.default_variant
        said = f"{name} on {row.name} is {'the fastest' if first else 'taken'} by what was measured {where}: {ratios}"
        if measured[0].variant == name == manifest.default_variant and len(measured) > 1:
            said = f"{name} is the bundle's default, and nothing measured {where} is faster beyond the noise: {ratios}"
    elif name == manifest.default_variant and measured:  # of which none was opened
        said = f"{name} is the bundle's default, and nothing that was measured {where} starts here: {ratios}"
        if row.name != CPU:
            said = f"{name} on {row.name} is the bundle's default, and a GPU goes before what was measured {where}"
    elif name == manifest.default_variant:
        said = f"{name} is the bundle's default, and nothing else was measured to be faster {where}"
    else:
        said = f"{name} is what {row.name} takes of this bundle, whose default is {manifest.default_variant}"
    return "; ".join([said, *(f"passed over: {told}" for told in passed)])


def _runs_here(requires: Requires, provider: str | Provider) -> bool:
    """Return whether a provider has all that a variant requires, and this CPU what the two of them need."""
    on_cpu = row_of(provider).on_cpu  # a GPU has bfloat16 of its own
    if on_cpu and (overflows(requires.isa) or (requires.precision == BF16 and not cpu.cpu().bf16)):
        return False
    return suits(requires, provider)


def _where_measured(manifest: Manifest, variant: str) -> list[tuple[str, Provider]]:
    """Return the provider that a variant was measured on, where `auto` tries none that it is for."""
    entry = manifest.variants[variant]
    name = (entry.fidelity or {}).get("provider")
    known = isinstance(name, str) and name in PROVIDERS and suits(entry.requires, name)
    return [(variant, PROVIDERS[str(name)])] if known else []


def overflows(isa: str | None) -> bool:
    """Return whether a variant made for an instruction set overflows on this CPU.

    Where products of 8 bits are summed in 16, weights of the full range overflow, and the answers are wrong without a
    word; variants for such CPUs have weights of a smaller range, which are right everywhere.
    """
    if isa is None:
        return False
    made_for, here = cpu.INSTRUCTION_SETS.get(isa), cpu.INSTRUCTION_SETS.get(cpu.cpu().instruction_set)
    return (made_for is None or not made_for.saturates) and (here is None or here.saturates)
