"""Asking a model: any task for any inputs, which the methods of single tasks are made of."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from bertport.runtime.errors import BertportError, InputTextError, OutputError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.tasks.answers import Choice, NextSentence, SentenceOrder, TokenLabel, ZeroShot
    from bertport.runtime.tasks.table import Call

__all__ = ["Asking", "are_lists", "paired", "raising", "refuse_table"]


class Asking(ABC):
    """Methods that answer by the name of a task. `Model` says how: with its graph, in batches."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle: Final = bundle

    @abstractmethod
    def resolve(self, task: str, /, **parameters: object) -> Call:
        """Return what `bind` does without a warning, for a program that shows `Call.note` itself."""

    @abstractmethod
    def outcomes(self, call: Call, inputs: Iterable[object]) -> Iterator[Any]:
        """Return answers as `predict` does, an error in the place of an answer; an error among the inputs stays."""

    @overload
    def predict(
        self, task: Literal["next-sentence"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[NextSentence]: ...

    @overload
    def predict(
        self, task: Literal["sentence-order"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[SentenceOrder]: ...

    @overload
    def predict(
        self, task: Literal["replaced-tokens"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[list[TokenLabel]]: ...

    @overload
    def predict(
        self, task: Literal["features"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[NDArray[np.float32]]: ...

    @overload
    def predict(
        self, task: Literal["fill-mask"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[list[Any]]: ...

    @overload
    def predict(
        self, task: Literal["zero-shot-classification"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[ZeroShot]: ...

    @overload
    def predict(
        self, task: Literal["multiple-choice"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[Choice]: ...

    @overload
    def predict(self, task: str, inputs: Iterable[object], **parameters: object) -> Iterator[Any]: ...

    def predict(self, task: str, inputs: Iterable[object], **parameters: object) -> Iterator[Any]:
        """Return the answers of any task for any iterable, in order and lazily, in bounded memory.

        Args:
            task: one of `describe()["tasks"]`.
            inputs: what the task takes, as `bertport predict` does; of an iterator no more is read ahead than is
                batched.
            parameters: the task's own, as in the method of its name.

        Returns:
            An iterator with one answer per input.

        Raises:
            UnknownNameError, MissingHeadError, UsageError: at once, for the task or its parameters.
            InputTextError: by the iterator, at the place of the first input that the task cannot take.
            OutputError: by the iterator, at the place of the first input for which the graph gives NaN or infinity.
        """
        if isinstance(inputs, str):
            raise UsageError("predict takes an iterable of inputs, not one text: put the text in a list")
        call = self.resolve(task, **parameters)
        if call.note:
            warnings.warn(call.note, FutureWarning, stacklevel=2)
        return self._answers(call, inputs)

    def bind(self, task: str, /, **parameters: object) -> Call:
        """Return a task with its parameters checked, for `outcomes` or for `Call.prepare` and `run`."""
        call = self.resolve(task, **parameters)
        if call.note:
            warnings.warn(call.note, FutureWarning, stacklevel=2)
        return call

    def _answers(self, call: Call, inputs: Iterable[object]) -> Iterator[Any]:
        """Return the answers of `outcomes`, raising the first error; UsageError for what is no collection of inputs."""
        # iter() might start what it reads; an array without a dimension has the method, and nothing to go over.
        several = hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")
        several = several and not isinstance(inputs, Mapping)  # of an object the names of its fields would be answered
        if not several or getattr(inputs, "shape", None) == ():
            raise UsageError(f"the inputs are {excerpt(inputs)}, not a collection of them: give a list")
        refuse_table(inputs)
        outcomes = self.outcomes(call, inputs)
        return raising(outcomes, numbered=not (isinstance(inputs, Sized) and len(inputs) == 1))


def refuse_table(inputs: object) -> None:
    """Refuse a table, whose items are its columns' names to one library and the columns to another.

    Raises:
        UsageError: for a table.
    """
    if hasattr(inputs, "columns") and hasattr(inputs, "shape"):
        raise UsageError(
            f"inputs is a table (a {type(inputs).__name__}), of which no column was chosen: give the texts of one, "
            'such as table["text"].tolist(), or of a table of Arrow table["text"].to_pylist()'
        )


def are_lists(*given: object) -> bool:
    """Return whether each of these is a collection of known length, as a text is too, and no object, which has names.

    Raises:
        UsageError: for a table.
    """
    for texts in given:
        refuse_table(texts)
    return all(isinstance(texts, Sized) and not isinstance(texts, Mapping) for texts in given)


def paired(task: str, a: str | Sequence[str], b: str | Sequence[str]) -> tuple[list[tuple[str, str]], bool]:
    """Return the pairs of two texts or of two lists of equally many, and whether it is but one.

    Raises:
        UsageError: for anything else; it names the task.
    """
    if isinstance(a, str) and isinstance(b, str):
        return [(a, b)], True
    if not are_lists(a, b) or isinstance(a, str) or isinstance(b, str) or len(a) != len(b):
        raise UsageError(f"{task} takes two texts or two lists of one length, not {excerpt(a)} and {excerpt(b)}")
    return list(zip(a, b, strict=True)), False


def raising(outcomes: Iterator[Any], *, numbered: bool) -> Iterator[Any]:
    """Yield answers up to the first error, which is raised; `numbered` puts the number of its input before it."""
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, InputTextError | OutputError) and numbered:
            raise type(outcome)(f"input {number}: {outcome.message}") from outcome
        if isinstance(outcome, BertportError):
            raise outcome
        yield outcome
