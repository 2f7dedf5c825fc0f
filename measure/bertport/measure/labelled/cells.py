"""Cells of a record: the values that a task needs, by the columns that hold them, each checked for its type."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from bertport.runtime.bundle.strict_json import json_object
from bertport.runtime.errors import InputTextError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertport.measure.labelled.records import Record, RecordFile

__all__ = ["Cells"]


@dataclass(frozen=True, slots=True)
class Cells:
    """One record's values, by what a task calls them."""

    file: RecordFile
    """The file that the record is from."""
    record: Record
    """The record."""
    columns: Mapping[str, str]
    """The file's column for each of a task's names."""
    advice: str = "correct the line, or name another column"
    """What to do about a value that is not what is wanted, as the end of a sentence."""

    def __contains__(self, name: str) -> bool:
        """Return whether the record has a value of that name: a column, and in it something but null."""
        return name in self.columns and self.record.values.get(self.columns[name]) is not None

    def wrong(self, name: str, wanted: str) -> NoReturn:
        """Raise InputTextError: the value of that name is not what is wanted."""
        column = self.columns[name]
        value = self.record.values.get(column)
        raise InputTextError(
            f"{self.file.where(self.record.number)}: {column} must be {wanted}, and is {excerpt(value)}: {self.advice}"
        )

    def value(self, name: str) -> Any:  # noqa: ANN401 — whatever the file holds
        """Return a value as the file holds it.

        Raises:
            InputTextError: where the record has none.
        """
        column = self.columns[name]
        value = self.record.values.get(column)
        if value is None:
            missing = "is null" if column in self.record.values else "is missing"
            raise InputTextError(
                f"{self.file.where(self.record.number)}: {column} {missing}: give each example one, or leave it out"
            )
        return value

    def text(self, name: str) -> str:
        """Return a text.

        Raises:
            InputTextError: for anything else, and for half of a surrogate pair, which is no character.
        """
        value = self.value(name)
        if not isinstance(value, str):
            self.wrong(name, "a text")
        self._whole(name, value)
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, one at least; in CSV and TSV it is written as JSON."""
        values = self.values(name)
        if not values or not all(isinstance(value, str) for value in values):
            self.wrong(name, "a list of 1 or more texts")
        for value in values:
            self._whole(name, value)
        return values

    def values(self, name: str) -> list[Any]:
        """Return a list of whatever the file holds; in CSV and TSV it is written as JSON."""
        value = self.value(name)
        if not self.file.typed:
            value = self.parsed(name)
        if not isinstance(value, list):
            self.wrong(name, "a list" if self.file.typed else "a list in JSON")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object; in CSV and TSV it is written as JSON."""
        value = self.value(name)
        if not self.file.typed:
            value = self.parsed(name)
        if not isinstance(value, dict):
            self.wrong(name, "an object" if self.file.typed else "an object in JSON")
        return value

    def number(self, name: str) -> float:
        """Return a finite number, which CSV and TSV hold as text."""
        value = self.value(name)
        number = self._number(value, typed=self.file.typed)
        if number is None:
            self.wrong(name, "a finite number")
        return number

    def numbers(self, name: str) -> list[float]:
        """Return a list of finite numbers; in CSV and TSV it is written as JSON."""
        numbers = [self._number(value, typed=True) for value in self.values(name)]
        if None in numbers:
            self.wrong(name, "a list of finite numbers")
        return [number for number in numbers if number is not None]

    def _number(self, value: object, *, typed: bool) -> float | None:
        """Return a finite number; None for anything else, and for text where values have types."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        if isinstance(value, str) and typed:
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None

    def parsed(self, name: str) -> object:
        """Return what a cell of CSV or TSV holds as JSON."""
        try:
            parsed: object = json.loads(self.value(name), object_pairs_hook=json_object)
        except (ValueError, RecursionError, TypeError):
            self.wrong(name, "a list or an object in JSON")
        return parsed

    def _whole(self, name: str, text: str) -> None:
        """Raise InputTextError for half of a surrogate pair, which JSON can hold and a tokenizer cannot."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            invalid = text[error.start].encode("unicode_escape").decode()
            raise InputTextError(
                f"{self.file.where(self.record.number)}: {self.columns[name]} has an invalid character ({invalid}): "
                "correct the line"
            ) from None
