"""`bertport export`: the command, and how it shows progress."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, TextIO

import click

from bertport.export.checkpoint.heads import HEADS
from bertport.export.exporter import WEIGHTS
from bertport.export.exporter import export as run_export
from bertport.export.graph.tracing import DEFAULT_OPSET, OPSETS
from bertport.runtime.commands.output import show, show_json

if TYPE_CHECKING:
    from bertport.export.progress import Event

__all__ = ["ProgressLines", "export"]


class ProgressLines:
    """Shows stages on a stream: live on a terminal, one line per finished stage elsewhere.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._stage = ""
        self._shown = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event.kind:
            case "begin":
                self._stage = event.text
                self._show(f"{event.text} …")
            case "step":
                self._show(f"{self._stage}: {event.text} …")
            case "end":
                self._line(f"{event.text}: {event.seconds:.1f} s")
            case "note":
                self._line(f"note: {event.text}")

    def _show(self, text: str) -> None:
        if self._live:
            self._stream.write(f"\r{text:<{self._shown}}")
            self._stream.flush()
            self._shown = len(text)

    def _line(self, text: str) -> None:
        start = "\r" if self._live else ""
        self._stream.write(f"{start}{text:<{self._shown}}\n")
        self._stream.flush()
        self._shown = 0


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option(
    "--opset",
    type=click.IntRange(min(OPSETS), max(OPSETS)),
    default=DEFAULT_OPSET,
    show_default=True,
    help="Version of ONNX's standard operator set.",
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
    help="Fail unless the checkpoint holds this head; may be repeated. All that it holds are exported in any case.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is at OUT already.")
@click.option("--name", help="Name shown to people.  [default: that of SOURCE]")
@click.option("--json", "as_json", is_flag=True, help="Print the bundle's manifest to standard output.")
def export(  # noqa: PLR0913 — one parameter per option
    *,
    source: str,
    out: str,
    revision: str | None,
    opset: int,
    atol: float,
    weights: Literal["float32", "float16"],
    heads: tuple[str, ...],
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
        opset=opset,
        atol=atol,
        weights=weights,
        heads=heads,
        overwrite=overwrite,
        name=name,
        progress=ProgressLines(sys.stderr),
    )
    if as_json:
        show_json(bundle.manifest.to_json(), indent=2)
    else:
        show(f"{bundle.path}: {', '.join(bundle.manifest.heads) or 'features only'}")
