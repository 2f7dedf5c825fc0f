"""Models of other libraries as a worker has them loaded, each answering as its manual says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertport.measure.speed.loaded import Answer, Loaded, plain
from bertport.measure.speed.tasks import TIMED
from bertport.measure.speed.workload import random_batch
from bertport.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertport.measure.speed.workload import Shape, Texts

__all__ = ["BATCH", "ChoiceModel", "Pipeline", "Ranker", "SentenceEncoder"]

BATCH = 8
"""Rows of a batch in the Offline scenario; the pipelines' own default of 1 would never batch."""


class Pipeline(Loaded):
    """A pipeline of transformers, on its own models or on Optimum's.

    Args:
        pipe: What transformers' `pipeline` made.
    """

    def __init__(self, pipe: Any) -> None:  # noqa: ANN401 — transformers' pipelines are not typed
        self._pipe = pipe

    def answering(self, texts: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs.

        Raises:
            UsageError: for another task than the pipeline's.
        """
        self._check(texts)

        def answer(inputs: Sequence[Any]) -> object:
            if len(inputs) == 1:
                return self._pipe(inputs[0], **texts.parameters)
            return self._pipe(list(inputs), **texts.parameters, batch_size=BATCH)

        return answer

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the answer to each input, the best one alone where the task has many."""
        self._check(texts)
        asked = {**texts.parameters, **TIMED[texts.task].best_parameters}
        return [plain(self._pipe(given, **asked)) for given in texts.inputs]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        return _forward(self._pipe.model, shape, self._pipe.tokenizer.model_input_names)

    def _check(self, texts: Texts) -> None:
        if texts.task != self._pipe.task:
            raise UsageError(f"the baseline answers {self._pipe.task}, not {texts.task}")


class SentenceEncoder(Loaded):
    """A model of sentence-transformers.

    Args:
        model: What its class `SentenceTransformer` made.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 — it is partly typed
        self._model = model

    def answering(self, _: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs."""
        return lambda inputs: self._model.encode(list(inputs), batch_size=BATCH, show_progress_bar=False)

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the vector of each input; it begins with the parameter `prompt`, or with the model's default."""
        prompt = texts.parameters.get("prompt")
        return [
            plain(vector) for vector in self._model.encode(list(texts.inputs), prompt=prompt, show_progress_bar=False)
        ]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the encoder alone."""
        return _forward(self._model[0].auto_model, shape, self._model.tokenizer.model_input_names)


class ChoiceModel(Loaded):
    """A model of transformers, or of Optimum, that chooses among several texts: there is no pipeline for it.

    Args:
        model: Of a class for multiple choice.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:  # noqa: ANN401 — neither is typed
        self._model, self._tokenizer = model, tokenizer

    def answering(self, _: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs."""
        return lambda inputs: [self._choose(given) for given in inputs]

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the answer to each input: the number of the choice, and the probability of each."""
        return [self._choose(given) for given in texts.inputs]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model, each row a text with one choice."""
        return _forward(self._model, shape, self._tokenizer.model_input_names, choices=True)

    def _choose(self, given: Any) -> Answer:  # noqa: ANN401 — an input of the task
        import torch

        choices = given["choices"]
        texts = [given.get("prompt", given.get("text"))] * len(choices)  # the names that the bundle's task takes
        encoded = self._tokenizer(texts, choices, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**{name: ids.unsqueeze(0) for name, ids in encoded.items()}).logits[0]
        shares = logits.softmax(-1)
        return {"label": int(shares.argmax()), "probabilities": shares.tolist()}


class Ranker(Loaded):
    """A cross-encoder of sentence-transformers.

    Args:
        model: What its class `CrossEncoder` made.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 — it is partly typed
        self._model = model

    def answering(self, _: Texts) -> Callable[[Sequence[Any]], object]:
        """Return what answers a list of inputs."""
        return lambda inputs: [self._rank(given) for given in inputs]

    def answers(self, texts: Texts) -> list[Answer]:
        """Return the documents of each input with their scores, best first."""
        return [plain(self._rank(given)) for given in texts.inputs]

    def forward(self, shape: Shape) -> Callable[[], object]:
        """Return what runs random ids of a shape through the model alone."""
        return _forward(self._model.model, shape, self._model.tokenizer.model_input_names)

    def _rank(self, given: Any) -> Any:  # noqa: ANN401 — an input of the task, and what the library returns
        return self._model.rank(given["query"], given["documents"], batch_size=BATCH, show_progress_bar=False)


def _forward(
    model: Any,  # noqa: ANN401 — as above
    shape: Shape,
    names: Sequence[str],
    *,
    choices: bool = False,
) -> Callable[[], object]:
    import torch

    batch = random_batch(shape)
    feeds = {name: torch.from_numpy(getattr(batch, name)) for name in names}
    if choices:  # one question, a row for each choice
        feeds = {name: ids.unsqueeze(0) for name, ids in feeds.items()}

    def run() -> object:
        with torch.inference_mode():
            return model(**feeds)

    return run
