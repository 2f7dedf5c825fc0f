"""`bertport export` and `bertport restore`: the commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from bertport.export.checkpoint.heads import HEADS
from bertport.export.checkpoint.source import read_json
from bertport.export.exporter import WEIGHTS
from bertport.export.exporter import export as run_export
from bertport.export.graph.tracing import DEFAULT_OPSET, OPSETS, TRACERS
from bertport.export.restorer import restore as run_restore
from bertport.runtime.commands.output import show, show_json
from bertport.runtime.commands.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertport.export.progress import Event

__all__ = ["export", "listener", "restore"]


def listener(progress: Progress) -> Callable[[Event], None]:
    """Return what shows an export's events: live on a terminal, one line per finished stage elsewhere."""
    stage = ""

    def show_event(event: Event) -> None:
        nonlocal stage
        match event.kind:
            case "begin":
                stage = event.text
                progress.show(f"{stage} …")
            case "step":
                progress.show(f"{stage}: {event.text} …")
            case "end":
                progress.say(f"{event.text}: {event.seconds:.1f} s")
            case "note":
                progress.say(f"note: {event.text}")

    return show_event


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--adapter", type=click.Path(), help="Directory of a LoRA adapter of PEFT, merged into SOURCE.")
@click.option(
    "--opset",
    type=click.IntRange(min(OPSETS), max(OPSETS)),
    default=DEFAULT_OPSET,
    show_default=True,
    help="Version of ONNX's standard operator set.",
)
@click.option(
    "--tracer",
    type=click.Choice(list(TRACERS)),
    default="torch",
    show_default=True,
    help="What traces the model: PyTorch's exporter, or Optimum's, which needs the extra export-optimum.",
)
@click.option(
    "--atol",
    type=float,
    default=1e-4,
    show_default=True,
    help="Largest absolute difference from PyTorch float32 allowed in any output.",
)
@click.option(
    "--weights",
    type=click.Choice(list(WEIGHTS)),
    default="float32",
    show_default=True,
    help="How matrices are stored; float16 halves the bundle, and rounds them.",
)
@click.option(
    "--head",
    "heads",
    type=click.Choice(list(HEADS)),
    multiple=True,
    help="Fail unless the checkpoint holds this head; may be repeated. Every head is exported in any case.",
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["features"]),
    help="Export the encoder alone, without heads, so that SOURCE may be of a class that cannot be exported whole.",
)
@click.option(
    "--add-head",
    "add_heads",
    type=click.Path(),
    multiple=True,
    metavar="DIR",
    help="Add the head of this checkpoint, trained on the same frozen encoder; may be repeated.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle at OUT.")
@click.option("--name", help="Name shown to people.  [default: that of SOURCE]")
@click.option("--json", "as_json", is_flag=True, help="Print the bundle's manifest to standard output.")
def export(  # noqa: PLR0913 — one parameter per option
    *,
    source: str,
    out: str,
    revision: str | None,
    adapter: str | None,
    opset: int,
    tracer: Literal["torch", "optimum"],
    atol: float,
    weights: Literal["float32", "float16"],
    heads: tuple[str, ...],
    kind: str | None,
    add_heads: tuple[str, ...],
    overwrite: bool,
    name: str | None,
    as_json: bool,
) -> None:
    """Turn the checkpoint SOURCE, a directory or a Hub id, into a verified bundle at OUT.

    Every output of every graph is compared with PyTorch; when one differs, nothing is written. Needs
    the extras cpu and export.
    """
    out.encode()  # PyTorch's exporter takes only names that are text: the command line says so of any other
    bundle = run_export(
        source,
        out,
        revision=revision,
        adapter=adapter,
        opset=opset,
        tracer=tracer,
        atol=atol,
        weights=weights,
        heads=heads,
        as_features=kind is not None,
        add_heads=add_heads,
        overwrite=overwrite,
        name=name,
        progress=listener(Progress(sys.stderr)),
    )
    if as_json:
        show_json(bundle.manifest.to_json(), indent=2)
    else:
        show(f"{bundle.path}: {', '.join(bundle.manifest.heads) or 'features only'}")


@click.command()
@click.argument("bundle", type=click.Path())
@click.argument("out", type=click.Path(file_okay=False))
def restore(*, bundle: str, out: str) -> None:
    """Write the checkpoint that BUNDLE was exported from to OUT, for transformers' `from_pretrained`.

    The weights are those of the float32 graph, as float32; those that the bundle stores in 16 bits stay rounded. Every
    output is compared with the graph before OUT appears. Needs the extras cpu and export.
    """
    written = run_restore(bundle, out, progress=listener(Progress(sys.stderr)))
    [model_class] = read_json(written / "config.json")["architectures"]
    show(f"{written}: {model_class}")
