"""multiple-choice: which of several texts goes best with another, by the softmax over the logits of all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.tasks.inputs import Parts, texts_in
from bertport.runtime.tasks.labels import probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertport.runtime.tasks.answers import Choice

__all__ = ["Options", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of multiple-choice."""

    truncation: bool = False
    """Cut the longer of a text and a choice that are too long together instead of refusing them."""


def read(value: object) -> Parts:
    """Return an object with `prompt` or `text`, and `choices`, as rows: a pair for each choice."""
    match value:
        case {"prompt": str(prompt), "choices": given, **other} if not other:
            pass
        case {"text": str(prompt), "choices": given, **other} if not other:
            pass
        case _:
            raise InputTextError(
                f'multiple-choice takes {{"prompt": …, "choices": […]}} with a text for a prompt, not {excerpt(value)}'
            )
    choices = texts_in("choices", given, InputTextError)
    return Parts(texts=tuple((prompt, choice) for choice in choices), combine=partial(_answer, choices))


def _answer(choices: tuple[str, ...], rows: list[NDArray[np.float32]]) -> Choice:
    """Return the likeliest of the choices, from the logit of each."""
    shares = probabilities(np.concatenate(rows))
    best = int(shares.argmax())
    return {
        "label": best,
        "choice": choices[best],
        "score": float(shares[best]),
        "probabilities": shares.tolist(),
    }
