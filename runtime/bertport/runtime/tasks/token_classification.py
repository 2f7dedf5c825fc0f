"""token-classification: labels of tokens, or the entities that they make, as transformers' pipeline gives them.

A token's label is the likeliest of its logits. `simple` joins neighbouring tokens of one label; `first`, `average` and
`max` give each word one label before that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np

from bertport.runtime.errors import InputTextError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import TOKEN_CLASSIFICATION
from bertport.runtime.tasks.inputs import one_text, texts_in
from bertport.runtime.tasks.labels import columns, labelled, probabilities
from bertport.runtime.tasks.parameters import boolean, is_whole
from bertport.runtime.text.windows import Windows
from bertport.runtime.text.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.tasks.answers import Entity, TokenLabel
    from bertport.runtime.text.encoder import Encoded
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["STRATEGIES", "Options", "entities", "finish", "ignored", "merge", "read", "token_labels", "windows"]

LONGEST_DELIMITER = 16
"""Most characters of the delimiter, which the text repeats between all of its words."""
NONE = "none"
"""The aggregation strategy that joins nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Parameters of token-classification."""

    aggregation_strategy: str = NONE
    """`none`: a row for each token; `simple`: neighbouring tokens of one label are an entity; `first`, `average`,
    `max`: so are neighbouring words, whose label is that of their first token, of the mean of their tokens'
    probabilities, or of the token that is surest."""
    ignore_labels: Collection[str] = ("O",)
    """Tokens or entities with these labels are left out."""
    is_split_into_words: bool = False
    """Whether an input is a list of words, not a text; `{"words": […]}` always is."""
    delimiter: str = " "
    """Separator of the words in the text whose characters `start` and `end` count."""
    stride: int | None = None
    """Read a text that is too long in windows that have so many tokens in common, for entities; None refuses it."""
    truncation: bool = False
    """Cut a text that is too long instead of refusing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A token or a word with its one label."""

    label: str
    """The label, as the bundle records it."""
    score: np.float32
    """Probability of the label."""
    word: str
    """The token, or the tokens of the word joined."""
    start: int
    """Its first character in the text."""
    end: int
    """The character behind its last."""


def read(options: Options, tokens: Tokens, manifest: Manifest) -> Callable[[object], str]:  # noqa: ARG001 — every task's `read` takes the tokenizer and the manifest
    """Return the function that reads a text, or an object with `text` or with `words`.

    Raises:
        UsageError: for a parameter out of range.
    """
    split, delimiter = boolean("is_split_into_words", options.is_split_into_words), options.delimiter
    if not isinstance(delimiter, str) or len(delimiter) > LONGEST_DELIMITER:
        raise UsageError(f"delimiter is a text of {LONGEST_DELIMITER} characters at most, not {excerpt(delimiter)}")

    def text(value: object) -> str:
        named = isinstance(value, dict) and value.keys() == {"words"}
        if not (named or split):
            return one_text("token-classification", value)
        words = cast("dict[str, object]", value)["words"] if named else value
        return Words(texts_in("words", words, InputTextError), delimiter)

    return text


def finish(
    options: Options, tokens: Tokens, manifest: Manifest
) -> Callable[[NDArray[np.float32], Encoded], list[TokenLabel] | list[Entity]]:
    """Return the function that turns logits `[tokens, labels]` into rows of tokens or into entities.

    Raises:
        MissingHeadError: for a bundle that does not record the labels.
        UnknownNameError, UsageError: for a parameter out of range.
    """
    _, labels = labelled(TOKEN_CLASSIFICATION, manifest)
    left_out = ignored(options.ignore_labels, labels)
    strategy = options.aggregation_strategy
    if strategy != NONE and (not isinstance(strategy, str) or strategy not in STRATEGIES):
        raise UnknownNameError("aggregation_strategy", strategy, (NONE, *STRATEGIES))

    def answer(logits: NDArray[np.float32], encoded: Encoded) -> list[TokenLabel] | list[Entity]:
        shares = probabilities(columns(logits, labels, manifest))
        if strategy == NONE:
            rows = token_labels(shares, encoded, labels, lambda index: _word(index, encoded, tokens))
            return [tag for tag in rows if tag["entity"] not in left_out]
        made = entities(strategy, shares, encoded, labels, tokens)
        return [entity for entity in made if entity["entity_group"] not in left_out]

    return answer


def windows(options: Options, tokens: Tokens) -> Windows | None:
    """Return how long texts are cut into windows; None where they are not.

    Raises:
        UsageError: for a stride that is no number, or that goes with no entities, or with truncation.
    """
    stride = options.stride
    if stride is None:
        return None
    if not is_whole(stride):
        raise UsageError(f"stride is a number of tokens, not {excerpt(stride)}")
    if options.aggregation_strategy == NONE:
        raise UsageError(
            "stride puts together the entities of a long text's windows, and aggregation_strategy 'none' makes no "
            f"entities: choose {', '.join(STRATEGIES)}"
        )
    if options.truncation:
        raise UsageError("stride reads all of a long text, and truncation cuts it off: ask for one of them")
    return Windows(length=tokens.max_length, stride=int(stride))


def merge(by_window: list[list[Entity]]) -> list[Entity]:
    """Return the entities of a text, made of those of its windows.

    Of two that overlap, the longer stays, and of two of one length that of the higher score, as in the pipeline.
    """
    entities = [entity for window in by_window for entity in window]
    if len(by_window) == 1:
        return entities
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if not kept or entity["start"] >= kept[-1]["end"]:
            kept.append(entity)
        elif _precedence(entity) > _precedence(kept[-1]):
            kept[-1] = entity
    return kept


def _precedence(entity: Entity) -> tuple[int, float]:
    """Return what decides which of two entities stays: its length, then its score."""
    return entity["end"] - entity["start"], entity["score"]


def token_labels(
    shares: NDArray[np.float32], encoded: Encoded, labels: Sequence[str], word: Callable[[int], str]
) -> list[TokenLabel]:
    """Return a row for each token that is not special: its likeliest label.

    Args:
        shares: probabilities `[tokens, labels]`.
        encoded: the input, with spans.
        labels: a label per column.
        word: what a row shows of the token at an index.
    """
    best = shares.argmax(axis=-1)
    return [
        {
            "entity": labels[best[index]],
            "score": float(shares[index, best[index]]),
            "index": index,
            "word": word(index),
            "start": int(encoded.spans[index, 0]),
            "end": int(encoded.spans[index, 1]),
        }
        for index in _places(encoded)
    ]


def entities(
    strategy: str, shares: NDArray[np.float32], encoded: Encoded, labels: Sequence[str], tokens: Tokens
) -> list[Entity]:
    """Return the entities of a text, whatever their label.

    Args:
        strategy: a name of `STRATEGIES`.
        shares: probabilities `[tokens, labels]`.
        encoded: the input, with spans and its text.
        labels: a label per column.
        tokens: the tokenizer.
    """
    places = _places(encoded)
    shown = [_word(index, encoded, tokens) for index in places]
    vote = STRATEGIES[strategy]
    if vote is None:
        runs = [slice(place, place + 1) for place in range(len(places))]
    else:
        begins = [place for place, index in enumerate(places) if place == 0 or not _continues(index, encoded, tokens)]
        runs = [slice(*ends) for ends in pairwise([*begins, len(places)])]
    units = []
    for run in runs:
        column, score = (_first if vote is None else vote)(shares[places[run]])
        units.append(
            Unit(
                label=labels[column],
                score=score,
                word=shown[run.start] if vote is None else tokens.join(shown[run]),
                start=int(encoded.spans[places[run.start], 0]),
                end=int(encoded.spans[places[run.stop - 1], 1]),
            )
        )
    return [_entity(group, tokens) for group in _groups(units)]


def ignored(names: object, labels: tuple[str, ...]) -> frozenset[str]:
    """Return the labels to leave out.

    Raises:
        UsageError: for what is no list of labels.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UsageError(f"ignore_labels is a list of labels ({', '.join(labels)}), not {excerpt(names)}")
    listed = list(names)
    for name in listed:
        if not isinstance(name, str):
            raise UsageError(f"ignore_labels is a list of labels ({', '.join(labels)}), and holds {excerpt(name)}")
    return frozenset(listed)


def _first(shares: NDArray[np.float32]) -> tuple[int, np.float32]:
    """Return label and probability of a word's first token."""
    column = int(shares[0].argmax())
    return column, shares[0, column]


def _average(shares: NDArray[np.float32]) -> tuple[int, np.float32]:
    """Return the label of the mean of the tokens' probabilities, and its share of it."""
    mean: NDArray[np.float32] = shares.mean(axis=0)
    column = int(mean.argmax())
    return column, mean[column]


def _surest(shares: NDArray[np.float32]) -> tuple[int, np.float32]:
    """Return label and probability of the token that is surest of its label."""
    token, column = divmod(int(shares.argmax()), shares.shape[1])
    return column, shares[token, column]


STRATEGIES: dict[str, Callable[[NDArray[np.float32]], tuple[int, np.float32]] | None] = {
    "simple": None,
    "first": _first,
    "average": _average,
    "max": _surest,
}
"""The strategies that make entities: what gives a word its label, None where each token has its own."""


def _places(encoded: Encoded) -> list[int]:
    """Return the indices of the tokens that are not special."""
    places: list[int] = np.flatnonzero(encoded.spans[:, 0] >= 0).tolist()
    return places


def _text(encoded: Encoded) -> str:
    """Return the text of an input."""
    return cast("str", encoded.text)  # one text, as `read` returns it


def _source(index: int, encoded: Encoded) -> str:
    """Return the characters of a token."""
    start, end = encoded.spans[index].tolist()
    return _text(encoded)[start:end]


def _word(index: int, encoded: Encoded, tokens: Tokens) -> str:
    """Return a token as the vocabulary writes it, and an unknown one as the text does."""
    token = int(encoded.ids[index])
    return _source(index, encoded) if token == tokens.unknown_id else tokens.token(token)


def _continues(index: int, encoded: Encoded, tokens: Tokens) -> bool:
    """Return whether a token continues the word of the token before it, by the pipeline's rule.

    Where the vocabulary marks continuations, such a token is not as long as its characters; elsewhere it is one with no
    space before it or at its beginning.
    """
    token = int(encoded.ids[index])
    if token == tokens.unknown_id:
        return False
    if tokens.marks_continuations:
        return len(tokens.token(token)) != len(_source(index, encoded))
    start = int(encoded.spans[index, 0])
    return start > 0 and " " not in _text(encoded)[start - 1 : start + 1]


def _groups(units: Sequence[Unit]) -> list[list[Unit]]:
    """Return runs of units of one label, but for the prefix that says that one begins or continues an entity."""
    groups: list[list[Unit]] = []
    for unit in units:
        begins, kind = _kind(unit.label)
        if groups and not begins and kind == _kind(groups[-1][-1].label)[1]:
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return groups


def _kind(label: str) -> tuple[bool, str]:
    """Return whether a label begins an entity, and what is behind `B-` or `I-`; a label without one continues."""
    begins = label.startswith("B-")
    return begins, label[2:] if begins or label.startswith("I-") else label


def _entity(group: Sequence[Unit], tokens: Tokens) -> Entity:
    """Return the entity that units of one label make."""
    return {
        "entity_group": group[0].label.split("-", 1)[-1],
        "score": float(np.mean([unit.score for unit in group])),
        "word": tokens.join([unit.word for unit in group]),
        "start": group[0].start,
        "end": group[-1].end,
    }
