"""Running a batch: the input is listed and cut, an engine makes the parts, and a record says what is done."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import TYPE_CHECKING, Any

from bertport.batch.engines import ENGINES, LOCAL, RAY
from bertport.batch.job import DEFAULT, HUB, ON_ERROR, Carriers, Job, Runs
from bertport.batch.places import SIGNS, covers, open_place
from bertport.batch.summary import Pace, summarized
from bertport.runtime.bundle.directory import expected_digest
from bertport.runtime.errors import MissingDependencyError, PathError, UnknownNameError, UsageError
from bertport.runtime.installation import first_missing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertport.batch.places import File, Place
    from bertport.batch.record import Record
    from bertport.runtime.commands.progress import Progress
    from bertport.runtime.model import Model

__all__ = ["PART_ROWS", "run"]

PART_ROWS = 8192
"""Rows of a part where nothing else is asked for: seconds to a minute of a core's work, and what a death costs."""
EVERY = 30.0
"""Seconds between two lines of progress where they are not shown on a terminal."""


def run(  # noqa: PLR0913 — each is one choice, by keyword
    bundle: str | os.PathLike[str] | None,
    task: str,
    input: str | os.PathLike[str],  # noqa: A002 — what the command calls it
    output: str | os.PathLike[str],
    *,
    parameters: Mapping[str, Any] | None = None,
    engine: str = LOCAL,
    address: str = "auto",
    workers: int | None = None,
    ship: bool = False,
    on_error: str = "keep",
    columns: Mapping[str, str] | None = None,
    carry: Sequence[str] | None = None,
    prefix: str = "",
    part_rows: int = PART_ROWS,
    variant: str | None = None,
    provider: str = "auto",
    provider_library: str | None = None,
    provider_options: Mapping[str, str | float | bool] | None = None,
    threads: int | None = None,
    streams: int | None = None,
    memory: str | None = None,
    digest: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Answer every row of files, and write the answers as parts of Parquet; an interrupted run goes on where it was.

    Parts are in the order of the input, and so are rows in a part. A part is there whole or not at all.

    Args:
        bundle: directory of the bundle, which every machine sees, or `hf://OWNER/NAME[@REVISION]`; None or `default`
            for the embedded one.
        task: the task, as `Model.predict` takes it.
        input: JSON lines or Parquet: a file, a folder, a glob, or a URL of fsspec.
        output: folder of the parts: a path or a URL. A run of the same request in it goes on.
        parameters: the task's own.
        engine: `local`, or `ray`.
        address: Ray's cluster: `auto` for the one that runs here, `HOST:PORT`, or `local` to start one here.
        workers: most workers of Ray; None for as many as the cluster carries.
        ship: pass the bundle on through Ray, in place of a path that every machine sees.
        on_error: `keep` writes a row without an answer with its error, `drop` leaves it out, `fail` ends the run.
        columns: the input's column for names of the task that are called otherwise there.
        carry: columns of the input that are written beside the answers; None for all.
        prefix: what the names of the answers' columns begin with.
        part_rows: about how many rows a part has.
        variant: variant of the bundle; None for the one that suits the provider.
        provider: provider, as `load` takes it; on Ray `auto` is `cpu`, and one that runs on a GPU asks for one.
        provider_library: path of a plugin that holds the provider.
        provider_options: the provider's options.
        threads: threads of a worker; None for one per physical core, or on Ray for 1.
        streams: batches at once of a worker; None for `load`'s own choice, or on Ray for 1.
        memory: what a worker may hold in memory, as `load` takes it.
        digest: digest that the bundle must have; None for any. It is recorded, and each worker holds its own to it.
        progress: where to show how far the run is.

    Returns:
        The summary, which the output holds as `_bertport/summary.json` too.

    Raises:
        PathError: for an input or an output that cannot be used, or holds something else.
        InputTextError: where the columns that the task needs are not there or have other types.
        UsageError: for what cannot be, a row without an answer under `fail`, and an output of another run.
        BundleError: for a bundle that is none, or another one on some machine.
        MissingDependencyError: where pyarrow, fsspec, Ray or a file system's package is not installed.
    """
    began, cpu = time.monotonic(), time.process_time()
    _check(engine, on_error, part_rows, workers, ship=ship)
    runs = Runs(
        bundle=None if bundle in (None, DEFAULT) else _absolute(str(bundle)),
        digest="" if digest is None else expected_digest(digest),
        variant=variant,
        provider=provider,
        provider_library=None if provider_library is None else _absolute(str(provider_library)),
        provider_options=dict(provider_options or {}),
        threads=threads,
        streams=streams,
        memory=memory,
    )
    place, target = open_place(str(input)), open_place(str(output))
    _check_output(place, target)
    files = _files(place)
    record, job, model = _prepared(
        place,
        files,
        target,
        task,
        runs,
        parameters=dict(parameters or {}),
        columns=dict(columns or {}),
        carry=carry,
        prefix=prefix,
        part_rows=part_rows,
        on_error=on_error,
        engine=engine,
    )
    named = [name for name in place.folder_columns(files) if name not in job.source.carried]
    if progress is not None and carry is None and named:
        progress.note(f"{', '.join(named)}: columns that only folders name are not read; write them into the files")
    pace = Pace(record)
    if progress is not None and record.resumed:
        progress.say(f"{record.resumed:,} of {len(record.parts):,} parts are done already")
    shown = time.monotonic()
    carriers = Carriers(address=address, workers=workers, ship=ship)
    todo = record.missing
    try:
        if todo:
            for stats in ENGINES[engine].make(job, todo, carriers, model):
                record.finished(stats)
                pace.take(stats)
                if progress is not None and progress.due():
                    progress.show(pace.line())
                elif progress is not None and not progress.live and time.monotonic() - shown >= EVERY:
                    shown = time.monotonic()
                    progress.say(pace.line())
            _check_unchanged(place, files)
    finally:
        record.save()
    summary = summarized(
        record,
        seconds=time.monotonic() - began,
        driver_cpu=round(time.process_time() - cpu, 3) if engine == RAY else 0.0,
        engine=engine,
    )
    record.end(summary)
    return summary


def _check(engine: str, on_error: str, part_rows: int, workers: int | None, *, ship: bool) -> None:
    """Raise an error for what cannot be, before anything is opened."""
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if on_error not in ON_ERROR:
        raise UnknownNameError("choice for errors", on_error, ON_ERROR)
    if part_rows < 1:
        raise UsageError(f"a part must have at least 1 row, not {part_rows}: give a larger number")
    if workers is not None and workers < 1:
        raise UsageError(f"a run needs at least 1 worker, not {workers}: give a larger number")
    if engine == LOCAL and (workers is not None or ship):
        raise UsageError(
            "workers and ship are for the engine ray, and local is one process: give threads and streams, or the "
            "engine ray"
        )
    missing = first_missing(("pyarrow", "fsspec"))
    if missing is not None:
        raise MissingDependencyError("batch", missing, "batch")
    if engine == RAY and first_missing(("ray.data",)) is not None:
        raise MissingDependencyError("batch --engine ray", "ray", "ray")


def _check_output(place: Place, output: Place) -> None:
    """Raise UsageError where the parts would be in the input's folder, and so rows when the command is given again.

    So it does for signs of a glob in an output behind a URL: file systems take the names of files to be moved for one.
    """
    if output.pattern and not output.local:
        raise UsageError(f"the output {output.title} has a glob character ({SIGNS}) in its name: give another folder")
    if place.fs != output.fs:
        return
    rows, parts = (os.path.realpath(each.path) if each.local else each.path for each in (place, output))
    if covers(rows, f"{parts}/part-0000000.parquet"):
        raise UsageError(
            f"the output {output.title} is inside the input {place.title}, so its parts would be read as rows: give a "
            "folder beside it"
        )


def _absolute(path: str) -> str:
    """Return the path of a bundle or a library as every process calls it."""
    from pathlib import Path

    return path if path.startswith(HUB) else str(Path(path).absolute())


def _files(place: Place) -> list[File]:
    """Return the files of the input that hold something.

    Raises:
        PathError: where there is none.
    """
    files = place.files()
    full = [file for file in files if file.size]
    if not full:
        what = "holds no files with anything in them"
        if place.local and not place.pattern and not os.path.lexists(place.path):
            what = "is not there, or is in a folder that may not be read"
        raise PathError(f"the input {place.title} {what}: give a file, a folder, a glob or a URL")
    return full


def _check_unchanged(place: Place, files: Sequence[File]) -> None:
    """Raise PathError where the input is not what it was when it was listed."""
    from bertport.batch.record import fingerprint

    if fingerprint(_files(place)) != fingerprint(files):
        raise PathError(
            f"files of the input {place.title} changed while they were read, so that rows may be missing or of either "
            "state: give another output folder"
        )


def _prepared(  # noqa: PLR0913 — what is asked
    place: Place,
    files: Sequence[File],
    output: Place,
    task: str,
    runs: Runs,
    *,
    parameters: dict[str, Any],
    columns: dict[str, str],
    carry: Sequence[str] | None,
    prefix: str,
    part_rows: int,
    on_error: str,
    engine: str,
) -> tuple[Record, Job, Model | None]:
    """Return the run's record, the job, and the model where this process answers itself."""
    from bertport.batch.reading import cut, read_source
    from bertport.batch.record import FINGERPRINT, fingerprint, open_record
    from bertport.batch.worker import answer_schema, at_commit, bundle_directory, chosen_model
    from bertport.runtime.bundle.default import default_bundle
    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.tasks.table import bind
    from bertport.runtime.text.tokenizer import Tokens

    runs = dataclasses.replace(runs, bundle=at_commit(runs.bundle))
    directory = bundle_directory(runs.bundle, digest=runs.digest or None)
    opened = Bundle.open(default_bundle() if directory is None else directory, digest=runs.digest or None)
    runs = dataclasses.replace(runs, digest=opened.digest)
    bind(task, parameters, Tokens.read(opened), opened.manifest)  # what cannot be asked of it, before rows are read
    if runs.variant is not None and runs.variant not in opened.manifest.variants:
        raise UnknownNameError("variant", runs.variant, opened.manifest.variants)
    source, counts = read_source(place, files, task, columns=columns, carry=carry)
    job = Job(
        id="",
        task=task,
        parameters=parameters,
        runs=runs,
        source=source,
        output=output.stored(),
        on_error=on_error,
        prefix=prefix,
    )
    schema = answer_schema(job)
    asked = {
        "task": task,
        "parameters": parameters,
        "bundle": runs.digest,
        "variant": runs.variant,
        "on_error": on_error,
        "prefix": prefix,
        "columns": dict(source.columns),
        "schema": {item.name: str(item.type) for item in schema},
        "carry": carry if source.other else None,  # the schema does not tell whether fields without a column are kept
        "part_rows": part_rows,
        "input": place.path if place.local else place.title,
        FINGERPRINT: fingerprint(files),
    }
    asked = json.loads(json.dumps(asked, default=str))
    record = open_record(output, asked, lambda: cut(place, files, source, part_rows, counts))
    job = dataclasses.replace(job, id=record.id)
    return record, job, chosen_model(runs, output) if engine == LOCAL and record.missing else None
