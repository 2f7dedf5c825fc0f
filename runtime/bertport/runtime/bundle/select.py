"""Selection of a variant for a provider: what variants require is matched against what providers have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.runtime.errors import ProviderError, UnknownNameError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.providers import cpu
from bertport.runtime.providers.table import AUTO, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.runtime.bundle.manifest import Manifest, Requires
    from bertport.runtime.providers.table import Provider

__all__ = ["CPU", "choices", "overflows", "preferred", "providers_for", "suits"]

CPU = "cpu"


def suits(requires: Requires, provider: str) -> bool:
    """Return whether a provider has all that a variant requires, whatever this machine is."""
    known = PROVIDERS[provider]
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
        name = preferred(manifest, candidate.name) if variant is None else variant
        if variant is not None and (unknown := _unknown_operators(manifest.variants[variant].requires, candidate)):
            raise ProviderError(
                f"variant {variant!r} has operators that {candidate.name} does not know (of {', '.join(unknown)}): "
                f"choose variant {preferred(manifest, candidate.name)!r}, or another provider"
            )
        if variant is not None and candidate.name == CPU and overflows(manifest.variants[variant].requires.isa):
            raise ProviderError(
                f"variant {variant!r} is made for {manifest.variants[variant].requires.isa}; on this CPU "
                f"({cpu.cpu().instruction_set}) its 8-bit products overflow and its answers would be wrong: "
                f"choose variant {preferred(manifest, CPU)!r}, or run bertport quantize here"
            )
        if name is not None and suits(manifest.variants[name].requires, candidate.name):
            pairs.append((name, candidate))
    if pairs:
        return pairs
    tried = ", ".join(candidate.name for candidate in candidates) if provider == AUTO else provider
    if variant is None:
        made = sorted({provider for known in manifest.variants.values() for provider in providers_for(known.requires)})
        message = f"the bundle {manifest.name} has no variant for {tried} (made for: {', '.join(made)}): choose another"
    else:
        requires = manifest.variants[variant].requires
        suited = [
            name
            for name, variant in manifest.variants.items()
            if any(suits(variant.requires, candidate.name) for candidate in candidates)
        ]
        made = providers_for(requires) or [f"what this version does not know ({excerpt(requires.precision, 60)})"]
        message = (
            f"variant {variant!r} is made for {', '.join(made)}, not for {tried}: "
            f"choose another provider, or a variant that is (here: {', '.join(suited) or 'none'})"
        )
    raise ProviderError(message)


def preferred(manifest: Manifest, provider: str) -> str | None:
    """Return the variant to take for a provider: by the recipes that its row names, best first.

    Then come the bundle's default, and those that decode only what is asked for.
    """
    recipes = PROVIDERS[provider].recipes
    suited = [
        name
        for name, variant in manifest.variants.items()
        if suits(variant.requires, provider) and not (provider == CPU and overflows(variant.requires.isa))
    ]

    def rank(name: str) -> tuple[int, bool, bool]:
        variant = manifest.variants[name]
        named = next((place for place, recipe in enumerate(recipes) if variant.recipe.startswith(recipe)), len(recipes))
        # False sorts before True.
        return named, name != manifest.default_variant, variant.kind != "serving"

    return min(suited, key=rank, default=None)


def _unknown_operators(requires: Requires, provider: Provider) -> list[str]:
    """Return the domains of a variant's operators that a provider does not know."""
    return sorted(requires.operator_domains.keys() - provider.operator_domains)


def overflows(isa: str | None) -> bool:
    """Return whether a variant made for an instruction set overflows on this CPU.

    Where products of 8 bits are summed in 16, weights of the full range overflow, and the answers are wrong without a
    word; variants for such CPUs have weights of a smaller range, which are right everywhere.
    """
    if isa is None:
        return False
    made_for, here = cpu.INSTRUCTION_SETS.get(isa), cpu.INSTRUCTION_SETS.get(cpu.cpu().instruction_set)
    return (made_for is None or not made_for.saturates) and (here is None or here.saturates)
