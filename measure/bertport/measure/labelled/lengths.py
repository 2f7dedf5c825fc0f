"""Inputs that a model cannot take, found by its tokenizer alone, before a session is opened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bertport.measure.labelled.kinds import RETRIEVAL, SPANS, TAGS
from bertport.measure.labelled.predictions import corpus_of, inputs_of, parameters_of, tag_in_windows
from bertport.runtime.errors import InputTextError
from bertport.runtime.tasks.table import bind, weight
from bertport.runtime.text.tokenizer import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bertport.measure.labelled.data import LabelledData
    from bertport.runtime.bundle.directory import Bundle

__all__ = ["check_lengths"]

BYTES = 4
"""Tokens that a character may be, at most: its bytes in UTF-8."""
SPECIAL = 8
"""Tokens that are added to a text, at most."""


def check_lengths(bundle: Bundle, data: LabelledData, *, truncation: bool = False) -> None:
    """See that a bundle takes every input of the data; short ones are not tokenized for it.

    Args:
        bundle: The bundle.
        data: The data.
        truncation: Whether texts that are too long are to be cut.

    Raises:
        InputTextError: for an input that it cannot take; the sentence names the line.
        ChangedDataError: where the file has changed since it was checked.
    """
    tokens, manifest = Tokens.read(bundle), bundle.manifest
    whole = data.kind in {SPANS, TAGS}  # nothing of them is cut
    parameters = parameters_of(data) | ({} if whole else {"truncation": truncation})
    call = bind("embeddings" if data.kind == RETRIEVAL else data.task, parameters, tokens, manifest)
    if data.kind == TAGS:
        call = tag_in_windows(call)
    short = (tokens.max_length - SPECIAL) // BYTES
    for place, inputs in _inputs(data):
        read = call.reading(inputs)
        if isinstance(read, InputTextError) or weight(read) > short:
            [prepared] = call.tokenized([read])
            if isinstance(prepared, InputTextError):
                raise InputTextError(f"{place()}: {prepared.message}")


def _inputs(data: LabelledData) -> Iterator[tuple[Callable[[], str], object]]:
    """Yield what the task takes for each example, and for each text that queries lead to, with what gives its place."""
    for index, example in enumerate(data.examples()):
        yield partial(data.where, index), inputs_of(data, example)
    if data.kind == RETRIEVAL:
        for number, text in enumerate(corpus_of(data)):
            yield partial(data.where_text, number), text
