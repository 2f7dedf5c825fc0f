"""Sensitivity of layers: each is ranked by its cost alone in 8 bits; the fewest that meet the budget stay higher.

Taking one layer out of a graph in 8 bits, instead of putting one in, tells less: the errors of all the others stay,
and by how much they happen to cancel changes with every layer (bench/quantization/layer_ranking.py shows it).

The search runs on the calibration text, and goes by KL: a bound on changed answers, which are few, is known to half a
per cent on thousands of positions, where KL is known to some per cent of itself and adds up over the layers. Whether
the budget holds is judged afterwards on text that the search never saw.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertport.measure.quality.results import Fidelity
    from bertport.quantize.deadline import Progress

    Measure = Callable[[frozenset[str]], Fidelity]

__all__ = ["Layer", "Layers", "Search", "kl_increase", "most_tries", "rank", "search"]

FIELD, KEY = "kl_increase", "damage"
"""A field of the tables, and the key that it has in files, which bundles and reports have had from the beginning."""
PRUNED = 6
"""Layers that are tried again in 8 bits once the budget holds, from the end of the ranking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Sensitivity of one linear layer: the KL that 8 bits cost in it, and the time that they save."""

    name: str
    """Name of the layer."""
    inputs: int
    """Rows of its matrix."""
    outputs: int
    """Columns of its matrix."""
    kl_increase: float
    """Increase of KL (in nats) when this layer alone is put in 8 bits, of the head whose bound broke."""
    saved_ms: float
    """Milliseconds that 8 bits save in it, at 128 tokens, one of them decoded."""

    @property
    def priority(self) -> float:
        """KL that leaving it in higher precision buys, for each millisecond that it costs."""
        # A layer that is no faster in 8 bits comes first if it raises KL at all; 1 us: the clock tells no less.
        return self.kl_increase / max(self.saved_ms, 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The table of a recipe's layers, best candidates for higher precision first."""

    kl_increase: float
    """KL with every layer in 8 bits, in nats."""
    rows: tuple[Layer, ...]
    """The layers, by falling priority."""
    text: dict[str, Any]
    """Description of the text that KL was measured on."""
    machine: str
    """The instruction set that times were measured with."""
    head: str | None = None
    """Head whose KL ranks the layers; None for the first that the model has."""

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        values = dataclasses.asdict(self)
        return {**_renamed(values, FIELD, KEY), "rows": [_renamed(row, FIELD, KEY) for row in values["rows"]]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Layers:
        """Read what `to_json` gave."""
        rows = tuple(Layer(**_renamed(row, KEY, FIELD)) for row in value["rows"])
        kept = {key: value[key] for key in (KEY, "text", "machine", "head") if key in value}
        return cls(rows=rows, **_renamed(kept, KEY, FIELD))


def _renamed(values: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return values with one key renamed, in its place."""
    return {new if key == old else key: value for key, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The outcome of a search."""

    higher: frozenset[str]
    """The layers to leave in higher precision."""
    held: bool
    """Whether KL came down to what was asked."""
    nearest: Fidelity
    """Accuracy of this combination, or of the nearest one where none met the bound."""


def kl_increase(accuracy: Fidelity, head: str | None = None) -> float:
    """Return how far a candidate is from the reference: KL of a head, in nats, or 1 - cosine of the hidden states.

    Args:
        accuracy: What was measured.
        head: As `Fidelity.heads` names it; None for the first that there is. KL of pairs is made by a few of them,
            whatever the precision, so that adding it to that of thousands of positions would drown what layers do
            there.
    """
    measured = accuracy.heads[head] if head else next((figures for figures in accuracy.heads.values() if figures), None)
    return measured.distance if measured else 0.0


def rank(  # noqa: PLR0913 — the table's columns come from as many places
    shapes: Mapping[str, tuple[int, int]],
    saved_ms: Mapping[str, float],
    measure: Measure,
    *,
    head: str | None = None,
    text: dict[str, Any],
    machine: str,
    progress: Progress,
) -> Layers:
    """Put one layer at a time in 8 bits, and rank the layers by KL per millisecond.

    Args:
        shapes: Inputs and outputs of each layer, by name.
        saved_ms: Milliseconds that 8 bits save in each.
        measure: Measures the graph with some layers in higher precision.
        head: Whose KL counts, as in `kl_increase`.
        text: What it measures on.
        machine: The instruction set of this machine.
        progress: Told of what is done and of how much.
    """
    everything = kl_increase(measure(frozenset()), head)
    nothing = kl_increase(measure(frozenset(shapes)), head)
    rows = []
    for done, (name, (inputs, outputs)) in enumerate(shapes.items(), 1):
        alone = kl_increase(measure(frozenset(shapes) - {name}), head)
        rows.append(
            Layer(name=name, inputs=inputs, outputs=outputs, kl_increase=alone - nothing, saved_ms=saved_ms[name])
        )
        progress("one layer at a time in 8 bits", done, len(shapes))
    ranked = tuple(sorted(rows, key=lambda row: row.priority, reverse=True))
    return Layers(kl_increase=everything, rows=ranked, text=text, machine=machine, head=head)


def most_tries(layers: int) -> int:
    """Return the most combinations that a search over this number of layers measures."""
    return 2 * layers.bit_length() + PRUNED


def search(layers: Layers, enough: Callable[[Fidelity], bool], measure: Measure, *, progress: Progress) -> Search:
    """Find few layers that, left in higher precision, bring KL down.

    Prefixes of the ranking are tried from the short end, each twice as long as the one before, then halved between the
    last that left too much and the first that did not. Then the last of the prefix, which buy least for their time, are
    tried in 8 bits again: the ranking takes layers one by one, and some are not needed beside the others.

    Args:
        layers: The ranked table.
        enough: Tells of what was measured whether KL is low enough.
        measure: Measures the graph with some layers in higher precision.
        progress: Told of what is done and of how much.
    """
    tries = _Tries(enough, measure, progress, most_tries(len(layers.rows)))
    names = [row.name for row in layers.rows]
    low, high = 0, 1  # of the prefix lengths, `low` leaves too much and `high` may not
    while not tries.enough(frozenset(names[:high])):
        if high >= len(names):
            return tries.result(frozenset(names), held=False)
        low, high = high, min(2 * high, len(names))
    while high - low > 1:
        middle = (low + high) // 2
        if tries.enough(frozenset(names[:middle])):
            high = middle
        else:
            low = middle
    kept = set(names[:high])
    for name in names[:high][:-1][::-1][:PRUNED]:  # without the last it was not enough
        if tries.enough(frozenset(kept - {name})):
            kept.remove(name)
    return tries.result(frozenset(kept), held=True)


class _Tries:
    """Measures combinations, each once."""

    def __init__(self, enough: Callable[[Fidelity], bool], measure: Measure, progress: Progress, most: int) -> None:
        self._enough, self._measure, self._progress, self._most = enough, measure, progress, most
        self._found: dict[frozenset[str], Fidelity] = {}

    def enough(self, higher: frozenset[str]) -> bool:
        """Return whether these layers in higher precision bring KL down to what was asked."""
        if higher not in self._found:
            self._found[higher] = self._measure(higher)
            self._progress("searching for the fewest layers in higher precision", len(self._found), self._most)
        return self._enough(self._found[higher])

    def result(self, higher: frozenset[str], *, held: bool) -> Search:
        """Return what was found."""
        return Search(higher=higher, held=held, nearest=self._found[higher])
