"""Session options of a provider, and its place in the list of providers."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bertport.runtime.providers import options as provider_options
from bertport.runtime.providers import plugins
from bertport.runtime.providers.table import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.runtime.providers.table import Provider

__all__ = ["assigned", "settled_options"]


def settled_options(
    provider: Provider,
    *,
    precision: str = "fp32",
    threads: int | None = None,
    given: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the provider options that a session is opened with.

    Args:
        provider: a row of the table.
        precision: how products are to be computed, as manifests call it.
        threads: threads within an operator, for a plugin that has its own; None leaves the number to it.
        given: options of the user.

    Raises:
        UsageError: for an option that the provider does not have, or that has it compute otherwise.
    """
    row = dict(provider.options)
    if provider.plugin is not None and threads is not None:
        own = {key: value % threads for key, value in provider.plugin.threads.items()}
        row = provider_options.merged(row, own)
    return provider_options.settle(
        provider.name,
        precision,
        row=row,
        given=provider_options.checked(provider.name, given, provider.allowed),
        computes=provider.computes.get(precision, {}),
    )


def assigned(
    options: Any,  # noqa: ANN401 — ONNX Runtime is not typed
    provider: Provider,
    settled: Mapping[str, str],
    *,
    precision: str = "fp32",
) -> list[tuple[str, dict[str, str]]] | None:
    """Return what `open_session` takes as `providers` for a row; a plugin's device is added to the options instead.

    Args:
        options: what `session_options` returned.
        provider: a row of the table.
        settled: what `settled_options` returned.
        precision: how products are to be computed, as manifests call it.

    Raises:
        ProviderError: when the plugin does not work here.
    """
    if provider.plugin is not None:  # its name among `providers` would run everything on the CPU, without a word
        options.add_provider_for_devices(plugins.devices(provider, precision)[:1], dict(settled))
        return None
    names = [(provider.ort, dict(settled))]
    for other in provider.beside:
        number = {"device_id": settled["device_id"]} if "device_id" in settled else {}
        names.append((PROVIDERS[other].ort, {**PROVIDERS[other].options, **number}))
    cpu = PROVIDERS["cpu"].ort
    if provider.ort != cpu:
        names.append((cpu, {}))  # for nodes that compute shapes; anything more is refused
    return names
