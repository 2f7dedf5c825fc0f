"""The table of tasks: what a task reads, which head it needs, and how its answer is made of that head's output."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from bertport.runtime.errors import BertportError, InputTextError, MissingHeadError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import (
    EMBEDDING,
    MLM,
    MULTIPLE_CHOICE,
    NSP,
    QUESTION_ANSWERING,
    RTD,
    SEQUENCE_CLASSIFICATION,
    SOP,
    TOKEN_CLASSIFICATION,
    output_of,
)
from bertport.runtime.tasks import (
    embeddings,
    features,
    fill_mask,
    multiple_choice,
    pairs,
    question_answering,
    replaced_tokens,
    sentence_similarity,
    text_classification,
    text_ranking,
    token_classification,
    zero_shot_classification,
)
from bertport.runtime.tasks.inputs import MOST_ROWS, Parts, two_texts
from bertport.runtime.tasks.labels import logits_alone
from bertport.runtime.tasks.parameters import boolean
from bertport.runtime.text.encoder import Text
from bertport.runtime.text.reader import PIECE
from bertport.runtime.text.steps import drained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.steps import Steps
    from bertport.runtime.text.tokenizer import Tokens
    from bertport.runtime.text.windows import Windows

__all__ = [
    "NO_POSITIONS",
    "TASKS",
    "Call",
    "Prepared",
    "Read",
    "Several",
    "Task",
    "Windowing",
    "Work",
    "answerable",
    "bind",
    "joined",
    "rows",
    "texts_of",
    "weight",
]

NO_POSITIONS = np.zeros(0, dtype=np.int64)
INPUTS_A_STEP = 256
"""Inputs that are prepared without a break: each takes microseconds."""
ROW_WEIGHT = 64
"""Fixed cost of a row of a compound input, in characters."""
POOLED_FEATURES = 'export a model of sentence-transformers, or ask for features with a pooling such as "mean"'
"""Advice for a bundle without embeddings of texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windowing:
    """Windowing of a task's long texts: each window is a row of a batch, and their answers are merged into one."""

    windows: Windows
    """Parameters of cutting a text."""
    merge: Callable[[list[Any]], object]
    """Makes the answer of a text of what `finish` gives for its windows, in order; also where there is but one."""


Read = Text | Parts | InputTextError
"""An input that was read: its text or pair, several of them, or why the task cannot take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row: what the runtime, the command line and the server know of a task."""

    name: str
    """Name for users."""
    summary: str
    """One sentence on what it answers, for help texts."""
    options: type[Any]
    """A frozen dataclass of its parameters with their defaults; each has the field `truncation`."""
    read: Callable[[Any, Tokens, Manifest], Callable[[object], Text | Parts]]
    """Returns the function that reads an input, from a caller or a line of JSON: to a text or a pair of texts, or to
    several that are rows of their own; InputTextError for others."""
    head: Callable[[Any], str | None]
    """Name of the head whose output it needs under the options given; None for the hidden states."""
    decodes_masks: bool = False
    """Whether the head is run at the positions of the mask token alone."""
    finish: Callable[[Any, Tokens, Manifest], Callable[[Any, Encoded], object]]
    """Returns the function that makes the answer of one input's share of the output and its ids."""
    pairs: bool = False
    """Whether an input is always two texts."""
    lacking: Callable[[Manifest], str | None] = lambda _: None
    """Returns what the head must be like, and what that of a bundle is instead; None for a bundle that can do it."""
    sample: Callable[[str], object] = lambda text: text
    """An input that is made of a text, to ask the task once."""
    spans: bool = False
    """Whether `finish` needs the characters that each token stands for."""
    windows: Callable[[Any, Tokens], Windowing | None] = lambda *_: None
    """Returns the windowing of long texts under the options given; None where a text is one row, no longer than the
    model takes."""
    top_k: Callable[[Any], int | None] = lambda _: None
    """The k of the k likeliest classes that `finish` needs under the options given; None where it needs the whole
    output."""
    note: Callable[[Any], str | None] = lambda _: None
    """A note for the caller on the options given; None where there is none."""
    instead: str = "use a bundle that has it"
    """Advice for a bundle that lacks the head."""

    @property
    def usual_head(self) -> str | None:
        """Name of the head whose output it needs where no option is given; None for the hidden states."""
        return self.head(self.options())


def _windowing(windows: Windows | None, merge: Callable[[list[Any]], object]) -> Windowing | None:
    return Windowing(windows=windows, merge=merge) if windows else None


def _judge(*, name: str, summary: str, head: str, field: str) -> Task:
    """Return the row of a task that judges a pair of texts.

    Args:
        name: as the field of the row.
        summary: as the field of the row.
        head: name of the head, which says yes or no.
        field: the answer's field that is True for yes.
    """
    return Task(
        name=name,
        summary=summary,
        options=pairs.Options,
        read=lambda *_: partial(two_texts, name),
        head=lambda _: head,
        pairs=True,
        sample=lambda text: [text, text],
        finish=lambda _options, _tokens, manifest: pairs.verdict(head, field, manifest),
    )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="fill-mask",
            summary="the likeliest words for each mask of a text",
            options=fill_mask.Options,
            read=lambda *_: fill_mask.read,
            head=lambda _: MLM,
            decodes_masks=True,
            finish=fill_mask.finish,
            top_k=fill_mask.needed_top_k,
        ),
        _judge(
            name="next-sentence",
            summary="whether the second of two texts follows the first",
            head=NSP,
            field="follows",
        ),
        _judge(
            name="sentence-order",
            summary="whether two texts stand in the order in which they were written",
            head=SOP,
            field="in_order",
        ),
        Task(
            name="replaced-tokens",
            summary="for each token of a text, whether it stands in place of another",
            options=replaced_tokens.Options,
            read=lambda *_: replaced_tokens.read,
            head=lambda _: RTD,
            spans=True,
            finish=replaced_tokens.finish,
        ),
        Task(
            name="text-classification",
            summary="the labels of a text or of a pair of texts",
            options=text_classification.Options,
            read=lambda *_: text_classification.read,
            head=lambda _: SEQUENCE_CLASSIFICATION,
            finish=text_classification.finish,
        ),
        Task(
            name="token-classification",
            summary="the labels of a text's tokens, or the entities that they make",
            options=token_classification.Options,
            read=token_classification.read,
            head=lambda _: TOKEN_CLASSIFICATION,
            spans=True,
            windows=lambda options, tokens: _windowing(
                token_classification.windows(options, tokens), token_classification.merge
            ),
            finish=token_classification.finish,
        ),
        Task(
            name="question-answering",
            summary="the part of a context that answers a question",
            options=question_answering.Options,
            read=lambda _options, tokens, _manifest: question_answering.read(tokens),
            head=lambda _: QUESTION_ANSWERING,
            sample=lambda text: {"question": text, "context": text},
            windows=lambda options, tokens: _windowing(
                question_answering.windows(options, tokens), question_answering.merge(options)
            ),
            finish=question_answering.finish,
        ),
        Task(
            name="zero-shot-classification",
            summary="how well labels of the caller's choice fit a text",
            options=zero_shot_classification.Options,
            read=zero_shot_classification.read,
            head=lambda _: SEQUENCE_CLASSIFICATION,
            lacking=zero_shot_classification.lacking,
            windows=lambda options, tokens: _windowing(
                zero_shot_classification.windows(options, tokens), itemgetter(0)
            ),
            sample=lambda text: {"text": text, "candidate_labels": [text]},
            finish=zero_shot_classification.finish,
        ),
        Task(
            name="multiple-choice",
            summary="which of several texts goes best with another",
            options=multiple_choice.Options,
            read=lambda *_: multiple_choice.read,
            head=lambda _: MULTIPLE_CHOICE,
            sample=lambda text: {"prompt": text, "choices": [text]},
            finish=logits_alone,
        ),
        Task(
            name="text-ranking",
            summary="texts by how well they fit a query",
            options=text_ranking.Options,
            read=text_ranking.read,
            head=lambda _: SEQUENCE_CLASSIFICATION,
            lacking=text_ranking.lacking,
            sample=lambda text: {"query": text, "documents": [text]},
            finish=text_ranking.finish,
        ),
        Task(
            name="features",
            summary="a vector for each token of a text, or one for the whole",
            options=features.Options,
            read=lambda *_: features.read,
            head=features.head,
            finish=features.finish,
            note=features.note,
        ),
        Task(
            name="embeddings",
            summary="the vector of a text that the model was trained to make",
            options=embeddings.Options,
            read=embeddings.read,
            head=lambda _: EMBEDDING,
            finish=embeddings.finish,
            instead=POOLED_FEATURES,
        ),
        Task(
            name="sentence-similarity",
            summary="how alike a text is to each of several others",
            options=sentence_similarity.Options,
            read=sentence_similarity.read,
            head=lambda _: EMBEDDING,
            sample=lambda text: {"source_sentence": text, "sentences": [text]},
            finish=sentence_similarity.finish,
            instead=POOLED_FEATURES,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One prepared input: all that is needed to run it, in a batch with work of any task."""

    ids: NDArray[np.int64]
    """Token ids `[tokens]`."""
    type_ids: NDArray[np.int64]
    """Segments `[tokens]`."""
    positions: NDArray[np.int64]
    """Positions in `ids` to decode; none for tasks that do not."""
    output: str
    """The graph output that `finish` takes."""
    finish: Callable[[Any], object]
    """Makes the answer of this input's share of the output: `[positions, classes]` where positions are decoded (or a
    `TopKResult` of them where `top_k` allows it), `[tokens, …]` where each token has a row, or else `[…]`."""
    top_k: int | None = None
    """The k of the k likeliest classes that `finish` needs; None where it needs the whole output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """One prepared input that is several rows of a batch, or of several batches."""

    works: tuple[Work, ...]
    """The rows, one at least."""
    combine: Callable[[list[Any]], object]
    """Makes the answer of the rows' answers, in order."""


Prepared = Work | Several | InputTextError
"""An input made ready, or why it cannot be."""


def rows(prepared: Prepared) -> tuple[Work, ...]:
    """Return the rows of a batch that an input makes, in order; none for one with an error."""
    if isinstance(prepared, Work):
        return (prepared,)
    return prepared.works if isinstance(prepared, Several) else ()


def joined(prepared: Prepared, answers: Iterator[Any]) -> Any:  # noqa: ANN401 — the task's answer, or an error
    """Return the answer of an input: its rows' answers, taken in order and put together.

    An error among the inputs is its own answer, and the first error among an input's rows is that of the input.
    """
    if isinstance(prepared, Work):
        return next(answers)
    if not isinstance(prepared, Several):
        return prepared
    parts = list(islice(answers, len(prepared.works)))
    return next((part for part in parts if isinstance(part, BertportError)), None) or prepared.combine(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A task with its parameters checked and resolved, which prepares inputs."""

    task: Task
    """The row."""
    tokens: Tokens
    """The bundle's tokenizer."""
    truncation: bool
    """Whether over-long inputs are cut."""
    output: str
    """The graph output needed."""
    read: Callable[[object], Text | Parts]
    """Reads an input; raises InputTextError for one that the task cannot take."""
    finish: Callable[[Any, Encoded], object]
    """Makes the answer of a row from the graph's output."""
    windowing: Windowing | None = None
    """Windowing of long texts; None where a text is one row."""
    segments: int
    """Segments that the model knows: rows of its token type embedding, or the one of a model without."""
    top_k: int | None = None
    """The k of the k likeliest classes that it needs; None where it needs the whole output."""
    note: str | None = None
    """A note for the caller on the parameters; None where there is none."""

    def prepare(self, inputs: Sequence[object]) -> list[Prepared]:
        """Return the work of inputs, tokenized in one call; a bad input becomes its error, and an error stays one."""
        return self.tokenized([self.reading(value) for value in inputs])

    def reading(self, value: object) -> Read:
        """Return the text, pair or several of either that an input is; an error where the task cannot take it."""
        if isinstance(value, InputTextError):
            return value
        try:
            read = self.read(value)
        except InputTextError as error:
            return error
        if isinstance(read, Parts) and not 1 <= len(read.texts) <= MOST_ROWS:
            return InputTextError(
                f"the input makes {len(read.texts):,} texts to run and may make 1 to {MOST_ROWS:,}: "
                f"give {'more' if not read.texts else 'fewer at once'}: {excerpt(value)}"
            )
        return read

    def tokenized(self, read: Sequence[Read]) -> list[Prepared]:
        """Return the work of inputs that were read, tokenized in one call."""
        return drained(self.tokenizing(read, piece=sys.maxsize))

    def tokenizing(self, read: Sequence[Read], *, piece: int = PIECE, most: int = MOST_ROWS) -> Steps[list[Prepared]]:
        """Tokenize as `tokenized` does, in steps of some milliseconds: yields between them, and returns the list.

        Args:
            read: inputs as `reading` returns them.
            piece: characters that a step tokenizes, about.
            most: most windows of a text.
        """
        texts = [text for item in read for text in texts_of(item)]
        encoded: Sequence[Encoded | tuple[Encoded, ...] | InputTextError]
        if self.windowing is not None:
            encoded = yield from self.tokens.windows(texts, self.windowing.windows, most=most, piece=piece)
        else:
            encoded = yield from self.tokens.encoding(
                texts,
                truncation=self.truncation,
                masks=self.task.decodes_masks,
                spans=self.task.spans,
                piece=piece,
            )
        prepared: list[Prepared] = []
        for number, (text, ids) in enumerate(zip(texts, encoded, strict=True), 1):
            prepared.append(self._windows(text, ids) if isinstance(ids, tuple) else self._work(text, ids))
            if number % INPUTS_A_STEP == 0:
                yield
        coming = iter(prepared)
        return [_together(item, coming) for item in read]

    def _windows(self, text: Text, encoded: tuple[Encoded, ...]) -> Prepared:
        """Return the work of a text's windows."""
        merge = self.windowing.merge if self.windowing else list
        return _several([self._work(text, window) for window in encoded], merge)

    def _work(self, text: Text, encoded: Encoded | InputTextError) -> Work | InputTextError:
        if isinstance(encoded, InputTextError):
            return encoded
        positions = NO_POSITIONS
        if self.task.decodes_masks:
            positions = np.flatnonzero(encoded.ids == self.tokens.mask_id)
            if encoded.lost_mask:
                return InputTextError(
                    f"truncation to {self.tokens.max_length} tokens cut off a {self.tokens.mask_token}: "
                    f"put it nearer the beginning, or shorten the text: {excerpt(text)}"
                )
            if not len(positions):
                return InputTextError(
                    f"No mask_token ({self.tokens.mask_token}) found on the input: "
                    f"write {self.tokens.mask_token} where a word is to be filled in: {excerpt(text)}"
                )
        if not len(encoded.ids):
            return InputTextError(
                f"the input has no tokens (the tokenizer drops all of it, and adds none): leave it out: {excerpt(text)}"
            )
        if not isinstance(text, str) and int(encoded.type_ids.max()) >= self.segments:
            return InputTextError(
                f"the input is a pair of texts and the model knows {self.segments} segment"
                f"{'s'[: self.segments - 1]} (type_vocab_size): give one text: {excerpt(text)}"
            )
        finish = self.finish
        return Work(
            ids=encoded.ids,
            type_ids=encoded.type_ids,
            positions=positions,
            output=self.output,
            finish=lambda values: finish(values, encoded),
            top_k=self.top_k,
        )


def bind(name: str, parameters: Mapping[str, object], tokens: Tokens, manifest: Manifest) -> Call:
    """Return a task with its parameters, checked against the bundle.

    Raises:
        UnknownNameError: for an unknown task or parameter.
        MissingHeadError: when the bundle lacks the head that the task needs.
        UsageError: for a parameter out of range.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    task = TASKS[name]
    known = [field.name for field in dataclasses.fields(task.options)]
    for parameter in parameters:
        if parameter not in known:
            raise UnknownNameError(f"parameter of {name}", parameter, known)
    options = task.options(**parameters)
    boolean("truncation", options.truncation)
    error = obstacle(task, options, tokens, manifest)
    if error is not None:
        raise type(error)(f"{error.message}; this one answers {', '.join(answerable(tokens, manifest))}")
    finish = task.finish(options, tokens, manifest)
    windowing = task.windows(options, tokens)
    if windowing is not None:
        tokens.check(windowing.windows)
    return Call(
        task=task,
        tokens=tokens,
        truncation=options.truncation,
        output=output_of(task.head(options)),
        segments=max(1, manifest.architecture.type_vocab_size),
        windowing=windowing,
        read=task.read(options, tokens, manifest),
        finish=finish,
        top_k=task.top_k(options),
        note=task.note(options),
    )


def answerable(tokens: Tokens, manifest: Manifest) -> list[str]:
    """Return the names of the tasks that a bundle can do."""
    return [name for name, task in TASKS.items() if obstacle(task, task.options(), tokens, manifest) is None]


def obstacle(
    task: Task,
    options: Any,  # noqa: ANN401 — the task's own
    tokens: Tokens,
    manifest: Manifest,
) -> MissingHeadError | UsageError | None:
    """Return why a bundle cannot do a task; None where it can."""
    head = task.head(options)
    if head is not None and head not in manifest.heads:
        lacks = f"the checkpoint of {manifest.name} does not hold"
        if manifest.encoder_alone:
            lacks = f"{manifest.name} was exported without"
        return MissingHeadError(
            f"{task.name} needs the head {head!r}, which {lacks} (heads: {', '.join(manifest.heads) or 'none'}): "
            f"{task.instead}"
        )
    needs = task.lacking(manifest)
    if needs is not None:
        return MissingHeadError(f"{task.name} needs {needs}: use a bundle that has one")
    if task.decodes_masks and tokens.mask_id is None:
        named = "" if tokens.mask_token is None else f" {tokens.mask_token!r}"
        return UsageError(
            f"the tokenizer of {manifest.name} has no mask token{named}, so nothing can be filled: "
            "use a bundle whose tokenizer has one"
        )
    if task.pairs and manifest.architecture.type_vocab_size <= 1:
        return MissingHeadError(
            f"{task.name} takes two texts, and {manifest.name} knows one segment "
            f"(type_vocab_size {manifest.architecture.type_vocab_size}): use a bundle that was trained on pairs"
        )
    if task.pairs and not tokens.takes_pairs:
        return MissingHeadError(
            f"{task.name} takes two texts, and {manifest.name} takes {tokens.max_length} tokens, too few for any pair: "
            "use a bundle that takes longer inputs"
        )
    return None


def texts_of(read: Read) -> tuple[Text, ...]:
    """Return the texts and pairs of an input that was read, each a row; none for one with an error."""
    if isinstance(read, Parts):
        return read.texts
    return () if isinstance(read, InputTextError) else (read,)


def weight(read: Read) -> int:
    """Return about how many characters an input has, those of all its rows together."""
    if isinstance(read, str):
        return len(read)
    if isinstance(read, Parts):
        return sum(ROW_WEIGHT + weight(text) for text in read.texts)
    return 1 if isinstance(read, InputTextError) else len(read[0]) + len(read[1])


def _together(read: Read, texts: Iterator[Prepared]) -> Prepared:
    """Return the work of an input that was read: that of its texts."""
    if isinstance(read, InputTextError):
        return read
    if not isinstance(read, Parts):
        return next(texts)
    return _several(list(islice(texts, len(read.texts))), read.combine)


def _several(parts: Sequence[Prepared], combine: Callable[[list[Any]], object]) -> Prepared:
    """Return the rows of several parts as those of one input; the first error among them is that of the input."""
    error = next((part for part in parts if isinstance(part, InputTextError)), None)
    if error is not None:
        return error
    works = tuple(work for part in parts for work in rows(part))
    if all(isinstance(part, Work) for part in parts):
        return Several(works=works, combine=combine)

    def in_turn(answers: list[Any]) -> object:
        coming = iter(answers)
        return combine([joined(part, coming) for part in parts])

    return Several(works=works, combine=in_turn)
