"""Comparison by which bertport's batching and threading were chosen: the same texts under each setting, taking turns.

    python -m bench.performance.settings BUNDLE VARIANT ROUNDS < inputs.json       # a process of bench.performance

Prints one line of JSON: seconds of each round by setting. The settings are rows of the table of providers, changed one
at a time from what is shipped.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from bertport.runtime import load
from bertport.runtime.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable

OVERHEADS = (0, 8, 16, 32, 64, 128)
BUDGETS = (128, 256, 512, 1024, 2048, 4096)
LARGE = 512
"""Width of a model from which inputs are not repeated."""
REPEAT = 12
"""Repetitions of the inputs for `overlap`, which needs more of them than a window holds."""


def settings(model: Model, *, repeated: bool) -> dict[str, tuple[Model, int]]:
    """Name the settings: a model with each, and how often its inputs are repeated; `overlap` only if they may be."""

    def changed(**changes: Any) -> Model:  # noqa: ANN401 — fields of a provider's row
        provider = dataclasses.replace(model.graph.provider, **changes)
        graph = dataclasses.replace(model.graph, provider=provider)
        return Model(model.bundle, model.variant, graph, model.tokens)

    choices = {f"a run counted as {tokens} tokens": (changed(overhead_tokens=tokens), 1) for tokens in OVERHEADS}
    choices |= {f"{tokens} tokens in a batch": (changed(batch_tokens=tokens), 1) for tokens in BUDGETS}
    if repeated:
        choices["tokenizing after running"] = (changed(overlap=False), REPEAT)
        choices["tokenizing while running"] = (changed(overlap=True), REPEAT)
    return choices


def main() -> None:
    """Measure and print."""
    path, variant, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    texts = json.load(sys.stdin)
    plain = load(path, variant=variant, provider="cpu")
    # Repeating takes minutes with a large model, and tokenizing is nothing beside it.
    rows = settings(plain, repeated=plain.bundle.manifest.architecture.hidden_size < LARGE)
    took: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name in list(rows) if number % 2 == 0 else list(rows)[::-1]:
            model, repeat = rows[name]
            seconds = _timed(lambda model=model, repeat=repeat: list(model.predict("fill-mask", texts * repeat)))  # type: ignore[misc]  # the defaults bind
            if number:  # the first round warms up
                took[name].append(seconds / repeat)
    print(json.dumps(took))


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
