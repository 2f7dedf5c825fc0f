"""The table of pipelines: what transformers calls a task, how its pipeline is called, and how its answers are nested.

The shapes are those of transformers 5, and of transformers 4 for question-answering, which 5 no longer has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import InputTextError, UnknownNameError, UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.heads import SEQUENCE_CLASSIFICATION
from bertport.runtime.tasks.table import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bertport.runtime.bundle.manifest import Manifest

    Given = Mapping[str, Any]

__all__ = ["PIPELINES", "Row", "row_of", "usual_row"]

TRUNCATIONS = {True: True, False: False, "longest_first": True, "do_not_truncate": False}
"""Whether a text that is too long is cut, by transformers' names; of a pair the longer one first, as here."""
NAMES_OF_INPUTS = ("inputs", "sequences", "text_inputs")
"""The keywords by which the inputs are given where they are not the first argument."""
TOKEN_ROWS = 2
"""Axes of an answer with a vector for each token."""


def _listed(answer: Any) -> object:  # noqa: ANN401 — the task's own
    """Return an answer in plain lists and numbers, where it is an array."""
    return answer.tolist() if hasattr(answer, "tolist") else answer


def _inputs(args: tuple[object, ...], given: dict[str, Any]) -> object:
    """Return the inputs, which are the first argument or have a keyword; what is left in `given` are parameters."""
    names = [name for name in NAMES_OF_INPUTS if name in given]
    if len(args) + len(names) != 1:
        raise UsageError(
            f"a pipeline takes its inputs as one argument, and {len(args) + len(names)} were given: put several "
            "texts in a list, and give parameters by name"
        )
    return args[0] if args else given.pop(names[0])


def _with_labels(args: tuple[object, ...], given: dict[str, Any]) -> object:
    """Return the inputs; candidate labels may be the second argument."""
    first, *rest = args or (None,)
    if len(rest) == 1 and "candidate_labels" not in given:
        given["candidate_labels"] = rest[0]
        args = (first,)
    return _inputs(args, given)


def _questions(args: tuple[object, ...], given: dict[str, Any]) -> object:
    """Return questions with their contexts: as `question=` and `context=`, two texts, or objects with both."""
    if "question" not in given and "context" not in given:
        if len(args) == 2 and all(isinstance(text, str) for text in args):  # noqa: PLR2004 — a question and a context
            return {"question": args[0], "context": args[1]}
        return _inputs(args, given)
    question, context = given.pop("question", None), given.pop("context", None)
    if args or question is None or context is None:
        raise UsageError(
            "question-answering takes question= and context= together, and nothing beside them but parameters: "
            f"found {len(args)} argument(s), question {excerpt(question)} and context {excerpt(context)}"
        )
    if isinstance(question, str):
        return {"question": question, "context": context}
    lists = isinstance(question, list | tuple) and isinstance(context, str | list | tuple)
    if not lists:
        raise UsageError(
            f"question and context are a text or a list of texts each, not {excerpt(question)} and {excerpt(context)}"
        )
    contexts = [context] * len(question) if isinstance(context, str) else context
    if len(contexts) != len(question):
        raise UsageError(
            f"question-answering takes a context for all questions or one for each, and {len(question):,} questions "
            f"with {len(contexts):,} contexts were given: give as many"
        )
    return [{"question": asked, "context": text} for asked, text in zip(question, contexts, strict=True)]


def _scores_of_today(given: dict[str, Any]) -> dict[str, Any]:
    """Return text-classification's parameters by their names of today: `return_all_scores` is a `top_k` of before.

    What is left of it says whether labels are in their own order.
    """
    if given.get("top_k") == "":  # transformers' own default, which stands for none
        del given["top_k"]
    everything = given.pop("return_all_scores", None)
    if "top_k" in given:
        given["return_all_scores"] = False
    elif everything is not None:
        given |= {"top_k": None if everything else "best", "return_all_scores": bool(everything)}
    function = _word(given.get("function_to_apply"))
    if function is not None:
        given["function_to_apply"] = None if function == "default" else function
    return given


def _classification(given: dict[str, Any]) -> dict[str, Any]:
    """Return text-classification's parameters; the order of labels is a matter of the answer."""
    given.pop("return_all_scores", None)
    return given


def _strategy_of_today(given: dict[str, Any]) -> dict[str, Any]:
    """Return token-classification's parameters by their names of today.

    `grouped_entities` and `ignore_subwords` are an aggregation strategy of before.
    """
    grouped, words = given.pop("grouped_entities", None), given.pop("ignore_subwords", None)
    if grouped is not None or words is not None:
        given.setdefault("aggregation_strategy", ("first" if words else "simple") if grouped else "none")
    if "aggregation_strategy" in given:
        given["aggregation_strategy"] = _word(given["aggregation_strategy"])
    return given


def _tagging(given: dict[str, Any]) -> dict[str, Any]:
    """Return token-classification's parameters: it cuts a text that is too long, unless it reads it in windows."""
    return {"truncation": "stride" not in given} | given


def _questions_of_today(given: dict[str, Any]) -> dict[str, Any]:
    """Return question-answering's parameters by their names of today: `topk` is `top_k`.

    `max_question_len` changes nothing in transformers either, where the tokenizer is a fast one.
    """
    given.pop("max_question_len", None)
    if "topk" in given:
        given.setdefault("top_k", given.pop("topk"))
    return given


def _extraction(given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of features; what `return_tensors` asks for is made of the answers."""
    kind = given.pop("return_tensors", None)
    if not (kind is None or kind is False or (isinstance(kind, str) and kind == "np")):
        raise UsageError(
            f'return_tensors is "np" here, not {excerpt(kind)}: there is no PyTorch to make its tensors of; leave it '
            "out for lists, or give NumPy's arrays to torch.from_numpy"
        )
    if _word(given.get("padding")) == "max_length":
        raise UsageError(
            'padding="max_length" is not offered, since answers have a vector for each token and none for padding: '
            "leave it out, or pad the vectors"
        )
    return given


def _nested(given: Given, manifest: Manifest) -> Callable[[Any], object]:  # noqa: ARG001 — every row's function takes it
    """Return the function that puts the vectors of a text's tokens in a list of one text, as transformers does."""
    if given.get("return_tensors"):
        return lambda answer: answer[None] if answer.ndim == TOKEN_ROWS else answer
    return lambda answer: [answer.tolist()] if answer.ndim == TOKEN_ROWS else answer.tolist()


def _in_order_of_labels(given: Given, manifest: Manifest) -> Callable[[Any], object]:
    """Return the function that gives labels in the model's order, where `return_all_scores` asks for that."""
    if not given.get("return_all_scores"):
        return _listed
    labels = manifest.heads[SEQUENCE_CLASSIFICATION].labels or ()
    return lambda answer: sorted(answer, key=lambda scored: labels.index(scored["label"]))


def _one_in_a_list(answer: object, value: object, asked: Given) -> object:
    """Return the answer of one text in a list, as transformers does unless the call says how many labels it wants."""
    return [answer] if isinstance(value, str) and "top_k" not in asked else answer


def _pair_of_before(value: object) -> object:
    """Return a text or pair as the task takes it; transformers still takes a pair as `[["A", "B"]]`.

    A list of two texts, which is no pair in transformers either, is an error in the place of an input.
    """
    match value:
        case [[str(a), str(b)]]:
            return {"text": a, "text_pair": b}
        case list() | tuple():
            return InputTextError(
                f'text-classification takes a pair as {{"text": "A", "text_pair": "B"}}, and a list in a list was '
                f"given: {excerpt(value)}"
            )
    return value


def _word(value: object) -> object:
    """Return a member of one of transformers' enumerations as its value, and a name in lower case."""
    value = getattr(value, "value", value)
    return value.lower() if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: a pipeline."""

    name: str
    """Name of the task in transformers."""
    task: str
    """Name of the task in bertport."""
    aliases: tuple[str, ...] = ()
    """Other names by which it is asked for."""
    inputs: Callable[[tuple[object, ...], dict[str, Any]], Any] = _inputs
    """Returns the inputs of a call, and takes them out of its keywords."""
    of_today: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: given
    """Returns the parameters of a pipeline, or of one call, by their names of today; it may change them in place. It is
    called for each by itself, before those of a call take the place of the pipeline's."""
    parameters: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: given
    """Returns the task's parameters of transformers' own, by their names of today, which it may change in place."""
    nullable: frozenset[str] = frozenset()
    """Parameters for which None is a value, and not the same as to leave them out."""
    item: Callable[[object], object] = lambda value: value
    """Returns an input as the task takes it, or the error for one that it does not take."""
    answer: Callable[[Given, Manifest], Callable[[Any], object]] = lambda *_: _listed
    """Returns the function that makes the pipeline's answer of the task's, under the parameters given."""
    alone: Callable[[object, object, Given], object] = lambda answer, *_: answer
    """Returns what a call with one input gives: of its answer, the input and the keywords of the call."""
    unwraps: bool = False
    """Whether a list of one input is answered as the input itself."""
    cuts_first: bool = False
    """Whether what is cut of an input is its first text, or the only one."""

    def options(self, given: Given, max_length: int) -> dict[str, Any]:
        """Return the task's parameters of those that transformers takes, the tokenizer's among them.

        Raises:
            UsageError: for one that would change what the bundle's tokenizer does.
        """
        known = dict(given)
        for name in ("tokenizer_kwargs", "tokenize_kwargs"):
            nested = known.pop(name, {})
            if not isinstance(nested, Mapping):
                raise UsageError(f'{name} is a dictionary such as {{"truncation": True}}, not {excerpt(nested)}')
            if twice := nested.keys() & known.keys():
                raise UsageError(f"{', '.join(sorted(twice))} was given twice, and in {name}: leave one of them out")
            known |= nested
        if not known.pop("add_special_tokens", True):
            raise UsageError(
                "add_special_tokens=False is not offered, as heads were trained with those tokens: leave it out"
            )
        length = known.pop("max_length", max_length)
        if not isinstance(length, int) or length != max_length:
            raise UsageError(
                f"max_length is {excerpt(length)} and the bundle takes {max_length:,} tokens: leave it out, or cut the "
                "texts before"
            )
        options = self.parameters(known)
        options.pop("padding", None)  # answers do not depend on it: batches are padded behind a mask
        if "truncation" in options:
            options["truncation"] = _truncation(options["truncation"], first=self.cuts_first)
        return options


def _truncation(value: object, *, first: bool) -> bool:
    """Return whether a text that is too long is cut.

    Args:
        value: what was asked for.
        first: whether it is the first text that is cut, or the only one, as `only_first` asks.

    Raises:
        UsageError: for an unknown way of cutting.
    """
    known = {**TRUNCATIONS, "only_first": True} if first else TRUNCATIONS
    word = _word(value)
    if not isinstance(word, bool | str) or word not in known:
        raise UsageError(
            f"truncation is {excerpt(value)} and may be {', '.join(map(repr, known))}: "
            f"{'the first text' if first else 'of a pair the longer text'} is cut"
        )
    return known[word]


OF_TRANSFORMERS = (
    Row(
        name="text-classification",
        task="text-classification",
        aliases=("sentiment-analysis",),
        of_today=_scores_of_today,
        parameters=_classification,
        nullable=frozenset({"top_k"}),
        item=_pair_of_before,
        answer=_in_order_of_labels,
        alone=_one_in_a_list,
    ),
    Row(
        name="token-classification",
        task="token-classification",
        aliases=("ner",),
        of_today=_strategy_of_today,
        parameters=_tagging,
        cuts_first=True,
    ),
    Row(
        name="question-answering",
        task="question-answering",
        inputs=_questions,
        of_today=_questions_of_today,
        unwraps=True,
    ),
    Row(name="fill-mask", task="fill-mask", unwraps=True, cuts_first=True),
    Row(
        name="zero-shot-classification",
        task="zero-shot-classification",
        inputs=_with_labels,
        parameters=lambda given: {"truncation": True} | given,
        cuts_first=True,
    ),
    Row(
        name="feature-extraction",
        task="features",
        aliases=("features",),
        parameters=_extraction,
        answer=_nested,
    ),
)
"""The pipelines that transformers has too."""
PIPELINES: dict[str, Row] = {row.name: row for row in OF_TRANSFORMERS} | {
    name: Row(name=name, task=name) for name in TASKS if name not in {row.task for row in OF_TRANSFORMERS}
}
"""All pipelines by name: behind transformers' own those of bertport's other tasks."""
USUAL = (
    "text-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "embeddings",
    "fill-mask",
    "replaced-tokens",
    "sentence-order",
    "next-sentence",
    "feature-extraction",
)
"""Names of pipelines by precedence: a bundle's is the first that it can do, as training for a task comes after
pretraining."""


def row_of(task: object) -> Row:
    """Return the row of a task, by any of its names.

    Raises:
        UnknownNameError: for a task that bertport does not do.
    """
    named = {alias: row for row in PIPELINES.values() for alias in (row.name, *row.aliases)}
    if not isinstance(task, str) or task not in named:
        raise UnknownNameError(
            "task", task, named, "bertport runs encoders with their heads; for text generation, images and audio use "
            "transformers"
        )  # fmt: skip
    return named[task]


def usual_row(tasks: Iterable[str]) -> Row:
    """Return the row of what a bundle was made for, where no task is named.

    Args:
        tasks: the names of the tasks that the bundle can do.
    """
    able = {row.task: row for row in PIPELINES.values() if row.task in set(tasks)}
    return next(able[task] for name in USUAL if (task := PIPELINES[name].task) in able)
