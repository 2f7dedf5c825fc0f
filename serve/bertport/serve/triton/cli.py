"""`bertport triton`: the command."""

from __future__ import annotations

from typing import Any

import click

from bertport.runtime.commands import completion
from bertport.runtime.commands.options import as_json, digest
from bertport.runtime.commands.output import report, show, show_json
from bertport.serve.triton.configuration import DEVICES, OPTIMIZATIONS
from bertport.serve.triton.repository import MAX_BATCH_SIZE, MOST, write_repository

__all__ = ["triton"]


@click.command(name="triton")
@click.argument("path", metavar="BUNDLE", shell_complete=completion.directories)
@click.argument("output", metavar="OUT", shell_complete=completion.directories)
@click.option(
    "--variant",
    metavar="NAME",
    help="The variant whose graph to write.  [default: the bundle's default, or the first that Triton can batch]",
    shell_complete=completion.variants,
)
@click.option("--name", metavar="MODEL", help="What clients call the model.  [default: the bundle's name]")
@click.option(
    "--max-batch-size",
    type=click.IntRange(0, MOST),
    default=MAX_BATCH_SIZE,
    show_default=True,
    help="Rows that Triton may put into one run; 0 to run each request by itself.",
)
@click.option(
    "--max-queue-delay",
    type=click.IntRange(0, MOST),
    default=500,
    show_default=True,
    metavar="MICROSECONDS",
    help="How long a request may wait for others to share its run.",
)
@click.option(
    "--instances",
    type=click.IntRange(1, MOST),
    default=1,
    show_default=True,
    help="Runs at the same time, on each device.",
)
@click.option(
    "--device", type=click.Choice(list(DEVICES)), default="cpu", show_default=True, help="Where instances run."
)
@click.option(
    "--threads",
    type=click.IntRange(0, MOST),
    default=0,
    show_default=True,
    help="Threads of a run on the CPU; 0 for one per core.",
)
@click.option(
    "--optimization",
    type=click.Choice(list(OPTIMIZATIONS)),
    default="all",
    show_default=True,
    help="What ONNX Runtime does with the graph when Triton loads it.",
)
@digest
@as_json
def triton(*, path: str, output: str, as_json: bool, **given: Any) -> None:  # noqa: ANN401 — click's
    """Write a model repository for Triton Inference Server from a bundle.

    OUT has one model: the graph of a variant with its weights, and config.pbtxt, which names every input and output of
    the graph. Tokenization is the client's: Triton takes and gives tensors. Every file is checked before OUT appears.
    """
    written = write_repository(path, output, **given)
    model = written.configuration
    if written.note:
        report(f"bertport: note: {written.note}")
    if as_json:
        show_json(
            {
                "repository": str(written.path),
                "model": model.name,
                "variant": written.variant,
                "digest": written.digest,
                "max_batch_size": model.max_batch_size,
                "inputs": [each.name for each in model.signature.inputs],
                "outputs": [each.name for each in model.signature.outputs],
            },
            indent=2,
        )
        return
    takes, gives = (", ".join(each.name for each in side) for side in (model.signature.inputs, model.signature.outputs))
    show(f"{written.path}: the model {model.name} of variant {written.variant}\ntakes {takes}\ngives {gives}")
