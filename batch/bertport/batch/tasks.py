"""The table of tasks: which columns a task reads, and which flat columns its answers make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["TASKS", "TYPES", "BatchTask", "Column", "Form", "Shape"]

TYPES = (
    "string",
    "bool",
    "int32",
    "int64",
    "double",
    "float",
    "list<string>",
    "list<int32>",
    "list<int64>",
    *("list<double>", "list<float>"),
)
"""Arrow's names of the types that columns have: values, or lists of them, and nothing deeper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way in which rows hold a task's inputs."""

    needs: tuple[str, ...]
    """Columns that every row has."""
    may: tuple[str, ...] = ()
    """Columns that are read where they are there; a row may have null."""
    lists: tuple[str, ...] = ()
    """Columns among these that hold a list of texts; the others hold a text."""
    pair: bool = False
    """Whether the two columns are given to the model as a pair, without names."""

    def value(self, cells: Mapping[str, Any]) -> object:
        """Return the input of a row, as `Model.predict` takes it."""
        given = {name: cells[name] for name in self.needs}
        given |= {name: cells[name] for name in self.may if cells.get(name) is not None}
        if self.pair:
            return [given[name] for name in self.needs]
        return given["text"] if given.keys() == {"text"} else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the answers."""

    name: str
    """The column, and the field of the answer."""
    type: str
    """Type of its values: one of `TYPES`."""
    text: str
    """Description of what it holds, for the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The columns of a task's answers, under its parameters."""

    columns: tuple[Column, ...]
    """The columns, in order."""
    fields: Callable[[Any], Mapping[str, Any]]
    """Returns the values by column, of one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTask:
    """One row: what a batch knows of a task."""

    forms: tuple[Form, ...]
    """The ways in which rows hold its inputs: the first whose columns are there is taken."""
    shape: Callable[[Mapping[str, Any], Form], Shape]
    """Returns the columns of its answers, by its parameters and the form of its inputs."""


def _one(*columns: Column, fields: Callable[[Any], Mapping[str, Any]] = lambda answer: answer) -> Shape:
    """Return the shape of an answer that is one value a column."""
    return Shape(columns=columns, fields=fields)


def _many(*columns: Column, rows: Callable[[Any], list[Any]] = lambda answer: answer) -> Shape:
    """Return the shape of an answer that is rows: of each column a list, all of one length."""

    def fields(answer: Any) -> dict[str, list[Any]]:  # noqa: ANN401 — the task's own
        given = rows(answer)
        return {column.name: [row[column.name] for row in given] for column in columns}

    return Shape(columns=tuple(replace(column, type=f"list<{column.type}>") for column in columns), fields=fields)


LABEL = Column(name="label", type="string", text="the likeliest label")
SCORE = Column(name="score", type="double", text="its probability")
TOKENS = (
    Column(name="entity", type="string", text="label of the token"),
    Column(name="score", type="double", text="its probability"),
    Column(name="index", type="int32", text="place of the token in the input"),
    Column(name="word", type="string", text="the token"),
    Column(name="start", type="int32", text="its first character in the text"),
    Column(name="end", type="int32", text="the character behind its last"),
)
TEXT, PAIR = Form(needs=("text",)), Form(needs=("text", "text_pair"))
MAYBE_PAIR = Form(needs=("text",), may=("text_pair",))


def _fill_mask(_: Mapping[str, Any], __: Form) -> Shape:
    def rows(answer: list[Any]) -> list[dict[str, Any]]:
        masks = [answer] if answer and isinstance(answer[0], dict) else answer
        return [{"mask": number, **word} for number, words in enumerate(masks) for word in words]

    return _many(
        Column(name="mask", type="int32", text="which mask of the text, counted from 0"),
        Column(name="score", type="double", text="probability of the word"),
        Column(name="token", type="int64", text="its token id"),
        Column(name="token_str", type="string", text="the word"),
        Column(name="sequence", type="string", text="the text with the word in place of the mask"),
        rows=rows,
    )


def _verdict(field: str, meaning: str) -> Callable[[Mapping[str, Any], Form], Shape]:
    """Return the shape of a judgement on a pair; `field` is true where the likelier label says yes."""

    def fields(answer: Mapping[str, Any]) -> dict[str, Any]:
        shares = answer["probabilities"]
        return {**answer, "labels": list(shares), "probabilities": list(shares.values())}

    shape = _one(
        LABEL,
        SCORE,
        Column(name=field, type="bool", text=meaning),
        Column(name="labels", type="list<string>", text="all labels"),
        Column(name="probabilities", type="list<double>", text="their probabilities, in this order"),
        fields=fields,
    )
    return lambda _, __: shape


def _labels(parameters: Mapping[str, Any], _: Form) -> Shape:
    if parameters.get("top_k", "best") == "best":
        return _one(LABEL, SCORE)
    return _many(replace(LABEL, text="labels, best first"), replace(SCORE, text="their probabilities"))


def _tags(parameters: Mapping[str, Any], _: Form) -> Shape:
    if parameters.get("aggregation_strategy", "none") == "none":
        return _many(*TOKENS)
    _entity, score, _index, word, start, end = TOKENS
    group = Column(name="entity_group", type="string", text="label of the entity")
    return _many(group, score, replace(word, text="the entity"), start, end)


def _spans(parameters: Mapping[str, Any], _: Form) -> Shape:
    columns = (
        Column(name="answer", type="string", text="characters of the context; empty for no answer"),
        SCORE,
        Column(name="start", type="int32", text="the first character in the context"),
        Column(name="end", type="int32", text="the character behind the last"),
    )
    if parameters.get("top_k", 1) == 1:
        return _one(*columns)
    return _many(*columns, rows=lambda answer: [answer] if isinstance(answer, dict) else answer)


def _candidates(_: Mapping[str, Any], __: Form) -> Shape:
    return _one(
        Column(name="labels", type="list<string>", text="the candidate labels, best first"),
        Column(name="scores", type="list<double>", text="their probabilities"),
    )


def _choice(_: Mapping[str, Any], __: Form) -> Shape:
    return _one(
        Column(name="label", type="int32", text="the likeliest choice, counted from 0"),
        Column(name="choice", type="string", text="its text"),
        SCORE,
        Column(name="probabilities", type="list<double>", text="probability of each choice, in the order given"),
    )


def _ranking(parameters: Mapping[str, Any], form: Form) -> Shape:
    score = Column(name="score", type="double", text="how well a document fits the query")
    if form.pair:
        return _one(score, fields=lambda answer: {"score": answer})
    place = Column(name="corpus_id", type="int32", text="place of a document in the list given, best first")
    text = Column(name="document", type="string", text="the document, with `return_documents`")
    shown = bool(parameters.get("return_documents"))

    def rows(answer: list[Any]) -> list[dict[str, Any]]:
        return [{**row, "document": row["text"]} if shown else row for row in answer]

    return _many(place, score, *([text] if shown else []), rows=rows)


def _features(parameters: Mapping[str, Any], form: Form) -> Shape:
    if parameters.get("pooling", "none") != "none":
        return _vector(parameters, form)
    return _one(
        Column(name="tokens", type="int32", text="tokens of the text, each of which has a vector"),
        Column(name="vectors", type="list<float>", text="their vectors, one behind the other"),
        fields=lambda states: {"tokens": len(states), "vectors": states.reshape(-1)},
    )


def _vector(_: Mapping[str, Any], __: Form) -> Shape:
    column = Column(name="vector", type="list<float>", text="the vector of the text")
    return _one(column, fields=lambda vector: {"vector": vector})


def _similarities(_: Mapping[str, Any], __: Form) -> Shape:
    column = Column(name="scores", type="list<double>", text="how alike the text is to each of the others, in order")
    return _one(column, fields=lambda scores: {"scores": scores})


TASKS: dict[str, BatchTask] = {
    "fill-mask": BatchTask(forms=(TEXT,), shape=_fill_mask),
    "next-sentence": BatchTask(forms=(PAIR,), shape=_verdict("follows", "whether the second text follows the first")),
    "sentence-order": BatchTask(forms=(PAIR,), shape=_verdict("in_order", "whether the texts stand in their order")),
    "replaced-tokens": BatchTask(forms=(TEXT,), shape=lambda _, __: _many(*TOKENS)),
    "text-classification": BatchTask(forms=(MAYBE_PAIR,), shape=_labels),
    "token-classification": BatchTask(forms=(Form(needs=("words",), lists=("words",)), TEXT), shape=_tags),
    "question-answering": BatchTask(forms=(Form(needs=("question", "context")),), shape=_spans),
    "zero-shot-classification": BatchTask(
        forms=(Form(needs=("text",), may=("candidate_labels",), lists=("candidate_labels",)),), shape=_candidates
    ),
    "multiple-choice": BatchTask(forms=(Form(needs=("prompt", "choices"), lists=("choices",)),), shape=_choice),
    "text-ranking": BatchTask(
        forms=(
            Form(needs=("query", "documents"), lists=("documents",)),
            Form(needs=("query", "document"), pair=True),
        ),
        shape=_ranking,
    ),
    "features": BatchTask(forms=(MAYBE_PAIR,), shape=_features),
    "embeddings": BatchTask(forms=(TEXT,), shape=_vector),
    "sentence-similarity": BatchTask(
        forms=(Form(needs=("source_sentence", "sentences"), lists=("sentences",)),), shape=_similarities
    ),
}
"""By task, what a batch knows of it; the runtime's table has the same tasks."""
