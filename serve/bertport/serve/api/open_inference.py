"""The Open Inference Protocol v2 over HTTP: what Triton's clients speak. A version is a variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from bertport.runtime.excerpts import excerpt
from bertport.runtime.tasks.table import TASKS
from bertport.runtime.text.steps import drained
from bertport.serve.api import dispatch, raw, tensors
from bertport.serve.api.payload import Payload, too_many
from bertport.serve.api.tasks import WIRE_TASKS
from bertport.serve.engine.pieces import whole
from bertport.serve.errors import BadRequest, Failed, Problem, Unprocessable
from bertport.serve.http import wire
from bertport.serve.http.reading import parsed, read_body

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from numpy.typing import NDArray
    from starlette.requests import Request
    from starlette.responses import Response

    from bertport.runtime.bundle.manifest import Manifest
    from bertport.runtime.text.steps import Steps
    from bertport.serve.api.outputs import Tensor
    from bertport.serve.api.questions import Question
    from bertport.serve.engine.registry import ServedModel
    from bertport.serve.engine.worker import ModelWorker
    from bertport.serve.state import Service

    Maker = Callable[[list[Any], Manifest], NDArray[Any]]

__all__ = ["JSON_SIZE", "infer", "live", "model", "model_ready", "ready", "server"]

PLATFORM = "onnx_onnxv1"
JSON_SIZE = "inference-header-content-length"
"""Header that says how long the JSON is, where bytes of tensors follow it."""
TEXT, PAIR = "text", "text_pair"
PAIRED = ("text-classification", "question-answering")
"""Tasks that take two texts, beside those that take nothing else."""
ANSWER = "answer"
"""The output of every task: its answers as JSON."""


async def server(request: Request) -> Response:  # noqa: ARG001 — the signature of a handler
    """Return the server's metadata."""
    from importlib.metadata import version

    return wire.encode({"name": "bertport", "version": version("bertport"), "extensions": ["binary_tensor_data"]})


async def live(request: Request) -> Response:  # noqa: ARG001 — the signature of a handler
    """Return that the process is alive."""
    return wire.encode({"live": True})


async def ready(request: Request) -> Response:
    """Return whether the server is ready."""
    service: Service = request.state.service
    service.check_ready()
    return wire.encode({"ready": True})


async def model_ready(request: Request) -> Response:
    """Return whether a model is ready: it is loaded and can answer."""
    served, worker = _find(request)
    if worker.failure is not None:
        raise Failed(worker.failure)
    return wire.encode({"name": served.name, "ready": True})


async def model(request: Request) -> Response:
    """Describe a model's inputs and outputs; -1 is any size."""
    served, worker = _find(request)
    inputs = [
        {"name": name, "datatype": "INT64", "shape": shape} for name, shape in raw.inputs_of(worker.model).items()
    ]
    inputs += [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in (TEXT, PAIR)]
    outputs = [
        {"name": name, "datatype": "FP32", "shape": shape} for name, shape in raw.outputs_of(worker.model).items()
    ]
    outputs.append({"name": ANSWER, "datatype": "BYTES", "shape": [-1]})
    widths = {tensor.name: tensor.columns(served.manifest) for tensor in _tensors()}
    outputs += [{"name": name, "datatype": "FP32", "shape": [-1, width]} for name, width in widths.items() if width]
    return wire.encode(
        {
            "name": served.name,
            "versions": list(served.workers),
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        }
    )


async def infer(request: Request) -> Response:
    """Answer raw tensors or text."""
    service: Service = request.state.service
    context = request.state.context
    async with dispatch.in_time(context, service.settings.limits.request_timeout):
        with service.admission.enter():
            served, worker = _find(request)
            context.served, context.worker = served, worker
            with dispatch.using(worker):
                body = await read_body(request)
                asked = await parsed(request, tensors.read_request, body, request.headers.get(JSON_SIZE))
                answer = _raw if "input_ids" in asked.inputs else _text
                outputs, expected = await answer(request, asked, worker)
                return await _response(request, asked, outputs, expected)


def _find(request: Request) -> tuple[ServedModel, ModelWorker]:
    service: Service = request.state.service
    variant = request.path_params.get("version") or dispatch.variant_of(request)
    return service.registry.find(request.path_params["name"], variant)


async def _raw(request: Request, asked: tensors.Asked, worker: ModelWorker) -> tuple[dict[str, NDArray[Any]], int]:
    context, limits = request.state.context, request.state.service.settings.limits
    context.phase, context.task = "prepare", raw.TASK
    question = raw.read(asked, worker.model, limits)
    parts = raw.split(question, worker.budget)
    # While parts are put together, there are both they and the whole.
    request.state.answer.grow(question.bytes + question.numbers * 4 * (1 + (len(parts) > 1)))
    results = await dispatch.run(request, worker, [part.work for part in parts])
    context.items = len(question.feeds["input_ids"])
    if question.bytes <= wire.INLINE_BYTES:
        return raw.join(question, parts, results), question.bytes
    joining = whole(raw.join, question, parts, results)  # a copy of all that was computed
    return await request.state.service.pieces.run(joining, question.bytes), question.bytes


async def _text(request: Request, asked: tensors.Asked, worker: ModelWorker) -> tuple[dict[str, NDArray[Any]], int]:
    wanted = set(asked.outputs or ())
    parameters = dict(asked.parameters)
    name = parameters.pop("task", None) or _task(asked, wanted, worker.model.bundle.manifest.heads)
    if not isinstance(name, str):
        raise Unprocessable(f"the parameter task is the name of a task, not {excerpt(name, 40)}")
    payload = Payload(
        inputs=_texts(asked.inputs, request.state.service.settings.limits.max_items),
        parameters=parameters,
        has_parameters=True,
        at_root=frozenset(),
    )

    def accept(question: Question) -> None:
        makers = _makers(name, question)
        if unknown := wanted - makers.keys():
            raise Unprocessable(f"the task {name} has no output {min(unknown)!r:.60} (it has: {', '.join(makers)})")

    question, answers, expected = await dispatch.ask(request, worker, name, payload, accept)
    makers = _makers(name, question)
    names = [*(asked.outputs or makers)]
    request.state.answer.grow(len(names) * expected)  # the answers as texts, beside what they are written into
    making = _made(question, answers, worker.model.bundle.manifest, {output: makers[output] for output in names})
    inline = expected <= wire.INLINE_BYTES
    made = drained(making) if inline else await request.state.service.pieces.run(making, expected)
    return made, len(names) * expected


def _texts(inputs: Mapping[str, NDArray[Any]], most: int) -> list[Any]:
    """Return texts, or pairs of them as the tasks read them; no more than there may be."""
    if unknown := inputs.keys() - {TEXT, PAIR}:
        raise BadRequest(f"there is no input {min(unknown)!r:.60}: send input_ids, or {TEXT}, or {TEXT} and {PAIR}")
    if TEXT not in inputs or any(array.dtype != object for array in inputs.values()):
        raise BadRequest(f"{TEXT} is needed, and {TEXT} and {PAIR} are of the datatype BYTES")
    if inputs[TEXT].size > most:
        raise too_many(inputs[TEXT].size, most)
    first = inputs[TEXT].ravel().tolist()
    if PAIR not in inputs:
        return first
    second = inputs[PAIR].ravel().tolist()
    if len(first) != len(second):
        raise BadRequest(f"{TEXT} has {len(first)} texts and {PAIR} {len(second)}: send equally many")
    return [{"text": a, "text_pair": b} for a, b in zip(first, second, strict=True)]


def _task(asked: tensors.Asked, wanted: set[str], heads: Collection[str]) -> str:
    """Return the task that the outputs asked for belong to, where no parameter names it.

    Otherwise it is the first of the table for two texts, or for one, whose head the bundle has.
    """
    for tensor in _tensors():
        if tensor.name in wanted:
            return tensor.task
    pairs = PAIR in asked.inputs
    able = [task for task in TASKS.values() if task.pairs is pairs or (pairs and task.name in PAIRED)]
    return next((task.name for task in able if task.usual_head in heads), able[0].name)


def _tensors() -> Iterator[Tensor]:
    """Yield the outputs of all tasks in the order of the table, one that tasks share as often as they do."""
    return (tensor for task in WIRE_TASKS.values() for tensor in task.tensors)


def _made(
    question: Question, answers: list[Any], manifest: Manifest, makers: Mapping[str, Maker | None]
) -> Steps[dict[str, NDArray[Any]]]:
    """Make outputs of the answers, a text at a time."""
    outputs: dict[str, NDArray[Any]] = {}
    for name, make in makers.items():
        if make is not None:
            outputs[name] = make(answers, manifest)
            continue
        outputs[name] = np.empty(len(answers), dtype=object)
        for number, answer in enumerate(question.shape(answers)):
            outputs[name][number] = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            yield
    return outputs


def _makers(name: str, question: Question) -> dict[str, Maker | None]:
    """Return the outputs that a task has, each with what makes it of the answers; None for JSON of them."""
    made = {tensor.name: tensor.make for tensor in WIRE_TASKS[name].tensors if tensor.given(question)}
    return {ANSWER: None, **made}


async def _response(
    request: Request, asked: tensors.Asked, outputs: Mapping[str, NDArray[Any]], expected: int
) -> Response:
    context = request.state.context
    head: dict[str, Any] = {"model_name": context.served.name, "model_version": context.worker.variant}
    if asked.id is not None:
        head["id"] = asked.id
    binary = {name: (asked.outputs or {}).get(name, asked.binary) for name in outputs}
    try:
        described, parts = tensors.describe(outputs, binary)
        value = head | {"outputs": described}
        return await wire.answer(request, value, expected=expected, parts=parts, json_size=JSON_SIZE if parts else None)
    except UnicodeEncodeError as error:
        raise Problem("the answer is not Unicode text") from error
