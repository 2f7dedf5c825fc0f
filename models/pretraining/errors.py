"""The errors that the scripts of the recipe show as one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import Progress


class RecipeError(ValueError):
    """A request that the recipe cannot carry out with what was found; the message says what to do."""


class DivergedError(RecipeError):
    """Training that came to a loss, or a gradient, that is no finite number.

    Args:
        progress: Where it stood.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__(
            f"the loss of step {progress.step + 1:,}, or its gradient, is not a finite number, and nothing is learned "
            "from there on: choose a lower --rate and another --output"
        )
        self.progress = progress
