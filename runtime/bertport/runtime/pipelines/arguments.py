"""Arguments of transformers' `pipeline` beside task and model: translated to arguments of `load`, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.providers.table import AUTO, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["access", "placement", "refuse_parts", "variant_of"]

ORDINAL = "cuda"
"""The provider that a number from 0 up names a device of."""
VARIANTS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""The variants that compute in a data type of PyTorch, by its name."""


def refuse_parts(parts: Mapping[str, object], model: object) -> None:
    """Refuse parts of a model that a bundle has already; the tokenizer's name may be that of the model.

    Raises:
        UsageError: for any that was given.
    """
    for name, value in parts.items():
        same = name in {"tokenizer", "config"} and value == model
        if value is not None and value != {} and not same:
            raise UsageError(
                f"{name} is {excerpt(value)}, and a bundle has all that its graphs need: leave {name} out, or "
                "change it in the checkpoint before bertport export"
            )


def placement(device: object, device_map: object) -> dict[str, Any]:
    """Return where a model runs, as `load` takes it.

    Args:
        device: None for the best provider that works here, -1 or `cpu`, a number from 0 up, `cuda:1`, a device of
            PyTorch, or a provider's name.
        device_map: None or `auto`, which both are None for a device.

    Raises:
        UsageError: for both, and for models that are to be spread.
        UnknownNameError: for an unknown device.
    """
    if device_map is not None and device is not None:
        raise UsageError("device and device_map were given, which mean the same: leave device_map out")
    if device_map is not None and device_map != AUTO:
        raise UsageError(
            f"device_map is {excerpt(device_map)}, and a model runs on one device here: name that with device"
        )
    if device is None:
        return {"provider": AUTO}
    if isinstance(device, int) and not isinstance(device, bool):
        return {"provider": "cpu"} if device < 0 else {"provider": ORDINAL, "provider_options": {"device_id": device}}
    name, _, number = str(device).partition(":")  # PyTorch's own devices are written so
    if name not in PROVIDERS or (number and not number.isdecimal()):
        raise UnknownNameError("device", device, PROVIDERS, "or a number, -1 for the CPU")
    options = {"provider_options": {"device_id": int(number)}} if number and name != "cpu" else {}
    return {"provider": name, **options}


def variant_of(dtype: object, variant: str | None) -> str | None:
    """Return the variant that computes in a data type; None for the best.

    Args:
        dtype: `auto` or None for what the bundle has, `float32`, `float16`, `bfloat16`, or a data type of PyTorch.
        variant: one that was named, which goes before.

    Raises:
        UsageError: for a data type that no variant is named after.
    """
    if dtype is None or dtype == AUTO or variant is not None:
        return variant
    name = str(dtype).removeprefix("torch.")
    if name not in VARIANTS:
        raise UsageError(
            f"dtype is {excerpt(dtype)}, and no variant is named after that type: leave dtype out for the best, "
            "or name a variant (bertport inspect lists them)"
        )
    return VARIANTS[name]


def access(token: object, revision: object) -> dict[str, str | None]:
    """Return how the Hub is asked, as `load` takes it: True stands for the token of its login, as in transformers.

    Raises:
        UsageError: for what is no token.
    """
    if token is not None and token is not True and not isinstance(token, str):
        raise UsageError(f"token is a text, or True for that of the Hub's login, not {excerpt(token)}: leave it out")
    if not isinstance(revision, str | None):
        raise UsageError(f"revision is a branch, a tag or a commit, not {excerpt(revision)}")
    return {"token": None if token is True else token, "revision": revision}
