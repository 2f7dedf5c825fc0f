"""The old path of `bertport.runtime.bundle.default`, for one release."""

from typing import TYPE_CHECKING

from bertport.runtime.deprecated import moved

__all__: list[str] = []

if not TYPE_CHECKING:  # type checkers are to know the new path alone
    __getattr__ = moved(__name__, {"default_bundle": "bertport.runtime.bundle.default"})
