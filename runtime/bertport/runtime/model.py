"""Model: a loaded bundle that answers tasks, one text at a time or in batches."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sized
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, overload

import numpy as np

from bertport.runtime.batching import MAX_WINDOW, MAX_WINDOW_WEIGHT, Flush, buckets, plan, windows
from bertport.runtime.errors import (
    BertportError,
    BundleError,
    InputTextError,
    MissingHeadError,
    OutputError,
    UsageError,
)
from bertport.runtime.excerpts import excerpt
from bertport.runtime.finite import finite
from bertport.runtime.heads import DEFAULT_TOP_K, POSITIONS, decoded_outputs, is_per_token, top_k_output
from bertport.runtime.tasks.table import TASKS, Call, Work, bind, joined, obstacle, rows, weight
from bertport.runtime.top_k import IDS, LOG_PROBABILITIES, TOP_K, TopKResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.runtime.bundle.directory import Bundle
    from bertport.runtime.memory import MemoryPlan
    from bertport.runtime.session import Graph
    from bertport.runtime.tasks.answers import NextSentence, SentenceOrder, TokenLabel
    from bertport.runtime.tasks.table import Prepared, Read
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Model"]

BEYOND = re.compile(r"Attempting to broadcast an axis|out of data bounds")
"""What ONNX Runtime's errors say where a table of positions is too short: when adding it, or when taking a row."""
TOKENS_PER_POSITION = 8
"""Tokens in a batch for each position decoded at once, where nothing bounds memory. A text of nothing but masks would
take a gigabyte (ten rows of the vocabulary for each mask); no ordinary batch has a mask for each fourth token."""


class Model:
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
        fallback: str | None = None,
        streams: int = 1,
        replica: Model | None = None,
        bound: MemoryPlan | None = None,
    ) -> None:
        self.bundle: Final = bundle
        self.variant: Final = variant
        self.graph: Final = graph
        self.tokens: Final = tokens
        self.fallback: Final = fallback
        """Why the model does not run on the provider that was asked for; None where it does."""
        self.streams: Final = streams
        """How many batches run at once."""
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
            fallback=self.fallback,
            streams=self.streams,
            replica=self._replica,
            bound=self.bound,
        )

    @property
    def concurrent_replica(self) -> Model:
        """Replica for concurrent batches (fewer intra-op threads); the model itself where `streams` is 1."""
        return self._replica or self  # not stored: a model that refers to itself would outlive its users

    def fill_mask(
        self,
        texts: str | Sequence[str],
        *,
        top_k: int | None = DEFAULT_TOP_K,
        targets: str | Sequence[str] | None = None,
        truncation: bool = False,
    ) -> list[Any]:
        """Return the likeliest words for each mask, as transformers' fill-mask pipeline does.

        Args:
            texts: a text with one or more mask tokens, or a list of such texts.
            top_k: answers per mask.
            targets: only these words compete; their scores stay those of the full vocabulary.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            For a text with one mask a list of `{"score", "token", "token_str", "sequence"}`, best first; for several
            masks one such list per mask; for a list of texts a list of these, unwrapped when it holds one text.

        Raises:
            MissingHeadError: when the bundle has no head for masked words.
            InputTextError: for a text without a mask, too long, or whose mask is lost to truncation.
            UsageError: for a parameter out of range, or targets none of which is left.
        """
        one = isinstance(texts, str)
        answers = list(
            self.predict("fill-mask", [texts] if one else texts, top_k=top_k, targets=targets, truncation=truncation)
        )
        return answers[0] if len(answers) == 1 else answers  # a list of one is unwrapped, as in transformers

    @overload
    def next_sentence(self, a: str, b: str, *, truncation: bool = False) -> NextSentence: ...  # type: ignore[overload-overlap]  # a text is a sequence of texts to the checker alone

    @overload
    def next_sentence(self, a: Sequence[str], b: Sequence[str], *, truncation: bool = False) -> list[NextSentence]: ...

    def next_sentence(
        self, a: str | Sequence[str], b: str | Sequence[str], *, truncation: bool = False
    ) -> NextSentence | list[NextSentence]:
        """Return whether `b` follows `a`.

        Args:
            a: a text, or a list of texts.
            b: a text, or a list of as many.
            truncation: cut the longer text of a pair that is too long instead of refusing it.

        Returns:
            `{"label", "score", "follows", "probabilities"}`, or a list of them: the more probable label as the bundle
            records it, its probability, whether it says that `b` follows, and the probability of each label.

        Raises:
            MissingHeadError: when the bundle has no next-sentence head.
            InputTextError: for a pair that is too long.
            UsageError: for lists of different lengths.
        """
        pairs, one = _pairs("next-sentence", a, b)
        answers = list(self.predict("next-sentence", pairs, truncation=truncation))
        return answers[0] if one else answers

    @overload
    def sentence_order(self, a: str, b: str, *, truncation: bool = False) -> SentenceOrder: ...  # type: ignore[overload-overlap]  # as above

    @overload
    def sentence_order(
        self, a: Sequence[str], b: Sequence[str], *, truncation: bool = False
    ) -> list[SentenceOrder]: ...

    def sentence_order(
        self, a: str | Sequence[str], b: str | Sequence[str], *, truncation: bool = False
    ) -> SentenceOrder | list[SentenceOrder]:
        """Return whether `a` and `b`, two neighbouring pieces of a text, stand in the order in which it has them.

        Args:
            a: a text, or a list of texts.
            b: a text, or a list of as many.
            truncation: cut the longer text of a pair that is too long instead of refusing it.

        Returns:
            `{"label", "score", "in_order", "probabilities"}`, or a list of them: the more probable label as the bundle
            records it, its probability, whether it says that `a` came first, and the probability of each label.

        Raises:
            MissingHeadError: when the bundle has no sentence-order head.
            InputTextError: for a pair that is too long.
            UsageError: for lists of different lengths.
        """
        pairs, one = _pairs("sentence-order", a, b)
        answers = list(self.predict("sentence-order", pairs, truncation=truncation))
        return answers[0] if one else answers

    @overload
    def replaced_tokens(  # type: ignore[overload-overlap]  # as above
        self, texts: str, *, ignore_labels: Collection[str] = (), truncation: bool = False
    ) -> list[TokenLabel]: ...

    @overload
    def replaced_tokens(
        self, texts: Sequence[str], *, ignore_labels: Collection[str] = (), truncation: bool = False
    ) -> list[list[TokenLabel]]: ...

    def replaced_tokens(
        self, texts: str | Sequence[str], *, ignore_labels: Collection[str] = (), truncation: bool = False
    ) -> list[TokenLabel] | list[list[TokenLabel]]:
        """Return for each token whether it stands in place of another, as rows of transformers' token classification.

        Args:
            texts: a text, or a list of texts.
            ignore_labels: tokens with these labels are left out.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            For a text a list of `{"entity", "score", "index", "word", "start", "end"}`, a row for each token that is
            not special: the more probable label as the bundle records it, its probability, the token's position in the
            input, the token, and its characters in the text. For a list of texts a list of these.

        Raises:
            MissingHeadError: when the bundle has no replaced-token head.
            InputTextError: for a text that is too long.
            UsageError: for `ignore_labels` that are no labels.
        """
        one = isinstance(texts, str)
        inputs = [texts] if one else texts
        answers = list(self.predict("replaced-tokens", inputs, ignore_labels=ignore_labels, truncation=truncation))
        return answers[0] if one else answers

    @overload
    def features(  # type: ignore[overload-overlap]  # as above
        self, texts: str, *, pooling: str = "none", normalize: bool = False, truncation: bool = False
    ) -> NDArray[np.float32]: ...

    @overload
    def features(
        self,
        texts: Sequence[str],
        *,
        pooling: Literal["none"] = "none",
        normalize: bool = False,
        truncation: bool = False,
    ) -> list[NDArray[np.float32]]: ...

    @overload
    def features(
        self,
        texts: Sequence[str],
        *,
        pooling: Literal["cls", "mean", "pooler"],
        normalize: bool = False,
        truncation: bool = False,
    ) -> NDArray[np.float32]: ...

    @overload
    def features(
        self, texts: Sequence[str], *, pooling: str, normalize: bool = False, truncation: bool = False
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]: ...

    def features(
        self,
        texts: str | Sequence[str],
        *,
        pooling: str = "none",
        normalize: bool = False,
        truncation: bool = False,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return the encoder's hidden states.

        Args:
            texts: a text, or a list of texts.
            pooling: `none` for a vector per token, `mean` for the mean over the tokens, special ones included, `cls`
                for the state of the first token, both as sentence encoders take them; `pooler` for the pooler's output,
                which is that state after a dense layer and an activation. Until 0.1 `cls` was that, so it warns
                (FutureWarning).
            normalize: scale pooled vectors to length 1.
            truncation: cut a text that is too long instead of refusing it.

        Returns:
            float32: for a text `[tokens, hidden]`, or `[hidden]` when pooled; for a list of texts a list of
            `[tokens, hidden]`, or one array `[texts, hidden]` when pooled.

        Raises:
            MissingHeadError: for `pooler` when the bundle has no pooler.
            InputTextError: for a text that is too long.
        """
        one = isinstance(texts, str)
        call = self.resolve("features", pooling=pooling, normalize=normalize, truncation=truncation)
        if call.note:
            warnings.warn(call.note, FutureWarning, stacklevel=2)
        vectors: list[NDArray[np.float32]] = list(self._answers(call, [texts] if one else texts))
        if one:
            return vectors[0]
        if pooling == "none":
            return vectors
        return (
            np.stack(vectors) if vectors else np.zeros((0, self.bundle.manifest.architecture.hidden_size), np.float32)
        )

    @overload
    def predict(
        self, task: Literal["next-sentence"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[NextSentence]: ...

    @overload
    def predict(
        self, task: Literal["sentence-order"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[SentenceOrder]: ...

    @overload
    def predict(
        self, task: Literal["replaced-tokens"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[list[TokenLabel]]: ...

    @overload
    def predict(
        self, task: Literal["features"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[NDArray[np.float32]]: ...

    @overload
    def predict(
        self, task: Literal["fill-mask"], inputs: Iterable[object], **parameters: object
    ) -> Iterator[list[Any]]: ...

    @overload
    def predict(self, task: str, inputs: Iterable[object], **parameters: object) -> Iterator[Any]: ...

    def predict(self, task: str, inputs: Iterable[object], **parameters: object) -> Iterator[Any]:
        """Return the answers of any task for any iterable, in order and lazily, in bounded memory.

        Args:
            task: `fill-mask`, `next-sentence`, `sentence-order`, `replaced-tokens` or `features`.
            inputs: texts, or pairs for next-sentence and sentence-order; of an iterator no more is read ahead than is
                batched.
            parameters: the task's own, as in the method of its name.

        Returns:
            An iterator with one answer per input.

        Raises:
            UnknownNameError, MissingHeadError, UsageError: at once, for the task or its parameters.
            InputTextError: by the iterator, at the place of the first input that the task cannot take.
            OutputError: by the iterator, at the place of the first input for which the graph gives NaN or infinity.
        """
        if isinstance(inputs, str):
            raise UsageError("predict takes an iterable of inputs: put one text in a list")
        call = self.resolve(task, **parameters)
        if call.note:
            warnings.warn(call.note, FutureWarning, stacklevel=2)
        return self._answers(call, inputs)

    def bind(self, task: str, **parameters: object) -> Call:
        """Return a task with its parameters checked, for `outcomes` or for `Call.prepare` and `run`."""
        call = self.resolve(task, **parameters)
        if call.note:
            warnings.warn(call.note, FutureWarning, stacklevel=2)
        return call

    def resolve(self, task: str, **parameters: object) -> Call:
        """Return what `bind` does without a warning, for a program that shows `Call.note` itself."""
        call = bind(task, parameters, self.tokens, self.bundle.manifest)
        if call.output not in self.graph.outputs:
            raise MissingHeadError(
                f"variant {self.variant!r} of {self.bundle.manifest.name} has no output {call.output!r}: choose another"
            )
        return call

    def _answers(self, call: Call, inputs: Iterable[object]) -> Iterator[Any]:
        """Return the answers of `outcomes`, raising the first error."""
        outcomes = self.outcomes(call, inputs)
        return _raising(outcomes, numbered=not (isinstance(inputs, Sized) and len(inputs) == 1))

    def outcomes(self, call: Call, inputs: Iterable[object]) -> Iterator[Any]:
        """Return answers as `predict` does, an error in the place of an answer; an error among the inputs stays."""
        provider = self.graph.provider
        with self._batch_runner() as run:
            for prepared in self._prepared(call, inputs):
                works = [work for each in prepared for work in rows(each)]
                lengths = [len(work.ids) for work in works]
                budget = self.batch_tokens
                if self.streams > 1:  # a batch for each stream
                    budget = min(budget, -(-sum(lengths) // self.streams))
                planned = plan(lengths, budget=budget, overhead=provider.overhead_tokens, most_rows=provider.batch_rows)
                batches = [[works[index] for index in batch] for batch in planned]
                answers: list[Any] = [None] * len(works)
                for places, answered in zip(planned, run(batches), strict=True):
                    for place, answer in zip(places, answered, strict=True):
                        answers[place] = answer
                coming = iter(answers)
                yield from [joined(each, coming) for each in prepared]

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

        with ThreadPoolExecutor(max_workers=1) as pool:
            coming = pool.submit(call.tokenized, next(stream))
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
        return [self._answer(work, share) for work, share in zip(works, _shares(values, works), strict=True)]

    def _beyond(self, width: int, error: Exception) -> BundleError:
        """Return the error of a graph that has no row for a position: loading sees it only in tables that it knows."""
        manifest = self.bundle.manifest
        return BundleError(
            f"variant {self.variant!r} of {manifest.name} fails on inputs of {width} tokens "
            f"({excerpt(' '.join(str(error).split()), 300)}): its graph knows fewer positions than the "
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
        tasks = [name for name, task in TASKS.items() if obstacle(task, task.options(), self.tokens, manifest) is None]
        return {
            "bundle": str(self.bundle.path),
            "name": manifest.name,
            "heads": list(manifest.heads),
            "tasks": tasks,
            "max_length": manifest.max_length,
            "variant": self.variant,
            "recipe": variant.recipe,
            "file": variant.file,
            "provider": graph.provider.name,
            "provider_options": dict(graph.options),
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


def _pairs(task: str, a: str | Sequence[str], b: str | Sequence[str]) -> tuple[list[tuple[str, str]], bool]:
    """Return the pairs of two texts or of two lists of equally many, and whether it is but one.

    Raises:
        UsageError: for anything else; it names the task.
    """
    if isinstance(a, str) and isinstance(b, str):
        return [(a, b)], True
    if isinstance(a, str) or isinstance(b, str) or len(a) != len(b):
        raise UsageError(f"{task} takes two texts, or two lists of equally many")
    return list(zip(a, b, strict=True)), False


def _raising(outcomes: Iterator[Any], *, numbered: bool) -> Iterator[Any]:
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, InputTextError | OutputError) and numbered:
            raise type(outcome)(f"input {number}: {outcome.message}") from outcome
        if isinstance(outcome, BertportError):
            raise outcome
        yield outcome
