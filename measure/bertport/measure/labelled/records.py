"""Records of a data file: JSON lines, CSV, TSV and Parquet, read one at a time in bounded memory.

JSON lines, CSV and TSV are UTF-8 and may be compressed (`.gz`, `.xz`, `.bz2`). CSV is RFC 4180's, with a first line of
column names; in TSV a quotation mark is a character like any other (IANA's text/tab-separated-values).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from bertport.runtime.bundle.strict_json import json_object
from bertport.runtime.errors import BertportError, InputTextError, MissingDependencyError, PathError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.installation import pip

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["FORMATS", "LONGEST_LINE", "MOST_LINES", "Record", "RecordFile", "open_records", "unit_of"]

LONGEST_LINE = 4 << 20
"""Bytes of a line or a row, at most: a query with a thousand documents fits."""
MOST_LINES = 10_000_000
"""Lines that are read, blank ones too: what is compressed may be endless."""
MOST_COLUMNS = 16_384
"""Columns of a table, at most."""
PARQUET_ROWS, PARQUET_BYTES = 1024, 16 << 20
"""Rows of a Parquet file that are held at once, at most, and about the bytes of them."""
FORMATS = {".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
"""Formats by the ending of a file's name."""
COMPRESSIONS = (".gz", ".xz", ".bz2")
"""Endings of compressed files, behind that of the format."""
OTHER_MARKS = {"csv": ";\t|", "tsv": ";,|"}
"""What separates the fields of files that are neither, by the format that they are taken for."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record: a line of JSON, or a row of a table."""

    number: int
    """Its line in the file, counted from 1, the first of several; of Parquet its row."""
    values: Mapping[str, object]
    """Values by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """A file of records, which can be read more than once."""

    path: Path
    """The file."""
    format: str
    """`json`, `csv`, `tsv` or `parquet`."""
    compression: str
    """Compression of the file: one of `COMPRESSIONS`; empty where it is not compressed."""
    columns: frozenset[str] | None = None
    """The columns that are read of Parquet, where others cost time and memory; None for all."""

    @property
    def typed(self) -> bool:
        """Whether values have types; those of CSV and TSV are all text."""
        return self.format in {"json", "parquet"}

    def where(self, number: int) -> str:
        """Return the place of a record for a sentence: the file and its line or row."""
        return f"{self.path}, {unit_of(str(self.path))} {number:,}"

    def first(self) -> Record | None:
        """Return the first record, of Parquet its columns alone, without their values; None where there is none.

        Raises:
            BertportError: as for reading all of them.
        """
        if self.format != "parquet":
            return next(iter(self), None)
        with _parquet_file(self) as (table, names):
            return Record(1, dict.fromkeys(names)) if table.metadata.num_rows else None

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order, blank lines left out.

        Raises:
            PathError: where the file cannot be read.
            InputTextError: for a line that holds no record; the sentence names the line.
            MissingDependencyError: for Parquet without pyarrow.
        """
        if self.format == "parquet":
            yield from _parquet(self)
            return
        try:
            with _opened(self) as stream:
                lines = _lines(self, stream)
                yield from _json(self, lines) if self.format == "json" else _table(self, lines)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            if isinstance(error, PathError):
                raise
            whole = f"give the whole file, undamaged, with the suffix of its compression ({self.compression})"
            raise _cannot_read(self.path, error, whole if self.compression else "give one that can be read") from error


def unit_of(name: str) -> str:
    """Return the unit that `Record.number` counts in a file of that name."""
    return "row" if FORMATS.get(Path(name).suffix.lower()) == "parquet" else "line"


def open_records(path: str | os.PathLike[str]) -> RecordFile:
    """Return a file's records; nothing is read yet.

    Raises:
        PathError: when there is no such file, or its name ends in no format that is known.
    """
    path = Path(path)
    try:
        regular = path.is_file()
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or with a NUL
        raise _cannot_read(path, error, "give the path of a file") from error
    if not regular:
        reason = "it is not a regular file, and data is read twice" if there else "no such file"
        raise PathError(f"cannot read the data {path} ({reason}): give the path of a file")
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    form = FORMATS.get(suffixes[-1]) if suffixes else None
    if form is None or (form == "parquet" and compression):
        raise PathError(
            f"cannot tell the format of the data {path} by its name: give a file that ends in "
            f"{', '.join(FORMATS)}, the first four perhaps compressed ({', '.join(COMPRESSIONS)})"
        )
    return RecordFile(path=path, format=form, compression=compression)


def _opened(file: RecordFile) -> IO[bytes]:
    match file.compression:
        case ".gz":
            return cast("IO[bytes]", gzip.open(file.path, "rb"))
        case ".xz":
            return lzma.open(file.path, "rb")
        case ".bz2":
            return bz2.open(file.path, "rb")
        case _:
            return file.path.open("rb")


def _cannot_read(path: Path, error: BaseException, advice: str) -> PathError:
    reason = getattr(error, "strerror", None) or excerpt(str(error), 200)
    return PathError(f"cannot read the data {path} ({reason}): {advice}")


def _lines(file: RecordFile, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield each line with its number and line break, holding one at a time."""
    number = 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        where = file.where(number)
        if len(raw) > LONGEST_LINE:
            raise InputTextError(f"{where}: longer than {LONGEST_LINE:,} bytes: put each example on a line of its own")
        if number > MOST_LINES:
            raise InputTextError(f"{file.path} has more than {MOST_LINES:,} lines: give fewer examples")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]  # of `raw` without a byte order mark
            raise InputTextError(f"{where}: not UTF-8 (byte 0x{wrong:02x}): save the file as UTF-8") from None
        if "\0" in line:
            raise InputTextError(f"{where}: a NUL character, so this is not a text file in UTF-8: save it as UTF-8")
        yield number, line


def _json(file: RecordFile, lines: Iterable[tuple[int, str]]) -> Iterator[Record]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=json_object)
        except (ValueError, RecursionError) as error:
            raise InputTextError(
                f"{file.where(number)}: not JSON ({excerpt(str(error), 200)}): give an object a line"
            ) from None
        if not isinstance(value, dict):
            raise InputTextError(f"{file.where(number)}: {excerpt(value)} is not an object: give an object a line")
        yield Record(number, value)


def _table(file: RecordFile, lines: Iterable[tuple[int, str]]) -> Iterator[Record]:
    length = 0  # of the row that is being read

    def text() -> Iterator[str]:
        nonlocal length
        for number, line in lines:
            length += len(line)
            if length > LONGEST_LINE:
                raise InputTextError(
                    f"{file.where(number)}: the row is longer than {LONGEST_LINE:,} characters: shorten its texts, and "
                    "close each quotation mark"
                )
            yield line

    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))  # of the process; a row is bounded here
    if file.format == "tsv":
        reader = csv.reader(text(), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(text(), strict=True)
    header: list[str] | None = None
    read = 0  # lines of the rows before
    try:
        for cells in reader:
            length, number, read = 0, read + 1, reader.line_num
            if not cells:
                continue
            if header is None:
                header = _header(file, cells)
                continue
            if len(cells) != len(header):
                raise InputTextError(
                    f"{file.where(number)}: {len(cells):,} fields under {len(header):,} columns: "
                    "give each line a field for each column, a text with a comma or a line break in quotation marks"
                )
            yield Record(number, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InputTextError(
            f"{file.where(reader.line_num)}: not {file.format.upper()} ({error}): correct the line"
        ) from None


def _header(file: RecordFile, cells: list[str]) -> list[str]:
    """Return the names of columns."""
    if len(cells) > MOST_COLUMNS:
        raise InputTextError(f"{file.path} has {len(cells):,} columns, more than {MOST_COLUMNS:,}: leave columns out")
    names = [cell.strip() for cell in cells]
    if len(names) == 1 and any(mark in names[0] for mark in OTHER_MARKS[file.format]):
        raise InputTextError(
            f"{file.path} has the one column {excerpt(names[0])}: separate the fields of CSV by commas, and those of "
            "TSV by tabs"
        )
    _no_twins(file, names)
    return names


def _no_twins(file: RecordFile, names: list[str]) -> None:
    """Raise InputTextError where two columns have one name."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputTextError(f"{file.path} has {count:,} columns named {excerpt(name)}: give each a name of its own")


def _parquet(file: RecordFile) -> Iterator[Record]:
    with _parquet_file(file) as (table, names):
        columns = [name for name in names if file.columns is None or name in file.columns]
        number = 0
        for group in range(table.num_row_groups):
            about = table.metadata.row_group(group)
            rows = min(PARQUET_ROWS, PARQUET_BYTES * about.num_rows // max(1, about.total_byte_size))
            for batch in table.iter_batches(batch_size=max(1, rows), row_groups=[group], columns=columns):
                yield from _rows(file, batch, number)
                number += batch.num_rows


@contextmanager
def _parquet_file(file: RecordFile) -> Iterator[tuple[Any, list[str]]]:
    """Return a Parquet file as pyarrow opens it, and the names of its columns."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):  # one that wants another NumPy, for example
            reason = excerpt(str(error), 200)
            raise PathError(
                f"cannot read the data {file.path} (pyarrow cannot be imported: {reason}): install another pyarrow, or "
                "give JSON lines"
            ) from error
        raise MissingDependencyError(
            f"reading {file.path}", "pyarrow", "evaluate", command=f"{pip()} install pyarrow"
        ) from error
    try:
        with parquet.ParquetFile(file.path) as table:
            names = [str(name) for name in table.schema_arrow.names]
            if names:
                _no_twins(file, names)
            yield table, names
    except BertportError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _cannot_read(file.path, error, "give a whole file of Parquet, undamaged") from error


def _rows(file: RecordFile, batch: Any, before: int) -> Iterator[Record]:  # noqa: ANN401 — pyarrow has no types
    """Yield the rows of a batch, numbered from the `before` rows of earlier batches on.

    They are converted together where they are small, and else one at a time: few are in memory then, and a row that
    cannot be converted is named.
    """
    try:
        together = batch.to_pylist() if batch.nbytes <= LONGEST_LINE else None
    except (ValueError, OverflowError):
        together = None
    for index in range(batch.num_rows):
        number = before + index + 1
        values = together[index] if together else _converted(file, batch.slice(index, 1), number)
        yield Record(number, values)


def _converted(file: RecordFile, row: Any, number: int) -> dict[str, Any]:  # noqa: ANN401 — pyarrow has no types
    """Return the values of a row, which is a batch of one."""
    from pyarrow import types

    # A slice of a dictionary's indices brings the whole dictionary.
    decoded = (column.dictionary_decode() if types.is_dictionary(column.type) else column for column in row.columns)
    if sum(column.nbytes for column in decoded) > LONGEST_LINE:
        raise InputTextError(f"{file.where(number)}: longer than {LONGEST_LINE:,} bytes: shorten its texts")
    try:
        [values] = row.to_pylist()
    except (ValueError, OverflowError) as error:
        raise InputTextError(
            f"{file.where(number)}: a value that cannot be read ({excerpt(str(error), 200)}): write it as text"
        ) from None
    return cast("dict[str, Any]", values)
