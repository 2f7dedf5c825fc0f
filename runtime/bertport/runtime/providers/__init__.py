"""Execution providers: one table, their options, and the checks that the one asked for runs."""

from typing import TYPE_CHECKING

from bertport.runtime.deprecated import moved

__all__: list[str] = []

if not TYPE_CHECKING:  # type checkers are to know the new paths alone
    __getattr__ = moved(
        __name__,
        {
            **dict.fromkeys(
                ("AUTO", "PROVIDERS", "Provider", "candidates", "onnxruntime", "wheel"),
                "bertport.runtime.providers.table",
            ),
        },
    )
