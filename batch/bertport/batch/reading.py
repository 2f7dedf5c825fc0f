"""Reading: files of JSON lines and Parquet, cut into parts that can be read apart, and the rows of one part."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from bertport.batch.job import OTHER, Part, Source, Span
from bertport.batch.places import WEB, open_place, redacted, unreachable
from bertport.batch.tasks import TASKS
from bertport.runtime.bundle.strict_json import is_deeper
from bertport.runtime.errors import BertportError, InputTextError, PathError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from bertport.batch.places import File, Place
    from bertport.batch.tasks import Form

__all__ = ["Chunk", "chunks", "cut", "damaged", "read_source"]

FORMATS = {".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
COMPRESSIONS = (".gz", ".xz", ".bz2")
ADVICE = f"give files that end in {', '.join(FORMATS)}, the first two perhaps compressed ({', '.join(COMPRESSIONS)})"
SAMPLE_ROWS, SAMPLE_BYTES = 1000, 4 << 20
"""Of the first file of JSON lines that holds rows, so many of them, or bytes, say which columns there are."""
LONGEST_LINE = 16 << 20
"""Bytes of a line, at most, as `bertport predict` takes it."""
DEEPEST = 400
"""Levels of lists and objects in a line, at most: what is read is written again, deeper in Python's stack."""
CHUNK_ROWS, CHUNK_BYTES = 2048, 1 << 20
"""Rows, and about how many bytes of them, are held at once."""
MOST_FILES = 256
"""Files of a part, at most: it opens one after the other."""
DAMAGED = (ValueError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
"""Errors of what is not, or not wholly, what its name says; pyarrow's own are ValueErrors."""
MEND = "the file is damaged, or no such file as its name says: replace it, or leave it out"
READERS = 16
"""Footers of Parquet files that are read at once."""
UNPACKED = 4
"""Times as large as its file compressed text is taken to be, where files of a part are counted."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Neighbouring rows of a part."""

    inputs: list[Any]
    """The input of each row, or an InputTextError."""
    carried: pa.Table
    """The columns that are written beside the answers."""
    places: list[tuple[str, int]]
    """Of each row, its file, and its number in a Parquet file, counted from 1, or the byte at which its line begins."""
    size: int
    """About how many bytes the rows have."""


def form_of(file: File) -> tuple[str, str]:
    """Return the format of a file and its compression, by its name."""
    name = _name(file.path)
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    stem = name.removesuffix(compression) if compression else name
    known = next((found for ending, found in FORMATS.items() if stem.endswith(ending)), "")
    return ("", "") if known == "parquet" and compression else (known, compression)


def _name(path: str) -> str:
    """Return what tells a file's format: its path in small letters, on the web without what follows it in the URL."""
    return (urlsplit(path).path if path.startswith(WEB) else path).lower()


def read_source(
    place: Place,
    files: Sequence[File],
    task: str,
    *,
    columns: Mapping[str, str],
    carry: Sequence[str] | None,
) -> tuple[Source, list[int]]:
    """Return how the rows of the input are read: of JSON lines by the first of them, of Parquet by every file.

    Args:
        place: the input.
        files: its files, one at least.
        task: the task.
        columns: the input's column for names of the task that are called otherwise there.
        carry: columns that are written beside the answers; None for all.

    Returns:
        How the rows are read, and how many each file of Parquet has, of which the footer says both.

    Raises:
        PathError: for files of formats that are not known, or that differ, and for one that cannot be read.
        InputTextError: where the columns that the task needs are not there, or have other types.
        UnknownNameError: for an unknown task, and a name that is none of the task's.
        UsageError: for a column that is to be carried twice.
    """
    import pyarrow as pa

    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    formats = {form_of(file)[0]: file for file in reversed(files)}
    if "" in formats:
        raise PathError(f"cannot tell the format of {redacted(formats[''].path)} by its name: {ADVICE}")
    if len(formats) > 1:
        raise PathError(f"{place.title} holds JSON lines and Parquet: name one kind with a glob, as '*.parquet'")
    [form_name] = formats
    there = _tables_columns(place, files) if form_name == "parquet" else Columns(_sampled(place, files))
    schema = there.schema
    forms = TASKS[task].forms
    known = sorted({name for form in forms for name in (*form.needs, *form.may)})
    for name in columns:
        if name not in known:
            raise UnknownNameError(f"column of {task}", name, known)
    form, named = _chosen(place, task, forms, schema.names, columns)
    for name, column in named.items():
        _check_type(place, task, name, schema.field(column), form, form_name)
    there.check([named[name] for name in form.needs], named.values())
    kept = _kept(there, carry)
    other = form_name == "json" and (carry is None or len(kept) > 0)
    if form_name == "json":  # a row may have a field that no row of the sample has
        named = _named(form, columns)
    if other:
        kept = kept.append(pa.field(OTHER, pa.string()))
    source = Source(
        format=form_name,
        form=form,
        columns=named,
        carried={item.name: str(item.type) for item in kept},
        other=other,
        rest=other and carry is None,
        schema=kept.serialize().to_pybytes(),
    )
    return source, there.counts


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of the input."""

    schema: pa.Schema
    """All columns, in the order in which files have them."""
    differing: dict[str, str] = field(default_factory=dict)
    """What is said of each column that has one type in one file and another in another."""
    sets: dict[frozenset[str], str] = field(default_factory=dict)
    """The first file of Parquet with each set of columns."""
    counts: list[int] = field(default_factory=list)
    """The rows of each file of Parquet."""

    def check(self, needed: Sequence[str], read: Iterable[str]) -> None:
        """Raise InputTextError where a file lacks a column that every row needs, and for types that differ in one read.

        Args:
            needed: Columns that every row needs.
            read: All columns that rows are read from.
        """
        for column in read:
            if column in self.differing:
                raise InputTextError(f"{self.differing[column]}: give files in which it has one type")
        for names, path in self.sets.items():
            for name in needed:
                if name not in names:
                    raise InputTextError(
                        f"{path} has no column {name}, which other files have: name the files that have it with a glob"
                    )


def _kept(there: Columns, carry: Sequence[str] | None) -> pa.Schema:
    """Return the columns that are written beside the answers."""
    import pyarrow as pa

    schema = there.schema
    wanted = list(schema.names) if carry is None else list(carry)
    for column in wanted:
        if column not in schema.names:
            raise UnknownNameError("column to carry", column, schema.names)
        if wanted.count(column) > 1:
            raise UsageError(
                f"the column {excerpt(column, 100)} is to be carried {wanted.count(column)} times: name it once"
            )
        if column in there.differing:
            raise InputTextError(
                f"{there.differing[column]}: give files in which it has one type, or carry other columns (--carry)"
            )
    # Nullable, whatever a file says of itself: another may hold a null.
    return pa.schema([pa.field(column, schema.field(column).type) for column in wanted])


def _chosen(
    place: Place, task: str, forms: Sequence[Form], there: Sequence[str], columns: Mapping[str, str]
) -> tuple[Form, dict[str, str]]:
    """Return the first form whose columns are there, and the input's column for each of its names."""
    for name, column in columns.items():
        if column not in there:
            raise InputTextError(
                f"{place.title} has no column {excerpt(column, 100)} (named for {name}; columns: {_shown(there)}): "
                "name one of them"
            )
    for form in forms:
        named = _named(form, columns)
        if all(named[name] in there for name in form.needs) and columns.keys() <= named.keys():
            return form, {name: column for name, column in named.items() if column in there}
    needed = ", or ".join(" and ".join(form.needs) for form in forms)
    lacking = [[name for name in form.needs if columns.get(name, name) not in there] for form in forms]
    if not all(lacking):  # else a form would have been found
        raise UsageError(
            f"--column names {' and '.join(columns)}, and {task} reads {needed}: name columns of one of them"
        )
    lacks = ", or ".join(dict.fromkeys(" and ".join(names) for names in lacking))
    raise InputTextError(
        f"{place.title} has no column {lacks} ({task} reads {needed}; columns: {_shown(there)}): "
        f"name the column that holds it, as --column {lacking[-1][0]}=NAME"
    )


def _named(form: Form, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the input's column for each name of a form; an optional one reads no column that another was given."""
    optional = [name for name in form.may if name in columns or name not in columns.values()]
    return {name: columns.get(name, name) for name in (*form.needs, *optional)}


def _shown(names: Sequence[str]) -> str:
    return ", ".join(excerpt(name, 50).strip("'\"") for name in names[:20]) or "none"


def _check_type(place: Place, task: str, name: str, column: pa.Field, form: Form, format_: str) -> None:  # noqa: PLR0913, PLR0917 — what the sentence names
    """Raise InputTextError for a column of a type that the task cannot read."""
    from pyarrow import types

    def textual(kind: pa.DataType) -> bool:
        if types.is_dictionary(kind):
            kind = kind.value_type
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))

    kind = column.type
    if types.is_null(kind):
        return
    if name in form.lists:
        listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        # Lists of JSON lines are carried as text; what they hold is looked at row by row.
        if (listed and textual(kind.value_type)) or (format_ == "json" and textual(kind)):
            return
        raise InputTextError(
            f"column {column.name} of {place.title} is {kind}, and {task} reads a list of texts from it: name another "
            f"column, as --column {name}=NAME"
        )
    if not textual(kind):
        raise InputTextError(
            f"column {column.name} of {place.title} is {kind}, and {task} reads a text from it: name another column, "
            f"as --column {name}=NAME"
        )


def _tables_columns(place: Place, files: Sequence[File]) -> Columns:
    """Return the columns that files of Parquet have together: a data set gains columns, and lacks them in old files."""
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa

    kinds: dict[str, tuple[pa.DataType, str]] = {}
    differing: dict[str, str] = {}
    sets: dict[frozenset[str], str] = {}
    counts: list[int] = []
    with ThreadPoolExecutor(READERS) as pool:  # each waits for a file's footer
        for file, (schema, count) in zip(files, pool.map(lambda file: _footer(place, file), files), strict=True):
            counts.append(count)
            sets.setdefault(frozenset(schema.names), redacted(file.path))
            for item in schema:
                before, path = kinds.get(item.name, (pa.null(), redacted(file.path)))
                kind = _both(before, item.type)
                if kind is None:
                    differing.setdefault(
                        item.name,
                        f"column {item.name} of {redacted(file.path)} is {item.type}, and of {path} {before}",
                    )
                elif kind != before:
                    kinds[item.name] = (kind, redacted(file.path))
                else:
                    kinds.setdefault(item.name, (kind, path))
    return Columns(pa.schema([pa.field(name, kind) for name, (kind, _) in kinds.items()]), differing, sets, counts)


def _both(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type of the values of two columns that differ in their layout alone; None where these differ.

    Programs choose the layout of text by themselves, pandas and Polars by the size of a table: `string`, `large_string`
    or a dictionary. Nulls alone fit any type.
    """
    import pyarrow as pa
    from pyarrow import types

    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if types.is_dictionary(one) or types.is_dictionary(other):
        return _both(*(kind.value_type if types.is_dictionary(kind) else kind for kind in (one, other)))
    for layouts, large in (
        ((types.is_string, types.is_large_string, types.is_string_view), pa.large_string()),
        ((types.is_binary, types.is_large_binary, types.is_binary_view), pa.large_binary()),
    ):
        if all(any(layout(kind) for layout in layouts) for kind in (one, other)):
            return large
    listed = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    if all(any(layout(kind) for layout in listed) for kind in (one, other)):
        value = _both(one.value_type, other.value_type)
        large_list = types.is_large_list(one) or types.is_large_list(other)
        return None if value is None else pa.large_list(value) if large_list else pa.list_(value)
    return None


def _footer(place: Place, file: File) -> tuple[pa.Schema, int]:
    """Return the columns and the number of rows of a Parquet file."""
    with _parquet(place.at(file.path)) as table:
        schema, count = table.schema_arrow.remove_metadata(), int(table.metadata.num_rows)
    if len(set(schema.names)) < len(schema.names):
        raise InputTextError(f"{redacted(file.path)} has two columns of one name: give each a name of its own")
    return schema, count


def _sampled(place: Place, files: Sequence[File]) -> pa.Schema:
    """Return the columns that the first rows of JSON lines have.

    `OTHER` is none of them, which is our own column, nor is a name that Arrow's text cannot hold: both are kept there.
    """
    import pyarrow as pa

    kinds: dict[str, set[str]] = {}
    rows = size = 0
    for file in files:
        for _, raw in _raw_lines(place.at(file.path), 0, -1):
            value = _object(raw)
            if isinstance(value, InputTextError):
                continue
            for name, cell in value.items():
                kinds.setdefault(name, set()).add(_kind(cell))
            rows, size = rows + 1, size + len(raw)
            if rows >= SAMPLE_ROWS or size >= SAMPLE_BYTES:
                break
        if rows:
            break
    else:
        raise InputTextError(f"{place.title} holds no rows: give JSON lines, an object a line")
    return pa.schema(
        [pa.field(name, _type_of(found)) for name, found in kinds.items() if name != OTHER and _whole(name)]
    )


def _kind(cell: object) -> str:
    match cell:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() if -(1 << 63) <= cell < 1 << 63:
            return "int64"
        case int() | float():
            return "double"
        case str():
            return "string"
    return "json"


def _type_of(kinds: set[str]) -> pa.DataType:
    """Return the type of a column that holds such values; text where they are mixed or nested."""
    import pyarrow as pa

    kinds = kinds - {"null"}
    if kinds == {"int64", "double"}:
        return pa.float64()
    match tuple(kinds):
        case ("bool" | "int64" | "double" as kind,):
            return {"bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64()}[kind]
    return pa.string()


def cut(place: Place, files: Sequence[File], source: Source, rows: int, counts: Sequence[int]) -> list[Part]:
    """Return the parts of the input, in order: of about `rows` rows, of several files where they are smaller.

    Args:
        place: the input.
        files: its files, one at least.
        source: how its rows are read.
        rows: about how many rows a part has.
        counts: rows of each file of Parquet, as `read_source` returns them.

    Raises:
        PathError: for a file that cannot be read.
        UsageError: for a URL that no worker could open.
    """
    # A URL that no worker could open is refused before the run begins; in one, `::` in a name stands for a chain.
    for file in (files[0], *(file for file in files[1:] if "::" in file.path)):
        place.at(file.path).stored()
    spans: list[list[tuple[int, int, int]]] = []
    limit = rows
    if source.format == "parquet":
        spans = [
            [(first, min(count, first + rows), min(rows, count - first)) for first in range(0, count, rows)]
            for count in counts
        ]
    else:
        limit = step = max(1, _bytes_a_row(place, files)) * rows
        for file in files:
            if form_of(file)[1]:
                spans.append([(0, -1, file.size * UNPACKED)])
            else:
                spans.append(
                    [
                        (first, min(file.size, first + step), min(step, file.size - first))
                        for first in range(0, file.size, step)
                    ]
                )
    groups: list[list[Span]] = []
    weights: list[int] = []
    for file, found in zip(files, spans, strict=True):
        url = place.at(file.path).url
        for first, last, weight in found:
            if groups and weights[-1] + weight <= limit and len(groups[-1]) < MOST_FILES:
                groups[-1].append(Span(url, first, last))
                weights[-1] += weight
            else:
                groups.append([Span(url, first, last)])
                weights.append(weight)
    if not groups:  # files without rows: one part without any, so that the output can be read
        groups, weights = [[]], [0]
    return [
        Part(number=number, spans=tuple(group), weight=max(1, weight))
        for number, (group, weight) in enumerate(zip(groups, weights, strict=True))
    ]


def _bytes_a_row(place: Place, files: Sequence[File]) -> int:
    """Return about how many bytes a line has, by the first ones of the first file that has any."""
    rows = size = 0
    for file in files:
        for _, raw in _raw_lines(place.at(file.path), 0, -1):
            rows, size = rows + 1, size + len(raw) + 1
            if rows >= SAMPLE_ROWS:
                break
        if rows:
            break
    return size // max(1, rows)


def chunks(part: Part, source: Source) -> Iterator[Chunk]:
    """Yield the rows of a part, a bounded number at once.

    Raises:
        PathError: where a file cannot be read, or holds less than when the run began.
    """
    read = _table_chunks if source.format == "parquet" else _line_chunks
    held: list[Chunk] = []
    rows = size = 0
    for chunk in (chunk for span in part.spans for chunk in read(span, source)):
        rows, size = rows + len(chunk.inputs), size + chunk.size
        if held and (rows > CHUNK_ROWS or size > CHUNK_BYTES):
            yield _joined(held)
            held, rows, size = [], len(chunk.inputs), chunk.size
        held.append(chunk)
    if held:
        yield _joined(held)


def _joined(held: list[Chunk]) -> Chunk:
    """Return the rows of several small files together: they share the model's batches."""
    import pyarrow as pa

    if len(held) == 1:
        return held[0]
    return Chunk(
        inputs=[value for chunk in held for value in chunk.inputs],
        carried=pa.concat_tables([chunk.carried for chunk in held]),
        places=[place for chunk in held for place in chunk.places],
        size=sum(chunk.size for chunk in held),
    )


def _table_chunks(span: Span, source: Source) -> Iterator[Chunk]:
    import pyarrow as pa

    kept = pa.ipc.read_schema(pa.py_buffer(source.schema))
    with _parquet(open_place(span.url)) as table:
        there = table.schema_arrow.names
        asked = [column for column in dict.fromkeys(source.columns.values()) if column in there]
        read = [column for column in dict.fromkeys([*kept.names, *asked]) if column in there]
        groups: list[int] = []
        start = before = 0
        for group in range(table.metadata.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            if start < span.last and start + count > span.first:
                if not groups:
                    before = start
                groups.append(group)
            start += count
        row = before
        for batch in table.iter_batches(batch_size=_rows_at_once(table, groups), row_groups=groups, columns=read):
            first, last = max(span.first - row, 0), min(span.last - row, batch.num_rows)
            begin = row + first
            row += batch.num_rows
            if last > first:
                rows = pa.Table.from_batches([batch.slice(first, last - first)])
                inputs = [_input(cell, source) for cell in rows.select(asked).to_pylist()]
                places = [(span.url, number) for number in range(begin + 1, begin + 1 + len(inputs))]
                carried = _carried([_column(rows, item) for item in kept], kept, len(inputs))
                yield Chunk(inputs, carried, places, rows.nbytes)
            if row >= span.last:  # the rest of the group is other parts'
                break
    if row < span.last:
        raise _shrunk(redacted(span.url))


def _column(rows: pa.Table, item: pa.Field) -> Any:  # noqa: ANN401 — pyarrow has no types
    """Return a column of a Parquet file in the type of all files; nulls where the file has none, or nulls alone."""
    import pyarrow as pa

    at = rows.schema.get_field_index(item.name)
    lacking = at < 0 or pa.types.is_null(rows.schema.field(at).type)
    return pa.nulls(rows.num_rows, item.type) if lacking else rows.column(at).cast(item.type)


def _shrunk(url: str) -> PathError:
    """Return the error of a file that holds less than when the run began."""
    return PathError(f"{url} holds less than when the run began, so that rows are missing: give another output folder")


def _rows_at_once(table: Any, groups: Sequence[int]) -> int:  # noqa: ANN401 — pyarrow has no types
    """Return how many rows of a Parquet file are read at once: fewer where they are large."""
    found = [table.metadata.row_group(group) for group in groups]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in found), default=1)
    return max(1, min(CHUNK_ROWS, int(CHUNK_BYTES / max(1, largest))))


def _line_chunks(span: Span, source: Source) -> Iterator[Chunk]:
    import pyarrow as pa

    kept = pa.ipc.read_schema(pa.py_buffer(source.schema))
    inputs: list[Any] = []
    columns: dict[str, list[Any]] = {name: [] for name in kept.names}
    places: list[tuple[str, int]] = []
    held = 0

    def chunk() -> Chunk:
        arrays = [pa.array(columns[item.name], type=item.type) for item in kept]
        return Chunk(inputs, _carried(arrays, kept, len(inputs)), places, held)

    for start, raw in _raw_lines(open_place(span.url), span.first, span.last):
        value = _object(raw)
        fields = {} if isinstance(value, InputTextError) else value
        places.append((span.url, start))
        held += len(raw)
        inputs.append(value if isinstance(value, InputTextError) else _input(fields, source))
        _keep(fields, kept, columns, source)
        if len(inputs) >= CHUNK_ROWS or held >= CHUNK_BYTES:
            yield chunk()
            inputs, columns, places, held = [], {name: [] for name in kept.names}, [], 0
    if inputs:
        yield chunk()


def _carried(columns: Sequence[Any], kept: pa.Schema, rows: int) -> pa.Table:
    """Return columns as a table of the carried ones, of which there may be none; files differ in what may be null."""
    import pyarrow as pa

    return pa.Table.from_arrays(columns, schema=kept) if columns else pa.table({"": pa.nulls(rows)}).select([])


def _keep(value: Mapping[str, Any], kept: pa.Schema, columns: dict[str, list[Any]], source: Source) -> None:
    """Add the fields of one object to the columns, and to the column of others what fits in none."""
    others: dict[str, Any] = {}
    if source.rest:
        others = {name: cell for name, cell in value.items() if name == OTHER or name not in source.carried}
    for item in kept:
        if item.name == OTHER and source.other:
            continue
        cell = value.get(item.name)
        fits, cell = _fitting(cell, str(item.type))
        if not fits:
            others[item.name] = value[item.name]
        columns[item.name].append(cell)
    if source.other:
        columns[OTHER].append(_as_json(others) if others else None)


def _as_json(value: Any) -> str:  # noqa: ANN401 — a JSON value
    """Return a value as a text of JSON; NaN and infinities, which Python's reader takes and JSON lacks, become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


def _fitting(cell: Any, type_: str) -> tuple[bool, Any]:  # noqa: ANN401 — a JSON value
    """Return whether a value fits a column's type, and the value as the column holds it; null where it does not."""
    kind = _kind(cell)
    if type_ == "double" and isinstance(cell, int) and not isinstance(cell, bool):
        return _as_double(cell)
    if kind in {"null", type_}:
        return (True, cell) if kind != "string" or _whole(cell) else (False, None)
    if type_ == "string":
        return True, _as_json(cell)
    return False, None


def _as_double(number: int) -> tuple[bool, float | None]:
    """Return whether a double is exactly this number, and the double."""
    try:
        value = float(number)
    except OverflowError:
        return False, None
    return (True, value) if value == number else (False, None)


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which Arrow's text cannot hold
        return False
    return True


def _input(cells: Mapping[str, Any], source: Source) -> Any:  # noqa: ANN401 — as `Model.predict` takes it
    given = {name: cells.get(column) for name, column in source.columns.items()}
    for name in source.form.needs:
        if given.get(name) is None:
            return InputTextError(f"{source.columns[name]} is null or missing: give the row one, or leave it out")
    return source.form.value(given)


def _object(raw: bytes) -> dict[str, Any] | InputTextError:  # noqa: PLR0911 — one for each form of a line
    """Return the object of a line; a text is its field `text`, and two in a list are `text` and `text_pair`."""
    if len(raw) > LONGEST_LINE:
        return InputTextError(f"a line of more than {LONGEST_LINE:,} bytes is too long: shorten it")
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return InputTextError(f"not a line of JSON ({str(error) or 'nested too deeply'}): give an object a line")
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and is_deeper(value, DEEPEST):
        return InputTextError(f"a line nested more than {DEEPEST} levels deep cannot be carried: flatten it")
    match value:
        case dict():
            return value
        case str():
            return {"text": value}
        case [str(a), str(b)]:
            return {"text": a, "text_pair": b}
    return InputTextError(f"{excerpt(value)} is not an object: give an object a line")


def _raw_lines(place: Place, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    """Yield each line that begins in a stretch of bytes, with the byte at which it begins; blank ones are left out.

    Of a line that is too long only its beginning is kept.
    """
    with _reading(place), _opened(place) as stream:
        at = 0
        if first > 0:  # the line that began before this stretch belongs to the stretch before
            stream.seek(first - 1)
            at = first - 1
            while part := stream.readline(LONGEST_LINE):
                at += len(part)
                if part.endswith(b"\n"):
                    break
        while last < 0 or at < last:
            start, line = at, stream.readline(LONGEST_LINE + 2)
            if not line and last >= 0:
                raise _shrunk(place.title)
            if not line:
                break
            at += len(line)
            whole = line.endswith(b"\n")
            while not whole and (more := stream.readline(LONGEST_LINE)):
                at += len(more)
                whole = more.endswith(b"\n")
            if line.strip():
                yield start, line.rstrip(b"\r\n")


def _opened(place: Place) -> IO[bytes]:
    stream = place.open()
    name = _name(place.path)
    if name.endswith(".gz"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    if name.endswith(".xz"):
        return lzma.LZMAFile(stream)
    if name.endswith(".bz2"):
        return bz2.BZ2File(stream)
    return cast("IO[bytes]", io.BufferedReader(stream, 1 << 20)) if place.local is False else stream


@contextmanager
def _parquet(place: Place) -> Iterator[Any]:
    """Open a Parquet file of any file system."""
    from pyarrow import parquet

    with _reading(place), place.open() as stream, parquet.ParquetFile(stream, pre_buffer=False) as table:
        yield table


@contextmanager
def _reading(place: Place) -> Iterator[None]:
    """Raise PathError for what file systems and decoders raise, each of which has errors of its own."""
    try:
        yield
    except BertportError:
        raise
    except Exception as error:
        raise unreachable(place.title, error, _advice(place, error)) from error


def _advice(place: Place, error: Exception) -> str:
    """Return what to do about a file that cannot be read; empty where the error does not tell."""
    if place.path.startswith(WEB) and type(error) is ValueError:  # fsspec's own; those of decoders are its subclasses
        return "its server sends whole files alone: copy it here"
    return MEND if damaged(place, error) else ""


def damaged(place: Place, error: Exception) -> bool:
    """Return whether an error is of a file that is not, or not wholly, what its name says."""
    # pyarrow and bz2 raise OSError without a number for what they cannot decode.
    return isinstance(error, DAMAGED) or (place.local and isinstance(error, OSError) and error.errno is None)
