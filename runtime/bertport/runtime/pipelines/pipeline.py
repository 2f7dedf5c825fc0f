"""`pipeline`, as people who come from transformers type it, and what it returns."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

from bertport.runtime.batching import FLUSH
from bertport.runtime.errors import UsageError
from bertport.runtime.excerpts import excerpt
from bertport.runtime.loading import load
from bertport.runtime.methods.asking import raising, refuse_table
from bertport.runtime.model import Model
from bertport.runtime.pipelines.arguments import access, placement, refuse_parts, variant_of
from bertport.runtime.pipelines.table import row_of, usual_row
from bertport.runtime.providers.table import AUTO
from bertport.runtime.tasks.parameters import whole_number
from bertport.runtime.tasks.table import answerable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertport.runtime.pipelines.table import Row
    from bertport.runtime.tasks.table import Call
    from bertport.runtime.text.tokenizer import Tokens

__all__ = ["Pipeline", "pipeline"]


class Answers(Iterator[Any]):
    """The answers of a generator's inputs, made as they are asked for."""

    def __init__(self, answers: Iterator[Any]) -> None:
        self._answers = answers

    def __next__(self) -> Any:  # noqa: ANN401 — the task's answer
        """Return the next answer."""
        return next(self._answers)


class SizedAnswers(Iterable[Any]):
    """The answers of a data set's inputs, whose number is known: made anew each time that they are gone over."""

    def __init__(self, begin: Callable[[], Iterator[Any]], count: int) -> None:
        self._begin = begin
        self._count = count

    def __iter__(self) -> Iterator[Any]:
        """Return the answers from the first on."""
        return self._begin()

    def __len__(self) -> int:
        """Return how many answers there are in all, for a display of progress."""
        return self._count


class Pipeline:
    """A model with a task, called as transformers' pipeline of that task. Made by `pipeline`.

    Nothing in it changes after it is made, so several threads may use one at once.
    """

    def __init__(self, model: Model, row: Row, given: Mapping[str, Any], batch_size: int | None = None) -> None:
        self.model = model
        """The bundle's model, whose methods answer without transformers' shapes."""
        self.task = row.name
        """Name of the task in transformers."""
        self._row = row
        self._given = self._known(given)
        self._batch_size = whole_number("batch_size", batch_size, 1)
        self._call = self._bound(self._given)

    @property
    def tokenizer(self) -> Tokens:
        """The bundle's tokenizer, for its `mask_token`."""
        return self.model.tokens

    def __repr__(self) -> str:
        """Return what is answered, by which model, and where."""
        graph = self.model.graph
        return (
            f"Pipeline(task={self.task!r}, model={self.model.bundle.manifest.name!r}, variant={self.model.variant!r}, "
            f"device={graph.provider.name!r})"
        )

    def __call__(self, *args: Any, batch_size: int | None = None, num_workers: int | None = None, **given: Any) -> Any:  # noqa: ANN401 — as transformers has it
        """Return the answers of inputs, in the shapes of transformers' pipeline of the task.

        Args:
            args: the inputs: one, a list, a data set (what has a length and items), or a generator. Some tasks take a
                second argument, as in transformers: candidate labels, or a context.
            batch_size: inputs that are read from a generator before they are answered, 1 unless the pipeline was made
                with another number. Lists and data sets are batched by their tokens, whatever it is.
            num_workers: taken and not used: texts are read while others are answered where that pays.
            given: parameters of the task, in place of those that the pipeline was made with.

        Returns:
            For one input its answer, for a list a list, for a data set or a generator answers that are made as they are
            asked for; those of a data set can be gone over again. Numbers are Python's own.

        Raises:
            InputTextError: for an input that the task cannot take.
            UnknownNameError, UsageError: for a parameter that is unknown or out of range.
        """
        del num_workers
        row = self._row
        inputs = row.inputs(args, given)
        own = self._known(given)
        merged = {**self._given, **own}
        call = self._bound(merged) if own else self._call
        made = row.answer(merged, self.model.bundle.manifest)
        several = isinstance(inputs, list | tuple)
        if several and self._is_list_of_words(merged, inputs):
            inputs = [inputs]
        if several:
            answers = [made(answer) for answer in self._answered(call, [row.item(value) for value in inputs])]
            return answers[0] if row.unwraps and len(answers) == 1 else answers
        if _is_one(inputs):
            [answer] = self._answered(call, [row.item(inputs)])
            return row.alone(made(answer), inputs, given)
        if isinstance(inputs, Sized):
            return SizedAnswers(lambda: self._streamed(call, made, _items(inputs)), len(inputs))
        count = whole_number("batch_size", batch_size, self._batch_size)
        return Answers(self._streamed(call, made, _flushed(inputs, count)))

    def predict(self, inputs: Any) -> Any:  # noqa: ANN401 — as the call
        """Return what calling the pipeline returns, under scikit-learn's name."""
        return self(inputs)

    def transform(self, inputs: Any) -> Any:  # noqa: ANN401 — as the call
        """Return what calling the pipeline returns, under scikit-learn's name."""
        return self(inputs)

    def _known(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that were given, by today's names; None stands for none, but where it is a value."""
        nullable = self._row.nullable
        known = {name: value for name, value in given.items() if value is not None or name in nullable}
        return self._row.of_today(known)

    def _bound(self, given: Mapping[str, Any]) -> Call:
        """Return the task with its parameters checked."""
        options = self._row.options(given, self.model.tokens.max_length)
        call = self.model.resolve(self._row.task, **options)
        if call.note:
            warnings.warn(call.note, FutureWarning, stacklevel=3)
        return call

    def _answered(self, call: Call, inputs: list[object]) -> Iterator[Any]:
        """Return the task's answers, raising the first error."""
        return raising(self.model.outcomes(call, inputs), numbered=len(inputs) > 1)

    def _streamed(self, call: Call, made: Callable[[Any], object], inputs: Iterable[object]) -> Iterator[Any]:
        """Return the pipeline's answers of a stream, in which `FLUSH` may stand, raising the first error."""
        item = self._row.item
        values = (value if value is FLUSH else item(value) for value in inputs)
        return map(made, raising(self.model.outcomes(call, values), numbered=True))

    def _is_list_of_words(self, given: Mapping[str, Any], inputs: Sequence[object]) -> bool:
        """Return whether a list is one text's words, and not a list of inputs."""
        split = self._row.task == "token-classification" and given.get("is_split_into_words") is True
        return split and not all(isinstance(value, list) for value in inputs)


def pipeline(  # noqa: PLR0913, PLR0917 — transformers' signature, in its order
    task: str | None = None,
    model: str | os.PathLike[str] | Model | None = None,
    config: object = None,
    tokenizer: object = None,
    feature_extractor: object = None,
    image_processor: object = None,
    video_processor: object = None,
    processor: object = None,
    revision: str | None = None,
    use_fast: bool = True,  # noqa: FBT001, FBT002 — as transformers has it
    token: str | bool | None = None,  # noqa: FBT001 — as transformers has it
    device: object = None,
    device_map: object = None,
    dtype: object = "auto",
    trust_remote_code: bool | None = None,  # noqa: FBT001 — as transformers has it
    model_kwargs: Mapping[str, Any] | None = None,
    pipeline_class: object = None,
    *,
    variant: str | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    **parameters: Any,  # noqa: ANN401 — the task's own
) -> Pipeline:
    """Return a pipeline over a bundle, called as transformers' pipeline and with its answers, without PyTorch.

    Args:
        task: transformers' name of the task, or bertport's; None for what the bundle was made for.
        model: a bundle's directory, the id of a repository of the Hub that holds one, or a `Model` that `load` made;
            None for the embedded default.
        config: not taken, as are `feature_extractor`, `image_processor`, `video_processor`, `processor`,
            `model_kwargs` and `pipeline_class`: a bundle has all that its graphs need.
        tokenizer: the name that `model` has, or nothing: the bundle's own tokenizer is used.
        feature_extractor: not taken.
        image_processor: not taken.
        video_processor: not taken.
        processor: not taken.
        revision: branch, tag or commit of a Hub repository.
        use_fast: True: a bundle's tokenizer is a fast one.
        token: what a private repository asks for; True or None for the one that huggingface_hub finds.
        device: None for the best provider that works here, -1 or `cpu`, a number from 0 up or `cuda:1`, a device of
            PyTorch, or a provider's name. One that does not work is an error, and never the CPU in its place.
        device_map: None or `auto`.
        dtype: `auto` for what the bundle has; `float32`, `float16` and `bfloat16` (or PyTorch's own) for its variants
            `fp32`, `fp16` and `bf16`.
        trust_remote_code: taken and not used: a bundle holds no code.
        model_kwargs: not taken.
        pipeline_class: not taken.
        variant: one of the bundle's variants, which no data type names; None for its default, or the best.
        threads: threads of the CPU; None for one per physical core.
        batch_size: inputs that are read from a generator before they are answered; None for 1.
        num_workers: taken and not used.
        parameters: parameters of the task, for every call that does not give its own.

    Raises:
        UnknownNameError, UsageError: for what cannot be fulfilled, with what to do in its place.
        PathError, BundleError, ProviderError: as `load` raises them.
        MissingHeadError: when the bundle does not do the task.
    """
    del num_workers, trust_remote_code
    if task is None and model is None:
        raise UsageError('pipeline needs a task or a model, and neither was given: pipeline("fill-mask") fills masks')
    row = None if task is None else row_of(task)
    parts = {
        "config": config,
        "tokenizer": tokenizer,
        "feature_extractor": feature_extractor,
        "image_processor": image_processor,
        "video_processor": video_processor,
        "processor": processor,
        "model_kwargs": model_kwargs,
        "pipeline_class": pipeline_class,
    }
    refuse_parts(parts, model)
    if use_fast is False:
        raise UsageError(
            "use_fast=False is not offered, since a bundle has only the fast tokenizer: leave use_fast out"
        )
    older = parameters.pop("torch_dtype", None)
    if older is not None and (dtype is None or dtype == AUTO):
        dtype = older
    chosen = {"variant": variant_of(dtype, variant), "threads": threads}
    where = placement(device, device_map) | access(token, revision) | chosen
    if isinstance(model, Model):
        beside = [name for name, value in where.items() if value is not None and value != AUTO]
        if beside:
            raise UsageError(
                f"the model is loaded already, and {', '.join(beside)} was given beside it: give that to load"
            )
        loaded = model
    elif model is None or isinstance(model, str | os.PathLike):
        loaded = load(model, **where)
    else:
        raise UsageError(
            f"model is a bundle's directory, a Hub id or what load returned, not {excerpt(model)}: save it with "
            "save_pretrained, and make a bundle of it with bertport export"
        )
    able = answerable(loaded.tokens, loaded.bundle.manifest)
    return Pipeline(loaded, row or usual_row(able), parameters, batch_size)


def _is_one(inputs: object) -> bool:
    """Return whether something is one input: a text, an object, an array of no axis, or nothing that has items.

    Raises:
        UsageError: for a table.
    """
    refuse_table(inputs)
    if isinstance(inputs, str | bytes | Mapping) or getattr(inputs, "ndim", 1) == 0:
        return True
    return not (isinstance(inputs, Iterable) or (isinstance(inputs, Sized) and hasattr(inputs, "__getitem__")))


def _items(inputs: Any) -> Iterator[object]:  # noqa: ANN401 — a data set
    """Return the items of a data set; some have no iterator, and no error behind their last item."""
    return iter(inputs) if hasattr(inputs, "__iter__") else (inputs[index] for index in range(len(inputs)))


def _flushed(inputs: Iterable[object], count: int) -> Iterator[object]:
    """Yield inputs with a `FLUSH` behind each `count` of them, so that no answer waits for more."""
    for number, value in enumerate(inputs, 1):
        yield value
        if number % count == 0:
            yield FLUSH
