"""Options that several subcommands share, written once."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bertport.runtime.commands import completion
from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.providers.options import parse
from bertport.runtime.providers.table import AUTO, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertport.runtime.model import Model

__all__ = [
    "LIBRARY",
    "MEMORY",
    "PROVIDER",
    "REVISION",
    "STREAMS",
    "THREADS",
    "TOKEN_HELP",
    "Chosen",
    "FiniteRange",
    "Once",
    "as_json",
    "digest",
    "model_options",
    "truncation",
]

F = TypeVar("F", bound="Callable[..., Any]")

PROVIDER = f"{', '.join(PROVIDERS)}, or {AUTO} for the best that works here."
LIBRARY = "Path of an ONNX Runtime plugin with the provider, if none of the packages bertport knows has it."
THREADS = "Threads of the CPU.  [default: one per physical core]"
STREAMS = (
    "Batches that run at once under `cpu`; more than 1 holds the weights twice.  "
    "[default: one per thread, or 1 if there are more than 4]"
)
MEMORY = (
    "Limit of the process's memory, as 512M or 1.5G: streams and batches of `cpu` are chosen to stay under it.  "
    "[default: no bound]"
)
REVISION = "Branch, tag or commit of a Hub repository.  [default: its main branch]"
TOKEN_HELP = "Token of the Hub for a private repository; prefer HF_TOKEN.  [default: that of `hf auth login`]"  # noqa: S105 — a sentence, no password
"""Help texts of options, from `PROVIDER` on; the server shares them."""
LOW_MEMORY = "Take less memory from the start, and more time for the first answer; answers are the same."


class Once(click.Option):
    """An option that is given once: of two values click takes the last, without a word of the first."""

    def __init__(self, names: Sequence[str], **settings: Any) -> None:  # noqa: ANN401 — click's own
        super().__init__(names, multiple=True, **settings)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401 — as above
        """Return the one value; None where there is none.

        Raises:
            UsageError: for several.
        """
        values = super().type_cast_value(ctx, value)
        if len(values) > 1:
            raise UsageError(f"{self.opts[-1]} is given {len(values)} times ({excerpt(list(values))[1:-1]}): keep one")
        return values[0] if values else None


class FiniteRange(click.FloatRange):
    """A finite number within bounds: click takes NaN for a number within any, and has no end without an upper one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 — click's own
        """Return the number; a wrong one ends the command."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

digest = click.option(
    "--digest", metavar="SHA256", help="The digest that the bundle must have, as `bertport verify` prints it."
)

truncation = click.option("--truncation", is_flag=True, help="Cut texts that are too long instead of refusing them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Bundle to load and where to run it, as the options say."""

    path: str | None
    """Directory of the bundle; None for the embedded default."""
    variant: str | None
    """Variant of the bundle; None for the one that suits the provider."""
    provider: str
    """A row of the table of providers, or `auto`; with a library, also ONNX Runtime's name of one that it holds."""
    provider_library: str | None
    """Path of the plugin that holds the provider; None for that of its package."""
    threads: int | None
    """Within an operator."""
    provider_option: tuple[str, ...]
    """KEY=VALUE, for ONNX Runtime."""
    allow_fallback: bool
    """Whether the CPU may take the provider's place."""
    memory: str | None
    """Bound on the memory that the process holds, for example `512M`; None for no bound."""
    low_memory: bool
    """Whether less memory is held for some more time."""
    digest: str | None
    """The digest that the bundle must have; None for any."""
    revision: str | None
    """Branch, tag or commit of a Hub repository; None for its main branch."""
    token: str | None
    """Access token for a private repository of the Hub; None for the one that huggingface_hub finds."""

    def load(self, *, streams: int | None = 1) -> Model:
        """Return the model that the options name; `streams` as in `bertport.runtime.load`."""
        from bertport.runtime import load

        return load(
            self.path,
            variant=self.variant,
            provider=self.provider,
            threads=self.threads,
            streams=streams,
            provider_options=parse(self.provider_option),
            provider_library=self.provider_library,
            allow_fallback=self.allow_fallback,
            memory=self.memory,
            low_memory=self.low_memory,
            digest=self.digest,
            revision=self.revision,
            token=self.token,
        )


def model_options(command: F) -> F:
    """Add the options that say which bundle to load and where to run it; the command gets them as `chosen`."""

    @functools.wraps(command)
    def gathering(**values: Any) -> Any:  # noqa: ANN401 — whatever the command takes and gives
        own = {name: values.pop(name) for name in Chosen.__dataclass_fields__}
        return command(chosen=Chosen(**own), **values)

    wrapped: Any = gathering
    for option in reversed(
        (
            click.option(
                "-m",
                "--model",
                "path",
                metavar="BUNDLE",
                help="Bundle directory, or a Hub id, owner/name.  [default: the embedded one]",
                shell_complete=completion.directories,
            ),
            click.option(
                "--variant",
                metavar="NAME",
                help="Variant of the bundle.  [default: the one that suits the provider]",
                shell_complete=completion.variants,
            ),
            click.option(
                "--provider",
                cls=Once,
                default=(AUTO,),
                show_default=True,
                metavar="NAME",
                help=PROVIDER,
                shell_complete=completion.providers,
            ),
            click.option("--provider-library", metavar="PATH", help=LIBRARY),
            click.option(
                "--provider-option",
                multiple=True,
                metavar="KEY=VALUE",
                help="An option of the provider, by ONNX Runtime's name; may be repeated.",
            ),
            click.option(
                "--allow-fallback",
                is_flag=True,
                help="If the provider does not work, warn and run on the CPU instead of failing.",
            ),
            click.option("--threads", type=int, metavar="N", help=THREADS),
            click.option("--memory", metavar="SIZE", help=MEMORY),
            click.option("--low-memory", is_flag=True, help=LOW_MEMORY),
            digest,
            click.option("--revision", metavar="NAME", help=REVISION),
            click.option("--token", metavar="TOKEN", help=TOKEN_HELP),
        )
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # the command, with options
