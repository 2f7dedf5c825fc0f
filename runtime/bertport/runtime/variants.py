"""Which variant of a bundle runs on which provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertport.runtime import machine
from bertport.runtime.errors import ProviderError, UnknownNameError
from bertport.runtime.providers import AUTO, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertport.runtime.manifest import Manifest
    from bertport.runtime.providers import Provider

__all__ = ["CPU", "choices", "overflows", "preferred"]

CPU = "cpu"


def choices(
    manifest: Manifest, variant: str | None, provider: str, candidates: Sequence[Provider]
) -> list[tuple[str, Provider]]:
    """Pair providers with variants, in the order to try.

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
        kind = "variant"
        raise UnknownNameError(kind, variant, manifest.variants)
    pairs = []
    for row in candidates:
        name = preferred(manifest, row.name) if variant is None else variant
        if variant is not None and row.standard_only and (fused := _fused(manifest, variant)):
            message = (
                f"variant {variant!r} has operators that {row.name} does not know (of {', '.join(fused)}): choose "
                f"variant {preferred(manifest, row.name)!r}, or another provider"
            )
            raise ProviderError(message)
        if variant is not None and row.name == CPU and overflows(manifest.variants[variant].isa):
            message = (
                f"variant {variant!r} is made for {manifest.variants[variant].isa}; on this CPU "
                f"({machine.cpu().instruction_set}) its 8-bit products overflow and its answers would be wrong: "
                f"choose variant {preferred(manifest, CPU)!r}, or run bertport quantize here"
            )
            raise ProviderError(message)
        if name is not None and row.name in manifest.variants[name].providers:
            pairs.append((name, row))
    if pairs:
        return pairs
    tried = ", ".join(row.name for row in candidates) if provider == AUTO else provider
    if variant is None:
        made = sorted({each for known in manifest.variants.values() for each in known.providers})
        message = f"the bundle {manifest.name} has no variant for {tried} (made for: {', '.join(made)}): choose another"
    else:
        made = list(manifest.variants[variant].providers)
        suited = [
            name for name, each in manifest.variants.items() if any(row.name in each.providers for row in candidates)
        ]
        message = (
            f"variant {variant!r} is made for {', '.join(made)}, not for {tried}: "
            f"choose another provider, or a variant that is (here: {', '.join(suited) or 'none'})"
        )
    raise ProviderError(message)


def preferred(manifest: Manifest, provider: str) -> str | None:
    """Give the variant to take for a provider: by the recipes that its row names, best first.

    Then come those made for it before others (a variant lists its providers best first), the bundle's default, and
    those that decode only what is asked for.
    """
    recipes = PROVIDERS[provider].recipes
    suited = [
        name
        for name, each in manifest.variants.items()
        if provider in each.providers
        and not (provider == CPU and overflows(each.isa))
        and not (PROVIDERS[provider].standard_only and _fused(manifest, name))
    ]

    def rank(name: str) -> tuple[int, int, bool, bool]:
        each = manifest.variants[name]
        named = next((place for place, recipe in enumerate(recipes) if each.recipe.startswith(recipe)), len(recipes))
        # False sorts before True.
        return named, each.providers.index(provider), name != manifest.default_variant, each.kind != "serving"

    return min(suited, key=rank, default=None)


def _fused(manifest: Manifest, variant: str) -> list[str]:
    """Name the domains of a variant's operators beside the standard one."""
    return sorted(set(manifest.variants[variant].domains) - {"", "ai.onnx"})


def overflows(isa: str | None) -> bool:
    """Tell whether a variant made for an instruction set overflows on this CPU.

    Where products of 8 bits are summed in 16, weights of the full range overflow, and the answers are wrong without a
    word; variants for such CPUs have weights of a smaller range, which are right everywhere.
    """
    if isa is None:
        return False
    made_for, here = machine.INSTRUCTION_SETS.get(isa), machine.INSTRUCTION_SETS.get(machine.cpu().instruction_set)
    return (made_for is None or not made_for.saturates) and (here is None or here.saturates)
