"""A job: what is asked of a bundle for which rows, and the parts that the work is cut into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from bertport.batch.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertport.batch.tasks import Form, Shape

__all__ = ["DEFAULT", "ERROR", "FAIL", "HUB", "ON_ERROR", "OTHER", "Carriers", "Job", "Part", "Runs", "Source", "Span"]

ON_ERROR = ("fail", "keep", "drop")
"""Treatments of a row that has no answer: the run ends, the row is written with its error, or it is left out."""
FAIL = "fail"
ERROR = "error"
"""The column of errors; null for a row with an answer."""
DEFAULT = "default"
"""Name that stands for the embedded bundle."""
HUB = "hf://"
"""Prefix of a bundle on the Hub."""
OTHER = "other_fields"
"""The column of JSON lines' fields that have no column of their own: a JSON object as text, or null."""


class Span(NamedTuple):
    """Neighbouring rows of one file."""

    url: str
    """The file."""
    first: int
    """The first row in a Parquet file; of JSON lines the byte from which on a line may begin in it."""
    last: int
    """The row or byte behind the last; -1 for the end of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the work: rows of one file, or of several small ones, and the one file that their answers become."""

    number: int
    """Its place in the order of the input, counted from 0."""
    spans: tuple[Span, ...]
    """Its rows, in order."""
    weight: int
    """Rows or bytes, as far as they are known beforehand: its share of the work."""

    @classmethod
    def listed(cls, number: int, row: Sequence[Any]) -> Part:
        """Return the part that `row` made a JSON value.

        Raises:
            ValueError, TypeError: for another value.
        """
        weight, *spans = row
        return cls(number=number, weight=weight, spans=tuple(Span(*span) for span in spans))

    @property
    def row(self) -> list[Any]:
        """Return the part without its number as a JSON value."""
        return [self.weight, *map(list, self.spans)]

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"part-{self.number:07d}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Format and columns of the input's rows."""

    format: str
    """`json` or `parquet`."""
    form: Form
    """The columns that the task reads."""
    columns: Mapping[str, str]
    """The input's column for each of the form's names that is there."""
    carried: Mapping[str, str]
    """Columns that are written beside the answers, with Arrow's names of their types."""
    other: bool = False
    """Whether there is `OTHER`, which keeps what fits the type of no column, of JSON lines."""
    rest: bool = False
    """Whether it keeps the fields that have no column of their own too."""
    schema: bytes = field(default=b"", repr=False)
    """Arrow's schema of the carried columns, serialized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Settings for loading a bundle, on each machine that answers."""

    bundle: str | None
    """Its directory, which every machine sees, or `hf://OWNER/NAME[@REVISION]`; None for the embedded default."""
    digest: str
    """The digest that it must have."""
    variant: str | None = None
    """Variant; None for the one that suits the provider."""
    provider: str = "auto"
    """Provider, as `load` takes it."""
    provider_library: str | None = None
    """Path of the plugin that holds it."""
    provider_options: Mapping[str, str | float | bool] = field(default_factory=dict)
    """Its options."""
    threads: int | None = None
    """Threads of a worker; None for `load`'s own choice."""
    streams: int | None = None
    """Batches at once of a worker; None for `load`'s own choice."""
    memory: str | None = None
    """Bound on a worker's memory; None for no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Description of the work for every worker: small, and the same for all."""

    id: str
    """The run's own name, which its record in the output holds."""
    task: str
    """The task."""
    parameters: Mapping[str, Any]
    """Its parameters."""
    runs: Runs
    """Settings for loading the bundle."""
    source: Source
    """Format and columns of the input's rows."""
    output: str
    """The folder of the parts: a path that every machine sees, or a URL."""
    on_error: str
    """Treatment of a row that has no answer: one of `ON_ERROR`."""
    prefix: str = ""
    """Prefix of the names of the answers' columns, of `error` too."""

    @property
    def shape(self) -> Shape:
        """The columns of the answers, without the prefix."""
        return TASKS[self.task].shape(self.parameters, self.source.form)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriers:
    """Options of an engine: the cluster, its workers, and how the bundle reaches them."""

    address: str = "auto"
    """Ray's cluster: `auto` for the one that runs here, `HOST:PORT`, or `local` for one that is started here."""
    workers: int | None = None
    """Workers, at most; None for as many as the cluster's CPUs, or devices, carry."""
    ship: bool = False
    """Whether the bundle is passed on through Ray, in place of a path that every machine sees."""
