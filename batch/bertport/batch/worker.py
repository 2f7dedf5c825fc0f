"""A worker: loads a bundle once, and makes part after part of the output."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertport.batch.job import ERROR, FAIL, HUB
from bertport.batch.places import RECORDS, open_place, redacted, unreachable
from bertport.batch.reading import chunks, damaged
from bertport.runtime.errors import (
    BertportError,
    BundleError,
    PathError,
    ProviderError,
    UnknownNameError,
    UsageError,
)
from bertport.runtime.excerpts import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from bertport.batch.job import Job, Part, Runs
    from bertport.batch.places import Place
    from bertport.batch.reading import Chunk
    from bertport.batch.tasks import Column
    from bertport.runtime.bundle.hub import OnHub
    from bertport.runtime.model import Model
    from bertport.runtime.tasks.table import Call

__all__ = [
    "ID",
    "STATS",
    "Worker",
    "answer_schema",
    "at_commit",
    "bundle_directory",
    "check_own",
    "chosen_model",
    "open_model",
    "part_stats",
    "scratch",
]

STATS = b"bertport"
"""The key of a part's metadata that holds what was counted while it was made, as JSON."""
ID = "id.json"
"""The file among a run's records that holds its name alone: each worker reads it before each part."""
VARIANT = "variant.json"
"""The file among a run's records that holds the variant that all parts are answered by, where none was asked for."""
ANSWERS = 1024
"""Most answers that are held as Python values."""
ANSWER_BYTES = 8 << 20
"""Bytes of vectors among them, about."""
GROUP_BYTES = 32 << 20
"""Bytes of a row group, about."""
REASONS = 20
"""Kinds of errors that are counted apart."""


@dataclass(slots=True)
class Counts:
    """Counts of a part while it is made: rows, tokens, errors and CPU time."""

    rows: int = 0
    """Rows of the input."""
    written: int = 0
    """Rows of the output."""
    tokens: int = 0
    """Tokens that the model read, without padding."""
    padded: int = 0
    """Tokens of the batches, with it."""
    errors: Counter[str] = field(default_factory=Counter)
    """Rows without an answer, by reason."""
    cpu: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "write": 0.0})
    """CPU seconds of reading the input and of writing the output."""

    def observe(self, lengths: list[int]) -> None:
        """Count a batch, by the tokens of its rows."""
        self.tokens += sum(lengths)
        self.padded += max(lengths) * len(lengths)

    def failed(self, message: str) -> None:
        """Count a row without an answer."""
        reason = reason_of(message)
        if reason not in self.errors and len(self.errors) >= REASONS:
            reason = "other reasons"
        self.errors[reason] += 1


def reason_of(message: str) -> str:
    """Return what errors of one kind have in common: the sentence without its numbers and what it quotes.

    >>> reason_of("the input has 700 tokens and 512 are taken: shorten it: 'Once upon'")
    'the input has N tokens and N are taken'
    >>> reason_of("not a line of JSON (Expecting value: line 1 column 1 (char 0)): give an object a line")
    'not a line of JSON'
    """
    bare = re.sub(r"\s*\([^()]*(?:\([^()]*\)[^()]*)*\)", "", message[:1000])
    return re.sub(r"\d[\d,]*", "N", re.split(r'(?<!"): |, not ', bare, maxsplit=1)[0])[:120]


class Worker:
    """Makes parts of one job, one at a time. The bundle is loaded when the first is asked for.

    Args:
        job: what is asked.
        model: a model that is loaded already; None to load the job's.
        bundle: where the bundle is on this machine, if not where the job says.
        node: name of the node in what is counted; None for this machine's host name.
    """

    def __init__(
        self, job: Job, *, model: Model | None = None, bundle: str | None = None, node: str | None = None
    ) -> None:
        self.job = job
        self._model = model
        self._bundle = bundle
        self._node = node or platform.node()
        self._call: Call | None = None
        self._output = open_place(job.output)

    def make(self, part: Part) -> dict[str, Any]:
        """Write a part unless it is there, and return what was counted while it was made.

        Raises:
            PathError: where the input or the output is not seen from here, or the output is another run's.
            BertportError: for a bundle that is not the job's or does not load; for a row without an answer where the
                job is to end there.
        """
        target = self._output.child(part.name)
        self._check_output()
        if target.exists():
            return self._stats_of(target)
        call = self._ready()
        try:
            return self._made(part, call, target)
        except OSError as error:
            if target.exists():  # another run of the same command made it, ended, and tidied up
                return self._stats_of(target)
            # What goes to a store is written here first.
            here = tempfile.tempdir or "the folder for temporary files"
            raise unreachable(self._output.title if self._output.local else here, error) from error

    def _made(self, part: Part, call: Call, target: Place) -> dict[str, Any]:
        """Write a part, and return what was counted."""
        assert self._model is not None  # noqa: S101 — `_ready` loads it
        wall, cpu = time.monotonic(), time.process_time()
        counts = Counts()
        beside = scratch(self._output)
        if beside.local:  # there it only has to be renamed, and what a killed worker leaves goes with the run's end
            beside.make()
        with tempfile.TemporaryDirectory(
            prefix="part-", dir=beside.path if beside.local else None, ignore_cleanup_errors=True
        ) as folder:
            made = Path(folder) / f"{part.name}.{uuid.uuid4().hex}"
            schema = answer_schema(self.job)
            with _writer(made, schema) as writer:
                for table in _grouped(self._tables(part, call, counts, schema)):
                    began = time.thread_time()
                    writer.write_table(table)
                    counts.cpu["write"] += time.thread_time() - began
                stats = {
                    "part": part.number,
                    "rows": counts.rows,
                    "written": counts.written,
                    "errors": dict(counts.errors),
                    "tokens": counts.tokens,
                    "padded": counts.padded,
                    "seconds": round(time.monotonic() - wall, 4),
                    "cpu": {**counts.cpu, "all": time.process_time() - cpu},
                    "cores": self._model.graph.threads or os.cpu_count(),
                    "node": self._node,
                    "worker": f"{self._node}:{os.getpid()}",
                    "run": self.job.id,
                    "variant": self._model.variant,
                }
                writer.add_key_value_metadata({STATS.decode(): json.dumps(stats)})
            stats["size"] = made.stat().st_size
            target.take(made, beside)
        return stats

    def _stats_of(self, target: Place) -> dict[str, Any]:
        """Return what was counted of a part that is there; PathError where another run made it."""
        stats = part_stats(target)
        check_own(stats, self.job.id, target)
        return stats

    def _check_output(self) -> None:
        """Raise PathError unless the output here holds this run's record: a path may be another machine's own."""
        output = redacted(self.job.output)
        content = self._output.child(RECORDS).child(ID).read()
        if content is None:
            raise PathError(
                f"the output {output} is not seen from {platform.node()} as the machine that began the run sees it: "
                "give a folder that every machine shares, or a URL"
            )
        if json.loads(content)["id"] != self.job.id:
            raise PathError(f"the output {output} was taken by another run meanwhile: give another folder")

    def _ready(self) -> Call:
        """Return the task with its parameters; the model is loaded for the first part."""
        if self._model is None:
            self._model = self._loaded()
        if self._call is None:
            self._call = self._model.resolve(self.job.task, **self.job.parameters)
        return self._call

    def _loaded(self) -> Model:
        """Return the job's model; an error's sentence names this machine, which is one of many."""
        try:
            return chosen_model(self.job.runs, self._output, self._bundle)
        except (PathError, BundleError) as error:
            bundle = self.job.runs.bundle
            advice = "install the same bertport" if bundle is None else f"put the same bundle at {bundle}"
            raise type(error)(
                f"{platform.node()} does not load the bundle of this run ({error.message}): {advice} on every machine, "
                "or pass the bundle on with --ship"
            ) from error
        except BertportError as error:
            raise UsageError(f"{platform.node()}: {error.message}") from error

    def _tables(self, part: Part, call: Call, counts: Counts, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield the rows of the output, as they are answered."""
        assert self._model is not None  # noqa: S101 — the caller loaded it
        for chunk in _timed(chunks(part, self.job.source), counts):
            outcomes = self._model.outcomes(call, chunk.inputs, observe=counts.observe)
            at = 0
            for answers in _bounded(outcomes):
                began = time.thread_time()
                table = self._table(chunk, at, answers, counts, schema)
                counts.cpu["write"] += time.thread_time() - began
                yield table
                at += len(answers)

    def _table(self, chunk: Chunk, at: int, answers: list[Any], counts: Counts, schema: pa.Schema) -> pa.Table:
        """Return the rows of answers: what is carried, the answers' columns, and the errors."""
        import pyarrow as pa

        shape, prefix = self.job.shape, self.job.prefix
        errors: list[str | None] = [None] * len(answers)
        fields: list[Mapping[str, Any] | None] = [None] * len(answers)
        for row, answer in enumerate(answers):
            if isinstance(answer, BertportError):
                self._refuse(chunk.places[at + row], answer)
                errors[row] = answer.message
                counts.failed(answer.message)
            else:
                fields[row] = shape.fields(answer)
        carried = chunk.carried.slice(at, len(answers))
        arrays = [
            *carried.columns,
            *(_array(column, fields) for column in shape.columns),
            pa.array(errors, pa.string()),
        ]
        table = pa.Table.from_arrays(arrays, schema=schema)
        counts.rows += len(answers)
        if self.job.on_error == "drop" and any(errors):
            table = table.filter(pa.array([error is None for error in errors]))
        counts.written += table.num_rows
        assert table.schema.names[-1] == f"{prefix}{ERROR}"  # noqa: S101 — the order of `answer_schema`
        return table

    def _refuse(self, place: tuple[str, int], error: BertportError) -> None:
        """Raise UsageError for a row without an answer, where the run is to end there."""
        if self.job.on_error == FAIL:
            url, number = place
            where = f"row {number:,}" if self.job.source.format == "parquet" else f"the line at byte {number:,}"
            raise UsageError(
                f"{where} of {redacted(url)} has no answer ({excerpt(error.message, 300)}): correct it, or use "
                "--on-error keep or drop; the parts that are done are kept"
            )


def open_model(runs: Runs, bundle: str | None = None) -> Model:
    """Return the model that a job runs, pinned by its digest.

    Raises:
        BertportError: for a bundle that is another one or does not load here.
    """
    from bertport.runtime import load

    return load(
        bundle or bundle_directory(runs.bundle, digest=runs.digest),
        variant=runs.variant,
        provider=runs.provider,
        provider_library=runs.provider_library,
        provider_options=runs.provider_options,
        threads=runs.threads,
        streams=runs.streams,
        memory=runs.memory,
        digest=runs.digest,
    )


def chosen_model(runs: Runs, output: Place, bundle: str | None = None) -> Model:
    """Return the model that a job runs, of one variant in all its parts.

    Where none was asked for, the first worker that loads the bundle chooses by its own CPU and provider, and the
    others, whose choice might be another, take its. So does a run that goes on elsewhere.

    Args:
        runs: what is run.
        output: the run's folder.
        bundle: where the bundle is on this machine, if not where the job says.

    Raises:
        UsageError: where the variant that was chosen does not load here, and where nothing says which it is.
        BertportError: for a bundle that is another one or does not load here.
    """
    if runs.variant is not None:
        return open_model(runs, bundle)
    record = output.child(RECORDS).child(VARIANT)
    model = None
    if (chosen := record.read()) is None:
        model = open_model(runs, bundle)
        record.create(json.dumps({"variant": model.variant}).encode(), scratch(output))
        chosen = record.read()  # another worker may have chosen at the same moment
    variant = None
    with suppress(ValueError, KeyError, TypeError):
        variant = json.loads(chosen or b"")["variant"]
    if not isinstance(variant, str):
        raise UsageError(f"{record.title} does not hold the variant that the first worker chose: give another folder")
    try:
        if model is not None and model.variant == variant:
            return model
        model = None  # before another one takes memory
        return open_model(replace(runs, variant=variant), bundle)
    except (ProviderError, UnknownNameError) as error:
        raise UsageError(
            f"this run's parts are answered by the variant {excerpt(variant)}, which another worker chose, and that "
            f"does not load here ({error.message}): give another folder, and a --variant that every machine has"
        ) from error


def bundle_directory(bundle: str | None, *, digest: str | None = None) -> str | None:
    """Return the directory of a bundle; one on the Hub is fetched, or found in its cache.

    Raises:
        UsageError: for an empty revision of one on the Hub.
        PathError: where it cannot be had, and without huggingface_hub, for one on the Hub.
        BundleError: where the repository lacks a file of it, or its manifest, fetched first, has another digest.
    """
    if bundle is None or not bundle.startswith(HUB):
        return bundle
    return str(_on_hub(bundle).place().fetch_all(digest=digest))


def at_commit(bundle: str | None) -> str | None:
    """Return a bundle on the Hub by its commit, which workers that begin later find too, wherever a branch has gone.

    Raises:
        UsageError: for an empty revision of one on the Hub.
        PathError: where it cannot be had, and without huggingface_hub, for one on the Hub.
    """
    if bundle is None or not bundle.startswith(HUB):
        return bundle
    repository = _on_hub(bundle)
    return f"{HUB}{repository.name}@{repository.place().directory.name}"


def _on_hub(bundle: str) -> OnHub:
    from bertport.runtime.bundle.hub import OnHub

    name, at, revision = bundle.removeprefix(HUB).partition("@")
    return OnHub(name=name, revision=revision if at else None)


def answer_schema(job: Job) -> pa.Schema:
    """Return Arrow's schema of the output: what is carried, the columns of the answers, and the errors.

    Raises:
        UsageError: where a column of the answers has the name of one that is carried.
    """
    import pyarrow as pa

    carried = pa.ipc.read_schema(pa.py_buffer(job.source.schema))
    made = [(column.name, _type(column.type)) for column in job.shape.columns] + [(ERROR, pa.string())]
    for name, _ in made:
        if f"{job.prefix}{name}" in carried.names:
            raise UsageError(
                f"the input has a column {job.prefix}{name}, and the answer of {job.task} too: give the answer's names "
                "a --prefix, or carry other columns (--carry)"
            )
    return pa.schema([*carried, *(pa.field(f"{job.prefix}{name}", type_) for name, type_ in made)])


def part_stats(place: Place) -> dict[str, Any]:
    """Return what was counted while a part was made, which its file holds, and the file's size.

    Raises:
        PathError: for a file that is no part, and for one that cannot be read.
    """
    from pyarrow import parquet

    try:
        with place.open() as stream, parquet.ParquetFile(stream) as table:
            content = (table.metadata.metadata or {})[STATS]
            size = stream.seek(0, os.SEEK_END)
        return {**json.loads(content), "size": size}
    except BertportError:
        raise
    except Exception as error:
        if not (isinstance(error, KeyError) or damaged(place, error)):
            raise unreachable(place.title, error) from error
        raise PathError(
            f"{place.title} is not a part of a run ({excerpt(str(error), 100)}): remove it, and it is made again"
        ) from error


def check_own(stats: Mapping[str, Any], run: str, place: Place) -> None:
    """Raise PathError for what was counted of a part that another run made."""
    if stats.get("run") != run:
        raise PathError(f"{place.title} is a part of another run: give another output folder")


def scratch(output: Place) -> Place:
    """Return the folder of an output where files are written before they are renamed."""
    return output.child(RECORDS).child("tmp")


def _type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name.startswith("list<"):
        return pa.list_(_type(name.removeprefix("list<").removesuffix(">")))
    return {"double": pa.float64(), "float": pa.float32(), "bool": pa.bool_()}.get(name) or getattr(pa, name)()


def _array(column: Column, fields: list[Mapping[str, Any] | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if row is None else row[column.name] for row in fields], type=_type(column.type))


def _writer(path: Path, schema: pa.Schema) -> Any:  # noqa: ANN401 — pyarrow has no types
    from pyarrow import parquet

    return parquet.ParquetWriter(path, schema, compression="zstd")


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables that are large enough for a row group each."""
    import pyarrow as pa

    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)


def _bounded(outcomes: Iterator[Any]) -> Iterator[list[Any]]:
    """Yield answers in lists, as many as may be held at once."""
    while answers := list(islice(outcomes, 1)):
        size = getattr(answers[0], "nbytes", 0)
        for answer in islice(outcomes, ANSWERS - 1):
            answers.append(answer)
            size += getattr(answer, "nbytes", 0)
            if size >= ANSWER_BYTES:
                break
        yield answers


def _timed(rows: Iterator[Chunk], counts: Counts) -> Iterator[Chunk]:
    """Yield chunks, and count the CPU seconds that reading them took."""
    while True:
        began = time.thread_time()
        chunk = next(rows, None)
        counts.cpu["read"] += time.thread_time() - began
        if chunk is None:
            return
        yield chunk
