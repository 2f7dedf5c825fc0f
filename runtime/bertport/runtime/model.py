"""Model: a loaded bundle that answers tasks, one text at a time or in batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sized
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bertport.runtime.batching import MAX_WINDOW, MAX_WINDOW_WEIGHT, Flush, buckets, plan, windows
from bertport.runtime.errors import BundleError, MissingHeadError, OutputError
from bertport.runtime.excerpts import excerpt, one_line
from bertport.runtime.finite import finite
from bertport.runtime.forks import refuse_forked
from bertport.runtime.heads import POSITIONS, decoded_outputs, is_per_token, top_k_output
from bertport.runtime.methods.embedding import EmbeddingMethods
from bertport.runtime.methods.fine_tuned import FineTunedMethods
from bertport.runtime.methods.pretraining import PretrainingMethods
from bertport.runtime.tasks.table import Call, Work, answerable, bind, joined, rows, weight
from bertport.runtime.top_k import IDS, LOG_PROBABILITIES, TOP_K, TopKResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.memory import MemoryPlan
    from bertport.runtime.session import Graph
    from bertport.runtime.tasks.table import Prepared, Read
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Model"]

BEYOND = re.compile(r"Attempting to broadcast an axis|out of data bounds")
"""Messages of ONNX Runtime for a position beyond the position table: of Add for the table, and of Gather for a row."""
TOKENS_PER_POSITION = 8
"""Tokens in a batch for each position decoded at once, where nothing bounds memory. A text of nothing but masks would
take a gigabyte (ten rows of the vocabulary for each mask); no ordinary batch has a mask for each fourth token."""


class Model(PretrainingMethods, FineTunedMethods, EmbeddingMethods):
    """A bundle's graph and tokenizer, ready to answer. Made by `load`.

    Nothing in it changes after it is made, so several threads may use one at once.
    """

    def __init__(  # noqa: PLR0913 — the parts of a model
        self,
        bundle: Bundle,
        variant: str,
        graph: Graph,
        tokens: Tokens,
        *,
        chosen: str | None = None,
        fallback: str | None = None,
        streams: int = 1,
        replica: Model | None = None,
        bound: MemoryPlan | None = None,
    ) -> None:
        super().__init__(bundle)
        self.variant: Final = variant
        self.graph: Final = graph
        self.tokens: Final = tokens
        self.chosen: Final = chosen
        """Reason for running this variant on this provider, in a sentence; None where no choice was made."""
        self.fallback: Final = fallback
        """Reason for not running on the provider that was asked for; None where the model runs on it."""
        self.streams: Final = streams
        """Number of batches that run at once."""
        self.bound: Final = bound
        """The plan that keeps to a bound of memory; None without a bound."""
        provider = graph.provider
        self.batch_tokens: Final = bound.batch_tokens if bound else provider.batch_tokens
        """Most tokens in a batch, padding included."""
        self.positions: Final = bound.positions if bound else provider.batch_tokens // TOKENS_PER_POSITION
        """Most positions decoded in one run of the graph."""
        outputs = bundle.manifest.variants[variant].outputs
        self._cut: Final = top_k_output(outputs) if IDS in graph.outputs else None
        """The output that the graph cuts to its top-k; None where it does not."""
        self._replica: Final = replica

    @property
    def mask_token(self) -> str | None:
        """The token that a text has in place of a word to fill in, `[MASK]` or `<mask>`; None where there is none."""
        return None if self.tokens.mask_id is None else self.tokens.mask_token

    def with_graph(self, graph: Graph) -> Model:
        """Return the same model on another graph, for example one that is timed; this model stays as it is."""
        return Model(
            self.bundle,
            self.variant,
            graph,
            self.tokens,
            chosen=self.chosen,
            fallback=self.fallback,
            streams=self.streams,
            replica=self._replica,
            bound=self.bound,
        )

    @property
    def concurrent_replica(self) -> Model:
        """Replica for concurrent batches (fewer intra-op threads); the model itself where `streams` is 1."""
        return self._replica or self  # not stored: a model that refers to itself would outlive its users

    def resolve(self, task: str, /, **parameters: object) -> Call:
        """Return what `bind` does without a warning, for a program that shows `Call.note` itself."""
        refuse_forked(self.graph.process)  # before the tokenizer has threads of its own
        call = bind(task, parameters, self.tokens, self.bundle.manifest)
        if call.output not in self.graph.outputs:
            raise MissingHeadError(
                f"variant {self.variant!r} of {self.bundle.manifest.name} has no output {call.output!r}: choose another"
            )
        return call

    def outcomes(
        self,
        call: Call,
        inputs: Iterable[object],
        *,
        observe: Callable[[list[int]], None] | None = None,
    ) -> Iterator[Any]:
        """Return answers as `predict` does, an error in the place of an answer; an error among the inputs stays.

        Args:
            call: what is asked, as `bind` returns it.
            inputs: what the task takes.
            observe: called once for each batch before it is run, with the tokens of each of its rows.
        """
        provider = self.graph.provider
        with self._batch_runner() as run:
            for prepared in self._prepared(call, inputs):
                works = [work for item in prepared for work in rows(item)]
                lengths = [len(work.ids) for work in works]
                budget = self.batch_tokens
                if self.streams > 1:  # a batch for each stream
                    budget = min(budget, -(-sum(lengths) // self.streams))
                planned = plan(lengths, budget=budget, overhead=provider.overhead_tokens, most_rows=provider.batch_rows)
                batches = [[works[index] for index in batch] for batch in planned]
                if observe is not None:
                    for batch in planned:
                        observe([lengths[index] for index in batch])
                answers: list[Any] = [None] * len(works)
                for places, answered in zip(planned, run(batches), strict=True):
                    for place, answer in zip(places, answered, strict=True):
                        answers[place] = answer
                coming = iter(answers)
                with np.errstate(all="ignore"):  # as in `run`, and not around a yield: it is the thread's
                    outcomes = [joined(item, coming) for item in prepared]
                yield from outcomes

    @contextmanager
    def _batch_runner(self) -> Iterator[Callable[[list[list[Work]]], Iterable[list[Any]]]]:
        """Return the function that runs batches, in order, as many at once as there are streams."""
        if self.streams == 1:
            yield lambda batches: map(self.run, batches)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=self.streams, thread_name_prefix="stream") as pool:
            replica = self.concurrent_replica
            yield lambda batches: pool.map(replica.run, batches) if len(batches) > 1 else map(self.run, batches)

    def _prepared(self, call: Call, inputs: Iterable[object]) -> Iterator[list[Prepared]]:
        """Yield windows of prepared inputs; where that pays, the next one is prepared while the graph runs this one."""
        most = self.bound.characters if self.bound else MAX_WINDOW_WEIGHT
        read: Iterator[Read | Flush] = (value if isinstance(value, Flush) else call.reading(value) for value in inputs)
        stream: Iterator[list[Read]] = windows(read, weight=weight, most_weight=most, sized=isinstance(inputs, Sized))
        # An iterator is not read ahead for it: its next item may be long in coming.
        if not (self.graph.provider.overlap and isinstance(inputs, Sized) and len(inputs) > MAX_WINDOW):
            yield from map(call.tokenized, stream)
            return
        from concurrent.futures import ThreadPoolExecutor

        first = next(stream, None)
        if first is None:  # what says that it has many inputs may have none
            return
        with ThreadPoolExecutor(max_workers=1) as pool:
            coming = pool.submit(call.tokenized, first)
            for window in stream:
                ready, coming = coming, pool.submit(call.tokenized, window)
                yield ready.result()
            yield coming.result()

    def run(self, works: Sequence[Work]) -> list[Any]:
        """Run work, of whatever tasks, as one batch; shorter inputs are padded to the longest, behind a mask.

        Returns:
            The answers, in order; an OutputError in the place of an input whose output is not finite.
        """
        lengths = [len(work.ids) for work in works]
        width = max(lengths)
        feeds = self._feeds(works, lengths, width)
        names = {work.output for work in works}
        positions = feeds[POSITIONS]
        top_k = self._top_k(works)
        if top_k is not None:
            names = (names - {self._cut}) | {LOG_PROBABILITIES, IDS}
            feeds[TOP_K] = np.array([top_k], dtype=np.int64)
        try:
            values = self.graph.run_in_slices(feeds, sorted(names), most=self.positions)
        except Exception as error:  # ONNX Runtime's errors share no base but Exception
            if BEYOND.search(str(error)) is None:
                raise
            raise self._beyond(width, error) from error
        if POSITIONS not in self.graph.inputs:  # a portable graph decodes them all
            for name in decoded_outputs(names):
                values[name] = values[name].reshape(len(works) * width, -1)[positions]
        if top_k is not None and self._cut is not None:
            values[self._cut] = TopKResult(log_probabilities=values[LOG_PROBABILITIES], ids=values[IDS])
        # A program may have NumPy raise its errors: a number too small to be written would be taken for NaN.
        with np.errstate(all="ignore"):
            return [self._answer(work, share) for work, share in zip(works, _shares(values, works), strict=True)]

    def _beyond(self, width: int, error: Exception) -> BundleError:
        """Return the error of a graph that has no row for a position: loading sees it only in tables that it knows."""
        manifest = self.bundle.manifest
        return BundleError(
            f"variant {self.variant!r} of {manifest.name} fails on inputs of {width} tokens "
            f"({excerpt(one_line(error), 300)}): its graph knows fewer positions than the "
            f"{manifest.max_length:,} tokens that manifest.json states; export again"
        )

    def _answer(self, work: Work, share: Any) -> Any:  # noqa: ANN401 — arrays or top-k results, to the task's answer
        """Return the answer that is made of an input's share of the output; an OutputError where that is not finite."""
        with suppress(FloatingPointError):
            answer = work.finish(_finite(share))
            if answer is share or finite(answer):
                return answer
        return OutputError(
            f"the model gives no finite numbers for the input ({work.output} of variant {self.variant!r} of "
            f"{self.bundle.manifest.name} has NaN or infinity): choose another variant or provider, or export again"
        )

    def _feeds(self, works: Sequence[Work], lengths: Sequence[int], width: int) -> dict[str, Any]:
        """Return the inputs as the rows of one batch `[rows, width]`."""
        starts = np.arange(len(works)) * width
        positions = np.concatenate([work.positions + start for work, start in zip(works, starts, strict=True)])
        if min(lengths) == width:
            ids = np.stack([work.ids for work in works])
            types = np.stack([work.type_ids for work in works])
            mask = np.ones_like(ids)
        else:
            ids = np.full((len(works), width), self.tokens.pad_id or 0, dtype=np.int64)
            types, mask = np.zeros_like(ids), np.zeros_like(ids)
            for row, (work, length) in enumerate(zip(works, lengths, strict=True)):
                ids[row, :length], types[row, :length], mask[row, :length] = work.ids, work.type_ids, 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, POSITIONS: positions}

    def _top_k(self, works: Sequence[Work]) -> int | None:
        """Return the k of the graph's top-k; None where an input needs every logit.

        The graph does not know which classes have no token: k is so large that enough others come with them.
        """
        wanted = [work.top_k for work in works if work.output == self._cut]
        if not wanted or None in wanted:
            return None
        classes = self.bundle.manifest.architecture.vocab_size
        return min(classes, max(k for k in wanted if k is not None) + len(self.tokens.nameless))

    def describe(self) -> dict[str, Any]:
        """Return what is loaded and where it runs, as JSON values."""
        manifest, graph = self.bundle.manifest, self.graph
        variant = manifest.variants[self.variant]
        return {
            "bundle": str(self.bundle.path),
            "name": manifest.name,
            "heads": list(manifest.heads),
            "tasks": answerable(self.tokens, manifest),
            "max_length": manifest.max_length,
            "variant": self.variant,
            "recipe": variant.recipe,
            "file": variant.file,
            "provider": graph.provider.name,
            "provider_options": dict(graph.options),
            "chosen": self.chosen,
            "fallback": self.fallback,
            "nodes": {name: sum(counts.values()) for name, counts in graph.placement.items()},
            "threads": graph.threads,
            "streams": self.streams,
            "memory": None
            if self.bound is None
            else {
                "bound_bytes": self.bound.memory,
                "expected_bytes": self.bound.expected,
                "positions": self.positions,
            },
            "batching": {
                "tokens": self.batch_tokens,
                "rows": graph.provider.batch_rows,
                "overhead_tokens": graph.provider.overhead_tokens,
                "buckets": list(buckets(manifest.max_length)) if graph.provider.shapes_cost else "by length",
            },
        }


def _shares(values: Mapping[str, Any], works: Sequence[Work]) -> list[Any]:
    """Return each input's share of its output: its decoded positions, its tokens without padding, or its row."""
    decoded_names = decoded_outputs(values)
    per_token = {name for name in values if is_per_token(name)}  # once a batch: a batch has hundreds of rows
    shares = []
    decoded = 0
    for row, work in enumerate(works):
        if work.output in decoded_names:
            shares.append(values[work.output][decoded : decoded + len(work.positions)])
        elif work.output in per_token:
            shares.append(values[work.output][row][: len(work.ids)])
        else:
            shares.append(values[work.output][row])
        decoded += len(work.positions)
    return shares


def _finite(share: Any) -> Any:  # noqa: ANN401 — arrays, top-k results, or rows that are decoded as they are read
    """Return a share of an output as it is; FloatingPointError where it, or a row of it when read, is not finite."""
    if isinstance(share, Iterator):
        return map(_finite, share)
    if not finite(share):
        raise FloatingPointError
    return share
