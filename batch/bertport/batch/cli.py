"""`bertport batch`: the command."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from typing import TextIO

import click

from bertport.runtime.commands import completion
from bertport.runtime.commands.options import LIBRARY, MEMORY, PROVIDER, Once, as_json, digest
from bertport.runtime.commands.output import report, show, show_json
from bertport.runtime.commands.progress import Progress
from bertport.runtime.errors import UsageError
from bertport.runtime.key_values import json_or_text, key_values
from bertport.runtime.providers.options import parse
from bertport.runtime.providers.table import AUTO

__all__ = ["batch"]


@click.command()
@click.argument("bundle", shell_complete=completion.directories)
@click.argument("task", shell_complete=completion.tasks)
@click.argument("rows", metavar="INPUT")
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    help="Folder of the parts: a path or a URL.",
    shell_complete=completion.directories,
)
@click.option("--engine", default="local", show_default=True, metavar="NAME", help="local, or ray for a cluster.")
@click.option(
    "--address",
    default=AUTO,
    show_default=True,
    metavar="ADDRESS",
    help="Ray's cluster: auto for the one that runs here, HOST:PORT, or local to start one on this machine.",
)
@click.option("--workers", type=int, metavar="N", help="Ray workers, at most.  [default: as many as fit the cluster]")
@click.option("--ship", is_flag=True, help="Send the bundle through Ray, so that other machines need not see its path.")
@click.option(
    "--on-error",
    default="keep",
    show_default=True,
    metavar="CHOICE",
    help="For a row without an answer: keep it with its error, drop it, or end the run (fail).",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="The input's column for a name that the task reads, as text=body; may be repeated.",
)
@click.option(
    "--carry",
    multiple=True,
    metavar="COLUMN",
    help="Write this column beside the answers; may be repeated.  [default: all]",
)
@click.option("--carry-none", is_flag=True, help="Write the answers alone.")
@click.option("--prefix", default="", metavar="TEXT", help="Prefix of the names of the answers' columns.")
@click.option(
    "--part-rows", type=int, default=8192, show_default=True, metavar="N", help="About how many rows a part has."
)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the task, its value as JSON or a plain word; may be repeated.",
)
@click.option(
    "--variant",
    metavar="NAME",
    help="Variant of the bundle.  [default: the one that suits the provider]",
    shell_complete=completion.variants,
)
@click.option(
    "--provider",
    cls=Once,
    default=(AUTO,),
    show_default=True,
    metavar="NAME",
    help=f"{PROVIDER} On Ray, {AUTO} is cpu.",
    shell_complete=completion.providers,
)
@click.option("--provider-library", metavar="PATH", help=LIBRARY)
@click.option(
    "--provider-option",
    "provider_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the provider, by ONNX Runtime's name; may be repeated.",
)
@click.option("--threads", type=int, metavar="N", help="Threads of a worker.  [default: one per core; on Ray 1]")
@click.option(
    "--streams", type=int, metavar="N", help="Batches at once in each worker.  [default: as predict; on Ray 1]"
)
@click.option("--memory", metavar="SIZE", help=MEMORY)
@digest
@as_json
def batch(  # noqa: PLR0913 — one parameter per option
    *,
    bundle: str,
    task: str,
    rows: str,
    output: str,
    engine: str,
    address: str,
    workers: int | None,
    ship: bool,
    on_error: str,
    columns: tuple[str, ...],
    carry: tuple[str, ...],
    carry_none: bool,
    prefix: str,
    part_rows: int,
    parameters: tuple[str, ...],
    variant: str | None,
    provider: str,
    provider_library: str | None,
    provider_options: tuple[str, ...],
    threads: int | None,
    streams: int | None,
    memory: str | None,
    digest: str | None,
    as_json: bool,
) -> None:
    """Answer every row of files, on this machine or on a cluster of Ray; an interrupted run goes on where it stopped.

    BUNDLE is a directory, hf://OWNER/NAME, or default for the embedded one. INPUT is JSON lines or Parquet: a file, a
    folder, a glob, or a URL (s3://, gs://). The answers are parts of Parquet in --output, in the order of the input,
    beside the input's own columns. After an interruption the same command goes on, also with more or fewer workers.
    """
    if carry and carry_none:
        raise UsageError("--carry names columns and --carry-none takes none: leave one of them out")
    from bertport.batch.places import redacted
    from bertport.batch.runner import run

    # Ray prints what its machines meet on standard output, which is the summary's.
    with Progress(sys.stderr) as progress, redirect_stdout(FirstLines(sys.stderr)):
        summary = run(
            bundle,
            task,
            rows,
            output,
            parameters={name: json_or_text(text) for name, text in key_values(parameters, "parameter").items()},
            engine=engine,
            address=address,
            workers=workers,
            ship=ship,
            on_error=on_error,
            columns=key_values(columns, "column"),
            carry=() if carry_none else carry or None,
            prefix=prefix,
            part_rows=part_rows,
            variant=variant,
            provider=provider,
            provider_library=provider_library,
            provider_options=parse(provider_options),
            threads=threads,
            streams=streams,
            memory=memory,
            digest=digest,
            progress=progress,
        )
    if as_json:
        show_json(summary, indent=2)
        return
    show(
        f"{_counted(summary['rows'], 'row')} in {_counted(summary['parts'], 'part')} in {redacted(output)} "
        f"({summary['rows_written']:,} written, "
        f"{summary['errors']:,} without an answer)"
    )
    for reason, count in summary["errors_by_reason"].items():
        report(f"bertport: {_counted(count, 'row')}: {reason}")


class FirstLines(io.TextIOBase):
    """A stream that passes on the first line of each message, and no traceback: Ray prints those of its machines.

    Args:
        stream: the stream that takes the lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what is shown of a message."""
        first = text.partition("\n")[0].partition(" Error: Traceback")[0]
        self._stream.write(f"{first}\n" if text.endswith("\n") else first)
        return len(text)


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
