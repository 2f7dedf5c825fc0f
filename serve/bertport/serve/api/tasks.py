"""The table of tasks as the Hub's inference clients know them: from a body to the runtime's task, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertport.runtime.errors import UnknownNameError
from bertport.runtime.heads import DEFAULT_TOP_K
from bertport.runtime.tasks.labels import ACTIVATIONS
from bertport.runtime.tasks.poolings import POOLINGS, meanings
from bertport.runtime.tasks.question_answering import Options as QuestionAnswering
from bertport.runtime.tasks.table import TASKS
from bertport.runtime.tasks.text_ranking import FUNCTIONS
from bertport.runtime.tasks.token_classification import STRATEGIES
from bertport.runtime.tasks.zero_shot_classification import Options as ZeroShot
from bertport.serve.api import questions
from bertport.serve.api.outputs import EMBEDDING, LABEL_SCORES, ORDER_PROBABILITIES, PROBABILITIES
from bertport.serve.api.payload import too_many
from bertport.serve.api.questions import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from bertport.serve.api.outputs import Tensor
    from bertport.serve.api.payload import Payload
    from bertport.serve.api.questions import Question

__all__ = ["MASK", "PROMPTED", "TEXT", "TEXTS", "TRUNCATE", "WIRE_TASKS", "Way", "WireTask", "question", "wire_names"]

MASK = "[MASK]"
"""The mask of examples in the documentation, which is one for all bundles: /models tells the mask of each."""
TEXT = {"type": "string", "description": "a text"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}


def _object(**fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object that has these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


PAIR = _object(text=TEXT, text_pair=TEXT)
STRIDE = "reads a text that is too long in windows with so many tokens in common"
ANSWERS = QuestionAnswering()
TEMPLATE = ZeroShot().hypothesis_template
TRUNCATION = {
    "truncation": {"type": "boolean", "default": False, "description": "cut a text that is too long instead of 422"}
}
NORMALIZE = {"normalize": {"type": "boolean", "default": False, "description": "scale vectors to length 1"}}
TRUNCATE: dict[str, dict[str, Any]] = {
    "truncate": TRUNCATION["truncation"],
    "truncation_direction": {"type": "string", "enum": ["right", "Right"]},
}
PROMPTED: dict[str, dict[str, Any]] = {
    "prompt_name": {"type": "string", "description": "of the bundle's prompts, what texts begin with"},
    "dimensions": {"type": "integer", "minimum": 1, "description": "numbers of a vector, which is cut to as many"},
}
POOLING = {"type": "string", "enum": list(POOLINGS), "description": meanings()}

IGNORED_LABELS = {
    "ignore_labels": {"type": "array", "items": {"type": "string"}, "description": "tokens with these are left out"}
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Way to answer a wire task: a task of the runtime, and the question for it."""

    runtime: str
    """The runtime's task."""
    ask: Callable[[Payload], Question]
    """From a body to the question; raises Problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireTask:
    """One row: a task as clients name it."""

    name: str
    """The Hub's name, or the runtime's own."""
    summary: str
    """Summary of what it answers, for the documentation."""
    ask: Callable[[Payload], Question]
    """From a body to the question; raises Problem."""
    runtime: str
    """The runtime's task behind it."""
    instead: tuple[Way, ...] = ()
    """Alternatives for a bundle without the head of `runtime`: the first of them whose head it has answers."""
    example: Any
    """A body, for the documentation."""
    parameters: Mapping[str, Mapping[str, Any]]
    """JSON schema of each parameter."""
    inputs: Mapping[str, Any]
    """JSON schema of one input."""
    tensors: tuple[Tensor, ...] = ()
    """Its outputs in the Open Inference Protocol, beside the answers as JSON."""

    @property
    def ways(self) -> Iterator[Way]:
        """The ways to answer it, the first choice first."""
        yield Way(runtime=self.runtime, ask=self.ask)
        yield from self.instead


WIRE_TASKS: dict[str, WireTask] = {
    wire_task.name: wire_task
    for wire_task in (
        WireTask(
            name="fill-mask",
            summary="the likeliest words for each mask of a text",
            ask=plain("fill-mask"),
            runtime="fill-mask",
            example={"inputs": f"He poured her a cup of {MASK}.", "parameters": {"top_k": 3}},
            parameters={
                "top_k": {"type": "integer", "minimum": 1, "default": DEFAULT_TOP_K},
                "targets": {"type": "array", "items": {"type": "string"}, "description": "only these words compete"},
                **TRUNCATION,
            },
            inputs=TEXT,
        ),
        WireTask(
            name="feature-extraction",
            summary="a vector for each text: that of the sentence embedding, or else the mean over its tokens",
            ask=questions.embeddings,
            runtime="embeddings",
            instead=(Way(runtime="features", ask=questions.mean_features),),
            example={"inputs": "He poured her a cup of tea.", "normalize": True},
            parameters={
                "pooling": {**POOLING, "description": f"of the hidden states instead of the embedding. {meanings()}"},
                **NORMALIZE,
                **TRUNCATE,
                **PROMPTED,
            },
            inputs=TEXT,
            tensors=(EMBEDDING,),
        ),
        WireTask(
            name="sentence-similarity",
            summary="how alike a text is to each other text, by the model's own function, or else the cosine of means",
            ask=questions.similarities,
            runtime="sentence-similarity",
            instead=(Way(runtime="features", ask=questions.mean_similarities),),
            example={"inputs": {"source_sentence": "A cup of tea.", "sentences": ["A mug of coffee.", "A fast car."]}},
            parameters={**TRUNCATE, **PROMPTED},
            inputs=_object(source_sentence=TEXT, sentences=TEXTS),
            tensors=(EMBEDDING,),
        ),
        WireTask(
            name="text-classification",
            summary="the labels of a text or of a pair; without a classifier, whether a text follows another",
            ask=questions.text_classification,
            runtime="text-classification",
            instead=(
                Way(runtime="next-sentence", ask=questions.judged_pairs("next-sentence")),
                Way(runtime="sentence-order", ask=questions.judged_pairs("sentence-order")),
            ),
            example={"inputs": {"text": "He went to the store.", "text_pair": "He bought milk."}, "parameters": {}},
            parameters={
                "top_k": {"type": "integer", "minimum": 1},
                "function_to_apply": {"type": "string", "enum": list(ACTIVATIONS)},
                **TRUNCATION,
            },
            inputs={"oneOf": [TEXT, PAIR]},
            tensors=(LABEL_SCORES, PROBABILITIES),
        ),
        WireTask(
            name="token-classification",
            summary="the entities of a text; without a tagger, for each token whether it stands in place of another",
            ask=questions.token_classification,
            runtime="token-classification",
            instead=(Way(runtime="replaced-tokens", ask=questions.replaced_tokens),),
            example={"inputs": "He poured her a cup of stone.", "parameters": {"aggregation_strategy": "none"}},
            parameters={
                "aggregation_strategy": {"type": "string", "enum": ["none", *STRATEGIES], "default": "simple"},
                "stride": {"type": "integer", "minimum": 0, "description": STRIDE},
                **IGNORED_LABELS,
                **TRUNCATION,
            },
            inputs=TEXT,
        ),
        WireTask(
            name="question-answering",
            summary="the part of a context that answers a question; a list where more than one is asked for",
            ask=questions.question_answering,
            runtime="question-answering",
            example={"inputs": {"question": "What is tea?", "context": "Tea is a drink. Coffee is another."}},
            parameters={
                "top_k": {"type": "integer", "minimum": 1, "default": 1},
                "max_answer_len": {"type": "integer", "minimum": 1, "default": ANSWERS.max_answer_len},
                "max_seq_len": {"type": "integer", "minimum": 1, "description": "tokens of a window"},
                "doc_stride": {"type": "integer", "minimum": 0, "description": "tokens that windows have in common"},
                "handle_impossible_answer": {"type": "boolean", "default": ANSWERS.handle_impossible_answer},
                "align_to_words": {"type": "boolean", "default": ANSWERS.align_to_words},
                "max_question_len": {"type": "integer", "minimum": 1, "description": "changes nothing: none is cut"},
                **TRUNCATION,
            },
            inputs=_object(question=TEXT, context=TEXT),
        ),
        WireTask(
            name="zero-shot-classification",
            summary="how well labels of your choice fit a text, by a classifier of entailment",
            ask=questions.zero_shot_classification,
            runtime="zero-shot-classification",
            example={
                "inputs": "He poured her a cup of tea.",
                "parameters": {"candidate_labels": ["drinks", "sports"], "multi_label": False},
            },
            parameters={
                "candidate_labels": {"type": "array", "items": TEXT, "minItems": 1},
                "hypothesis_template": {"type": "string", "default": TEMPLATE, "description": "{} stands for a label"},
                "multi_label": {"type": "boolean", "default": False, "description": "each label by itself"},
                **TRUNCATION,
            },
            inputs=TEXT,
        ),
        WireTask(
            name="multiple-choice",
            summary="which of several texts goes best with another",
            ask=plain("multiple-choice"),
            runtime="multiple-choice",
            example={"inputs": {"prompt": "He was thirsty.", "choices": ["He drank some tea.", "He bought a car."]}},
            parameters=TRUNCATION,
            inputs=_object(prompt=TEXT, choices=TEXTS),
        ),
        WireTask(
            name="text-ranking",
            summary="texts by how well they fit a query, the best first",
            ask=plain("text-ranking"),
            runtime="text-ranking",
            example={"inputs": {"query": "What is tea?", "documents": ["Tea is a drink.", "The train was late."]}},
            parameters={
                "top_k": {"type": "integer", "minimum": 1},
                "return_documents": {"type": "boolean", "default": False},
                "function_to_apply": {"type": "string", "enum": list(FUNCTIONS)},
                **TRUNCATION,
            },
            inputs=_object(query=TEXT, documents=TEXTS),
        ),
        WireTask(
            name="next-sentence",
            summary="whether the second text of a pair follows the first, with both probabilities",
            ask=plain("next-sentence"),
            runtime="next-sentence",
            example={"inputs": {"text": "He went to the store.", "text_pair": "He bought milk."}},
            parameters=TRUNCATION,
            inputs=PAIR,
            tensors=(PROBABILITIES,),
        ),
        WireTask(
            name="sentence-order",
            summary="whether two texts stand in the order in which they were written, with both probabilities",
            ask=plain("sentence-order"),
            runtime="sentence-order",
            example={"inputs": {"text": "He went to the store.", "text_pair": "He bought milk."}},
            parameters=TRUNCATION,
            inputs=PAIR,
            tensors=(ORDER_PROBABILITIES,),
        ),
        WireTask(
            name="replaced-tokens",
            summary="for each token of a text, whether it stands in place of another",
            ask=plain("replaced-tokens"),
            runtime="replaced-tokens",
            example={"inputs": "He poured her a cup of stone.", "parameters": {"ignore_labels": ["original"]}},
            parameters={**IGNORED_LABELS, **TRUNCATION},
            inputs=TEXT,
        ),
        WireTask(
            name="embeddings",
            summary="the vector of a text that the model was trained to make",
            ask=plain("embeddings"),
            runtime="embeddings",
            example={"inputs": "He poured her a cup of tea.", "parameters": {"normalize": True}},
            parameters={
                "prompt": TEXT,
                "prompt_name": PROMPTED["prompt_name"],
                "truncate_dim": PROMPTED["dimensions"],
                **NORMALIZE,
                **TRUNCATION,
            },
            inputs=TEXT,
            tensors=(EMBEDDING,),
        ),
        WireTask(
            name="features",
            summary="a vector for each token of a text, or one for the whole",
            ask=plain("features"),
            runtime="features",
            example={"inputs": "He poured her a cup of tea.", "parameters": {"pooling": "none"}},
            parameters={"pooling": {**POOLING, "default": "none"}, **NORMALIZE, **TRUNCATION},
            inputs=TEXT,
            tensors=(EMBEDDING,),
        ),
    )
}
"""By name: first what the Hub calls them, then the runtime's own."""


def wire_names(tasks: Collection[str]) -> list[str]:
    """Return the names by which clients ask for some of the runtime's tasks."""
    return [task.name for task in WIRE_TASKS.values() if any(way.runtime in tasks for way in task.ways)]


def question(name: str, payload: Payload, max_items: int, heads: Collection[str]) -> Question:
    """Ask what a body asks, under the name of a task.

    Args:
        name: The task, as clients name it.
        payload: The body.
        max_items: Inputs that a request may have.
        heads: The heads of the bundle that is asked.

    Raises:
        UnknownNameError: for an unknown task.
        Problem: for inputs or parameters that the task does not take.
        TooLarge: for more texts than a request may have.
    """
    if name not in WIRE_TASKS:
        raise UnknownNameError("task", name, WIRE_TASKS)
    if isinstance(payload.inputs, list) and len(payload.inputs) > max_items:
        raise too_many(len(payload.inputs), max_items)
    row = WIRE_TASKS[name]
    able = (way.ask for way in row.ways if TASKS[way.runtime].usual_head in (None, *heads))
    asked = next(able, row.ask)(payload)
    if len(asked.inputs) > max_items:
        raise too_many(len(asked.inputs), max_items)
    return asked
